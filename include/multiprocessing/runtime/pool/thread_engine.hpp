// SPDX-License-Identifier: BSL-1.0
//
// The engine whose workers are threads of this process: nothing is pickled, and nobody can be killed.
#pragma once

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/os/clock.hpp>
#include <multiprocessing/os/signals.hpp>
#include <multiprocessing/pool_stats.hpp>
#include <multiprocessing/runtime/pool/engine.hpp>
#include <multiprocessing/runtime/pool/local_task.hpp>
#include <multiprocessing/runtime/pool/statistics.hpp>
#include <multiprocessing/runtime/pool/this_task.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace multiprocessing::runtime::pool {

class ThreadEngine final : public Engine {
public:
    /// Starts the threads. Throws std::system_error where there can be no more; then there is none.
    [[nodiscard]] static std::shared_ptr<ThreadEngine> start(std::uint32_t threads,
                                                             std::function<void()> initializer,
                                                             bool finishes_at_exit = false);
    ThreadEngine(std::uint32_t threads, std::function<void()> initializer, bool finishes_at_exit)
        : Engine(threads, finishes_at_exit), initializer_(std::move(initializer)) {}

    void submit(std::shared_ptr<LocalTask> task);
    inline bool cancel(const std::shared_ptr<Job>& job) override;  // see ProcessEngine
    /// Takes a task back if nobody has begun it; whether that is so.
    bool take_back(const std::shared_ptr<LocalTask>& task);
    [[nodiscard]] bool has_begun(const std::shared_ptr<LocalTask>& task) const {
        if (is_foreign() || !task) return false;
        const std::lock_guard lock(mutex_);
        return task->is_wanted() && task->has_begun();
    }
    /// Takes back what nobody has begun, and takes no more.
    void cancel_waiting();
    [[nodiscard]] PoolStats stats() const;
    void resize(std::uint32_t threads);

private:
    using TaskPointer = std::shared_ptr<LocalTask>;
    struct Worker {
        std::uint32_t number = 0;
        std::thread thread;
        std::atomic<std::uint64_t> run{0};      // as a WorkerSlot's
        std::atomic<std::uint32_t> item{0};     // of the task
        std::atomic<std::uint64_t> started{0};  // the item; where that is wanted
        WorkerTally tally{};
        // With the mutex.
        TaskPointer task;
        bool leave = false;
        bool gone = false;
    };

    void start_worker();
    void work(Worker& me) noexcept;
    static void run_items(Worker& me, LocalTask& task, std::uint32_t first, std::uint32_t end);
    void adjust_crew();
    void join_the_gone();
    void stop_overdue();
    static bool ask_to_stop(Worker& worker) noexcept;
    // With the mutex; jobs are to be told when it is let go.
    void take_back(const TaskPointer& task, std::vector<std::shared_ptr<Job>>& told) {
        const std::uint32_t items = task->take_back();
        if (items != 0) items_done(task, items, told);
    }
    void items_done(const TaskPointer& task, std::uint32_t items, std::vector<std::shared_ptr<Job>>& told);

    inline void attend() override;
    [[nodiscard]] bool is_idle() const override { return given_ == 0; }
    inline void sleep() override;
    void see_workers_off() override { end_workers(); }
    inline void end_workers() override;
    inline void fail_all(const Failure& failure, bool workers_run) override;
    void wake() noexcept override {
        {
            const std::lock_guard lock(nap_);
            woken_ = true;
        }
        nap_ends_.notify_one();
    }
    [[nodiscard]] bool is_crew_thread() const noexcept override {
        return thread_as_worker.engine == this;
    }

    const std::function<void()> initializer_;

    // The sleep of the pool's thread.
    std::mutex nap_;
    std::condition_variable nap_ends_;
    bool woken_ = false;
    os::Deadline next_look_ = os::Deadline::never();

    // With the mutex.
    std::condition_variable work_;
    std::deque<TaskPointer> queue_;  // with chunks that nobody has claimed
    std::vector<std::unique_ptr<Worker>> workers_;
    std::uint64_t given_ = 0;        // tasks that are not done
    std::uint64_t timed_ = 0;        // of them
    bool stopping_ = false;
};

// ---------------------------------------------------------------------------------------------------

inline std::shared_ptr<ThreadEngine> ThreadEngine::start(std::uint32_t threads,
                                                         std::function<void()> initializer,
                                                         bool finishes_at_exit) {
    auto engine =
        std::make_shared<ThreadEngine>(threads, std::move(initializer), finishes_at_exit);
    try {
        for (std::uint32_t i = 0; i < threads; ++i) engine->start_worker();
        engine->start_thread();
    } catch (...) {
        engine->end_workers();
        throw;
    }
    return engine;
}

inline void ThreadEngine::start_worker() {
    const std::lock_guard lock(mutex_);
    auto worker = std::make_unique<Worker>();
    Worker& me = *worker;
    const auto is_taken = [this](std::uint32_t number) {
        return std::any_of(workers_.begin(), workers_.end(),
                           [number](const auto& other) { return other->number == number; });
    };
    while (is_taken(me.number)) ++me.number;
    workers_.push_back(std::move(worker));
    try {
        const os::BlockSignals for_the_thread;  // they are for the program's own
        me.thread = std::thread([this, &me] { work(me); });
    } catch (...) {
        workers_.pop_back();
        throw;
    }
}

inline void ThreadEngine::work(Worker& me) noexcept {
    thread_as_worker = {&me.run, me.number, this};
    me.tally.began.store(os::nanoseconds_now());
    try {
        if (initializer_) initializer_();
    } catch (...) {
        break_down(std::current_exception());
    }
    std::uint64_t now = os::nanoseconds_now();
    me.tally.ready.store(now);
    std::unique_lock lock(mutex_);
    std::vector<std::shared_ptr<Job>> told;
    for (;;) {
        // In a pool that is broken what is queued is another's, who is failing it.
        work_.wait(lock, [&] { return stopping_ || me.leave || (!broken_ && !queue_.empty()); });
        if (stopping_ || me.leave) break;
        me.task = queue_.front();
        const auto [first, end] = me.task->claim();
        if (me.task->all_claimed()) queue_.pop_front();
        lock.unlock();
        const std::uint64_t begin = os::nanoseconds_now();
        WorkerTally::add(me.tally.waiting, begin - now);
        run_items(me, *me.task, first, end);
        now = os::nanoseconds_now();
        me.tally.ran(now - begin, me.task->number_of(first), end - first);
        lock.lock();
        TaskPointer ended = std::exchange(me.task, nullptr);
        items_done(ended, end - first, told);
        if (told.empty()) continue;  // others are at it
        lock.unlock();
        for (const auto& job : told) job->task_done(0);
        told.clear();
        ended.reset();  // without the mutex, for what it captured may have a handle of this pool
        lock.lock();
    }
    me.gone = true;
    lock.unlock();
    wake();
}

inline void ThreadEngine::run_items(Worker& me, LocalTask& task, std::uint32_t first,
                                    std::uint32_t end) {
    Delivery delivery(me.run);
    const bool is_timed = task.settings().timeout.count() != 0;
    for (std::uint32_t item = first; item != end && task.is_wanted(); ++item) {
        me.item.store(item, std::memory_order_relaxed);
        if (is_timed) me.started.store(os::nanoseconds_now(), std::memory_order_relaxed);
        delivery.begin();
        // It may have been cancelled before anybody could see that it runs.
        if (!task.is_wanted()) ask_to_stop(me);
        task.run(item, delivery);
    }
}

inline void ThreadEngine::submit(std::shared_ptr<LocalTask> task) {
    std::exception_ptr refused;
    const bool is_timed = task->settings().timeout.count() != 0;
    {
        const std::lock_guard lock(mutex_);
        refused = refusal();
        if (!refused) {
            queue_.push_back(task);
            ++given_;
            timed_ += is_timed ? 1 : 0;
        }
    }
    if (refused) {
        task->job()->fail(refused);
        return;
    }
    work_.notify_all();
    if (is_timed) wake();
}

inline void ThreadEngine::items_done(const TaskPointer& task, std::uint32_t items,
                                     std::vector<std::shared_ptr<Job>>& told) {
    if (!task->done(items)) return;
    --given_;
    if (task->settings().timeout.count() != 0) --timed_;
    told.push_back(task->job());
    if (phase_ != Phase::running && given_ == 0) wake();
}

inline bool ThreadEngine::cancel(const std::shared_ptr<Job>& job) {
    check_own();
    std::vector<TaskPointer> dropped;  // without the mutex
    std::vector<std::shared_ptr<Job>> told;
    {
        const std::lock_guard lock(mutex_);
        for (const auto& worker : workers_) {
            if (!worker->task || worker->task->job() != job) continue;
            take_back(worker->task, told);
            if (worker->task->settings().may_be_stopped) ask_to_stop(*worker);
        }
        std::erase_if(queue_, [&](const TaskPointer& task) {
            if (task->job() != job) return false;
            take_back(task, told);
            dropped.push_back(task);
            return true;
        });
    }
    return job->fail(std::make_exception_ptr(CancelledError("the task was cancelled")));
}

inline bool ThreadEngine::take_back(const TaskPointer& task) {
    if (is_foreign() || !task) return false;
    std::vector<std::shared_ptr<Job>> told;
    {
        const std::lock_guard lock(mutex_);
        if (task->has_begun() || !task->is_wanted()) return false;
        std::erase(queue_, task);
        take_back(task, told);
    }
    wake();
    return true;
}

inline void ThreadEngine::cancel_waiting() {
    std::vector<std::pair<TaskPointer, std::uint32_t>> waiting;
    std::vector<std::shared_ptr<Job>> told;
    {
        const std::lock_guard lock(mutex_);
        refuse_more();
        for (TaskPointer& task : std::exchange(queue_, {})) {
            const std::uint32_t first = task->take_rest();
            items_done(task, task->count() - first, told);
            waiting.emplace_back(std::move(task), first);
        }
    }
    for (const auto& [task, first] : waiting) {
        for (std::uint32_t i = first; i != task->count(); ++i) {
            task->job()->taken_back(task->number_of(i));
        }
    }
    wake();
}

inline bool ThreadEngine::ask_to_stop(Worker& worker) noexcept {
    std::uint64_t run = worker.run.load();
    return (run & WorkerSlot::run_mask) == WorkerSlot::running &&
           worker.run.compare_exchange_strong(run, (run & ~WorkerSlot::run_mask) | WorkerSlot::asked);
}

}  // namespace multiprocessing::runtime::pool

#include <multiprocessing/runtime/pool/thread_engine_crew.hpp>
