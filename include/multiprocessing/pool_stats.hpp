// SPDX-License-Identifier: BSL-1.0
//
// What a pool tells of its work. Python's has nothing like it; mpire's `insights` are its model.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <iomanip>
#include <ostream>
#include <sstream>
#include <vector>

namespace multiprocessing {

/// What one worker has done, together with those whose place it took.
struct WorkerStats {
    int worker_id = 0;
    int pid = 0;                                 ///< this process's for a thread
    bool alive = false;
    std::uint64_t tasks = 0;                     ///< chunks of items
    std::uint64_t items = 0;
    std::chrono::nanoseconds busy{0};            ///< running tasks
    std::chrono::nanoseconds waiting{0};         ///< for something to do, the wait that goes on not counted
    std::chrono::nanoseconds start_up{0};        ///< from the start to the end of the initializer
    std::uint64_t deaths = 0;                    ///< how many have ended otherwise than in order
    std::uint64_t memory = 0;                    ///< bytes of its own now; 0 for a thread
};

/// One of the tasks that took longest.
struct SlowTaskStats {
    std::chrono::nanoseconds duration{0};
    int worker_id = 0;
    std::uint64_t first_item = 0;  ///< in its call, from 0 on
    std::uint64_t items = 0;       ///< that were run together
};

struct PoolStats {
    std::vector<WorkerStats> workers;
    std::vector<SlowTaskStats> slowest;  ///< the slowest first
    std::uint64_t tasks = 0;
    std::uint64_t items = 0;
    std::uint64_t deaths = 0;

    /// Of the time in which workers were there, the part in which they were busy.
    [[nodiscard]] double utilisation() const noexcept {
        std::chrono::duration<double> busy{0};
        std::chrono::duration<double> all{0};
        for (const WorkerStats& worker : workers) {
            busy += worker.busy;
            all += worker.busy + worker.waiting;
        }
        return all.count() > 0 ? busy / all : 0;
    }
};

/// A table for a person.
inline std::ostream& operator<<(std::ostream& out, const PoolStats& stats) {
    const auto seconds = [](std::chrono::nanoseconds span) {
        return std::chrono::duration<double>(span).count();
    };
    std::ostringstream text;
    text << std::fixed << std::setprecision(3)
         << "worker      pid    tasks    items   busy s   waiting s  start-up s  deaths  memory MiB\n";
    for (const WorkerStats& worker : stats.workers) {
        text << std::setw(6) << worker.worker_id << std::setw(9) << worker.pid << std::setw(9)
             << worker.tasks << std::setw(9) << worker.items << std::setw(9) << seconds(worker.busy)
             << std::setw(12) << seconds(worker.waiting) << std::setw(12) << seconds(worker.start_up)
             << std::setw(8) << worker.deaths << std::setw(12)
             << static_cast<double>(worker.memory) / (1 << 20) << '\n';
    }
    for (const SlowTaskStats& task : stats.slowest) {
        text << "slow: " << seconds(task.duration) << " s, item";
        if (task.items > 1) {
            text << "s " << task.first_item << " to " << task.first_item + task.items - 1;
        } else {
            text << " " << task.first_item;
        }
        text << " by worker " << task.worker_id << '\n';
    }
    return out << text.str();
}

}  // namespace multiprocessing
