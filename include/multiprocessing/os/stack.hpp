// SPDX-License-Identifier: BSL-1.0
//
// How much of the calling thread's stack is left: what recurses as deep as its input says must stop
// before the kernel stops it.
#pragma once

#include <cstddef>
#include <cstdint>

#include <pthread.h>

namespace multiprocessing::os {

/// The lowest and highest address of the calling thread's stack; both 0 where they cannot be known.
struct StackBounds {
    std::uintptr_t low = 0;
    std::uintptr_t high = 0;
};

[[nodiscard]] inline StackBounds stack_bounds() noexcept {
    StackBounds bounds;
    pthread_attr_t attributes;
    if (::pthread_getattr_np(::pthread_self(), &attributes) != 0) return bounds;
    void* low = nullptr;
    std::size_t size = 0;
    if (::pthread_attr_getstack(&attributes, &low, &size) == 0) {
        bounds.low = reinterpret_cast<std::uintptr_t>(low);
        bounds.high = bounds.low + size;
    }
    ::pthread_attr_destroy(&attributes);
    return bounds;
}

/// False when fewer than `reserve` bytes of stack are left. True on a stack that is not the
/// thread's own (a coroutine's), of which nothing is known.
[[nodiscard]] inline bool stack_has_room(std::size_t reserve) noexcept {
    static thread_local const StackBounds bounds = stack_bounds();
    const auto here = reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0));
    return here < bounds.low || here >= bounds.high || here - bounds.low > reserve;
}

}  // namespace multiprocessing::os
