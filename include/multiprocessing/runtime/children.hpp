// SPDX-License-Identifier: BSL-1.0
//
// The children of this process that have been started and not been found ended: kept alive here
// whatever becomes of their handles. Answers Python's `process._children`.
#pragma once

#include <multiprocessing/os/fork.hpp>
#include <multiprocessing/runtime/state.hpp>

#include <algorithm>
#include <memory>
#include <mutex>
#include <vector>

namespace multiprocessing::runtime {

using ProcessPointer = std::shared_ptr<ProcessState>;

class Children {
public:
    void add(ProcessPointer child) {
        const std::lock_guard lock(mutex_);
        running_.push_back(std::move(child));
    }
    void remove(const ProcessState& child) {
        const std::lock_guard lock(mutex_);
        std::erase_if(running_, [&](const ProcessPointer& p) { return p.get() == &child; });
    }
    /// Reaps those that have ended; returns the rest, in the order they were started.
    std::vector<ProcessPointer> reap_finished();
    /// In a forked child: they are its parent's.
    void forget() noexcept {
        const std::lock_guard lock(mutex_);
        running_.clear();
    }
    /// Held over a fork, so that the child finds the list whole.
    [[nodiscard]] os::ForkAwareMutex& mutex() noexcept { return mutex_; }

private:
    os::ForkAwareMutex mutex_;
    std::vector<ProcessPointer> running_;
};

inline std::vector<ProcessPointer> Children::reap_finished() {
    std::vector<ProcessPointer> seen;
    {
        const std::lock_guard lock(mutex_);
        seen = running_;
    }
    // Reaped without the list's mutex: what follows an end may take other locks.
    std::erase_if(seen, [&](const ProcessPointer& child) {
        if (!child->poll_exitcode()) return false;
        remove(*child);
        return true;
    });
    return seen;
}

}  // namespace multiprocessing::runtime
