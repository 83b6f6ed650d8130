// SPDX-License-Identifier: BSL-1.0
#include <multiprocessing/os/clock.hpp>

#include "support/catch.hpp"

#include <chrono>
#include <optional>

namespace mp = multiprocessing;
namespace os = multiprocessing::os;
using namespace std::chrono_literals;

TEST_CASE("a deadline is so much later than its making", "[os][clock]") {
    const auto before = os::Clock::now();
    const os::Deadline deadline(mp::Timeout(1h));
    CHECK_FALSE(deadline.expired());
    CHECK_FALSE(deadline.is_never());
    CHECK_FALSE(deadline.is_passed());
    CHECK(deadline.remaining() <= 1h);
    CHECK(deadline.remaining() > 59min);
    CHECK(os::Deadline::at(before).expired());
    CHECK(os::Deadline(mp::Timeout(std::nullopt)).is_never());
    CHECK(os::Deadline(mp::Timeout(0)).is_passed());
    CHECK(os::Deadline(mp::Timeout(-1)).is_passed());
}

TEST_CASE("a deadline may begin with the first wait", "[os][clock]") {
    auto deadline = os::Deadline::from_first_wait(mp::Timeout(1h));
    CHECK_FALSE(deadline.is_passed());
    CHECK_FALSE(deadline.is_never());
    const auto before = os::Clock::now();
    while (os::Clock::now() == before) {
    }
    deadline.begin();
    CHECK_FALSE(deadline.expired());
    const auto sooner = os::Deadline::at(before + 1min).as_timespec();
    CHECK(deadline.earlier(os::Deadline::at(before + 1min)).as_timespec().tv_sec == sooner.tv_sec);
    CHECK(deadline.remaining() > 59min);
    const auto once = deadline.as_timespec();
    deadline.begin();  // but once
    CHECK(once.tv_nsec == deadline.as_timespec().tv_nsec);

    auto longest = os::Deadline::from_first_wait(mp::Timeout(std::chrono::nanoseconds::max()));
    longest.begin();
    CHECK(longest.is_never());
    auto never = os::Deadline::from_first_wait(mp::Timeout(std::nullopt));
    never.begin();
    CHECK(never.is_never());
    auto passed = os::Deadline::from_first_wait(mp::Timeout(0));
    passed.begin();
    CHECK(passed.is_passed());
}
