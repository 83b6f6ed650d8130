// SPDX-License-Identifier: BSL-1.0
//
// A mutex in shared memory for critical sections of a few nanoseconds: a word that names the
// process of its holder, so that who waits finds out when that has died. Half the price of a robust
// pthread mutex, which keeps a list of what each thread holds. For the two ends of a ring, the
// books of a bounded semaphore and the seats of a barrier.
#pragma once

#include <multiprocessing/os/futex.hpp>
#include <multiprocessing/shm/processes.hpp>
#include <multiprocessing/shm/wait.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>

namespace multiprocessing::shm {

/// Held by one thread at a time; not recursive. A holder that has been killed is noticed by the one
/// who waits next, within milliseconds.
class ProcessMutex {
public:
    /// Whether the last holder died inside.
    [[nodiscard]] bool lock() {
        HolderId nobody = 0;
        const bool taken =
            holder_.compare_exchange_strong(nobody, self(), std::memory_order_acquire);
        return taken ? false : wait();
    }
    void unlock() noexcept {
        holder_.store(0, std::memory_order_release);
        // Without a fence between the two, as in WaitWord::rouse().
        if (sleepers_.load(std::memory_order_relaxed) != 0) [[unlikely]] wake();
    }

private:
    static constexpr int least_pauses = 4;
    static constexpr int long_pause = 32;    // most of a microsecond
    static constexpr int most_pauses = 512;  // then its holder is not running
    static constexpr std::chrono::milliseconds nap{20};  // then it is looked whether it lives

    bool wait();
    void wake() noexcept {
        sleepers_.store(0, std::memory_order_seq_cst);
        os::futex_wake(holder_, 1);
    }

    std::atomic<HolderId> holder_{0};
    std::atomic<std::uint32_t> sleepers_{0};  // whether there may be any
};

inline bool ProcessMutex::wait() {
    const HolderId me = self();
    const auto free = [&] {
        HolderId nobody = 0;
        return holder_.load(std::memory_order_relaxed) == 0 &&
               holder_.compare_exchange_strong(nobody, me, std::memory_order_acquire);
    };
    // Where two take turns at every item, the cache lines go to and fro with them, and each item takes
    // ten times as long. So who finds it taken stays away for some fifty items of the other's.
    if (!one_processor()) {
        for (int pauses = least_pauses, spent = 0; spent < most_pauses; spent += pauses) {
            pauses = std::min(pauses * 2, long_pause);
            for (int i = 0; i < pauses; ++i) os::spin_pause();
            if (free()) return false;
        }
    }
    bool slept = false;
    bool died = false;
    for (;;) {
        sleepers_.store(1, std::memory_order_seq_cst);
        if (free()) break;
        HolderId holder = holder_.load(std::memory_order_relaxed);
        if (holder == 0) continue;
        slept = true;
        if (os::futex_wait(holder_, holder, os::Deadline::after(nap))) continue;
        if (!alive(holder) &&
            holder_.compare_exchange_strong(holder, me, std::memory_order_acquire)) {
            died = true;
            break;
        }
    }
    // Others may sleep on, and who woke this one has taken the flag down.
    if (slept) sleepers_.store(1, std::memory_order_relaxed);
    return died;
}

}  // namespace multiprocessing::shm
