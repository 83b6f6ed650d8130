// SPDX-License-Identifier: BSL-1.0
#include <multiprocessing/synchronize.hpp>

#include "conformance/helpers.hpp"
#include "support/catch.hpp"

#include <mutex>

namespace mp = multiprocessing;
using namespace support;

namespace {

template <class L>
void hold(const L& lock, const mp::Event& held, const mp::Event& may_end) {
    lock.acquire();
    held.set();
    may_end.wait(patient);
    lock.release();
}

}  // namespace

TEST_CASE("_TestLock.test_lock", "[lock][conformance]") {
    const mp::Lock lock;
    CHECK_FALSE(lock.locked());
    CHECK(lock.acquire());
    CHECK(lock.locked());
    CHECK_FALSE(lock.acquire(false));
    lock.release();
    CHECK_FALSE(lock.locked());
    CHECK_THROWS_AS(lock.release(), mp::ValueError);
    CHECK_THROWS_WITH(lock.release(), Catch::Matchers::ContainsSubstring(
                                          "semaphore or lock released too many times"));
}

TEST_CASE("_TestLock.test_lock_locked_2processes", "[lock][conformance]") {
    EVERY_START_METHOD;
    const mp::Lock lock;
    const mp::Event held;
    const mp::Event may_end;
    Children children(method);
    children.start(hold<mp::Lock>, lock, held, may_end);
    CHECK(held.wait(patient));
    CHECK(lock.locked());
    may_end.set();
    CHECK(children.join());
    CHECK_FALSE(lock.locked());
}

TEST_CASE("_TestLock.test_rlock", "[lock][conformance]") {
    const mp::RLock lock;
    CHECK_FALSE(lock.locked());
    for (int i = 0; i < 3; ++i) {
        CHECK(lock.acquire());
        CHECK(lock.locked());
    }
    for (int i = 0; i < 3; ++i) {
        CHECK(lock.locked());
        lock.release();
    }
    CHECK_FALSE(lock.locked());
    CHECK_THROWS_AS(lock.release(), mp::AssertionError);
    CHECK_THROWS_WITH(lock.release(),
                      Catch::Matchers::ContainsSubstring(
                          "attempt to release recursive lock not owned by thread"));
}

TEST_CASE("_TestLock.test_rlock_locked_2processes", "[lock][conformance]") {
    EVERY_START_METHOD;
    const mp::RLock lock;
    const mp::Event held;
    const mp::Event may_end;
    Children children(method);
    children.start(hold<mp::RLock>, lock, held, may_end);
    CHECK(held.wait(patient));
    CHECK(lock.locked());
    CHECK_FALSE(lock.acquire(false));
    CHECK_THROWS_AS(lock.release(), mp::AssertionError);
    may_end.set();
    CHECK(children.join());
    CHECK_FALSE(lock.locked());
}

TEST_CASE("_TestLock.test_lock_context", "[lock][conformance]") {
    const mp::Lock lock;
    {
        const std::lock_guard guard(lock);
        CHECK(lock.locked());
    }
    CHECK_FALSE(lock.locked());
}

TEST_CASE("_TestLock.test_rlock_context", "[lock][conformance]") {
    const mp::RLock lock;
    {
        const std::lock_guard outer(lock);
        const std::lock_guard inner(lock);
        CHECK(lock.locked());
    }
    CHECK_FALSE(lock.locked());
}
