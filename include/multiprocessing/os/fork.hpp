// SPDX-License-Identifier: BSL-1.0
//
// What a fork does to state in private memory: a counter that changes in every forked child, by
// whoever it was forked; a mutex that is not found locked there by a thread that does not exist, an
// object that is not found half made, and a scope that no fork falls into. Answers Python's
// `util.ForkAwareThreadLock`.
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
/// A descriptor that children are not to have, in a list.
struct Kept {
    int fd;
    Kept* next;
    Kept* previous;
};
inline std::atomic<std::uint32_t> epoch{1};
inline constinit std::mutex gate;  // held by who forks, and by who does not want it
inline constinit Kept* kept = nullptr;  // under the gate
inline const bool installed = ::pthread_atfork([] { gate.lock(); }, [] { gate.unlock(); },
                                               [] {
                                                   for (; kept != nullptr; kept = kept->next) {
                                                       ::close(kept->fd);
                                                   }
                                                   gate.unlock();
                                                   epoch.fetch_add(1, std::memory_order_relaxed);
                                               }) == 0;
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

/// As long as one lives no thread of this process forks; who wants to waits. For calls of functions
/// of the C library that hold a lock which is not renewed in a forked child: caught by a fork, it
/// would keep the child waiting at its own next call for ever. For such a call alone, and not to be
/// nested.
class NoFork {
public:
    NoFork() : lock_(fork_state::gate) {}

private:
    std::scoped_lock<std::mutex> lock_;
};

/// As long as it lives, forked children do not have the descriptor: by whoever they were forked, it is
/// closed there at once. Its owner is to be forgotten there and not destroyed, for the number may be
/// another's by then.
class NotForChildren {
public:
    explicit NotForChildren(int fd) : entry_{fd, nullptr, nullptr} {
        const NoFork while_the_list_changes;
        entry_.next = fork_state::kept;
        if (entry_.next != nullptr) entry_.next->previous = &entry_;
        fork_state::kept = &entry_;
    }
    NotForChildren(const NotForChildren&) = delete;
    NotForChildren& operator=(const NotForChildren&) = delete;
    ~NotForChildren() {
        const NoFork while_the_list_changes;
        if (entry_.next != nullptr) entry_.next->previous = entry_.previous;
        (entry_.previous != nullptr ? entry_.previous->next : fork_state::kept) = entry_.next;
    }

private:
    fork_state::Kept entry_;
};

/// A std::mutex that is found unlocked in a forked child. The data under it may have been caught in
/// the middle of a change by another thread of the parent, so its holders keep their critical
/// sections to steps that leave it readable.
class ForkAwareMutex {
public:
    constexpr ForkAwareMutex() noexcept = default;

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
        if (state_.load(std::memory_order_acquire) == good()) mutex_.unlock();
    }

private:
    // Twice the epoch that the mutex is of, and one more while a thread makes it anew. That names
    // the epoch too: a fork may catch that thread, and its mark must mean nothing to the child.
    [[nodiscard]] static std::uint64_t good() noexcept { return std::uint64_t{fork_epoch()} * 2; }

    void renew_after_fork() {
        const std::uint64_t current = good();
        std::uint64_t seen = state_.load(std::memory_order_acquire);
        while (seen != current) [[unlikely]] {
            if (seen != current + 1 && state_.compare_exchange_strong(seen, current + 1)) {
                // The old one is not destroyed: destroying a locked mutex is undefined, and
                // std::mutex owns nothing.
                new (&mutex_) std::mutex;
                state_.store(current, std::memory_order_release);
                return;
            }
            seen = state_.load(std::memory_order_acquire);
        }
    }

    std::mutex mutex_;
    std::atomic<std::uint64_t> state_{0};
};

/// An object that is made at its first use and never destroyed. A function's static variable would
/// do if nobody forked: a child forked while another thread makes it waits for that thread, which it
/// does not have, for ever. Here it makes its own.
template <class T>
class Lazy {
public:
    constexpr Lazy() noexcept = default;
    Lazy(const Lazy&) = delete;
    Lazy& operator=(const Lazy&) = delete;

    /// The object; the first caller's is what make() returns, a new T. What it throws leaves nothing
    /// made.
    template <class Make>
    T& get(Make make) {
        T* made = made_.load(std::memory_order_acquire);
        if (made == nullptr) [[unlikely]] {
            const std::scoped_lock lock(mutex_);
            made = made_.load(std::memory_order_relaxed);
            if (made == nullptr) {
                made = make();
                made_.store(made, std::memory_order_release);
            }
        }
        return *made;
    }

private:
    std::atomic<T*> made_{nullptr};
    ForkAwareMutex mutex_;
};

}  // namespace multiprocessing::os
