// SPDX-License-Identifier: BSL-1.0
//
// Waiting for something in shared memory to become true: a short spin, then sleep on a futex. The
// word carries no count of sleepers, so one that is killed in its sleep leaves nothing wrong behind.
#pragma once

#include <multiprocessing/os/clock.hpp>
#include <multiprocessing/os/cpu.hpp>
#include <multiprocessing/os/fault.hpp>
#include <multiprocessing/os/futex.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <climits>
#include <cstdint>

namespace multiprocessing::shm {

/// How long a sleeper sleeps before it looks for what no wake-up tells: that the one who was to wake
/// it, or the one who was woken in its place, has been killed.
inline constexpr std::chrono::milliseconds patience{50};

/// How many steps a wait of this thread spins before it sleeps: waking a sleeper costs 20 to 50 µs,
/// so spinning pays where answers are quick, and is given up where they are not.
class Spin {
public:
    template <class Ready>
    static bool until(Ready& ready) {
        if (alone()) return false;
        for (int step = 0; step < steps_; ++step) {
            if (ready()) {
                steps_ = std::min(steps_ * 2, most);
                return true;
            }
            os::spin_pause();
        }
        steps_ = std::max(steps_ / 2, least);
        return false;
    }

private:
    /// Is there but one processor for this process? Looked up once; threads that do so at the same
    /// time find the same.
    [[nodiscard]] static bool alone() noexcept {
        int count = processors_.load(std::memory_order_relaxed);
        if (count == 0) [[unlikely]] {
            count = os::affinity_cpu_count();
            processors_.store(count, std::memory_order_relaxed);
        }
        return count == 1;
    }

    static constexpr int most = 2048;
    static constexpr int least = 64;
    static inline thread_local int steps_ = most;
    static inline constinit std::atomic<int> processors_{0};  // 0: not known yet
};

/// A place to wait at: bit 0 says that somebody may be asleep, the rest counts so that no wake-up
/// falls between a sleeper's last look and its sleep.
class WaitWord {
public:
    /// Blocks until ready() is true (returned) or the deadline has passed (false). `ready` is called
    /// again and again and may change state when it succeeds. `idle` is called each time `patience`
    /// has passed without a wake-up.
    template <class Ready, class Idle>
    bool wait(Ready ready, os::Deadline deadline, Idle idle);
    template <class Ready>
    bool wait(Ready ready, os::Deadline deadline) {
        return wait(std::move(ready), deadline, [] {});
    }

    /// After a change: wakes one sleeper, or all. Costs a fence when nobody sleeps.
    void notify_one() noexcept { notify(1); }
    void notify_all() noexcept { notify(INT_MAX); }

private:
    static constexpr std::uint32_t sleepers = 1;

    void notify(int count) noexcept;

    std::atomic<std::uint32_t> word_{0};
};

template <class Ready, class Idle>
bool WaitWord::wait(Ready ready, os::Deadline deadline, Idle idle) {
    if (ready()) return true;
    if (deadline.expired()) return false;
    if (Spin::until(ready)) return true;
    for (;;) {
        std::uint32_t seen = word_.load(std::memory_order_relaxed);
        // Changing the word even if the flag is up keeps a notifier from taking it down now.
        const std::uint32_t mine = (seen + 2) | sleepers;
        if (!word_.compare_exchange_weak(seen, mine, std::memory_order_seq_cst)) continue;
        if (ready()) return true;
        MULTIPROCESSING_FAULT_POINT("wait: announced, not asleep");
        const bool woken = os::futex_wait(word_, mine, os::Deadline::after(patience).earlier(deadline));
        MULTIPROCESSING_FAULT_POINT("wait: awake");
        if (ready()) return true;
        if (deadline.expired()) return false;
        if (!woken) idle();
    }
}

inline void WaitWord::notify(int count) noexcept {
    // Orders the change that is announced before the look at the flag; its counterpart is the
    // exchange above, between the sleeper's flag and its last look.
    std::atomic_thread_fence(std::memory_order_seq_cst);
    if ((word_.load(std::memory_order_relaxed) & sleepers) == 0) return;
    std::uint32_t mine = (word_.fetch_add(2, std::memory_order_seq_cst) + 2) | sleepers;
    MULTIPROCESSING_FAULT_POINT("notify: word changed, nobody woken");
    if (os::futex_wake(word_, count) == 0 || count == INT_MAX) {
        // Nobody sleeps, unless the word has changed since: then the flag stays up.
        word_.compare_exchange_strong(mine, mine & ~sleepers, std::memory_order_relaxed);
        MULTIPROCESSING_FAULT_POINT("notify: nobody sleeps any more");
    }
}

}  // namespace multiprocessing::shm
