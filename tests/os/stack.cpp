// SPDX-License-Identifier: BSL-1.0
#include "support/catch.hpp"

#include <multiprocessing/os/stack.hpp>

#include <thread>

namespace os = multiprocessing::os;

TEST_CASE("every thread knows its own stack", "[os][stack]") {
    const auto check = [] {
        const os::StackBounds bounds = os::stack_bounds();
        const auto here = reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0));
        CHECK(bounds.low < here);
        CHECK(here < bounds.high);
        CHECK(os::stack_has_room(4096));
        CHECK_FALSE(os::stack_has_room(here - bounds.low));
    };
    check();
    std::thread(check).join();
}
