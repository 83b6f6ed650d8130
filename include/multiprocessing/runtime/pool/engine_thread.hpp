// SPDX-License-Identifier: BSL-1.0
//
// What the thread of a Pool does: takes in outcomes, sees to dead workers, and ends the pool. The
// rest of runtime/pool/engine.hpp, which includes this.
#pragma once

#include <multiprocessing/runtime/pool/engine.hpp>

namespace multiprocessing::runtime::pool {

inline void Engine::run() noexcept {
    try {
        serve();
    } catch (...) {
        report_current_exception();
        fail_all(std::current_exception(), true);
    }
    end_workers();
    fail_all(std::make_exception_ptr(CancelledError("the pool was terminated before the task ended")),
             false);
    const std::lock_guard lock(mutex_);
    phase_ = Phase::ended;
    ended_.notify_all();
}

inline void Engine::serve() {
    for (;;) {
        // Not for ever: the dead are to be seen to even if results never end.
        for (int taken = 0; taken < 256 && take_results(); ++taken) {
        }
        {
            const std::lock_guard lock(mutex_);
            if (phase_ == Phase::terminating) return;
            // Who still reads input may give more.
            const bool all_given = feeders_ == 0 && (streams_.empty() || joined_);
            if (phase_ == Phase::closing && given_.empty() && all_given) break;
        }
        if (wait_for_news()) see_to_the_dead();
    }
    // The orderly end: all is done, the workers leave by themselves.
    channel_.control().stopping.store(1, std::memory_order_release);
    channel_.tasks().wake_all();
    see_workers_off();
}

/// Waits until all have left, or are to be terminated after all.
inline void Engine::see_workers_off() {
    const os::EventFd& doorbell = channel_.doorbell();
    for (const Worker& worker : workers_) {
        while (!worker.gone && !worker.process->poll_exitcode()) {
            std::vector<os::PollEntry> entries{{doorbell.get(), os::poll_in, 0},
                                               {worker.sentinel->get(), os::poll_in, 0}};
            os::poll(entries, os::Deadline::never());
            if (entries.front().revents != 0) doorbell.clear();
            const std::lock_guard lock(mutex_);
            if (phase_ == Phase::terminating) return;
        }
    }
}

inline bool Engine::take_results() {
    using shm::Ring;
    pickle::Scratch inlined;
    Ring::Getter::Record taken;
    const auto outcome = channel_.results().take(
        os::Deadline::passed(), [&](Ring::Getter& end, const Ring::Getter::Record& record) {
            if (record.run == nullptr) inlined->append(record.bytes.data(), record.bytes.size());
            taken = record;
            end.take(record);
        });
    if (outcome != shm::Outcome::done) return false;
    if (taken.run != nullptr) {
        take_result(taken.bytes, shm::Run(*taken.run));
    } else {
        take_result(inlined->span(), {});
    }
    return true;
}

inline void Engine::take_result(std::span<const std::byte> bytes, shm::Run run) {
    const auto& result = *reinterpret_cast<const Result*>(bytes.data());
    const auto tickets = run ? run.tickets() : std::span<shm::Ticket>();
    if (result.kind == Result::Kind::failed_start) {
        struct Failure final : OutcomeReader {
            std::exception_ptr what;
            void array(std::uint64_t, const std::byte*, std::uint32_t, std::uint32_t) override {}
            void value(std::uint64_t, std::span<const std::byte>, pickle::Cargo&) override {}
            void error(std::uint64_t, std::exception_ptr exception) override { what = exception; }
        } failure;
        failure.read(result, tickets, 0);
        break_down(failure.what);
        return;
    }
    const bool last = result.kind == Result::Kind::outcomes;
    const auto given = last ? take_given(result.id) : find_given(result.id);
    if (!given) return;
    hand_over(*given, result, tickets);
    if (last) {
        finish(*given);
    } else {
        task_of(given->block).begin = result.first + result.finished;
    }
}

/// A job that cannot take its outcomes in, for lack of memory, ends with that.
inline void Engine::hand_over(const Given& given, const Result& result,
                              std::span<shm::Ticket> tickets) {
    try {
        given.job->read(result, tickets, given.base);
    } catch (...) {
        given.job->fail(std::current_exception());
    }
}

inline void Engine::finish(const Given& given) {
    const shm::Arena& arena = shm::Arena::instance();
    const std::uint64_t bytes = arena.size_of(arena.named(given.block));
    free_block(given.block);
    given.job->task_done(bytes);
}

inline std::optional<Engine::Given> Engine::take_given(std::uint64_t id) {
    const std::lock_guard lock(mutex_);
    auto node = given_.extract(id);
    if (!node) return std::nullopt;
    return std::move(node.mapped());
}

inline std::optional<Engine::Given> Engine::find_given(std::uint64_t id) const {
    const std::lock_guard lock(mutex_);
    const auto found = given_.find(id);
    return found != given_.end() ? std::optional(found->second) : std::nullopt;
}

inline void Engine::free_block(shm::Ticket ticket) noexcept {
    const shm::Arena& arena = shm::Arena::instance();
    shm::Transaction tx = arena.transaction();
    if (shm::Block* block = arena.heap().find(ticket.offset, ticket.serial)) {
        arena.destroy(tx, *block);
    }
}

inline void Engine::see_to_the_dead() {
    for (std::uint32_t number = 0; number < size(); ++number) {
        // Only this thread changes the list once it runs.
        if (workers_[number].gone) continue;
        const auto exitcode = workers_[number].process->poll_exitcode();
        if (!exitcode) continue;
        // What it put before it died counts.
        for (auto left = channel_.results().size(); left != 0 && take_results(); --left) {
        }
        settle(number, *exitcode);
    }
}

inline void Engine::settle(std::uint32_t number, int exitcode) {
    lose_task(number, exitcode);
    this_process().children.remove(*workers_[number].process);
    bool wanted = false;
    {
        const std::lock_guard lock(mutex_);
        wanted = !broken_ && phase_ != Phase::terminating;
    }
    if (wanted && replace(number, exitcode)) return;
    const std::lock_guard lock(mutex_);
    workers_[number].gone = true;
}

/// Keeps what the dead had finished, gives up the item it was at, gives the rest to others.
inline void Engine::lose_task(std::uint32_t number, int exitcode) {
    const shm::Arena& arena = shm::Arena::instance();
    WorkerSlot& slot = channel_.control().slots()[number];
    const auto find = [&](shm::Ticket ticket) {
        const shm::Transaction tx = arena.transaction();
        return arena.heap().find(ticket.offset, ticket.serial);
    };
    shm::Block* block = find(std::exchange(slot.task, {}));
    shm::Block* partial = find(std::exchange(slot.result, {}));
    auto* task = block != nullptr ? shm::Arena::payload<Task>(*block) : nullptr;
    if (task == nullptr || task->holder.load() != number + 1) {
        if (partial != nullptr) free_block(arena.ticket(*partial));
        return;
    }
    auto given = take_given(task->id);
    std::uint32_t lost = task->begin;
    if (partial != nullptr) {
        // Not what has been sent, nor what it had not begun to fill in.
        const auto& result = *shm::Arena::payload<Result>(*partial);
        if (given && result.id == task->id && result.first >= task->begin) {
            lost = result.first + result.finished;
            hand_over(*given, result, {});
        }
        free_block(arena.ticket(*partial));
    }
    if (!given) {  // cancelled
        free_block(arena.ticket(*block));
        return;
    }
    if (lost < task->count) {
        const ProcessState& worker = *workers_[number].process;
        const int pid = worker.pid.value_or(0);
        given->job->error(
            given->base + lost,
            std::make_exception_ptr(WorkerLostError(
                "worker " + worker.name + " (pid " + std::to_string(pid) + ") " +
                    describe_end(exitcode) + " while it ran item " +
                    std::to_string(given->base + lost) + " of the job",
                pid, exitcode)));
    }
    if (lost + 1 < task->count) {
        task->begin = lost + 1;
        give_again(*given, *task);
        return;
    }
    finish(*given);
}

inline void Engine::give_again(const Given& given, Task& task) {
    const std::uint64_t id = task.id;
    std::exception_ptr refused;
    try {
        const std::lock_guard lock(mutex_);
        refused = broken_;
        if (!refused) {
            task.holder.store(Task::waiting);
            given_.emplace(id, given);
        }
    } catch (...) {
        refused = std::current_exception();
    }
    if (!refused) {
        try {
            return post(given.block);
        } catch (...) {
            refused = std::current_exception();
            if (!take_given(id)) return;
        }
    }
    given.job->fail(refused);
    finish(given);
}

/// One that has done its number of tasks is nothing to worry about.
inline void tell_of_replacement(const ProcessState& dead, const ProcessState& successor,
                                int exitcode) {
    log_at(exitcode == 0 ? log_level::debug : log_level::subwarning, [&] {
        const std::scoped_lock lock(dead.mutex, successor.mutex);
        return "pool: " + name_and_pid(dead) + " " + describe_end(exitcode) + ", replaced by " +
               name_and_pid(successor);
    });
}

/// Starts another in its place. If there cannot be one the pool breaks down.
inline bool Engine::replace(std::uint32_t number, int exitcode) {
    const WorkerSlot::Stage stage = channel_.control().slots()[number].stage;
    fruitless_deaths_ = stage != WorkerSlot::Stage::ready ? fruitless_deaths_ + 1 : 0;
    // What dies in its initializer will do so again: no respawn loop. Before it there is nothing that
    // the user wrote, so somebody from outside may be at work.
    const std::uint64_t patience =
        std::uint64_t{3} * size() + (stage == WorkerSlot::Stage::initializing ? 0 : 100);
    if (fruitless_deaths_ > patience) {
        const ProcessState& dead = *workers_[number].process;
        break_down(std::make_exception_ptr(WorkerLostError(
            "the pool's workers die in their initializer or before; the last one, " + dead.name +
                ", " + describe_end(exitcode),
            dead.pid.value_or(0), exitcode)));
        return false;
    }
    try {
        const ProcessPointer dead = workers_[number].process;
        start_worker(number);
        tell_of_replacement(*dead, *workers_[number].process, exitcode);
        return true;
    } catch (...) {
        break_down(std::current_exception());
        return false;
    }
}

/// The pool can do no more work: every job, and every one to come, ends with the exception.
inline void Engine::break_down(const std::exception_ptr& exception) {
    {
        const std::lock_guard lock(mutex_);
        if (broken_) return;
        broken_ = exception;
    }
    fail_all(exception, true);
}

/// Fails every job. While workers run, what they have in hand is theirs until they are done with it.
inline void Engine::fail_all(const std::exception_ptr& exception, bool workers_run) {
    std::vector<std::shared_ptr<Job>> jobs;
    std::vector<shm::Ticket> unused;
    {
        const std::lock_guard lock(mutex_);
        for (auto at = given_.begin(); at != given_.end();) {
            jobs.push_back(at->second.job);
            if (workers_run && !take_back(at->second)) {
                ++at;
                continue;
            }
            unused.push_back(at->second.block);
            at = given_.erase(at);
        }
    }
    for (const shm::Ticket& block : unused) free_block(block);
    for (const auto& job : jobs) job->fail(exception);
}

/// Sleeps until there is a result, a call, or a dead worker (returned).
inline bool Engine::wait_for_news() {
    Control& control = channel_.control();
    const auto result = [this] { return channel_.results().size() != 0; };
    const bool more = result() || shm::Spin::until(result);
    std::vector<os::PollEntry> entries{{channel_.doorbell().get(), os::poll_in, 0}};
    for (const Worker& worker : workers_) {
        if (worker.gone) continue;
        entries.push_back({worker.sentinel->get(), os::poll_in, 0});
    }
    control.parent_sleeps.store(1, std::memory_order_relaxed);
    // Orders the flag before the last look: the counterpart of the fence in announce().
    std::atomic_thread_fence(std::memory_order_seq_cst);
    os::poll(entries, more || result() ? os::Deadline::passed() : os::Deadline::never());
    control.parent_sleeps.store(0, std::memory_order_relaxed);
    if (entries.front().revents != 0) channel_.doorbell().clear();
    return std::any_of(entries.begin() + 1, entries.end(),
                       [](const os::PollEntry& entry) { return entry.revents != 0; });
}

inline void Engine::end_workers() {
    using namespace std::chrono_literals;
    const auto running = workers();
    for (const ProcessPointer& worker : running) {
        if (!worker->poll_exitcode()) worker->send_signal(SIGTERM);
    }
    const auto patience = os::Deadline::after(500ms);
    for (const ProcessPointer& worker : running) {
        if (!worker->wait_for_end(patience)) worker->send_signal(SIGKILL);
        worker->wait_for_end(os::Deadline::never());
        this_process().children.remove(*worker);
    }
    const std::lock_guard lock(mutex_);
    for (Worker& worker : workers_) worker.gone = true;
}

}  // namespace multiprocessing::runtime::pool
