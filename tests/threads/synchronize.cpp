// SPDX-License-Identifier: BSL-1.0
//
// The primitives of synchronisation used by the threads of one process. What they guard is plain
// memory, so that ThreadSanitizer sees whether they order anything.
#include <multiprocessing/synchronize.hpp>

#include <multiprocessing/sharedctypes.hpp>

#include "conformance/helpers.hpp"
#include "support/catch.hpp"
#include "threads/crowd.hpp"

#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <numeric>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace mp = multiprocessing;
using namespace std::chrono_literals;
using support::crowd;
using support::patient;
using support::run_together;

TEMPLATE_TEST_CASE("threads exclude each other", "[threads][lock][semaphore][condition]", mp::Lock,
                   mp::RLock, mp::Semaphore, mp::BoundedSemaphore, mp::Condition, mp::Value<int>,
                   mp::Array<int>) {
    const TestType mutex = [] {
        if constexpr (std::same_as<TestType, mp::Array<int>>) {
            return TestType(1);
        } else {
            return TestType();
        }
    }();
    constexpr int times = 2000;
    int count = 0;
    std::atomic<int> taken{0};
    run_together([&](int i) {
        for (int n = 0; n < times; ++n) {
            switch ((n + i) % 4) {
            case 0: mutex.acquire(); break;
            case 1:
                while (!mutex.try_lock()) std::this_thread::yield();
                break;
            case 2:
                while (!mutex.acquire(true, 1ms)) {
                }
                break;
            default: mutex.lock();
            }
            ++count;
            mutex.release();
            ++taken;
        }
    });
    CHECK(count == crowd * times);
    CHECK(taken == crowd * times);
}

TEST_CASE("a thread's recursive lock is no other thread's", "[threads][lock]") {
    const mp::RLock lock;
    int count = 0;
    std::atomic<int> refused{0};
    run_together([&](int) {
        for (int n = 0; n < 500; ++n) {
            try {
                lock.release();
            } catch (const mp::AssertionError&) {
                ++refused;
            }
            const std::scoped_lock outer(lock);
            const std::scoped_lock inner(lock);
            ++count;
        }
    });
    CHECK(count == crowd * 500);
    CHECK(refused == crowd * 500);
    CHECK_FALSE(lock.locked());
}

TEST_CASE("a lock is handed from thread to thread", "[threads][lock]") {
    const mp::Lock ping;
    const mp::Lock pong;
    pong.acquire();
    int value = 0;
    std::thread other([&] {
        for (int n = 0; n < 500; ++n) {
            pong.acquire();
            ++value;
            ping.release();
        }
    });
    for (int n = 0; n < 500; ++n) {
        ping.acquire();
        ++value;
        pong.release();
    }
    other.join();
    CHECK(value == 1000);
}

TEST_CASE("what comes before a release is seen after an acquire", "[threads][semaphore]") {
    const bool bounded = GENERATE(false, true);
    constexpr int slots = 8;
    const mp::Semaphore filled(0);
    const mp::Semaphore free = bounded ? mp::BoundedSemaphore(slots) : mp::Semaphore(slots);
    std::array<int, slots> ring{};
    constexpr int items = 3000;
    long sum = 0;
    std::thread taker([&] {
        for (int n = 0; n < items; ++n) {
            filled.acquire();
            sum += ring[static_cast<std::size_t>(n % slots)];
            free.release();
        }
    });
    for (int n = 0; n < items; ++n) {
        free.acquire();
        ring[static_cast<std::size_t>(n % slots)] = n;
        filled.release();
    }
    taker.join();
    CHECK(sum == long{items} * (items - 1) / 2);
    CHECK(free.get_value() == slots);
}

TEST_CASE("threads wait on a condition", "[threads][condition]") {
    const mp::Lock lock;
    const mp::RLock rlock;
    const bool recursive = GENERATE(false, true);
    const mp::Condition condition = recursive ? mp::Condition(rlock) : mp::Condition(lock);
    const mp::Condition end = recursive ? mp::Condition(rlock) : mp::Condition(lock);
    std::deque<int> items;
    long sum = 0;
    int left = 0;
    constexpr int each = 500;
    run_together(2 * crowd, [&](int i) {
        if (i % 2 == 0) {
            for (int n = 0; n < each; ++n) {
                const std::lock_guard guard(condition);
                items.push_back(n);
                condition.notify();
            }
        } else {
            for (int n = 0; n < each; ++n) {
                const std::lock_guard guard(condition);
                if (n % 3 == 0) {
                    while (items.empty()) condition.wait(1ms);
                } else {
                    condition.wait_for([&] { return !items.empty(); });
                }
                sum += items.front();
                items.pop_front();
            }
            const std::lock_guard guard(condition);
            if (++left == crowd) end.notify_all();
            end.wait_for([&] { return left == crowd; });
        }
    });
    CHECK(items.empty());
    CHECK(sum == long{crowd} * each * (each - 1) / 2);
}

TEST_CASE("the standard's condition variable over a lock", "[threads][lock][condition]") {
    mp::Lock lock;
    mp::RLock rlock;
    std::condition_variable_any condition;
    int turn = 0;
    int count = 0;
    run_together([&](int i) {
        for (int n = 0; n < 200; ++n) {
            std::unique_lock guard(lock);
            condition.wait(guard, [&] { return turn == i; });
            turn = (turn + 1) % crowd;
            condition.notify_all();
        }
        std::unique_lock guard(rlock, std::defer_lock);
        while (!guard.try_lock_for(1s)) {
        }
        ++count;
        condition.notify_all();
        CHECK(condition.wait_for(guard, 30s, [&] { return count == crowd; }));
    });
    CHECK(turn == 0);
}

TEST_CASE("what comes before set() is seen by all that wait", "[threads][event]") {
    const mp::Event event;
    const mp::Barrier round(crowd);
    int value = 0;
    std::atomic<int> right{0};
    constexpr int rounds = 300;
    run_together([&](int i) {
        for (int n = 1; n <= rounds; ++n) {
            if (i == 0) {
                value = n;
                event.set();
            } else {
                event.wait();
            }
            right += value == n ? 1 : 0;
            round.wait();
            if (i == 0) event.clear();
            round.wait();
        }
    });
    CHECK(right == crowd * rounds);
}

TEST_CASE("threads meet at a barrier", "[threads][barrier]") {
    constexpr int rounds = 300;
    std::array<int, crowd> mine{};
    int sum = 0;
    const mp::Barrier barrier(crowd, [&] { sum = std::accumulate(mine.begin(), mine.end(), 0); });
    std::atomic<int> zeros{0};
    std::atomic<int> wrong{0};
    run_together([&](int i) {
        for (int n = 1; n <= rounds; ++n) {
            mine[static_cast<std::size_t>(i)] = n;
            zeros += barrier.wait(patient) == 0 ? 1 : 0;
            if (sum != crowd * n) ++wrong;
            barrier.wait(patient);
        }
    });
    CHECK(wrong == 0);
    CHECK(zeros <= 2 * rounds);
    CHECK_FALSE(barrier.broken());
}

TEST_CASE("a barrier is broken and mended among threads", "[threads][barrier]") {
    const mp::Barrier barrier(crowd);
    std::atomic<int> broken{0};
    for (int n = 0; n < 20; ++n) {
        const bool abort = n % 2 == 0;
        run_together([&](int i) {
            if (i == 0) {
                while (barrier.n_waiting() < crowd - 1) std::this_thread::yield();
                abort ? barrier.abort() : barrier.reset();
                return;
            }
            try {
                barrier.wait();
            } catch (const mp::BrokenBarrierError&) {
                ++broken;
            }
        });
        CHECK(barrier.broken() == abort);
        barrier.reset();
    }
    CHECK(broken == 20 * (crowd - 1));
    run_together([&](int) { barrier.wait(patient); });
}
