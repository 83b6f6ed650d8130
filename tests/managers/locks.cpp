// SPDX-License-Identifier: BSL-1.0
//
// The locks, semaphores, conditions, events and barriers of a manager, also when who has them dies.
#include <multiprocessing/managers.hpp>

#include <multiprocessing/synchronize.hpp>

#include "runtime/helpers.hpp"
#include "shm/helpers.hpp"
#include "support/catch.hpp"

#include <algorithm>
#include <chrono>
#include <csignal>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace mp = multiprocessing;
using namespace std::chrono_literals;
using namespace mp::managers;
using support::ended;
using support::eventually;

namespace {

struct Slow {
    void wait(mp::Event inside, mp::Event go) {
        inside.set();
        go.wait(100);  // longer than the lock is waited for
    }
};

/// A child that takes the lock, says so, and is killed with it.
template <class L>
void take_and_die(const L& lock) {
    const mp::Event taken;
    const mp::Process holder([lock, taken] {
        static_cast<void>(lock.acquire());
        taken.set();
        support::wait_for_signal();
    });
    holder.start();
    REQUIRE(taken.wait(20));
    holder.kill();
    CHECK(ended(holder) == -SIGKILL);
}

}  // namespace

TEST_CASE("a managed lock keeps processes from each other", "[managers]") {
    const auto manager = mp::Manager();
    const LockProxy lock = manager.Lock();
    const auto value = manager.Value<int>(0);
    const auto work = [lock, value] {
        for (int i = 0; i < 100; ++i) {
            const std::scoped_lock guard(lock);
            value.set(value.get() + 1);
        }
    };
    const mp::Process one(work);
    const mp::Process two(work);
    one.start();
    two.start();
    CHECK(ended(one) == 0);
    CHECK(ended(two) == 0);
    CHECK(value.get() == 200);
    CHECK_FALSE(lock.locked());
    CHECK(lock.acquire(false));
    CHECK_FALSE(lock.acquire(false));
    CHECK_FALSE(lock.acquire(0.01));
    CHECK_FALSE(lock.try_lock());
    CHECK_FALSE(lock.try_lock_for(1ms));
    std::thread([&] { lock.release(); }).join();  // anybody may
    CHECK_THROWS_AS(lock.release(), std::runtime_error);
    CHECK(lock.acquire());
}

TEST_CASE("a managed RLock is a thread's, as often as it likes", "[managers]") {
    const auto manager = mp::Manager();
    const RLockProxy lock = manager.RLock();
    CHECK(lock.acquire());
    CHECK(lock.acquire(false));
    std::thread([&] {
        CHECK_FALSE(lock.acquire(false));
        CHECK_THROWS_AS(lock.release(), mp::AssertionError);
    }).join();
    lock.release();
    CHECK(lock.locked());
    lock.release();
    CHECK_FALSE(lock.locked());
    CHECK_THROWS_AS(lock.release(), mp::AssertionError);
}

TEST_CASE("managed semaphores count", "[managers]") {
    const auto manager = mp::Manager();
    const SemaphoreProxy semaphore = manager.Semaphore(2);
    CHECK(semaphore.acquire());
    CHECK(semaphore.acquire());
    CHECK_FALSE(semaphore.acquire(0.001));
    for (int i = 0; i < 4; ++i) semaphore.release();
    CHECK(semaphore.get_value() == 4);
    const SemaphoreProxy bounded = manager.BoundedSemaphore(1);
    CHECK_THROWS_AS(bounded.release(), mp::ValueError);
    CHECK(bounded.acquire());
    bounded.release();
    CHECK(bounded.get_value() == 1);
    CHECK_THROWS_AS(manager.Semaphore(-1), mp::ValueError);
}

TEST_CASE("the locks of a client that is killed are abandoned", "[managers][crash]") {
    const auto manager = mp::Manager();
    const LockProxy lock = manager.Lock();
    take_and_die(lock);
    CHECK(lock.acquire(20));
    CHECK(lock.abandoned());
    lock.release();
    CHECK_FALSE(lock.abandoned());

    const RLockProxy recursive = manager.RLock();
    take_and_die(recursive);
    CHECK(recursive.acquire(20));
    CHECK(recursive.abandoned());
    CHECK(recursive.acquire(false));
    recursive.release();
    recursive.release();
    CHECK_FALSE(recursive.locked());

    const ConditionProxy condition = manager.Condition();
    take_and_die(condition);
    CHECK(condition.acquire(20));
    CHECK(condition.abandoned());
    condition.release();

    const SemaphoreProxy bounded = manager.BoundedSemaphore(1);
    take_and_die(bounded);
    CHECK(bounded.acquire(20));
    bounded.release();
    CHECK_THROWS_AS(bounded.release(), mp::ValueError);
    const SemaphoreProxy signal = manager.Semaphore(1);
    take_and_die(signal);  // it may have been a signal that was taken
    CHECK_FALSE(signal.acquire(0.3));
}

TEST_CASE("a client's locks are abandoned though a call of its goes on", "[managers][crash]") {
    const auto manager = mp::Manager();
    const LockProxy lock = manager.Lock();
    const auto slow = manager.create<Slow>();
    const mp::Event inside;
    const mp::Event go;
    const mp::Process client([lock, slow, inside, go] {
        lock.acquire();
        slow.call<&Slow::wait>(inside, go);
    });
    client.start();
    REQUIRE(inside.wait(20));
    CHECK(manager.number_of_objects() == 2);
    client.kill();
    CHECK(ended(client) == -SIGKILL);
    CHECK(lock.acquire(20));
    CHECK(lock.abandoned());
    go.set();
}

TEST_CASE("who is killed while it waits for a managed lock does not get it", "[managers][crash]") {
    const auto manager = mp::Manager();
    const LockProxy lock = manager.Lock();
    REQUIRE(lock.acquire());
    const mp::Event waits;
    const mp::Process waiter([lock, waits] {
        waits.set();
        static_cast<void>(lock.acquire());
    });
    waiter.start();
    REQUIRE(waits.wait(20));
    waiter.kill();
    CHECK(ended(waiter) == -SIGKILL);
    lock.release();
    // It may take a moment until the server has seen the death.
    CHECK(lock.acquire(20));
}

TEST_CASE("a managed condition wakes those who wait, the first one first", "[managers]") {
    const auto manager = mp::Manager();
    const ConditionProxy condition = manager.Condition();
    const auto woken = manager.list<int>();
    const auto waiting = manager.Value<int>(0);
    std::vector<std::thread> threads;
    for (int i = 0; i < 3; ++i) {
        threads.emplace_back([&, i] {
            const std::scoped_lock guard(condition);
            waiting.set(waiting.get() + 1);
            CHECK(condition.wait(20));
            woken.append(i);
        });
        CHECK(eventually([&] { return waiting.get() == i + 1; }));
    }
    const auto notify = [&](std::uint64_t n) {
        const std::scoped_lock guard(condition);
        condition.notify(n);
    };
    notify(1);
    CHECK(eventually([&] { return woken.size() == 1; }));
    CHECK(woken[0] == 0);
    notify(2);
    for (std::thread& each : threads) each.join();
    CHECK(woken.size() == 3);
    CHECK_THROWS_AS(condition.notify(), mp::AssertionError);
    CHECK_THROWS_AS(condition.wait(0), mp::AssertionError);
    const std::scoped_lock guard(condition);
    CHECK_FALSE(condition.wait(0.01));
    CHECK(condition.wait_for([] { return true; }));
    CHECK_FALSE(condition.wait_for([] { return false; }, 0.01));
    CHECK(condition.try_lock());  // its lock is an RLock
    condition.unlock();
}

TEST_CASE("a managed condition may be of a lock that is there", "[managers]") {
    const auto manager = mp::Manager();
    const LockProxy lock = manager.Lock();
    const ConditionProxy condition = manager.Condition(lock);
    REQUIRE(lock.acquire());
    CHECK_FALSE(condition.acquire(false));
    CHECK_FALSE(condition.wait(0.01));
    condition.release();
    CHECK_FALSE(lock.locked());
    const RLockProxy recursive = manager.RLock();
    const ConditionProxy other = manager.Condition(recursive);
    REQUIRE(recursive.acquire());
    REQUIRE(recursive.acquire());
    std::thread waker([&] {
        const std::scoped_lock guard(other);  // which it cannot have before the other waits
        other.notify_all();
    });
    CHECK(other.wait(20));
    waker.join();
    recursive.release();
    recursive.release();
}

TEST_CASE("a notification of who was killed in its wait is for the next", "[managers][crash]") {
    const auto manager = mp::Manager();
    const ConditionProxy condition = manager.Condition();
    const auto waiting = manager.Value<int>(0);
    const auto wait = [condition, waiting] {
        const std::scoped_lock guard(condition);
        waiting.set(waiting.get() + 1);
        if (!condition.wait(20)) mp::exit(3);
    };
    const mp::Process first(wait);
    first.start();
    CHECK(eventually([&] { return waiting.get() == 1; }));
    const mp::Process second(wait);
    second.start();
    CHECK(eventually([&] { return waiting.get() == 2; }));
    {
        const std::scoped_lock guard(condition);  // so both do wait
        first.kill();
        CHECK(ended(first) == -SIGKILL);
        condition.notify();
        condition.notify();
    }
    CHECK(ended(second) == 0);
}

TEST_CASE("a managed event wakes all who wait for it", "[managers]") {
    const auto manager = mp::Manager();
    const EventProxy event = manager.Event();
    CHECK_FALSE(event.is_set());
    CHECK_FALSE(event.wait(0.01));
    const mp::Process waiter([event] {
        if (!event.wait(20)) mp::exit(3);
    });
    waiter.start();
    event.set();
    event.clear();
    event.set();
    CHECK(ended(waiter) == 0);
    CHECK(event.wait());
}

TEST_CASE("a managed barrier lets parties through together, or none", "[managers]") {
    const auto manager = mp::Manager();
    const auto passed = manager.Value<int>(0);
    const BarrierProxy barrier = manager.Barrier(
        3, mp::partial([](const ValueProxy<int>& count) { count.set(count.get() + 1); }, passed));
    std::vector<int> places(3, -1);
    for (int round = 1; round <= 3; ++round) {
        std::vector<std::thread> threads;
        for (auto& place : places) threads.emplace_back([&] { place = barrier.wait(); });
        for (std::thread& each : threads) each.join();
        std::sort(places.begin(), places.end());
        CHECK(places == std::vector{0, 1, 2});
        CHECK(passed.get() == round);
    }
    CHECK(barrier.n_waiting() == 0);
    CHECK(barrier.parties() == 3);
    CHECK_THROWS_AS(barrier.wait(0.01), mp::BrokenBarrierError);
    CHECK(barrier.broken());
    CHECK_THROWS_AS(barrier.wait(), mp::BrokenBarrierError);
    barrier.reset();
    CHECK_FALSE(barrier.broken());
    std::thread waits([&] { CHECK_THROWS_AS(barrier.wait(), mp::BrokenBarrierError); });
    CHECK(eventually([&] { return barrier.n_waiting() == 1; }));
    barrier.abort();
    waits.join();
    CHECK(barrier.broken());
    CHECK_THROWS_AS(manager.Barrier(0), mp::ValueError);
    const BarrierProxy brief = manager.Barrier({.parties = 2, .timeout = 0.01});
    CHECK_THROWS_AS(brief.wait(), mp::BrokenBarrierError);
    const BarrierProxy failing =
        manager.Barrier(1, [] { throw std::runtime_error("not through here"); });
    CHECK_THROWS_AS(failing.wait(), std::runtime_error);
    CHECK(failing.broken());
}

TEST_CASE("a party that is killed while it waits breaks a managed barrier", "[managers][crash]") {
    const auto manager = mp::Manager();
    const BarrierProxy barrier = manager.Barrier(3);
    const mp::Process party([barrier] { static_cast<void>(barrier.wait()); });
    party.start();
    CHECK(eventually([&] { return barrier.n_waiting() == 1; }));
    std::thread other([&] { CHECK_THROWS_AS(barrier.wait(), mp::BrokenBarrierError); });
    CHECK(eventually([&] { return barrier.n_waiting() == 2; }));
    party.kill();
    CHECK(ended(party) == -SIGKILL);
    other.join();
}

TEST_CASE("a managed queue blocks, ends and is drained as a mp::Queue is", "[managers]") {
    const auto manager = mp::Manager();
    const auto queue = manager.Queue<int>(2);
    queue.put(1);
    queue.put_nowait(2);
    CHECK(queue.full());
    CHECK_THROWS_AS(queue.put(3, false), mp::Full);
    CHECK_THROWS_AS(queue.put(3, 10ms), mp::Full);
    CHECK_FALSE(queue.try_put(3));
    CHECK(queue.get(true, 1) == 1);
    CHECK(queue.try_get() == 2);
    CHECK(queue.try_get() == std::nullopt);
    CHECK_THROWS_AS(queue.get_nowait(), mp::Empty);
    CHECK_THROWS_AS(queue.get(0.01), mp::Empty);
    const mp::Process producer([queue] {
        queue.put_many({1, 2, 3, 4, 5});  // more than there is room for
        queue.shutdown();
    });
    producer.start();
    std::vector<int> all;
    for (const int x : queue) all.push_back(x);
    CHECK(all == std::vector{1, 2, 3, 4, 5});
    CHECK(ended(producer) == 0);
    CHECK_THROWS_AS(queue.put(1), mp::ShutDown);
    CHECK_THROWS_AS(queue.get(), mp::ShutDown);

    const auto joinable = manager.JoinableQueue<std::string>();
    joinable.put("x");
    CHECK_FALSE(joinable.join(0.01));
    CHECK(joinable.get_many(10, 1) == std::vector<std::string>{"x"});
    CHECK(joinable.get_many(10, 0.01).empty());
    joinable.task_done();
    CHECK(joinable.join());
    CHECK_THROWS_AS(joinable.task_done(), mp::ValueError);
}

TEST_CASE("a client that is killed in a get of a managed queue leaves the queue to others",
          "[managers][crash]") {
    const auto manager = mp::Manager();
    const auto queue = manager.Queue<int>();
    const mp::Event waits;
    const mp::Process consumer([queue, waits] {
        waits.set();
        static_cast<void>(queue.get());
    });
    consumer.start();
    REQUIRE(waits.wait(20));
    consumer.kill();
    CHECK(ended(consumer) == -SIGKILL);
    queue.put(1);
    queue.put(2);  // at most one of them went to the dead
    CHECK(queue.get(20) >= 1);
}

TEST_CASE("a managed pool works for whoever has its proxy", "[managers][pool]") {
    const auto manager = mp::Manager();
    const PoolProxy pool = manager.Pool({.processes = 2, .initializer = [] {}});
    const auto square = [](int x) { return x * x; };
    CHECK(pool.apply(square, 3) == 9);
    CHECK(pool.map(square, {1, 2, 3}) == std::vector{1, 4, 9});
    CHECK(pool.starmap([](int a, int b) { return a * b; },
                       std::vector<std::pair<int, int>>{{1, 2}, {3, 4}}) == std::vector{2, 12});
    const auto later = pool.apply_async(square, 4);
    later.wait(20);
    CHECK(later.ready());
    CHECK(later.successful());
    CHECK(later.get() == 16);
    int sum = 0;
    for (const int each : pool.imap(square, std::vector{1, 2, 3})) sum += each;
    for (const int each : pool.imap_unordered(square, std::vector{1, 2, 3}, 2)) sum += each;
    CHECK(sum == 28);
    const auto failing = pool.imap([](int x) {
        if (x == 2) throw std::out_of_range("two");
        return x;
    }, std::vector{1, 2, 3});
    CHECK(failing.next(20) == 1);
    CHECK_THROWS_AS(failing.next(20), std::out_of_range);
    CHECK(failing.next(20) == 3);
    CHECK_THROWS_AS(failing.next(20), mp::StopIteration);
    CHECK_THROWS_AS(pool.apply([](int x) -> int { throw mp::Empty(std::to_string(x)); }, 1), mp::Empty);
    const auto never = pool.apply_async([] { support::wait_for_signal(); });
    CHECK_THROWS_AS(never.get(0.01), mp::TimeoutError);
    CHECK(never.cancel());
    const mp::Process other([pool, square] {
        if (pool.map_async(square, std::vector{5}).get() != std::vector{25}) mp::exit(3);
    });
    CHECK(support::run(other) == 0);
    pool.close();
    pool.join();
    CHECK_THROWS_AS(pool.apply(square, 1), mp::ValueError);
    CHECK_THROWS_AS(manager.Pool(0), mp::ValueError);
}
