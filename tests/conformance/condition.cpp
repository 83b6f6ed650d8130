// SPDX-License-Identifier: BSL-1.0
#include <multiprocessing/synchronize.hpp>

#include <multiprocessing/sharedctypes.hpp>

#include "conformance/helpers.hpp"
#include "support/catch.hpp"

#include <list>
#include <mutex>
#include <optional>
#include <thread>

namespace mp = multiprocessing;
using namespace support;
using namespace std::chrono_literals;

namespace {

void sleep_and_wake(const mp::Condition& condition, const mp::Semaphore& sleeping,
                    const mp::Semaphore& woken, std::optional<double> timeout) {
    condition.acquire();
    sleeping.release();
    condition.wait(timeout);
    woken.release();
    condition.release();
}

// As CPython's tests do: three processes and three threads.
class Sleepers {
public:
    Sleepers(const std::string& method, const mp::Condition& condition, const mp::Semaphore& sleeping,
             const mp::Semaphore& woken, int of_each, std::optional<double> timeout)
        : children_(method) {
        for (int i = 0; i < of_each; ++i) {
            children_.start(sleep_and_wake, condition, sleeping, woken, timeout);
            threads_.emplace_back(sleep_and_wake, condition, sleeping, woken, timeout);
        }
    }
    bool join() {
        for (auto& thread : threads_) thread.join();
        return children_.join();
    }

private:
    Children children_;
    std::list<std::thread> threads_;
};

// Who has released `sleeping` with the lock is inside wait() when the lock can be had.
void await_asleep(const mp::Condition& condition, const mp::Semaphore& sleeping, int count) {
    for (int i = 0; i < count; ++i) REQUIRE(sleeping.acquire(true, patient));
    const std::lock_guard all_wait(condition);
}

void set_four(const mp::Condition& condition, const mp::Value<int>& state) {
    const std::lock_guard guard(condition);
    state.value() = 0;
    condition.notify();
    EXPECT(condition.wait_for([&] { return state.value() == 4; }, patient));
}

void notify_one(const mp::Condition& condition) {
    const std::lock_guard guard(condition);
    condition.notify();
}

}  // namespace

TEST_CASE("_TestCondition.test_notify", "[condition][conformance]") {
    EVERY_START_METHOD;
    const mp::Condition condition;
    const mp::Semaphore sleeping(0);
    const mp::Semaphore woken(0);
    Sleepers sleepers(method, condition, sleeping, woken, 1, std::nullopt);
    await_asleep(condition, sleeping, 2);
    CHECK_FALSE(woken.acquire(true, timeout2));
    for (int i = 0; i < 2; ++i) {
        notify_one(condition);
        CHECK(woken.acquire(true, patient));
        CHECK_FALSE(woken.acquire(true, timeout2));
    }
    CHECK(sleepers.join());
    CHECK_FALSE(condition.locked());
}

TEST_CASE("_TestCondition.test_notify_all", "[condition][conformance]") {
    EVERY_START_METHOD;
    const mp::Condition condition;
    const mp::Semaphore sleeping(0);
    const mp::Semaphore woken(0);
    {
        Sleepers timed(method, condition, sleeping, woken, 3, 0.1);
        for (int i = 0; i < 6; ++i) CHECK(sleeping.acquire(true, patient));
        for (int i = 0; i < 6; ++i) CHECK(woken.acquire(true, patient));
        CHECK(timed.join());
    }
    Sleepers sleepers(method, condition, sleeping, woken, 3, std::nullopt);
    await_asleep(condition, sleeping, 6);
    CHECK(woken.get_value() == 0);
    {
        const std::lock_guard guard(condition);
        condition.notify_all();
    }
    for (int i = 0; i < 6; ++i) CHECK(woken.acquire(true, patient));
    CHECK(sleepers.join());
}

TEST_CASE("_TestCondition.test_notify_n", "[condition][conformance]") {
    EVERY_START_METHOD;
    const mp::Condition condition;
    const mp::Semaphore sleeping(0);
    const mp::Semaphore woken(0);
    Sleepers sleepers(method, condition, sleeping, woken, 3, std::nullopt);
    await_asleep(condition, sleeping, 6);
    CHECK(woken.get_value() == 0);
    const auto notify = [&](int n) {
        const std::lock_guard guard(condition);
        condition.notify(n);
    };
    notify(2);
    for (int i = 0; i < 2; ++i) CHECK(woken.acquire(true, patient));
    CHECK_FALSE(woken.acquire(true, timeout2));
    notify(4);
    for (int i = 0; i < 4; ++i) CHECK(woken.acquire(true, patient));
    notify(3);  // nobody is left
    CHECK_FALSE(woken.acquire(true, timeout2));
    CHECK(sleepers.join());
}

TEST_CASE("_TestCondition.test_timeout", "[condition][conformance]") {
    const mp::Condition condition;
    const std::lock_guard guard(condition);
    CHECK(elapsed([&] { CHECK_FALSE(condition.wait(timeout1)); }) >= timeout1);
}

TEST_CASE("_TestCondition.test_waitfor", "[condition][conformance]") {
    EVERY_START_METHOD;
    const mp::Condition condition;
    const mp::Value<int> state(-1);
    Children children(method);
    children.start(set_four, condition, state);
    {
        const std::lock_guard guard(condition);
        CHECK(condition.wait_for([&] { return state.value() == 0; }, patient));
    }
    for (int i = 0; i < 4; ++i) {
        const std::lock_guard guard(condition);
        state.value() += 1;
        condition.notify();
    }
    CHECK(children.join());
}

TEST_CASE("_TestCondition.test_waitfor_timeout", "[condition][conformance]") {
    const mp::Condition condition;
    const mp::Value<int> state(0);
    const std::lock_guard guard(condition);
    CHECK(elapsed([&] {
        CHECK_FALSE(condition.wait_for([&] { return state.value() == 4; }, 0.1));
    }) >= 0.1s);
}

TEST_CASE("_TestCondition.test_wait_result", "[condition][conformance]") {
    EVERY_START_METHOD;
    const mp::Condition condition;
    Children children(method);
    const std::lock_guard guard(condition);
    CHECK_FALSE(condition.wait(0));
    CHECK_FALSE(condition.wait(0.01));
    children.start(notify_one, condition);
    CHECK(condition.wait(patient));
    CHECK(children.join());
}
