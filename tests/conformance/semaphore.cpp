// SPDX-License-Identifier: BSL-1.0
#include <multiprocessing/synchronize.hpp>

#include "conformance/helpers.hpp"
#include "support/catch.hpp"

namespace mp = multiprocessing;
using namespace support;

namespace {

void count_down_and_up(const mp::Semaphore& semaphore) {
    CHECK(semaphore.get_value() == 2);
    CHECK(semaphore.acquire());
    CHECK(semaphore.get_value() == 1);
    CHECK_FALSE(semaphore.locked());
    CHECK(semaphore.acquire());
    CHECK(semaphore.get_value() == 0);
    CHECK(semaphore.locked());
    CHECK_FALSE(semaphore.acquire(false));
    CHECK(semaphore.get_value() == 0);
    semaphore.release();
    CHECK(semaphore.get_value() == 1);
    semaphore.release();
    CHECK(semaphore.get_value() == 2);
}

}  // namespace

TEST_CASE("_TestSemaphore.test_semaphore", "[semaphore][conformance]") {
    const mp::Semaphore semaphore(2);
    count_down_and_up(semaphore);
    semaphore.release();
    CHECK(semaphore.get_value() == 3);
    semaphore.release();
    CHECK(semaphore.get_value() == 4);
}

TEST_CASE("_TestSemaphore.test_bounded_semaphore", "[semaphore][conformance]") {
    const mp::BoundedSemaphore semaphore(2);
    count_down_and_up(semaphore);
    CHECK_THROWS_AS(semaphore.release(), mp::ValueError);
    CHECK(semaphore.get_value() == 2);
}

TEST_CASE("_TestSemaphore.test_timeout", "[semaphore][conformance]") {
    const mp::Semaphore semaphore(0);
    CHECK(elapsed([&] { CHECK_FALSE(semaphore.acquire(false)); }) < no_time);
    CHECK(elapsed([&] { CHECK_FALSE(semaphore.acquire(false, std::nullopt)); }) < no_time);
    CHECK(elapsed([&] { CHECK_FALSE(semaphore.acquire(false, 20)); }) < no_time);
    CHECK(elapsed([&] { CHECK_FALSE(semaphore.acquire(true, timeout2)); }) >= timeout2);
    CHECK(elapsed([&] { CHECK_FALSE(semaphore.acquire(true, timeout3)); }) >= timeout3);
}
