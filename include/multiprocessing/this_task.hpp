// SPDX-License-Identifier: BSL-1.0
//
// `mp::this_task`: what a function that a pool runs can ask about itself. Python has nothing like it.
#pragma once

#include <multiprocessing/runtime/pool/this_task.hpp>

#include <atomic>

/// About the task that the calling thread, or the worker process that it is in, is at.
namespace multiprocessing::this_task {

/// Whether it is to stop, in its own time: it was cancelled, or has run for longer than it may. A task
/// that looks at this now and then can put things in order before it is stopped by force. False
/// outside of a pool's worker.
[[nodiscard]] inline bool stop_requested() noexcept {
    const auto* run = runtime::pool::this_worker().run;
    return run != nullptr && (run->load(std::memory_order_acquire) &
                              runtime::pool::WorkerSlot::run_mask) >= runtime::pool::WorkerSlot::asked;
}

/// Which of the pool's workers runs it, from 0 on; one that takes the place of another has its number.
/// -1 outside of a pool's worker.
[[nodiscard]] inline int worker_id() noexcept {
    const auto& worker = runtime::pool::this_worker();
    return worker.run != nullptr ? static_cast<int>(worker.number) : -1;
}

}  // namespace multiprocessing::this_task
