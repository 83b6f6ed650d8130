// SPDX-License-Identifier: BSL-1.0
//
// A consumer that is faster than its producers finds the ring empty after each item. If it looked
// again at once, every item would pull three cache lines from one processor to the other and back,
// which costs more than the item. So it gives them a head start, as long as that pays.
#pragma once

#include <multiprocessing/os/cpu.hpp>
#include <multiprocessing/shm/wait.hpp>

#include <algorithm>
#include <cstdint>

namespace multiprocessing::shm {

/// How long this thread stays away from a ring that it has found empty: not at all where items come
/// one by one, as in a conversation, or where there is but one processor; up to some microseconds
/// where they stream.
class HeadStart {
public:
    /// Stays away, if it should.
    static bool give() noexcept {
        if (pauses_ == 0 || one_processor()) return false;
        for (int pause = 0; pause < pauses_; ++pause) os::spin_pause();
        return true;
    }
    /// How many items there were when it came back.
    static void result(std::uint64_t items) noexcept {
        if (items >= enough) {
            pauses_ = std::min(pauses_ * 2, most);
        } else if (items < 2) {
            pauses_ /= 2;
        }
    }
    /// An item came after so many looks.
    static void looked(int times) noexcept {
        if (times <= soon && pauses_ == 0) pauses_ = least;
    }

private:
    static constexpr int soon = 3;
    static constexpr int least = 8;
    static constexpr int most = 128;
    static constexpr std::uint64_t enough = 4;
    static inline thread_local int pauses_ = 0;
};

}  // namespace multiprocessing::shm
