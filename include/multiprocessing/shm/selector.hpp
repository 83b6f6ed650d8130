// SPDX-License-Identifier: BSL-1.0
//
// Waiting for several rings at once: each ring keeps a set of bits of who wants to be told, and who
// waits sleeps at a word of the arena's that its bit names. Nothing has to be taken back when a waiter
// dies: its bit costs one wake-up for nobody.
#pragma once

#include <multiprocessing/shm/arena.hpp>
#include <multiprocessing/shm/processes.hpp>
#include <multiprocessing/shm/ring.hpp>
#include <multiprocessing/shm/wait.hpp>

#include <algorithm>
#include <cstddef>
#include <span>
#include <tuple>

namespace multiprocessing::shm {

/// Waits until one of the rings has an item or is shut down; false at the deadline.
inline bool wait_for_any(std::span<Ring* const> rings, os::Deadline deadline) {
    const auto ready = [&] {
        return std::any_of(rings.begin(), rings.end(), [](Ring* ring) { return ring->settled(); });
    };
    if (ready()) return true;
    if (deadline.expired()) return false;
    if (Spin::until(ready)) return true;
    const std::size_t word = self() % std::tuple_size_v<SelectorWords>;
    const auto tell = [&] {
        for (Ring* ring : rings) ring->tell_selector(word);
    };
    WaitWord& waiting = Arena::instance().header().selectors[word];
    Lookout alone;  // the others at this word wait for other rings
    return waiting.sleep_until(ready, tell, deadline, [] {}, Naps::long_ones(alone));
}

}  // namespace multiprocessing::shm
