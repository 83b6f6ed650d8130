// SPDX-License-Identifier: BSL-1.0
//
// Named places between two steps of what must stand the death of its process there, for tests that
// bring it about (tests/chaos). Nothing at all unless MULTIPROCESSING_FAULT_INJECTION is defined,
// which must then be so in every file of the program.
#pragma once

#if defined(MULTIPROCESSING_FAULT_INJECTION)

#include <atomic>

namespace multiprocessing::os {

/// What this process does at each place it comes by: nothing if null.
inline constinit std::atomic<void (*)(const char* place) noexcept> at_fault_point{nullptr};

inline void pass_fault_point(const char* place) noexcept {
    if (const auto act = at_fault_point.load(std::memory_order_relaxed)) act(place);
}

}  // namespace multiprocessing::os

#define MULTIPROCESSING_FAULT_POINT(place) ::multiprocessing::os::pass_fault_point(place)

#else

#define MULTIPROCESSING_FAULT_POINT(place) static_cast<void>(0)

#endif
