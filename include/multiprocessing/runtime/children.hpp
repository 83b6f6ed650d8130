// SPDX-License-Identifier: BSL-1.0
//
// The children of this process that have been started and not been found ended: kept alive here
// whatever becomes of their handles. Answers Python's `process._children`.
#pragma once

#include <multiprocessing/os/fork.hpp>
#include <multiprocessing/os/process.hpp>
#include <multiprocessing/runtime/log.hpp>
#include <multiprocessing/runtime/state.hpp>

#include <algorithm>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace multiprocessing::runtime {

using ProcessPointer = std::shared_ptr<ProcessState>;

/// "ended with exit code 1", "was killed by SIGTERM".
[[nodiscard]] inline std::string describe_end(int exitcode) {
    if (exitcode < 0) return "was killed by " + os::signal_name(-exitcode);
    return "ended with exit code " + std::to_string(exitcode);
}

/// "process 'Process-1' (pid 12)", with the mutex held.
[[nodiscard]] inline std::string name_and_pid(const ProcessState& state) {
    return "process '" + state.name + "' (pid " + std::to_string(state.pid.value_or(0)) + ")";
}

class Children {
public:
    void add(ProcessPointer child) {
        const std::lock_guard lock(mutex_);
        running_.push_back(std::move(child));
    }
    /// One that has been found ended, or is of no more interest.
    void remove(const ProcessState& child);
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

inline void Children::remove(const ProcessState& child) {
    const auto is_it = [&](const ProcessPointer& p) { return p.get() == &child; };
    {
        const std::lock_guard lock(mutex_);
        if (std::erase_if(running_, is_it) == 0) return;
    }
    log_at(log_level::info, [&child] {
        const std::lock_guard lock(child.mutex);
        return name_and_pid(child) + " " + describe_end(child.exitcode.value_or(0));
    });
}

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
