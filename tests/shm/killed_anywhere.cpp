// SPDX-License-Identifier: BSL-1.0
//
// What stands in shared memory is whole whichever of its instructions a process is killed at.
#include <multiprocessing/shm/barrier.hpp>
#include <multiprocessing/shm/condition.hpp>
#include <multiprocessing/shm/event.hpp>
#include <multiprocessing/shm/ring.hpp>
#include <multiprocessing/shm/semaphore.hpp>
#include <multiprocessing/shm/user_lock.hpp>

#include "shm/helpers.hpp"
#include "shm/ring_helpers.hpp"
#include "shm/single_step.hpp"
#include "support/catch.hpp"

#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <fcntl.h>

using namespace support;
using shm::Ring;

namespace {

using Numbers = std::vector<std::uint64_t>;

Numbers drain(Ring& ring) {
    Numbers numbers;
    while (const auto number = get(ring, os::Deadline::passed())) numbers.push_back(*number);
    return numbers;
}

// `operation` on a ring of 1, 2 and 3, of which `long_one` is a run and the others have `size` bytes.
// After it and after each death in it the ring holds one of two things, goes on working, and has no
// more memory than without deaths.
template <class Operation>
void on_a_ring(std::uint32_t size, std::uint64_t long_one, Operation operation, const Numbers& before,
               const Numbers& after, const Numbers& between = {}) {
    const NoLeak leak;
    std::optional<shm::Shared<Ring>> ring;
    Numbers there;
    const auto fill = [&] {
        ring = Ring::make();
        for (const std::uint64_t i : {1u, 2u, 3u}) i == long_one ? put_run(**ring, i) : put(**ring, i, size);
    };
    const auto memory_after_use = [&] {
        there = drain(**ring);
        put(**ring, 9, 6000);
        CHECK(drain(**ring) == Numbers{9});
        CHECK((*ring)->size() == 0);
        return leak.leaked();
    };
    fill();
    const auto without = memory_after_use();
    fill();
    operation(**ring);
    const auto with = memory_after_use();
    kill_anywhere(fill, [&] { operation(**ring); },
                  [&] {
                      const auto memory = memory_after_use();
                      CHECK((there == before || there == after || (there == between && !there.empty())));
                      CHECK((memory == without || memory == with));
                      ring.reset();
                      CHECK(leak.leaked() == 0);
                  });
}

// As the kernel calls it: 'S' is asleep.
char state_of_thread(int thread) {
    const std::string path = "/proc/self/task/" + std::to_string(thread) + "/stat";
    const os::ProcessStat stat(os::Fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC)));
    return *stat.field(3);
}

}  // namespace

TEST_CASE("killed anywhere in a put, it is done or was never begun", "[shm][ring][killed]") {
    on_a_ring(8, 0, [](Ring& ring) { put(ring, 4); }, {1, 2, 3}, {1, 2, 3, 4});
}

TEST_CASE("killed anywhere in a put into a new segment, it is done or was never begun",
          "[shm][ring][killed]") {
    on_a_ring(1300, 0, [](Ring& ring) { put(ring, 4, 6000); }, {1, 2, 3}, {1, 2, 3, 4});
}

TEST_CASE("killed anywhere in a put of a run, it is done or was never begun", "[shm][ring][killed]") {
    on_a_ring(8, 2, [](Ring& ring) { put_run(ring, 4); }, {1, 2, 3}, {1, 2, 3, 4});
}

TEST_CASE("killed anywhere in a take, the record is taken or still there", "[shm][ring][killed]") {
    on_a_ring(8, 0, [](Ring& ring) { get(ring); }, {1, 2, 3}, {2, 3});
}

TEST_CASE("killed anywhere in a put or a take, the ring is whole for who is there already",
          "[shm][ring][killed]") {
    const NoLeak leak;
    std::optional<shm::Shared<Ring>> ring;
    const auto fill = [&] {
        ring = Ring::make();
        for (const std::uint64_t i : {1u, 2u, 3u}) put(**ring, i, 1300);
    };
    const auto put_and_take = [&] {
        put(**ring, 4, 3000);
        for (int i = 0; i < 4; ++i) get(**ring, os::Deadline::passed());
    };
    const auto come_after = [&] {
        get(**ring, os::Deadline::passed());
        put(**ring, 5, 6000);
    };
    const auto memory_after_use = [&] {
        {  // What is free is not the ring's.
            const auto other = shm::Ref::create(8000);
            std::memset(other.get(), 0xff, 8000);
        }
        const Numbers there = drain(**ring);
        REQUIRE_FALSE(there.empty());
        CHECK(std::is_sorted(there.begin(), there.end()));
        CHECK(there.back() == 5);
        return leak.leaked();
    };
    fill();
    come_after();
    const auto without = memory_after_use();
    fill();
    put_and_take();
    come_after();
    const auto with = memory_after_use();
    kill_anywhere(fill, put_and_take, come_after, [&] {
        const auto memory = memory_after_use();
        CHECK((memory == without || memory == with));
        ring.reset();
        CHECK(leak.leaked() == 0);
    });
}

TEST_CASE("killed anywhere in a take from the next segment, the record is taken or still there",
          "[shm][ring][killed]") {
    const auto take_two = [](Ring& ring) {
        get(ring);
        get(ring);
    };
    on_a_ring(3000, 0, take_two, {1, 2, 3}, {3}, {2, 3});
}

TEST_CASE("killed anywhere in a take of a run, it is taken or still there", "[shm][ring][killed]") {
    on_a_ring(8, 1, [](Ring& ring) { get(ring); }, {1, 2, 3}, {2, 3});
}

TEST_CASE("killed anywhere in the making of an object, nothing is left", "[shm][killed]") {
    const NoLeak leak;
    const std::uint64_t size = GENERATE(8u, 1000u);
    kill_anywhere([] {}, [&] { static_cast<void>(shm::Ref::create(size)); },
                  [&] { CHECK(leak.leaked() == 0); });
}

TEST_CASE("killed anywhere where a slab of cells comes or goes, nothing is left",
          "[shm][cells][killed]") {
    const NoLeak leak;
    {
        std::vector<shm::Ref> full;
        shm::Ticket last;
        std::uint64_t before = 0;
        const auto fill = [&] {
            do {
                full.push_back(shm::Ref::create(8));
            } while (shm::Arena::instance().header().cells.slabs != 0);
            last = full.back().depart();
            full.pop_back();
            before = allocated();
        };
        kill_anywhere(
            fill,
            [&] {
                const auto in_a_new_one = shm::Ref::create(8);
                shm::Ticket there = last;
                shm::abandon(there);  // the old one has room, so the new one goes
            },
            [&] {
                shm::abandon(last);
                CHECK(allocated() == before);
                for (const auto& object : full) REQUIRE(object.counted().counts == 1);
            });
    }
    CHECK(leak.leaked() == 0);
}

TEST_CASE("killed anywhere with a lock, the next gets it", "[shm][lock][killed]") {
    const bool recursive = GENERATE(false, true);
    const auto lock = shm::Shared<shm::UserLock>::make(0, recursive);
    kill_anywhere([] {},
                  [&] {
                      lock->acquire(soon());
                      if (recursive) lock->acquire(soon());
                      lock->release();
                      if (recursive) lock->release();
                  },
                  [&] {
                      CHECK(lock->acquire(os::Deadline::passed()));
                      CHECK(lock->is_mine());
                      CHECK(lock->release());
                      CHECK_FALSE(lock->locked());
                  });
}

TEST_CASE("killed anywhere in taking a lock from the dead, it is the next one's", "[shm][lock][killed]") {
    const bool recursive = GENERATE(false, true);
    const auto lock = shm::Shared<shm::UserLock>::make(0, recursive);
    kill_anywhere(
        [&] {
            Child holder([&] {
                lock->acquire(soon());
                if (recursive) lock->acquire(soon());
                die();
            });
            REQUIRE(holder.wait() == -SIGKILL);
        },
        [&] {
            lock->acquire(soon());
            lock->release();
        },
        [&] {
            CHECK(lock->acquire(os::Deadline::passed()));
            CHECK(lock->is_mine());
            CHECK(lock->release());
            CHECK_FALSE(lock->locked());
            CHECK_FALSE(lock->abandoned());
        });
}

TEST_CASE("killed anywhere with a permit of a semaphore, there is none too many",
          "[shm][semaphore][killed]") {
    std::optional<shm::Shared<shm::SemaphoreState>> semaphore;
    kill_anywhere([&] { semaphore = shm::Shared<shm::SemaphoreState>::make(0, 2u); },
                  [&] {
                      (*semaphore)->acquire(soon());
                      (*semaphore)->acquire(soon());
                      (*semaphore)->release();
                  },
                  [&] {
                      const auto value = (*semaphore)->value();
                      CHECK(value <= 2);
                      CHECK((*semaphore)->release());
                      for (std::uint32_t i = 0; i <= value; ++i) {
                          CHECK((*semaphore)->acquire(os::Deadline::passed()));
                      }
                      CHECK_FALSE((*semaphore)->acquire(os::Deadline::passed()));
                  });
}

TEST_CASE("killed anywhere with permits of a bounded semaphore, they come back",
          "[shm][semaphore][killed]") {
    constexpr std::uint32_t bound = 2;
    const std::uint32_t shares = shm::SemaphoreState::shares_for(bound);
    const auto semaphore = shm::Shared<shm::SemaphoreState>::make(
        shm::SemaphoreState::extra_bytes(shares), bound, shares);
    kill_anywhere([] {},
                  [&] {
                      semaphore->acquire(soon());
                      semaphore->acquire(soon());
                      semaphore->release();
                      semaphore->release();
                  },
                  [&] {
                      CHECK(semaphore->value() == bound);
                      for (std::uint32_t i = 0; i < bound; ++i) {
                          CHECK(semaphore->acquire(os::Deadline::passed()));
                      }
                      CHECK_FALSE(semaphore->acquire(os::Deadline::passed()));
                      for (std::uint32_t i = 0; i < bound; ++i) CHECK(semaphore->release());
                      CHECK_FALSE(semaphore->release());
                  });
}

TEST_CASE("killed anywhere in waiting on a condition, it is nobody's to wake",
          "[shm][condition][killed]") {
    struct Monitor {
        shm::ConditionState condition;  // first, for its waiters hang on its block
        shm::UserLock lock{false};
    };
    const NoLeak leak;
    {
        const auto monitor = shm::Shared<Monitor>::make(0);
        const auto with_monitor = leak.leaked();
        kill_anywhere([] {},
                      [&] {
                          monitor->lock.acquire(soon());
                          monitor->condition.wait(monitor->lock, os::Deadline::passed());
                          monitor->lock.release();
                      },
                      [&] {
                          CHECK(monitor->lock.acquire(os::Deadline::passed()));
                          CHECK(monitor->condition.notify(monitor->lock, 5) == 0);
                          monitor->lock.release();
                          CHECK(leak.leaked() == with_monitor);
                      });
    }
    CHECK(leak.leaked() == 0);
}

TEST_CASE("killed anywhere in a notification, who waits is woken once and by the next",
          "[shm][condition][killed]") {
    struct Monitor {
        shm::ConditionState condition;  // first, for its waiters hang on its block
        shm::UserLock lock{false};
        std::atomic<std::uint32_t> waiting{0};
    };
    const NoLeak leak;
    {
        const auto monitor = shm::Shared<Monitor>::make(0);
        const auto notify = [&] {
            monitor->lock.acquire(os::Deadline::passed());
            const auto woken = monitor->condition.notify(monitor->lock, 1);
            monitor->lock.release();
            return woken;
        };
        std::thread waiter;
        bool woken = false;
        kill_anywhere(
            [&] {
                woken = false;
                waiter = std::thread([&] {
                    monitor->lock.acquire(soon());
                    monitor->waiting = 1;
                    woken = monitor->condition.wait(monitor->lock, soon());
                    monitor->waiting = 0;
                    monitor->lock.release();
                });
                REQUIRE(eventually([&] { return monitor->waiting == 1; }));
                monitor->lock.acquire(soon());  // it is inside wait()
                monitor->lock.release();
            },
            [&] { notify(); }, [&] { notify(); },
            [&] {
                waiter.join();
                CHECK(woken);
                CHECK(notify() == 0);
            });
    }
    CHECK(leak.leaked() == 0);
}

TEST_CASE("killed anywhere in a notification of all, all who wait are woken once",
          "[shm][condition][killed]") {
    struct Monitor {
        shm::ConditionState condition;  // first, for its waiters hang on its block
        shm::UserLock lock{true};
        std::uint32_t waiting = 0;
        std::uint32_t woken = 0;
    };
    constexpr std::uint32_t count = 2;
    const NoLeak leak;
    {
        const auto monitor = shm::Shared<Monitor>::make(0);
        const auto with_lock = [&](auto f) {
            monitor->lock.acquire(soon());
            const auto result = f();
            monitor->lock.release();
            return result;
        };
        const auto notify_all = [&] {
            return with_lock([&] { return monitor->condition.notify(monitor->lock, 100); });
        };
        std::vector<std::thread> waiters;
        kill_anywhere(
            [&] {
                monitor->woken = monitor->waiting = 0;
                for (std::uint32_t i = 0; i < count; ++i) {
                    waiters.emplace_back([&] {
                        with_lock([&] {
                            ++monitor->waiting;
                            if (monitor->condition.wait(monitor->lock, soon())) ++monitor->woken;
                            return true;
                        });
                    });
                }
                REQUIRE(eventually([&] { return with_lock([&] { return monitor->waiting == count; }); }));
            },
            [&] { notify_all(); }, [&] { notify_all(); },
            [&] {
                for (std::thread& waiter : waiters) waiter.join();
                waiters.clear();
                CHECK(monitor->woken == count);
                CHECK(notify_all() == 0);
            });
    }
    CHECK(leak.leaked() == 0);
}

TEST_CASE("killed anywhere in a wait that is notified, nothing is left of it", "[shm][condition][killed]") {
    struct Monitor {
        shm::ConditionState condition;  // first, for its waiters hang on its block
        shm::UserLock lock{true};
        std::atomic<std::uint32_t> waiting{0};
    };
    const NoLeak leak;
    {
        const auto monitor = shm::Shared<Monitor>::make(0);
        const auto with_monitor = leak.leaked();
        const auto notify = [&] {
            monitor->lock.acquire(soon());
            const auto woken = monitor->condition.notify(monitor->lock, 5);
            monitor->lock.release();
            return woken;
        };
        std::thread notifier;
        std::atomic<bool> over{false};
        kill_anywhere(
            [&] {
                monitor->waiting = 0;
                over = false;
                notifier = std::thread([&] {
                    while (monitor->waiting == 0 && !over) std::this_thread::yield();
                    notify();
                });
            },
            [&] {
                monitor->lock.acquire(soon());
                monitor->waiting = 1;
                if (!monitor->condition.wait(monitor->lock, soon())) ::_exit(1);
                monitor->lock.release();
            },
            [&] {
                over = true;
                notifier.join();
                CHECK(eventually([&] { return notify() == 0 && leak.leaked() == with_monitor; }));
                CHECK_FALSE(monitor->lock.locked());
            });
    }
    CHECK(leak.leaked() == 0);
}

TEST_CASE("killed anywhere in setting an event, who sleeps goes on if it is set", "[shm][event][killed]") {
    const auto event = shm::Shared<shm::EventState>::make(0);
    std::thread sleeper;
    std::atomic<bool> told{false};
    kill_anywhere(
        [&] {
            event->clear();
            told = false;
            std::atomic<int> thread{0};
            sleeper = std::thread([&] {
                thread = os::this_thread_id();
                told = event->wait(soon());
            });
            REQUIRE(eventually([&] { return thread != 0 && state_of_thread(thread) == 'S'; }));
        },
        [&] { event->set(); },
        [&] {
            if (!event->is_set()) event->set();
            sleeper.join();
            CHECK(told);
        });
}

TEST_CASE("killed anywhere on the way through a barrier, nobody is kept in it",
          "[shm][barrier][killed]") {
    const auto barrier = shm::Shared<shm::BarrierState>::make(
        shm::BarrierState::extra_bytes(1), 1u);
    kill_anywhere([] {}, [&] { barrier->wait(soon(), [] {}); },
                  [&] {
                      if (!barrier->wait(soon(), [] {})) {
                          CHECK(barrier->broken());
                          barrier->reset();
                      }
                      CHECK(barrier->wait(soon(), [] {}) == 0u);
                      CHECK(barrier->waiting() == 0);
                  });
}

TEST_CASE("killed anywhere at a barrier of two, the other passes or is told", "[shm][barrier][killed]") {
    const bool comes_first = GENERATE(false, true);
    const auto barrier = shm::Shared<shm::BarrierState>::make(shm::BarrierState::extra_bytes(2), 2u);
    const auto pass = [&] { return barrier->wait(soon(), [] {}).has_value(); };
    std::thread other;
    std::atomic<bool> over{false};
    kill_anywhere(
        [&] {
            over = false;
            other = std::thread([&] {
                while (comes_first && barrier->waiting() == 0 && !over) std::this_thread::yield();
                pass();
            });
            if (!comes_first) REQUIRE(eventually([&] { return barrier->waiting() == 1; }));
        },
        [&] { pass(); },
        [&] {
            over = true;
            // Who died before it had come is not missed by anybody.
            if (barrier->waiting() == 1) barrier->abort();
            if (comes_first) barrier->abort();
            other.join();
            barrier->reset();
            std::thread another(pass);
            CHECK(pass());
            another.join();
            CHECK(barrier->waiting() == 0);
        });
}

TEST_CASE("killed anywhere in mending or breaking a barrier, it can be mended and broken",
          "[shm][barrier][killed]") {
    const bool reset = GENERATE(false, true);
    const auto barrier = shm::Shared<shm::BarrierState>::make(shm::BarrierState::extra_bytes(2), 2u);
    const auto pass = [&] { return barrier->wait(soon(), [] {}).has_value(); };
    std::thread other;
    std::atomic<bool> passed{false};
    kill_anywhere(
        [&] {
            passed = true;
            other = std::thread([&] { passed = pass(); });
            REQUIRE(eventually([&] { return barrier->waiting() == 1; }));
        },
        [&] { reset ? barrier->reset() : barrier->abort(); },
        [&] {
            barrier->abort();
            other.join();
            CHECK_FALSE(passed);
            CHECK(barrier->broken());
            barrier->reset();
            std::thread another(pass);
            CHECK(pass());
            another.join();
        });
}
