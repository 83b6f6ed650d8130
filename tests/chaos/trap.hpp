// SPDX-License-Identifier: BSL-1.0
//
// What a process does at the fault points it comes by: it writes down which, and dies at one of them.
// Only in programs that are compiled with MULTIPROCESSING_FAULT_INJECTION.
#pragma once

#include <multiprocessing/os/fault.hpp>
#include <multiprocessing/sharedctypes.hpp>

#include "shm/helpers.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <string>
#include <thread>

namespace chaos {

namespace mp = multiprocessing;

/// The places that a process has come by, in order. Zeroed shared memory; the names are literals, at
/// the same addresses in all processes that were forked from one.
struct Trail {
    static constexpr std::size_t most = 8192;
    std::uint64_t length;
    std::array<std::uintptr_t, most> places;

    /// How often it came by each.
    [[nodiscard]] std::map<std::string, std::uint64_t> counts() const {
        std::map<std::string, std::uint64_t> counts;
        for (std::size_t i = 0; i < std::min<std::size_t>(length, most); ++i) {
            ++counts[reinterpret_cast<const char*>(places[i])];
        }
        return counts;
    }
};
using SharedTrail = mp::RawArray<Trail>;

/// Where to die: at `place`, the `pass`th time. An empty place is nowhere.
struct Trap {
    std::string place;
    std::uint64_t pass = 1;
    /// In the meantime others come to stand before what the process holds.
    std::chrono::microseconds linger{0};
};

/// From its making to its end this process, forked, is watched. One at a time.
class Watched {
public:
    Watched(Trail& trail, const Trap& trap) {
        state = {&trail, &trap, 0};
        mp::os::at_fault_point = [](const char* place) noexcept { pass(place); };
    }
    Watched(const Watched&) = delete;
    Watched& operator=(const Watched&) = delete;
    ~Watched() { mp::os::at_fault_point = nullptr; }

private:
    static void pass(const char* place) noexcept {
        Trail& trail = *state.trail;
        if (trail.length < Trail::most) trail.places[trail.length] = reinterpret_cast<std::uintptr_t>(place);
        ++trail.length;
        if (std::strcmp(place, state.trap->place.c_str()) != 0) return;
        if (++state.passed != state.trap->pass) return;
        if (state.trap->linger.count() != 0) std::this_thread::sleep_for(state.trap->linger);
        support::die();
    }

    struct State {
        Trail* trail;
        const Trap* trap;
        std::uint64_t passed;
    };
    static inline State state{};
};

}  // namespace chaos
