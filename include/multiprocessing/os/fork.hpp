// SPDX-License-Identifier: BSL-1.0
//
// What a fork does to state in private memory: a counter that changes in every forked child, by
// whoever it was forked, and a mutex that is not found locked there by a thread that does not exist.
// Answers Python's `util.ForkAwareThreadLock`.
#pragma once

#include <multiprocessing/os/error.hpp>

#include <atomic>
#include <cstdint>
#include <mutex>
#include <new>

#include <pthread.h>
#include <unistd.h>

namespace multiprocessing::os {

namespace fork_state {
inline std::atomic<std::uint32_t> epoch{1};
inline const bool installed =
    ::pthread_atfork(nullptr, nullptr, [] { epoch.fetch_add(1, std::memory_order_relaxed); }) == 0;
}  // namespace fork_state

/// Another number in every process of a chain of forks: what was cached under another epoch was the
/// parent's.
[[nodiscard]] inline std::uint32_t fork_epoch() noexcept {
    return fork_state::epoch.load(std::memory_order_relaxed);
}

/// fork(2): 0 in the child, the child's pid in the parent.
[[nodiscard]] inline int fork() {
    const int pid = ::fork();
    if (pid < 0) throw_errno("fork");
    return pid;
}

/// A std::mutex that is found unlocked in a forked child. The data under it may have been caught in
/// the middle of a change by another thread of the parent, so its holders keep their critical
/// sections to steps that leave it readable.
class ForkAwareMutex {
public:
    void lock() {
        renew_after_fork();
        mutex_.lock();
    }
    bool try_lock() {
        renew_after_fork();
        return mutex_.try_lock();
    }
    void unlock() {
        // Locked before the fork by the thread that forked: the child's copy is thrown away.
        if (epoch_.load(std::memory_order_acquire) == fork_epoch()) mutex_.unlock();
    }

private:
    static constexpr std::uint32_t renewing = 0;

    void renew_after_fork() {
        std::uint32_t seen = epoch_.load(std::memory_order_acquire);
        const std::uint32_t current = fork_epoch();
        while (seen != current) {
            if (seen != renewing && epoch_.compare_exchange_strong(seen, renewing)) {
                // The old one is not destroyed: destroying a locked mutex is undefined, and
                // std::mutex owns nothing.
                new (&mutex_) std::mutex;
                epoch_.store(current, std::memory_order_release);
                return;
            }
            seen = epoch_.load(std::memory_order_acquire);
        }
    }

    std::mutex mutex_;
    std::atomic<std::uint32_t> epoch_{fork_epoch()};
};

}  // namespace multiprocessing::os
