// SPDX-License-Identifier: BSL-1.0
//
// Deadlines on the monotonic clock. Every wait of the library takes one: a deadline, unlike a
// timeout, survives EINTR and spurious wake-ups without being recomputed.
#pragma once

#include <multiprocessing/timeout.hpp>

#include <algorithm>
#include <chrono>
#include <climits>
#include <cstdint>
#include <ctime>

namespace multiprocessing::os {

/// std::chrono::steady_clock is CLOCK_MONOTONIC in libstdc++ and libc++ on Linux, which is what
/// futexes and timers are given below.
using Clock = std::chrono::steady_clock;

/// The time of that clock as a number that means the same in every process.
[[nodiscard]] inline std::uint64_t nanoseconds_now() noexcept {
    return static_cast<std::uint64_t>(Clock::now().time_since_epoch() / std::chrono::nanoseconds(1));
}

/// A point in time to give up at, or never.
class Deadline {
public:
    [[nodiscard]] static Deadline never() noexcept { return Deadline(Clock::time_point::max()); }
    [[nodiscard]] static Deadline at(Clock::time_point point) noexcept { return Deadline(point); }
    [[nodiscard]] static Deadline now() noexcept { return Deadline(Clock::now()); }
    /// A point that has passed already: a poll, for which no clock is read.
    [[nodiscard]] static Deadline passed() noexcept { return Deadline(Clock::time_point::min()); }
    [[nodiscard]] static Deadline after(std::chrono::nanoseconds span) noexcept {
        const auto now = Clock::now();
        return Deadline(span > Clock::time_point::max() - now ? Clock::time_point::max()
                                                              : now + span);
    }
    Deadline(const Timeout& timeout) noexcept : Deadline(from_first_wait(timeout)) { begin(); }
    /// The same, but no clock is read before begin(): many calls that could wait never do. Until
    /// then only is_passed() means anything.
    [[nodiscard]] static Deadline from_first_wait(const Timeout& timeout) noexcept {
        if (timeout.forever()) return never();
        if (timeout.span()->count() == 0) return passed();
        return Deadline(Clock::time_point(-*timeout.span()));
    }
    /// The wait begins, if it has not.
    void begin() noexcept {
        if (at_ < Clock::time_point() && !is_passed()) *this = after(-at_.time_since_epoch());
    }

    [[nodiscard]] bool is_never() const noexcept { return at_ == Clock::time_point::max(); }
    /// Made by passed(), or of no time: nobody is to wait at all.
    [[nodiscard]] bool is_passed() const noexcept { return at_ == Clock::time_point::min(); }
    [[nodiscard]] bool expired() const noexcept {
        return is_passed() || (!is_never() && Clock::now() >= at_);
    }
    /// The earlier of two.
    [[nodiscard]] Deadline earlier(Deadline other) const noexcept {
        return Deadline(std::min(at_, other.at_));
    }
    /// The time left, at least 0; meaningless for never().
    [[nodiscard]] std::chrono::nanoseconds remaining() const noexcept {
        if (at_ == Clock::time_point::min()) return std::chrono::nanoseconds(0);
        return std::max(std::chrono::nanoseconds(0),
                        std::chrono::nanoseconds(at_ - Clock::now()));
    }
    [[nodiscard]] timespec as_timespec() const noexcept {
        const auto since = std::max(Clock::duration(0), at_.time_since_epoch());
        const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(since);
        timespec time{};
        time.tv_sec = static_cast<time_t>(seconds.count());
        time.tv_nsec = static_cast<long>(std::chrono::nanoseconds(since - seconds).count());
        return time;
    }
    /// For poll(2): milliseconds rounded up, -1 for never.
    [[nodiscard]] int poll_milliseconds() const noexcept {
        if (is_never()) return -1;
        const auto left = std::chrono::ceil<std::chrono::milliseconds>(remaining()).count();
        return static_cast<int>(std::min<long long>(left, INT_MAX));
    }

private:
    explicit Deadline(Clock::time_point at) noexcept : at_(at) {}

    Clock::time_point at_;
};

}  // namespace multiprocessing::os
