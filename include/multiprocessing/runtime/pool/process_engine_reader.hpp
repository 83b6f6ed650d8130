// SPDX-License-Identifier: BSL-1.0
//
// How outcomes get from the workers to the jobs. The rest of runtime/pool/process_engine.hpp, which
// includes this.
//
// Whoever waits for a result takes in what comes, for himself and for all others: so between a worker
// and the one who waits for it nobody has to be woken. The pool's thread does so when nobody waits.
#pragma once

#include <multiprocessing/runtime/pool/process_engine.hpp>

namespace multiprocessing::runtime::pool {

/// A caller's turn at reading, which it has. However it ends, others go on.
class ProcessEngine::Turn {
public:
    explicit Turn(ProcessEngine& engine) noexcept : engine_(engine) {}
    Turn(const Turn&) = delete;
    Turn& operator=(const Turn&) = delete;
    ~Turn() {
        engine_.waiting_.fetch_sub(1);  // before the look who else waits
        engine_.stop_reading();
    }

private:
    ProcessEngine& engine_;
};

inline bool ProcessEngine::wait(const Awaited& awaited, os::Deadline deadline) {
    if (awaited.ready()) return true;
    deadline.is_never() ? check_may_wait() : check_own();
    // In a callback: the thread that cannot bring what it waits for.
    if (brings_outcomes()) return awaited.sleep(deadline);
    // Counted before the look whether somebody reads: who stops reading looks at the count after that.
    waiting_.fetch_add(1);
    if (!give_way_.load() && try_to_read()) {
        Waited waited = Waited::in_vain;
        {
            const Turn turn(*this);
            waited = read_until(awaited, deadline);
        }
        if (waited != Waited::gave_way) return waited == Waited::ready;
        // The pool's thread had to read, and goes on with it for those who wait.
        waiting_.fetch_add(1);
        wake();
    }
    const bool ready = awaited.sleep(deadline);
    waiting_.fetch_sub(1);
    return ready;
}

inline void ProcessEngine::look() {
    if (is_foreign() || !try_to_read()) return;
    // Not for ever: others, and the dead, are to be seen to even if results never end.
    for (int round = 0; round < 16 && take_reports() != 0; ++round) {
    }
    stop_reading();
}

/// Gives the role up. The thread takes it if there are others who wait, or the pool is to end.
inline void ProcessEngine::stop_reading() noexcept {
    reader_.store({}, std::memory_order_relaxed);
    reading_.store(false);
    if (give_way_.load()) reading_.notify_all();
    if (is_own_thread()) return;
    if (thread_should_read()) wake();
}

/// With the role. (What was ready may not be any more, if others wait for the same.)
inline ProcessEngine::Waited ProcessEngine::read_until(const Awaited& awaited, os::Deadline deadline) {
    using shm::Ring;
    channel_.control().parent_sleeps.store(0, std::memory_order_relaxed);
    channel_.control().nobody_reads.store(0, std::memory_order_relaxed);
    const auto there_is_one = [](Ring::Getter&, const Ring::Getter::Record&) { return true; };
    const auto stop = [&] { return awaited.ready() || give_way_.load(std::memory_order_relaxed); };
    for (;;) {
        if (awaited.ready()) return Waited::ready;
        if (give_way_.load()) return Waited::gave_way;
        if (take_reports() != 0) continue;
        const auto outcome = channel_.reports().take(deadline, there_is_one, stop, [] {});
        if (outcome != shm::Outcome::done && deadline.expired() && !awaited.ready()) {
            return Waited::in_vain;
        }
    }
}

/// Takes in some of the reports that there are. With the role. How many there were.
inline std::size_t ProcessEngine::take_reports() {
    using shm::Ring;
    std::array<Report, 64> reports;
    std::size_t count = 0;
    {
        Ring::Getter end(channel_.reports());
        Ring::Getter::Record record;
        for (; count < reports.size() && end.peek(record); ++count) {
            std::memcpy(&reports[count], record.bytes.data(), sizeof(Report));
            end.take(record);
        }
        end.commit();
    }
    for (const Report& report : std::span(reports).first(count)) take_report(report);
    return count;
}

inline void ProcessEngine::take_report(const Report& report) {
    if (report.task == 0) {
        std::exception_ptr why;
        shm::Ticket reason;
        {
            const std::lock_guard lock(mutex_);
            reason = workers_[report.worker].slot->spill;
        }
        Job::walk(reason, [&why](shm::Block&, const Spill::Entry&, std::span<const std::byte> bytes) {
            why = Job::load(bytes);
            return false;
        });
        if (settings_.is_executors) {
            break_executor("its initializer threw " + pickle::describe(why));
        } else {
            break_down(why);
        }
        return;
    }
    const GivenPointer given = find_given(report.task);
    // A report of one who was taken for dead in the middle of it comes too late.
    if (!given || given->grains[report.grain].over) return;
    Task& task = task_of(*given);
    if (task.all_grains()[report.grain].holder.load() != report.worker + 1) return;
    outstanding_.fetch_sub(1);  // before anybody hears of it, who may give more
    hand_over(*given, task, report.grain);
    // What has been read is not kept until the whole task is done: who is next to need memory should
    // get that which is still warm.
    if (task.grains != 1) free_outcomes(task.all_grains()[report.grain]);
    grain_over(given, report.task, report.grain);
}

/// A job that cannot take its outcomes in, for lack of memory, ends with that.
inline void ProcessEngine::hand_over(Given& given, Task& task, std::uint32_t grain) noexcept {
    GrainBook& book = given.grains[grain];
    try {
        given.job->read(task, grain, given.base, book.read, given.given_up);
    } catch (...) {
        given.job->fail(std::current_exception());
    }
}

/// What a dead worker had in hand. With the role, after all that it had reported.
inline void ProcessEngine::lose_task(std::uint32_t number, int exitcode) {
    const shm::Arena& arena = shm::Arena::instance();
    WorkerSlot& slot = *workers_[number].slot;
    shm::Block* block = nullptr;
    {
        const shm::Transaction tx = arena.transaction();
        block = arena.heap().find(slot.task.offset, slot.task.serial);
    }
    if (block == nullptr) return;
    Task& task = *shm::Arena::payload<Task>(*block);
    if (const GivenPointer given = find_given(task.id)) {
        for (std::uint32_t i = 0; i < task.grains; ++i) {
            if (task.all_grains()[i].holder.load() == number + 1 && !given->grains[i].over) {
                lose_grain(given, task, i, number, exitcode);
                break;  // it had one at a time; and after this the task may be gone
            }
        }
    }
    std::atomic_ref(slot.task.serial).store(0);
}

/// Keeps what the dead had finished, gives up the item it was at, gives the rest to others.
inline void ProcessEngine::lose_grain(const GivenPointer& given, Task& task, std::uint32_t index,
                                      std::uint32_t number, int exitcode) {
    const std::uint64_t id = task.id;
    Grain& grain = task.all_grains()[index];
    GrainBook& book = given->grains[index];
    const std::uint32_t before = book.read;
    hand_over(*given, task, index);
    if (book.read != before) book.attempts = 0;
    const std::uint32_t items = task.items_of(index);
    const bool is_wanted = task.cancelled.load() == 0;
    const std::uint32_t in_hand = task.first_of(index) + book.read;
    const bool is_given_up = given->given_up.contains(in_hand);
    // Who was told to stop an item that it had ended, or has since, had not begun the next.
    const std::uint64_t run = workers_[number].slot->run.load() & WorkerSlot::run_mask;
    const bool was_between = run >= WorkerSlot::asked && !is_given_up;
    if (book.read < items && is_wanted && !was_between) {
        const std::uint64_t item = given->base + in_hand;
        if (is_given_up) {
            ++book.read;  // it has been failed already
            book.attempts = 0;
        } else if (++book.attempts > given->settings.retries) {
            ++book.read;
            given->job->error(item, loss(number, exitcode, item, std::exchange(book.attempts, 0)));
        }
    }
    grain.finished.store(book.read);
    if (book.read == items || !is_wanted) {
        outstanding_.fetch_sub(1);
        return grain_over(given, id, index);
    }
    std::exception_ptr refused = broken();
    if (!refused) {
        try {
            grain.holder.store(Grain::waiting);
            return offer(given->block, index);
        } catch (...) {
            refused = std::current_exception();
        }
    }
    given->job->fail(refused);
    grain_over(given, id, index);
}

/// As Python's executor does: all that is under way fails, each with an exception of its own.
inline void ProcessEngine::break_executor(const std::string& why) {
    break_down(Failure([text = "the process pool can do no more work: " + why] {
        return std::make_exception_ptr(BrokenProcessPool(text));
    }));
    {
        const std::lock_guard lock(mutex_);
        if (phase_ != Phase::ended) phase_ = Phase::terminating;
    }
    wake();
}

inline std::exception_ptr ProcessEngine::loss(std::uint32_t number, int exitcode, std::uint64_t item,
                                              std::uint32_t attempts) const {
    const ProcessState& worker = *workers_[number].process;
    const int pid = worker.pid.value_or(0);
    std::string text = "worker " + worker.name + " (pid " + std::to_string(pid) + ") " +
                       describe_end(exitcode) + " while it ran item " + std::to_string(item) +
                       " of the job";
    if (attempts > 1) {
        text += "; given up after " + std::to_string(attempts) +
                " attempts, each of which ended with the death of a worker";
    }
    return std::make_exception_ptr(WorkerLostError(text, pid, exitcode));
}

}  // namespace multiprocessing::runtime::pool
