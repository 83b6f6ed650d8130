// SPDX-License-Identifier: BSL-1.0
//
// What a task can know of the worker that runs it.
#pragma once

#include <multiprocessing/runtime/pool/shared.hpp>

#include <atomic>
#include <cstdint>

namespace multiprocessing::runtime::pool {

/// Of one worker: which it is, and whether it has been told to stop what it is at.
struct WorkerIdentity {
    const std::atomic<std::uint64_t>* run = nullptr;  // what a WorkerSlot's says; null: no worker
    std::uint32_t number = 0;
    const void* engine = nullptr;  // of a thread: whose it is
};

/// The process is a worker, with all of its threads; or the thread is one.
inline constinit WorkerIdentity process_as_worker;
inline constinit thread_local WorkerIdentity thread_as_worker;

[[nodiscard]] inline const WorkerIdentity& this_worker() noexcept {
    return thread_as_worker.run != nullptr ? thread_as_worker : process_as_worker;
}

}  // namespace multiprocessing::runtime::pool
