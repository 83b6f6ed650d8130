// SPDX-License-Identifier: BSL-1.0
//
// The futex, shared between processes: sleep until a word changes, wake those who sleep on it,
// or have them wait for another.
#pragma once

#include <multiprocessing/os/clock.hpp>
#include <multiprocessing/os/error.hpp>

#include <atomic>
#include <climits>
#include <cstdint>

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace multiprocessing::os {

static_assert(std::atomic<std::uint32_t>::is_always_lock_free &&
              sizeof(std::atomic<std::uint32_t>) == sizeof(std::uint32_t));

/// Sleeps while `word` is `expected`. Returns false when the deadline passed; true otherwise, which
/// may be spurious (a wake-up meant for an earlier sleeper): the caller looks again. A signal ends no
/// sleep: else who gets many would never be told that the deadline has passed.
inline bool futex_wait(const std::atomic<std::uint32_t>& word, std::uint32_t expected,
                       Deadline deadline) noexcept {
    // FUTEX_WAIT_BITSET takes an absolute time on CLOCK_MONOTONIC, FUTEX_WAIT a relative one.
    const timespec until = deadline.is_never() ? timespec{} : deadline.as_timespec();
    const long result = retry_on_signal([&] {
        return ::syscall(SYS_futex, &word, FUTEX_WAIT_BITSET, expected,
                         deadline.is_never() ? nullptr : &until, nullptr, FUTEX_BITSET_MATCH_ANY);
    });
    return !(result == -1 && errno == ETIMEDOUT);
}

/// Wakes at most `count` sleepers; returns how many slept.
inline int futex_wake(const std::atomic<std::uint32_t>& word, int count = INT_MAX) noexcept {
    const long woken = ::syscall(SYS_futex, &word, FUTEX_WAKE, count, nullptr, nullptr, 0);
    return woken < 0 ? 0 : static_cast<int>(woken);
}

/// Lets one who sleeps on `from` sleep on at `to`, its deadline as it was. Returns how many did:
/// none if nobody slept, or `from` is not `expected`.
inline int futex_requeue(const std::atomic<std::uint32_t>& from, std::uint32_t expected,
                         const std::atomic<std::uint32_t>& to) noexcept {
    const long moved = ::syscall(SYS_futex, &from, FUTEX_CMP_REQUEUE, 0, 1l, &to, expected);
    return moved < 0 ? 0 : static_cast<int>(moved);
}

}  // namespace multiprocessing::os
