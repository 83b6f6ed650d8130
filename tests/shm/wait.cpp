// SPDX-License-Identifier: BSL-1.0
//
// wait.hpp, event.hpp, semaphore.hpp
#include <multiprocessing/shm/event.hpp>
#include <multiprocessing/shm/semaphore.hpp>
#include <multiprocessing/shm/wait.hpp>

#include "shm/helpers.hpp"
#include "support/catch.hpp"

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <memory>
#include <thread>
#include <vector>

using namespace support;
using namespace std::chrono_literals;

namespace {

struct Counted {
    std::atomic<std::uint32_t> permits{0};
    shm::WaitWord word;
    shm::Lookout lookout;
    bool take(os::Deadline deadline) {
        return word.wait(
            [this] {
                auto seen = permits.load();
                while (seen != 0) {
                    if (permits.compare_exchange_weak(seen, seen - 1)) return true;
                }
                return false;
            },
            deadline);
    }
};

shm::Shared<shm::SemaphoreState> make_bounded(std::uint32_t bound) {
    const auto shares = shm::SemaphoreState::shares_for(bound);
    return shm::Shared<shm::SemaphoreState>::make(shm::SemaphoreState::extra_bytes(shares), bound,
                                                  shares);
}

// Longer than what a sleeper sleeps at a time.
constexpr auto several_naps = 3 * shm::patience;

}  // namespace

TEST_CASE("a wait ends at its deadline, and at once when there is nothing to wait for",
          "[shm][wait]") {
    shm::WaitWord word;
    CHECK(word.wait([] { return true; }, os::Deadline::passed()));
    CHECK_FALSE(word.wait([] { return false; }, os::Deadline::passed()));
    const auto begin = os::Clock::now();
    CHECK_FALSE(word.wait([] { return false; }, os::Deadline::after(several_naps)));
    CHECK(os::Clock::now() - begin >= several_naps);
}

TEST_CASE("who sleeps looks about after each nap, and sees what nobody told", "[shm][wait]") {
    shm::WaitWord word;
    int looks = 0;
    CHECK(word.wait([&] { return looks == 2; }, soon(), [&] { ++looks; }));
}

TEST_CASE("each announced change lets one go", "[shm][wait]") {
    const auto counted = shm::Shared<Counted>::make(0);
    std::vector<std::unique_ptr<Child>> children;
    for (int i = 0; i < 3; ++i) {
        children.push_back(std::make_unique<Child>([&] {
            for (int n = 0; n < 500; ++n) {
                if (!counted->take(soon())) return false;
            }
            return true;
        }));
    }
    for (int n = 0; n < 1500; ++n) {
        counted->permits.fetch_add(1);
        counted->word.notify_one();
    }
    for (auto& child : children) CHECK(child->wait() == 0);
    CHECK(counted->permits == 0);
}

TEST_CASE("no wake-up is lost: two that hand over to each other need no naps", "[shm][wait]") {
    struct Turns {
        std::atomic<std::uint32_t> turn{0};
        shm::WaitWord word;
    };
    const auto turns = shm::Shared<Turns>::make(0);
    constexpr std::uint32_t rounds = 3000;
    constexpr shm::Naps endless{10min, 10min};
    const auto play = [&](std::uint32_t mine) {
        for (std::uint32_t round = 0; round < rounds; ++round) {
            const auto ready = [&] { return turns->turn.load() == 2 * round + mine; };
            if (!turns->word.sleep_until(ready, [] {}, soon(), [] {}, endless)) return false;
            turns->turn.fetch_add(1);
            turns->word.notify_all();
        }
        return true;
    };
    Child child([&] { return play(1); });
    CHECK(play(0));
    CHECK(child.wait() == 0);
}

TEST_CASE("one who is roused passes on what it leaves, and nobody sleeps on beside it", "[shm][wait]") {
    const auto counted = shm::Shared<Counted>::make(0);
    std::vector<std::unique_ptr<Child>> children;
    for (int i = 0; i < 3; ++i) {
        children.push_back(std::make_unique<Child>([&] {
            const auto ready = [&] {
                auto seen = counted->permits.load();
                while (seen != 0) {
                    if (counted->permits.compare_exchange_weak(seen, seen - 1)) return true;
                }
                return false;
            };
            for (int n = 0; n < 500; ++n) {
                const auto naps = shm::Naps::long_ones(counted->lookout);
                if (!counted->word.wait(ready, soon(), [] {}, naps)) return false;
                if (counted->permits.load() != 0) counted->word.rouse();
            }
            return true;
        }));
    }
    for (int n = 0; n < 500; ++n) {
        counted->permits.fetch_add(3);
        counted->word.rouse();
        if (n % 50 == 0) std::this_thread::yield();
    }
    for (auto& child : children) CHECK(child->wait() == 0);
    CHECK(counted->permits == 0);
}

TEST_CASE("all are woken, even if one has been roused just before", "[shm][wait]") {
    constexpr std::size_t sleepers = 3;
    struct Gate {
        std::array<std::atomic<bool>, sleepers> announced{};
        std::atomic<bool> open{false};
        shm::WaitWord word;
    };
    const auto gate = shm::Shared<Gate>::make(0);
    const shm::Naps long_naps{10s, 10s};
    std::vector<std::unique_ptr<Child>> children;
    for (std::size_t i = 0; i < sleepers; ++i) {
        children.push_back(std::make_unique<Child>([&, i] {
            const auto ready = [&] { return gate->open.load(); };
            const auto announce = [&] { gate->announced[i] = true; };
            int naps = 0;
            return gate->word.sleep_until(ready, announce, soon(), [&] { ++naps; }, long_naps) &&
                   naps == 0;
        }));
    }
    for (const auto& announced : gate->announced) {
        REQUIRE(eventually([&] { return announced.load(); }));
    }
    gate->word.rouse();
    gate->open = true;
    gate->word.rouse_all();
    for (auto& child : children) CHECK(child->wait() == 0);
}

TEST_CASE("naps grow, and a long sleep is few of them", "[shm][wait]") {
    shm::WaitWord word;
    int naps = 0;
    CHECK_FALSE(word.sleep_until([] { return false; }, [] {}, os::Deadline::after(400ms),
                                 [&] { ++naps; }, {1ms, 100ms}));
    CHECK(naps >= 1);
    CHECK(naps <= 8);  // 1, 4, 16, 64, 100, 100 … ms
}

TEST_CASE("those who keep a lookout take turns, and begin anew when somebody was woken", "[shm][wait]") {
    shm::Lookout lookout;
    const auto begin = os::Clock::now();
    const auto first = lookout.next(100ms);
    CHECK(first >= begin + 100ms);
    CHECK(lookout.next(100ms) == first + 100ms);
    CHECK(lookout.next(100ms) == first + 200ms);
    lookout.restart();
    CHECK(lookout.next(100ms) < first + 200ms + (os::Clock::now() - begin));
    for (int i = 0; i < 1000; ++i) static_cast<void>(lookout.next(100ms));
    const auto last = lookout.next(100ms);
    CHECK(last <= os::Clock::now() + 5s);
}

TEST_CASE("a sleeper that is killed takes no wake-up with it for long", "[shm][wait][crash]") {
    const auto counted = shm::Shared<Counted>::make(0);
    const auto stage = make_stage();
    std::vector<std::unique_ptr<Child>> doomed;
    for (int i = 0; i < 3; ++i) {
        doomed.push_back(std::make_unique<Child>([&] {
            stage->add();
            counted->take(soon());
            die();
        }));
    }
    Child survivor([&] {
        stage->add();
        return counted->take(soon());
    });
    REQUIRE(stage->await(4));
    for (auto& child : doomed) child->kill_and_wait();
    counted->permits = 1;
    counted->word.notify_one();
    CHECK(survivor.wait() == 0);
}

TEST_CASE("an event lets all go who wait, though it is cleared at once", "[shm][event]") {
    const auto event = shm::Shared<shm::EventState>::make(0);
    CHECK_FALSE(event->is_set());
    CHECK_FALSE(event->wait(os::Deadline::passed()));
    CHECK_FALSE(event->wait(os::Deadline::after(5ms)));
    const auto stage = make_stage();
    std::vector<std::unique_ptr<Child>> children;
    for (int i = 0; i < 3; ++i) {
        children.push_back(std::make_unique<Child>([&] {
            stage->add();
            return event->wait(soon());
        }));
    }
    REQUIRE(stage->await(3));
    // Whether they wait already cannot be seen: set it until they have gone.
    CHECK(eventually([&] {
        event->set();
        event->clear();
        for (auto& child : children) {
            if (shm::alive(child->holder())) return false;
        }
        return true;
    }));
    for (auto& child : children) CHECK(child->wait() == 0);
    CHECK_FALSE(event->is_set());
    event->set();
    event->set();
    CHECK(event->is_set());
    CHECK(event->wait(os::Deadline::passed()));
    event->clear();
    CHECK_FALSE(event->is_set());
}

TEST_CASE("a semaphore counts", "[shm][semaphore]") {
    const bool bounded = GENERATE(false, true);
    const auto semaphore =
        bounded ? make_bounded(2) : shm::Shared<shm::SemaphoreState>::make(0, 2u);
    CHECK(semaphore->value() == 2);
    CHECK(semaphore->acquire(os::Deadline::never()));
    CHECK(semaphore->acquire(os::Deadline::passed()));
    CHECK(semaphore->value() == 0);
    CHECK_FALSE(semaphore->acquire(os::Deadline::passed()));
    CHECK_FALSE(semaphore->acquire(os::Deadline::after(5ms)));
    CHECK(semaphore->release());
    CHECK(semaphore->release());
    CHECK(semaphore->value() == 2);
    CHECK(semaphore->release() == !bounded);
    CHECK(semaphore->value() == (bounded ? 2 : 3));
}

TEST_CASE("a semaphore at the greatest value there is", "[shm][semaphore]") {
    const auto semaphore =
        shm::Shared<shm::SemaphoreState>::make(0, shm::SemaphoreState::most - 1);
    CHECK(semaphore->release());
    CHECK_FALSE(semaphore->release());
    CHECK(semaphore->value() == shm::SemaphoreState::most);
}

TEST_CASE("a bound of none and a bound of all", "[shm][semaphore]") {
    const auto none = make_bounded(0);
    CHECK(none->value() == 0);
    CHECK_FALSE(none->acquire(os::Deadline::passed()));
    CHECK_FALSE(none->release());
    const auto all = make_bounded(shm::SemaphoreState::most);
    CHECK(all->acquire(os::Deadline::passed()));
    CHECK(all->value() == shm::SemaphoreState::most - 1);
    CHECK(all->release());
    CHECK_FALSE(all->release());
}

TEST_CASE("no more have a semaphore than it lets in", "[shm][semaphore][threads]") {
    const bool bounded = GENERATE(false, true);
    struct Inside {
        std::atomic<int> now{0};
        std::atomic<int> most{0};
    };
    const auto inside = shm::Shared<Inside>::make(0);
    const auto semaphore =
        bounded ? make_bounded(2) : shm::Shared<shm::SemaphoreState>::make(0, 2u);
    const auto work = [&] {
        for (int i = 0; i < 500; ++i) {
            if (!semaphore->acquire(soon())) return false;
            const int now = inside->now.fetch_add(1) + 1;
            int most = inside->most.load();
            while (now > most && !inside->most.compare_exchange_weak(most, now)) {
            }
            inside->now.fetch_sub(1);
            if (!semaphore->release()) return false;
        }
        return true;
    };
    Child first(work);
    Child second(work);
    std::atomic<bool> good{true};
    std::thread thread([&] { good = work(); });
    CHECK(work());
    thread.join();
    CHECK(good);
    CHECK(first.wait() == 0);
    CHECK(second.wait() == 0);
    CHECK(inside->most <= 2);
    CHECK(semaphore->value() == 2);
}

TEST_CASE("a bounded semaphore gets the permits of the dead back", "[shm][semaphore][crash]") {
    const auto semaphore = make_bounded(3);
    const auto stage = make_stage();
    CHECK(semaphore->acquire(os::Deadline::passed()));
    Child child([&] {
        for (int i = 0; i < 2; ++i) semaphore->acquire(os::Deadline::passed());
        stage->reach(1);
        stage->await(2);
        die();
    });
    REQUIRE(stage->await(1));
    CHECK(semaphore->value() == 0);
    CHECK_FALSE(semaphore->acquire(os::Deadline::passed()));

    SECTION("by a look at the value") {
        stage->reach(2);
        CHECK(child.end() == -SIGKILL);
        CHECK(semaphore->value() == 2);
    }
    SECTION("by a poll") {
        stage->reach(2);
        CHECK(child.end() == -SIGKILL);
        CHECK(semaphore->acquire(os::Deadline::passed()));
        CHECK(semaphore->release());
    }
    SECTION("while others sleep") {
        Child one([&] { return semaphore->acquire(soon()) && semaphore->release(); });
        Child two([&] { return semaphore->acquire(soon()) && semaphore->release(); });
        stage->reach(2);
        CHECK(one.wait() == 0);
        CHECK(two.wait() == 0);
    }
    SECTION("when it is reaped") {
        stage->reach(2);
        CHECK(child.wait() == -SIGKILL);
        CHECK(semaphore->acquire(soon()));
        CHECK(semaphore->release());
    }
    CHECK(semaphore->value() == 2);
    CHECK(semaphore->release());
    CHECK_FALSE(semaphore->release());
    CHECK(semaphore->value() == 3);
}

TEST_CASE("an unbounded semaphore does not: it may count signals", "[shm][semaphore][crash]") {
    const auto semaphore = shm::Shared<shm::SemaphoreState>::make(0, 1u);
    Child child([&] {
        semaphore->acquire(os::Deadline::passed());
        die();
    });
    CHECK(child.wait() == -SIGKILL);
    CHECK(semaphore->value() == 0);
    CHECK_FALSE(semaphore->acquire(os::Deadline::after(several_naps)));
}

TEST_CASE("another process may give a permit back", "[shm][semaphore]") {
    const auto semaphore = make_bounded(1);
    semaphore->acquire(os::Deadline::passed());
    Child child([&] { return semaphore->release() && !semaphore->release(); });
    CHECK(child.wait() == 0);
    CHECK(semaphore->value() == 1);
    CHECK_FALSE(semaphore->release());
}

TEST_CASE("processes killed at any moment leave a bounded semaphore whole",
          "[shm][semaphore][crash]") {
    const auto semaphore = make_bounded(2);
    const auto stage = make_stage();
    for (std::uint32_t round = 1; round <= 40; ++round) {
        Child child([&] {
            stage->reach(round);
            for (;;) {
                semaphore->acquire(os::Deadline::passed());
                semaphore->acquire(os::Deadline::passed());
                semaphore->release();
                semaphore->release();
            }
        });
        REQUIRE(stage->await(round));
        for (std::uint32_t i = 0; i < round * 50; ++i) os::spin_pause();
        child.kill_and_wait();
        REQUIRE(semaphore->value() == 2);
    }
}
