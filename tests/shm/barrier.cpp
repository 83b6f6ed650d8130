// SPDX-License-Identifier: BSL-1.0
#include <multiprocessing/shm/barrier.hpp>

#include "shm/helpers.hpp"
#include "support/catch.hpp"

#include <atomic>
#include <chrono>
#include <memory>
#include <set>
#include <stdexcept>
#include <thread>
#include <vector>

using namespace support;
using namespace std::chrono_literals;

namespace {

shm::Shared<shm::BarrierState> make_barrier(std::uint32_t parties) {
    return shm::Shared<shm::BarrierState>::make(shm::BarrierState::extra_bytes(parties), parties);
}

constexpr auto nothing = [] {};
using Children = std::vector<std::unique_ptr<Child>>;

}  // namespace

TEST_CASE("a barrier is passed together, round after round", "[shm][barrier]") {
    constexpr std::uint32_t parties = 3;
    constexpr std::uint32_t rounds = 300;
    const auto barrier = make_barrier(parties);
    struct Seen {
        std::atomic<std::uint32_t> arrived{0};
        std::atomic<std::uint32_t> indices{0};
        std::atomic<std::uint32_t> actions{0};
    };
    const auto seen = shm::Shared<Seen>::make(0);
    const auto work = [&] {
        for (std::uint32_t round = 0; round < rounds; ++round) {
            seen->arrived.fetch_add(1);
            const auto index = barrier->wait(soon(), [&] { seen->actions.fetch_add(1); });
            if (!index || *index >= parties) return false;
            if (seen->actions.load() < round + 1) return false;
            if (seen->arrived.load() < (round + 1) * parties) return false;
            seen->indices.fetch_add(*index);
        }
        return true;
    };
    Child first(work);
    Child second(work);
    CHECK(work());
    CHECK(first.wait() == 0);
    CHECK(second.wait() == 0);
    CHECK(seen->actions == rounds);
    CHECK(seen->indices == rounds * (0 + 1 + 2));
    CHECK(barrier->waiting() == 0);
    CHECK_FALSE(barrier->broken());
}

TEST_CASE("one party never waits", "[shm][barrier]") {
    const auto barrier = make_barrier(1);
    for (int i = 0; i < 3; ++i) CHECK(barrier->wait(os::Deadline::passed(), nothing) == 0u);
}

TEST_CASE("a barrier breaks at a deadline until it is reset", "[shm][barrier]") {
    const auto barrier = make_barrier(2);
    CHECK_FALSE(barrier->wait(os::Deadline::after(5ms), nothing));
    CHECK(barrier->broken());
    CHECK_FALSE(barrier->wait(soon(), nothing));
    barrier->reset();
    CHECK_FALSE(barrier->broken());
    Child child([&] { return barrier->wait(soon(), nothing).has_value(); });
    CHECK(barrier->wait(soon(), nothing));
    CHECK(child.wait() == 0);
}

TEST_CASE("abort and reset send those away who wait", "[shm][barrier]") {
    const auto barrier = make_barrier(3);
    const bool abort = GENERATE(false, true);
    Children children;
    for (int i = 0; i < 2; ++i) {
        children.push_back(std::make_unique<Child>(
            [&] { return !barrier->wait(soon(), nothing).has_value(); }));
    }
    REQUIRE(eventually([&] { return barrier->waiting() == 2; }));
    abort ? barrier->abort() : barrier->reset();
    for (auto& child : children) CHECK(child->wait() == 0);
    CHECK(barrier->broken() == abort);
    CHECK(barrier->waiting() == 0);
}

TEST_CASE("an action that throws breaks the barrier", "[shm][barrier]") {
    const auto barrier = make_barrier(2);
    Child child([&] {
        try {
            return !barrier->wait(soon(), [] { throw std::runtime_error("no"); }).has_value();
        } catch (const std::runtime_error&) {
            return true;
        }
    });
    REQUIRE(eventually([&] { return barrier->waiting() == 1; }));
    CHECK_THROWS_AS(barrier->wait(soon(), [] { throw std::runtime_error("no"); }),
                    std::runtime_error);
    CHECK(child.wait() == 0);
    CHECK(barrier->broken());
}

TEST_CASE("a deadline does not break a round that all have come to", "[shm][barrier]") {
    // One passes with no time to spare while the others of the last round are on their way out.
    constexpr std::uint32_t parties = 3;
    const auto barrier = make_barrier(parties);
    for (int round = 0; round < 100; ++round) {
        Children children;
        for (std::uint32_t i = 1; i < parties; ++i) {
            children.push_back(std::make_unique<Child>(
                [&] { return barrier->wait(soon(), nothing).has_value(); }));
        }
        REQUIRE(barrier->wait(soon(), nothing));
        REQUIRE_FALSE(barrier->wait(os::Deadline::passed(), nothing));
        for (auto& child : children) REQUIRE(child->wait() == 0);
        barrier->reset();
    }
}

TEST_CASE("an action takes as long as it takes", "[shm][barrier]") {
    const auto barrier = make_barrier(2);
    const auto stage = make_stage();
    Child child([&] {
        stage->reach(1);
        return barrier->wait(os::Deadline::after(2s), nothing).has_value();
    });
    REQUIRE(eventually([&] { return barrier->waiting() == 1; }));
    CHECK(barrier->wait(soon(), [] {
        shm::WaitWord word;
        word.wait([] { return false; }, os::Deadline::after(2300ms));
    }));
    CHECK(child.wait() == 0);
}

TEST_CASE("a party killed while it waits breaks the barrier for the rest",
          "[shm][barrier][crash]") {
    const auto barrier = make_barrier(3);
    Child doomed([&] { barrier->wait(soon(), nothing); });
    Child waiter([&] { return !barrier->wait(soon(), nothing).has_value(); });
    REQUIRE(eventually([&] { return barrier->waiting() == 2; }));
    doomed.kill_and_wait();
    CHECK(waiter.wait() == 0);
    CHECK(barrier->broken());
    barrier->reset();
    CHECK_FALSE(barrier->broken());
}

TEST_CASE("who comes last does not pass with the dead", "[shm][barrier][crash]") {
    const auto barrier = make_barrier(2);
    Child doomed([&] { barrier->wait(soon(), nothing); });
    REQUIRE(eventually([&] { return barrier->waiting() == 1; }));
    doomed.kill();
    static_cast<void>(doomed.end());
    std::this_thread::sleep_for(2 * shm::patience);  // in which those who wait would have found out
    bool acted = false;
    CHECK_FALSE(barrier->wait(soon(), [&] { acted = true; }));
    CHECK_FALSE(acted);
    CHECK(barrier->broken());
    barrier->reset();
    Child child([&] { return barrier->wait(soon(), nothing).has_value(); });
    CHECK(barrier->wait(soon(), nothing));
    CHECK(child.wait() == 0);
}

TEST_CASE("a party killed in the action breaks the barrier for the rest",
          "[shm][barrier][crash]") {
    const auto barrier = make_barrier(2);
    Child waiter([&] { return !barrier->wait(soon(), nothing).has_value(); });
    REQUIRE(eventually([&] { return barrier->waiting() == 1; }));
    Child doomed([&] { barrier->wait(soon(), [] { die(); }); });
    CHECK(doomed.wait() == -SIGKILL);
    CHECK(waiter.wait() == 0);
    CHECK(barrier->broken());
}

TEST_CASE("the dead of a broken barrier do not keep it from being reset",
          "[shm][barrier][crash]") {
    const auto barrier = make_barrier(2);
    Child doomed([&] { barrier->wait(soon(), nothing); });
    REQUIRE(eventually([&] { return barrier->waiting() == 1; }));
    doomed.kill_and_wait();
    barrier->reset();
    Child child([&] { return barrier->wait(soon(), nothing).has_value(); });
    CHECK(barrier->wait(soon(), nothing));
    CHECK(child.wait() == 0);
}

TEST_CASE("parties killed at any moment leave a barrier that works after a reset",
          "[shm][barrier][crash]") {
    const auto barrier = make_barrier(2);
    const auto stage = make_stage();
    for (std::uint32_t round = 1; round <= 30; ++round) {
        const auto work = [&] {
            stage->reach(round);
            for (;;) {
                if (!barrier->wait(soon(), nothing)) barrier->reset();
            }
        };
        Child first(work);
        Child second(work);
        REQUIRE(stage->await(round));
        for (std::uint32_t i = 0; i < round * 200; ++i) os::spin_pause();
        first.kill_and_wait();
        second.kill_and_wait();
        barrier->reset();
        Child child([&] { return barrier->wait(soon(), nothing).has_value(); });
        REQUIRE(barrier->wait(soon(), nothing));
        REQUIRE(child.wait() == 0);
    }
}
