// SPDX-License-Identifier: BSL-1.0
//
// What the thread of a pool of processes does: sees to the dead, keeps the crew as large as it is to be,
// and ends it. The rest of runtime/pool/process_engine.hpp, which includes this.
#pragma once

#include <multiprocessing/runtime/pool/process_engine.hpp>

namespace multiprocessing::runtime::pool {

inline void ProcessEngine::start_worker(std::uint32_t number) {
    const StartMethod method = settings_.method ? *settings_.method : default_start_method().get();
    WorkerSlot* slot = nullptr;
    {
        const std::lock_guard lock(mutex_);
        if (workers_.size() <= number) workers_.resize(number + 1);
        slot = workers_[number].slot;
    }
    if (slot != nullptr) {
        slot->restart();
    } else {
        const shm::Arena& arena = shm::Arena::instance();
        shm::Transaction tx = arena.transaction();
        shm::Block& block = arena.allocate(tx, sizeof(WorkerSlot), channel_.owned());
        slot = new (shm::Arena::payload(block)) WorkerSlot{};
        tx.commit();
    }
    NewProcess process;
    process.name = std::string(worker_prefix(method)) +
                   (settings_.is_executors ? "Process-" : "PoolWorker-") + std::to_string(++workers_made_);
    process.daemon = !settings_.is_executors;
    process.die_with_parent = settings_.is_executors;
    process.method = method;
    process.surroundings.cpu_affinity = settings_.cpu_affinity;
    auto state = make_state(
        std::move(process),
        make_target(&work, Seat(channel_, number, *slot, settings_.limits, signals_,
                                settings_.initializer)));
    slot->tally.began.store(os::nanoseconds_now());
    const os::BlockSignals until_it_ignores_interrupts;
    runtime::start(
        state, [target = state->target.get()] { target->run(); },
        [target = state->target.get()](pickle::OArchive& archive) { target->save(archive); });
    auto sentinel = state->shared_sentinel();
    int dismissed_by = 0;
    {
        const std::lock_guard lock(mutex_);
        Worker& worker = workers_[number];
        worker.process = state;
        worker.sentinel = std::move(sentinel);
        worker.slot = slot;
        worker.gone = false;
        dismissed_by = dismissed_by_;
    }
    // It was not among those that were sent it, but may be at a task already.
    if (dismissed_by != 0) state->send_signal(dismissed_by);
}

inline std::vector<ProcessPointer> ProcessEngine::workers() const {
    const std::lock_guard lock(mutex_);
    std::vector<ProcessPointer> running;
    running.reserve(workers_.size());
    for (const Worker& worker : workers_) {
        if (!worker.gone) running.push_back(worker.process);
    }
    return running;
}

/// With the mutex.
inline WorkerStats ProcessEngine::stats_of(std::uint32_t number) const {
    const Worker& worker = workers_[number];
    WorkerStats stats = worker.before;
    stats.worker_id = static_cast<int>(number);
    add_to(stats, worker.slot->tally);
    return stats;
}

inline PoolStats ProcessEngine::stats() const {
    check_own();
    PoolStats stats;
    {
        const std::lock_guard lock(mutex_);
        for (std::uint32_t number = 0; number < workers_.size(); ++number) {
            const Worker& worker = workers_[number];
            if (worker.slot == nullptr) continue;
            WorkerStats one = stats_of(number);
            one.pid = worker.process->pid.value_or(0);
            one.alive = !worker.gone;
            add_to(stats, one, worker.slot->tally);
        }
    }
    for (WorkerStats& worker : stats.workers) {
        if (worker.alive) worker.memory = os::private_memory(worker.pid);
    }
    return stats;
}

inline void ProcessEngine::attend() {
    // For who fires and forgets nobody reads, until it is a lot.
    if (thread_should_read() || channel_.reports().size() >= Channel::many_reports) look();
    if (std::exchange(somebody_died_, false)) see_to_the_dead();
    next_look_ = os::Deadline::never();
    stop_cancelled();
    stop_overdue();
    if (!stops_.empty()) go_on_stopping();
    adjust_crew();
}

/// Sleeps until there is something to do.
inline void ProcessEngine::sleep() {
    Control& control = channel_.control();
    const auto report = [this] { return channel_.reports().size() != 0; };
    // Not where somebody else reads.
    const auto should_read = [this] { return thread_should_read() && !reading_.load(); };
    const bool reads = should_read();
    const bool more = reads && shm::Spin::until(report);
    std::vector<os::PollEntry> entries{{channel_.doorbell().get(), os::poll_in, 0}};
    for (const Worker& worker : workers_) {
        if (worker.gone) continue;
        entries.push_back({worker.sentinel->get(), os::poll_in, 0});
    }
    (reads ? control.parent_sleeps : control.nobody_reads).store(1, std::memory_order_relaxed);
    // Orders the flag before the last look: the counterpart of the fence in Channel::report(). Somebody
    // may have come to wait, too, and found that another reads who is about to leave.
    std::atomic_thread_fence(std::memory_order_seq_cst);
    const bool again = more || (should_read() && (!reads || report()));
    os::poll(entries, again ? os::Deadline::passed() : next_look_);
    control.parent_sleeps.store(0, std::memory_order_relaxed);
    control.nobody_reads.store(0, std::memory_order_relaxed);
    if (entries.front().revents != 0) channel_.doorbell().clear();
    somebody_died_ =
        somebody_died_ || std::any_of(entries.begin() + 1, entries.end(),
                                      [](const os::PollEntry& entry) { return entry.revents != 0; });
}

inline void ProcessEngine::see_to_the_dead() {
    for (std::uint32_t number = 0; number < workers_.size(); ++number) {
        // Only this thread changes the list once it runs.
        if (workers_[number].gone) continue;
        const auto exitcode = workers_[number].process->poll_exitcode();
        if (!exitcode) continue;
        settle(number, *exitcode);
    }
}

inline void ProcessEngine::settle(std::uint32_t number, int exitcode) {
    const bool has_left = workers_[number].slot->stage == WorkerSlot::Stage::left;
    {
        const Reading reading(*this);
        // What it reported before it died counts.
        while (take_reports() != 0) {
        }
        if (settings_.is_executors && !has_left) {
            const ProcessState& dead = *workers_[number].process;
            break_executor("worker " + dead.current_name() + " (pid " +
                           std::to_string(dead.pid.value_or(0)) + ") " + describe_end(exitcode) +
                           " abruptly while its task was running or others were pending");
        }
        lose_task(number, exitcode);
    }
    std::erase_if(stops_, [number](const Stop& stop) { return stop.worker == number; });
    {
        const std::lock_guard lock(mutex_);
        Worker& worker = workers_[number];
        worker.before = stats_of(number);
        if (exitcode != 0) ++worker.before.deaths;
        worker.slot->tally.restart();
    }
    this_process().children.remove(*workers_[number].process);
    bool is_wanted = false;
    {
        const std::lock_guard lock(mutex_);
        const bool is_needed = phase_ == Phase::running || (phase_ == Phase::closing && !given_.empty());
        is_wanted = !broken_ && dismissed_by_ == 0 && is_needed && number < wanted_;
    }
    if (is_wanted && replace(number, exitcode)) return;
    const std::lock_guard lock(mutex_);
    workers_[number].gone = true;
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
inline bool ProcessEngine::replace(std::uint32_t number, int exitcode) {
    const WorkerSlot::Stage stage = workers_[number].slot->stage;
    fruitless_deaths_ = stage < WorkerSlot::Stage::ready ? fruitless_deaths_ + 1 : 0;
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
        rouse_reader();
        return false;
    }
    try {
        const ProcessPointer dead = workers_[number].process;
        start_worker(number);
        tell_of_replacement(*dead, *workers_[number].process, exitcode);
        return true;
    } catch (...) {
        cannot_start();
        return false;
    }
}

/// There can be no worker in the place of another; in a handler.
inline void ProcessEngine::cannot_start() {
    if (settings_.is_executors) {
        break_executor("a worker could not be started: " + pickle::describe(std::current_exception()));
    } else {
        break_down(std::current_exception());
    }
    rouse_reader();
}

/// Has as many workers as there are to be: idle ones leave when there has been nothing to do for long,
/// and come back when there is.
inline void ProcessEngine::adjust_crew() {
    std::uint32_t wanted = 0;
    {
        const std::lock_guard lock(mutex_);
        const bool is_needed = phase_ == Phase::running || (phase_ == Phase::closing && !given_.empty());
        if (broken_ || dismissed_by_ != 0 || !is_needed) return;
        const std::uint64_t next_id = next_id_.load();
        const bool is_new = std::exchange(last_seen_id_, next_id) != next_id;
        const bool is_busy = is_new || !given_.empty();
        if (is_busy && !settings_.on_demand) wanted_ = size();
        if (settings_.idle_timeout && wanted_ > 1) {
            // Nobody tells this thread that something has ended, so it looks again.
            const auto now = os::Clock::now();
            if (is_busy) idle_since_ = now;
            const auto until = idle_since_ + std::max(*settings_.idle_timeout, least_idle_timeout);
            if (now >= until) {
                wanted_ = 1;
            } else {
                next_look_ = next_look_.earlier(os::Deadline::at(until));
            }
        }
        wanted = wanted_;
    }
    bool somebody_leaves = false;
    for (std::uint32_t number = 0; number < workers_.size(); ++number) {
        Worker& worker = workers_[number];
        if (worker.gone) continue;
        if (number >= wanted) somebody_leaves = worker.slot->leave.exchange(1) == 0 || somebody_leaves;
    }
    if (somebody_leaves) channel_.tasks().wake_all();
    for (std::uint32_t number = 0; number < wanted; ++number) {
        // One that has been told to leave is replaced when it has.
        if (number < workers_.size() && !workers_[number].gone) continue;
        try {
            start_worker(number);
        } catch (...) {
            if (number == 0 || settings_.is_executors) return cannot_start();
            log_at(log_level::subwarning, [&] {
                return "pool: goes on with " + std::to_string(number) + " workers, for there can be no "
                       "more: " + pickle::describe(std::current_exception());
            });
            const std::lock_guard lock(mutex_);
            size_ = wanted_ = number;
            return;
        }
    }
}

inline void ProcessEngine::resize(std::uint32_t workers) {
    check_own();
    {
        const std::lock_guard lock(mutex_);
        check_running();
        size_ = wanted_ = workers;
    }
    wake();
}

/// The orderly end: all is done, the workers leave by themselves.
inline void ProcessEngine::see_workers_off() {
    channel_.control().stopping.store(1, std::memory_order_release);
    channel_.tasks().wake_all();
    const os::EventFd& doorbell = channel_.doorbell();
    for (const Worker& worker : workers_) {
        while (!worker.gone && !worker.process->poll_exitcode()) {
            std::vector<os::PollEntry> entries{{doorbell.get(), os::poll_in, 0},
                                               {worker.sentinel->get(), os::poll_in, 0}};
            os::poll(entries, os::Deadline::never());
            if (entries.front().revents != 0) doorbell.clear();
            if (should_hurry()) return;
        }
    }
}

inline void ProcessEngine::end_workers() {
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

inline void ProcessEngine::fail_all(const Failure& failure, bool workers_run) {
    std::vector<std::shared_ptr<Job>> jobs;
    std::vector<shm::Ticket> unused;
    {
        const std::lock_guard lock(mutex_);
        for (auto at = given_.begin(); at != given_.end();) {
            Given& given = *at->second;
            jobs.push_back(given.job);
            given.left -= withdraw(given);
            given.cancelled = true;
            if (workers_run && given.left != 0) {
                ++at;
                continue;
            }
            unused.push_back(given.block);
            at = forget(at);
        }
    }
    for (const shm::Ticket& block : unused) free_task(block);
    for (const auto& job : jobs) job->fail(failure());
    rouse_reader();
}

}  // namespace multiprocessing::runtime::pool
