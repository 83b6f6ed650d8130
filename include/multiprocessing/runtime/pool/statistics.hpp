// SPDX-License-Identifier: BSL-1.0
//
// How the books that workers keep become what a pool tells.
#pragma once

#include <multiprocessing/pool_stats.hpp>
#include <multiprocessing/runtime/pool/shared.hpp>

#include <algorithm>
#include <chrono>
#include <cstdint>

namespace multiprocessing::runtime::pool {

/// What a worker says of its work, beside what is known already.
inline void add_to(WorkerStats& stats, const WorkerTally& tally) {
    const auto nanoseconds = [](std::uint64_t count) {
        return std::chrono::nanoseconds(static_cast<std::int64_t>(count));
    };
    stats.tasks += tally.tasks.load();
    stats.items += tally.items.load();
    stats.busy += nanoseconds(tally.busy.load());
    stats.waiting += nanoseconds(tally.waiting.load());
    if (const std::uint64_t ready = tally.ready.load(); ready != 0) {
        stats.start_up += nanoseconds(ready - tally.began.load());
    }
}
inline void add_to(PoolStats& stats, const WorkerStats& worker, const WorkerTally& tally) {
    stats.workers.push_back(worker);
    stats.tasks += worker.tasks;
    stats.items += worker.items;
    stats.deaths += worker.deaths;
    for (const SlowTask& slow : tally.slowest) {
        const std::uint64_t taken = slow.nanoseconds.load();
        if (taken == 0) continue;
        stats.slowest.push_back({std::chrono::nanoseconds(static_cast<std::int64_t>(taken)),
                                 worker.worker_id, slow.first.load(), slow.count.load()});
    }
    const auto longer = [](const SlowTaskStats& a, const SlowTaskStats& b) {
        return a.duration > b.duration;
    };
    std::sort(stats.slowest.begin(), stats.slowest.end(), longer);
    stats.slowest.resize(std::min(stats.slowest.size(), tally.slowest.size()));
}

}  // namespace multiprocessing::runtime::pool
