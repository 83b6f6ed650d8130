// SPDX-License-Identifier: BSL-1.0
#include <multiprocessing/shm/condition.hpp>

#include "shm/helpers.hpp"
#include "support/catch.hpp"

#include <chrono>
#include <memory>
#include <thread>
#include <vector>

using namespace support;
using namespace std::chrono_literals;

namespace {

// A condition with its lock, and a count of those who are inside wait(), which whoever has the lock
// can rely on.
struct Monitor {
    shm::ConditionState condition;  // first, for its waiters hang on its block
    shm::UserLock lock;
    std::uint32_t waiting = 0;
    std::uint32_t woken = 0;

    explicit Monitor(bool recursive = true) : lock(recursive) {}

    bool wait(os::Deadline deadline) {
        lock.acquire(os::Deadline::never());
        ++waiting;
        const bool notified = condition.wait(lock, deadline);
        --waiting;
        if (notified) ++woken;
        lock.release();
        return notified;
    }
    bool await_waiting(std::uint32_t count) {
        return eventually([&] {
            lock.acquire(os::Deadline::never());
            const bool there = waiting == count;
            lock.release();
            return there;
        });
    }
    std::uint64_t notify(std::uint64_t count) {
        lock.acquire(os::Deadline::never());
        const auto woke = condition.notify(lock, count);
        lock.release();
        return woke;
    }
};

using Children = std::vector<std::unique_ptr<Child>>;

Children wait_in_children(const shm::Shared<Monitor>& monitor, int count) {
    Children children;
    for (int i = 0; i < count; ++i) {
        children.push_back(std::make_unique<Child>([&] { return monitor->wait(soon()); }));
    }
    return children;
}

}  // namespace

TEST_CASE("notify(n) wakes n that wait and no other", "[shm][condition]") {
    const NoLeak leak;
    {
        const auto monitor = shm::Shared<Monitor>::make(0, GENERATE(false, true));
        CHECK(monitor->notify(1) == 0);  // nobody waits: it is not kept
        Children children = wait_in_children(monitor, 4);
        bool thread_woken = false;
        std::thread thread([&] { thread_woken = monitor->wait(soon()); });
        REQUIRE(monitor->await_waiting(5));
        CHECK(monitor->notify(2) == 2);
        CHECK(monitor->await_waiting(3));
        CHECK(monitor->notify(0) == 0);
        CHECK(monitor->notify(100) == 3);
        CHECK(monitor->await_waiting(0));
        for (auto& child : children) CHECK(child->wait() == 0);
        thread.join();
        CHECK(thread_woken);
        CHECK(monitor->woken == 5);
        CHECK(monitor->notify(1) == 0);
    }
    CHECK(leak.leaked() == 0);
}

TEST_CASE("who gives up waiting is off the list, wherever it stood", "[shm][condition]") {
    const NoLeak leak;
    {
        const auto monitor = shm::Shared<Monitor>::make(0);
        CHECK_FALSE(monitor->wait(os::Deadline::passed()));
        CHECK_FALSE(monitor->wait(os::Deadline::after(5ms)));
        Children first = wait_in_children(monitor, 1);
        REQUIRE(monitor->await_waiting(1));
        CHECK_FALSE(monitor->wait(os::Deadline::after(5ms)));  // the last
        const auto stage = make_stage();
        Child middle([&] {
            stage->reach(1);
            return !monitor->wait(os::Deadline::after(100ms));
        });
        REQUIRE(monitor->await_waiting(2));
        Children last = wait_in_children(monitor, 1);
        CHECK(middle.wait() == 0);
        REQUIRE(monitor->await_waiting(2));
        CHECK(monitor->notify(10) == 2);
        CHECK(first[0]->wait() == 0);
        CHECK(last[0]->wait() == 0);
    }
    CHECK(leak.leaked() == 0);
}

TEST_CASE("a recursive lock is let go whole while waiting", "[shm][condition]") {
    const auto monitor = shm::Shared<Monitor>::make(0);
    monitor->lock.acquire(os::Deadline::never());
    monitor->lock.acquire(os::Deadline::never());
    Child child([&] { return monitor->notify(1) == 1; });
    CHECK(monitor->condition.wait(monitor->lock, soon()));
    CHECK(monitor->lock.release());
    CHECK(monitor->lock.release());
    CHECK_FALSE(monitor->lock.locked());
    CHECK(child.wait() == 0);
}

TEST_CASE("who is notified and killed before it can see that leaves nothing",
          "[shm][condition][crash]") {
    const NoLeak leak;
    const auto monitor = shm::Shared<Monitor>::make(0);
    const auto without_waiters = leak.leaked();
    Children doomed = wait_in_children(monitor, 1);
    REQUIRE(monitor->await_waiting(1));
    ::kill(doomed[0]->pid(), SIGSTOP);
    siginfo_t stopped{};
    REQUIRE(::waitid(P_PID, static_cast<id_t>(doomed[0]->pid()), &stopped, WSTOPPED) == 0);
    CHECK(monitor->notify(1) == 1);
    CHECK(doomed[0]->kill_and_wait() == -SIGKILL);
    CHECK(eventually([&] { return monitor->notify(1) == 0 && leak.leaked() == without_waiters; }));
}

TEST_CASE("what one was told who is killed before it can see that is told to the next",
          "[shm][condition][crash]") {
    const NoLeak leak;
    const auto monitor = shm::Shared<Monitor>::make(0);
    const auto without_waiters = leak.leaked();
    Children waiters = wait_in_children(monitor, 1);
    REQUIRE(monitor->await_waiting(1));
    const bool another_dies = GENERATE(false, true);
    if (another_dies) {
        waiters.push_back(std::move(wait_in_children(monitor, 1)[0]));
        REQUIRE(monitor->await_waiting(2));
    }
    Children heirs = wait_in_children(monitor, 1);
    REQUIRE(monitor->await_waiting(another_dies ? 3 : 2));
    monitor->lock.acquire(soon());
    CHECK(monitor->condition.notify(monitor->lock, 1) == 1);
    for (auto& doomed : waiters) doomed->kill_and_wait();  // it could not have the lock
    monitor->waiting -= static_cast<std::uint32_t>(waiters.size());
    monitor->lock.release();
    SECTION("which waits") {
        CHECK(heirs[0]->wait() == 0);
        CHECK(monitor->woken == 1);
        CHECK(eventually([&] { return monitor->notify(1) == 0 && leak.leaked() == without_waiters; }));
    }
    SECTION("but not to who comes later") {
        heirs[0]->kill_and_wait();
        monitor->lock.acquire(soon());
        monitor->waiting = 0;
        monitor->lock.release();
        CHECK_FALSE(monitor->wait(os::Deadline::after(200ms)));
    }
}

TEST_CASE("the dead take no notification", "[shm][condition][crash]") {
    const NoLeak leak;
    {
        const auto monitor = shm::Shared<Monitor>::make(0);
        Children doomed = wait_in_children(monitor, 3);
        REQUIRE(monitor->await_waiting(3));
        Children survivors = wait_in_children(monitor, 1);
        REQUIRE(monitor->await_waiting(4));
        // Reaped or not.
        doomed[0]->kill_and_wait();
        doomed[1]->kill_and_wait();
        doomed[2]->kill();
        static_cast<void>(doomed[2]->end());
        CHECK(monitor->notify(1) == 1);
        CHECK(survivors[0]->wait() == 0);
    }
    CHECK(leak.leaked() == 0);
}

TEST_CASE("one killed between notification and lock leaves nothing", "[shm][condition][crash]") {
    const NoLeak leak;
    {
        const auto monitor = shm::Shared<Monitor>::make(0);
        Children doomed = wait_in_children(monitor, 1);
        REQUIRE(monitor->await_waiting(1));
        monitor->lock.acquire(os::Deadline::never());
        CHECK(monitor->condition.notify(monitor->lock, 1) == 1);
        doomed[0]->kill_and_wait();
        CHECK(monitor->condition.notify(monitor->lock, 1) == 0);
        monitor->lock.release();
    }
    CHECK(leak.leaked() == 0);
}

TEST_CASE("a notifier that is killed with the lock holds nobody up", "[shm][condition][crash]") {
    const auto monitor = shm::Shared<Monitor>::make(0);
    Children waiters = wait_in_children(monitor, 2);
    REQUIRE(monitor->await_waiting(2));
    Child notifier([&] {
        monitor->lock.acquire(os::Deadline::never());
        monitor->condition.notify(monitor->lock, 1);
        die();
    });
    CHECK(notifier.wait() == -SIGKILL);
    CHECK(monitor->await_waiting(1));
    CHECK(monitor->notify(5) == 1);
    for (auto& child : waiters) CHECK(child->wait() == 0);
}

TEST_CASE("waiters and notifiers killed at any moment leave a condition that works",
          "[shm][condition][crash]") {
    const NoLeak leak;
    {
        const auto monitor = shm::Shared<Monitor>::make(0);
        const auto stage = make_stage();
        for (std::uint32_t round = 1; round <= 30; ++round) {
            Child waiter([&] {
                stage->reach(2 * round - 1);
                for (;;) monitor->wait(os::Deadline::after(1ms));
            });
            Child notifier([&] {
                stage->await(2 * round - 1);
                stage->reach(2 * round);
                for (;;) monitor->notify(2);
            });
            REQUIRE(stage->await(2 * round));
            for (std::uint32_t i = 0; i < round * 100; ++i) os::spin_pause();
            (round % 2 == 0 ? waiter : notifier).kill();
            waiter.kill_and_wait();
            notifier.kill_and_wait();
            // Who was killed when it had been woken is not counted out.
            monitor->lock.acquire(soon());
            monitor->waiting = 0;
            monitor->lock.release();
            Children last = wait_in_children(monitor, 1);
            REQUIRE(monitor->await_waiting(1));
            REQUIRE(monitor->notify(1) == 1);
            REQUIRE(last[0]->wait() == 0);
        }
    }
    CHECK(leak.leaked() == 0);
}
