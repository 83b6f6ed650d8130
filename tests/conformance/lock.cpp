// SPDX-License-Identifier: BSL-1.0
#include <multiprocessing/synchronize.hpp>

#include <multiprocessing/queues.hpp>

#include "conformance/helpers.hpp"
#include "support/catch.hpp"

#include <mutex>
#include <sstream>
#include <string>
#include <thread>

#include <pthread.h>

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

template <class T>
std::string repr(const T& object) {
    std::ostringstream out;
    out << object;
    return out.str();
}

/// Runs `f` in a thread of that name.
template <class F>
void in_thread(const std::string& name, F f) {
    std::thread([&] {
        ::pthread_setname_np(::pthread_self(), name.c_str());
        f();
    }).join();
}

/// Says what the lock prints as when it has been taken so often, and keeps it.
template <class L>
void acquire(const L& lock, const mp::Queue<std::string>& said, int times) {
    for (int i = 0; i < times; ++i) lock.acquire();
    said.put(repr(lock));
}

}  // namespace

TEST_CASE("_TestLock.test_repr_lock", "[lock][conformance]") {
    EVERY_START_METHOD;
    const mp::Context context = mp::get_context(method);
    const mp::Lock lock;
    CHECK(repr(lock) == "<Lock(owner=None)>");
    lock.acquire();
    CHECK(repr(lock) == "<Lock(owner=MainProcess)>");
    lock.release();
    in_thread("T1", [&] {
        lock.acquire();
        CHECK(repr(lock) == "<Lock(owner=MainProcess|T1)>");
    });
    CHECK(repr(lock) == "<Lock(owner=SomeOtherThread)>");
    lock.release();

    const mp::Queue<std::string> said;
    const mp::Process ends = context.Process({.name = "P1"}, acquire<mp::Lock>, lock, said, 1);
    ends.start();
    CHECK(said.get(patient) == "<Lock(owner=P1)>");
    ends.join();
    CHECK(ends.exitcode() == 0);

    const mp::Lock held;
    const mp::Event is_held;
    const mp::Process holds =
        context.Process({.name = "P2"}, hold<mp::Lock>, held, is_held, mp::Event());
    holds.start();
    CHECK(is_held.wait(patient));
    CHECK(repr(held) == "<Lock(owner=SomeOtherProcess)>");
    holds.terminate();
    holds.join();
}

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

TEST_CASE("_TestLock.test_repr_rlock", "[lock][conformance]") {
    EVERY_START_METHOD;
    const mp::Context context = mp::get_context(method);
    const mp::RLock lock;
    constexpr int times = 3;
    CHECK(repr(lock) == "<RLock(None, 0)>");
    for (int i = 0; i < times; ++i) lock.acquire();
    CHECK(repr(lock) == "<RLock(MainProcess, 3)>");
    for (int i = 0; i < times; ++i) lock.release();
    for (int depth = 1; depth <= times; ++depth) {
        in_thread("T" + std::to_string(depth), [&] {
            for (int i = 0; i < depth; ++i) lock.acquire();
            const std::string count = std::to_string(depth);
            CHECK(repr(lock) == "<RLock(MainProcess|T" + count + ", " + count + ")>");
            for (int i = 0; i < depth; ++i) lock.release();
        });
    }
    const mp::RLock of_a_thread;
    in_thread("T", [&] { of_a_thread.acquire(); });
    CHECK(repr(of_a_thread) == "<RLock(SomeOtherThread, nonzero)>");

    const mp::Queue<std::string> said;
    const mp::Process ends = context.Process({.name = "P1"}, acquire<mp::RLock>, lock, said, 1);
    ends.start();
    CHECK(said.get(patient) == "<RLock(P1, 1)>");
    ends.join();
    CHECK(ends.exitcode() == 0);
    CHECK(repr(lock) == "<RLock(SomeOtherProcess, nonzero)>");
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
