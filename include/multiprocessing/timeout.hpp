// SPDX-License-Identifier: BSL-1.0
//
// `mp::Timeout`, the one type of every timeout: made from a std::chrono duration, from a number of
// seconds as in Python, or from std::nullopt, which is Python's None.
#pragma once

#include <multiprocessing/exceptions.hpp>

#include <chrono>
#include <concepts>
#include <optional>
#include <ratio>

namespace multiprocessing {

/// How long a call may block. Negative counts as 0; std::nullopt (and no argument) is for ever.
/// *Throws* ValueError for what is not a number (NaN).
///
///     q.get(1.5s);  q.get(2);  lock.acquire(true, std::nullopt);
class Timeout {
public:
    constexpr Timeout() noexcept = default;
    constexpr Timeout(std::nullopt_t) noexcept {}
    template <class Rep, class Period>
    constexpr Timeout(std::chrono::duration<Rep, Period> duration)
        : span_(clamp(std::chrono::duration<double>(duration).count(), duration)) {}
    template <class Number>
        requires(std::integral<Number> || std::floating_point<Number>) &&
                (!std::same_as<Number, bool>)
    constexpr Timeout(Number seconds)
        : Timeout(std::chrono::duration<double>(static_cast<double>(seconds))) {}
    template <class T>
        requires std::constructible_from<Timeout, T> && (!std::same_as<T, std::nullopt_t>)
    constexpr Timeout(const std::optional<T>& seconds)
        : Timeout(seconds ? Timeout(*seconds) : Timeout()) {}

    /// The time, at least 0, or nothing for "for ever".
    [[nodiscard]] constexpr std::optional<std::chrono::nanoseconds> span() const noexcept {
        if (forever()) return std::nullopt;
        return span_;
    }
    [[nodiscard]] constexpr bool forever() const noexcept { return span_ == endless; }

private:
    // A century counts as for ever: it keeps deadlines clear of the clock's overflow.
    static constexpr double longest_seconds = 3.2e9;
    static constexpr std::chrono::nanoseconds endless = std::chrono::nanoseconds::max();

    template <class Rep, class Period>
    static constexpr std::chrono::nanoseconds
    clamp(double seconds, std::chrono::duration<Rep, Period> duration) {
        if (seconds != seconds) {
            throw ValueError("the timeout is not a number (NaN): give seconds, a std::chrono "
                             "duration, or std::nullopt to wait for ever");
        }
        if (!(seconds > 0)) return std::chrono::nanoseconds(0);
        if (seconds > longest_seconds) return endless;
        return std::chrono::duration_cast<std::chrono::nanoseconds>(duration);
    }

    // No std::optional, for compilers take what it does not hold for something that is used.
    std::chrono::nanoseconds span_ = endless;
};

}  // namespace multiprocessing
