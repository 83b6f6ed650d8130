// SPDX-License-Identifier: BSL-1.0
//
// How long to look for a message before sleeping, where nothing can wake a sleeper: MPI has no such wait.
#pragma once

#include <multiprocessing/os/clock.hpp>
#include <multiprocessing/os/cpu.hpp>

#include <algorithm>
#include <chrono>
#include <thread>

namespace multiprocessing::mpi {

/// The pauses of one who looks again and again: none for a while, then ever longer ones.
class Backoff {
public:
    /// `spin`: for how long it does nothing else.
    explicit Backoff(std::chrono::nanoseconds spin) noexcept : spin_(spin) {}

    /// There was something: the next pause is the shortest.
    void reset() noexcept { rounds_ = 0; }
    /// While something is on its way that only moves on when somebody looks: no naps, for a while.
    [[nodiscard]] std::chrono::nanoseconds next_while_sending() noexcept {
        const auto nap = next();
        return os::Clock::now() - began_ < a_short_while ? std::chrono::nanoseconds(0) : nap;
    }
    /// How long to sleep now. Zero: it has paused already, for a moment.
    [[nodiscard]] std::chrono::nanoseconds next() noexcept {
        if (rounds_++ == 0) began_ = os::Clock::now();
        const std::chrono::nanoseconds waited = os::Clock::now() - began_;
        if (waited < spin_) {
            // Who is to answer may be waiting for this very processor.
            if (rounds_ % 16 == 0) std::this_thread::yield();
            os::spin_pause();
            return std::chrono::nanoseconds(0);
        }
        // What has taken long may take a part longer.
        return std::clamp<std::chrono::nanoseconds>(waited / 4, least,
                                                    waited > a_while ? most_later : most_at_first);
    }

private:
    static constexpr std::chrono::microseconds least{20};
    static constexpr std::chrono::milliseconds most_at_first{1};
    static constexpr std::chrono::milliseconds most_later{5};
    static constexpr std::chrono::milliseconds a_short_while{100};
    static constexpr std::chrono::seconds a_while{1};

    const std::chrono::nanoseconds spin_;
    unsigned rounds_ = 0;
    os::Clock::time_point began_{};
};

}  // namespace multiprocessing::mpi
