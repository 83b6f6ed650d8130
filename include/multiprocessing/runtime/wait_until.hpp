// SPDX-License-Identifier: BSL-1.0
//
// Waiting for another thread of this process, until a deadline.
#pragma once

#include <multiprocessing/os/clock.hpp>

#include <condition_variable>
#include <mutex>

namespace multiprocessing::runtime {

/// Waits on a condition variable of this process until a deadline; whether `ready` came true.
template <class Ready>
bool wait_until(std::condition_variable& changed, std::unique_lock<std::mutex>& lock,
                os::Deadline deadline, Ready ready) {
    if (deadline.is_never()) {
        changed.wait(lock, ready);
        return true;
    }
    while (!ready()) {
        if (deadline.expired()) return false;
        changed.wait_for(lock, deadline.remaining());
    }
    return true;
}

}  // namespace multiprocessing::runtime
