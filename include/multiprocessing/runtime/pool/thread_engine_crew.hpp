// SPDX-License-Identifier: BSL-1.0
//
// What the thread of a pool of threads does: sees to what is overdue, keeps the crew as large as it is to
// be, and ends it. The rest of runtime/pool/thread_engine.hpp, which includes this.
#pragma once

#include <multiprocessing/runtime/pool/thread_engine.hpp>

namespace multiprocessing::runtime::pool {

inline void ThreadEngine::attend() {
    next_look_ = os::Deadline::never();
    stop_overdue();
    adjust_crew();
}

inline void ThreadEngine::stop_overdue() {
    struct Overdue {
        TaskPointer task;
        std::uint64_t item;
        std::uint32_t worker;
    };
    std::vector<Overdue> overdue;
    {
        const std::lock_guard lock(mutex_);
        if (timed_ == 0) return;
        const auto now = os::Clock::now();
        const auto note = [&](const TaskPointer& task) {  // for what begins from now on
            const auto timeout = task->settings().timeout;
            if (timeout.count() != 0) next_look_ = next_look_.earlier(os::Deadline::at(now + timeout));
        };
        for (const TaskPointer& task : queue_) note(task);
        for (const auto& each : workers_) {
            Worker& worker = *each;
            if (!worker.task || worker.task->settings().timeout.count() == 0) continue;
            note(worker.task);
            std::uint64_t run = worker.run.load();
            const os::Clock::time_point started{std::chrono::nanoseconds(worker.started.load())};
            const std::uint32_t item = worker.item.load();
            if ((run & WorkerSlot::run_mask) != WorkerSlot::running) continue;
            const auto expires = started + worker.task->settings().timeout;
            if (now < expires) {
                next_look_ = next_look_.earlier(os::Deadline::at(expires));
            } else if (worker.run.compare_exchange_strong(
                           run, (run & ~WorkerSlot::run_mask) | WorkerSlot::asked)) {
                overdue.push_back({worker.task, worker.task->number_of(item), worker.number});
            }
        }
    }
    for (const Overdue& each : overdue) {
        each.task->job()->error(each.item, task_timeout(each.item, each.task->settings(),
                                                        "thread " + std::to_string(each.worker)));
    }
}

inline void ThreadEngine::adjust_crew() {
    std::size_t missing = 0;
    {
        const std::lock_guard lock(mutex_);
        if (phase_ != Phase::running || broken_) return;
        std::size_t staying = 0;
        for (const auto& worker : workers_) {
            worker->leave = worker->leave || worker->number >= size();
            if (!worker->leave) ++staying;
        }
        missing = size() - std::min<std::size_t>(staying, size());
    }
    work_.notify_all();
    join_the_gone();
    for (; missing != 0; --missing) {
        try {
            start_worker();
        } catch (...) {
            const std::lock_guard lock(mutex_);
            size_ -= static_cast<std::uint32_t>(missing);
            log_at(log_level::subwarning, [&] {
                return "pool: goes on with " + std::to_string(size()) + " threads, for there can be no "
                       "more: " + pickle::describe(std::current_exception());
            });
            return;
        }
    }
}

inline void ThreadEngine::join_the_gone() {
    std::vector<std::unique_ptr<Worker>> gone;
    {
        const std::lock_guard lock(mutex_);
        for (auto& worker : workers_) {
            if (worker->gone) gone.push_back(std::move(worker));
        }
        std::erase(workers_, nullptr);
    }
    for (const auto& worker : gone) worker->thread.join();
}

inline void ThreadEngine::resize(std::uint32_t threads) {
    check_own();
    {
        const std::lock_guard lock(mutex_);
        check_running();
        size_ = threads;
    }
    wake();
}

inline PoolStats ThreadEngine::stats() const {
    check_own();
    PoolStats stats;
    const std::lock_guard lock(mutex_);
    for (const auto& worker : workers_) {
        WorkerStats one;
        one.worker_id = static_cast<int>(worker->number);
        one.pid = os::this_pid();
        one.alive = !worker->gone;
        add_to(one, worker->tally);
        add_to(stats, one, worker->tally);
    }
    return stats;
}

inline void ThreadEngine::sleep() {
    std::unique_lock lock(nap_);
    wait_until(nap_ends_, lock, next_look_, [this] { return woken_; });
    woken_ = false;
}

inline void ThreadEngine::end_workers() {
    std::vector<Worker*> all;
    {
        const std::lock_guard lock(mutex_);
        stopping_ = true;
        for (const auto& worker : workers_) {
            all.push_back(worker.get());
            ask_to_stop(*worker);
        }
    }
    work_.notify_all();
    // They stay, for what they have done is asked for after the end, too.
    for (Worker* const worker : all) {
        if (worker->thread.joinable()) worker->thread.join();
    }
}

inline void ThreadEngine::fail_all(const Failure& failure, bool) {
    std::vector<std::shared_ptr<Job>> jobs;
    std::vector<std::shared_ptr<Job>> told;
    std::deque<TaskPointer> dropped;  // without the mutex
    {
        const std::lock_guard lock(mutex_);
        for (const auto& worker : workers_) {
            if (!worker->task) continue;
            jobs.push_back(worker->task->job());
            take_back(worker->task, told);
        }
        dropped.swap(queue_);
        for (const TaskPointer& task : dropped) {
            jobs.push_back(task->job());
            take_back(task, told);
        }
    }
    for (const auto& job : jobs) job->fail(failure());
}

}  // namespace multiprocessing::runtime::pool
