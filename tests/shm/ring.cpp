// SPDX-License-Identifier: BSL-1.0
#include <multiprocessing/shm/ring.hpp>

#include <multiprocessing/shm/run.hpp>

#include "shm/helpers.hpp"
#include "shm/ring_helpers.hpp"
#include "support/catch.hpp"

#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

using namespace support;

namespace {

// The first half of taking a run, and the end.
[[noreturn]] void take_half(Ring& ring) {
    Ring::Getter getter(ring);
    Ring::Getter::Record record;
    if (!getter.peek(record) || record.run == nullptr) ::_exit(1);
    const shm::Arena& arena = shm::Arena::instance();
    shm::Offset& mine = shm::Processes::instance().owned();
    shm::Transaction tx = arena.transaction();
    arena.unhang(tx, *record.run);
    arena.hang(tx, mine, *record.run);
    tx.commit();
    die();
}

}  // namespace

TEST_CASE("records come out as they went in, of every size", "[shm][ring]") {
    const NoLeak leak;
    {
        const auto ring = Ring::make();
        std::uint64_t in = 0;
        std::uint64_t out = 0;
        for (std::uint32_t round = 0; round < 200; ++round) {
            for (std::uint32_t i = 0; i < 20; ++i) {
                const std::uint32_t size = 8 + (round * 41 + i * i * 23) % (Ring::inline_most - 7);
                REQUIRE(put(*ring, in++, size) == Outcome::done);
            }
            if (round % 7 == 0) REQUIRE(put_run(*ring, in++) == Outcome::done);
            for (int i = 0; i < 15; ++i) REQUIRE(get(*ring) == out++);
        }
        CHECK(ring->size() == in - out);
        while (out != in) REQUIRE(get(*ring) == out++);
        CHECK(ring->size() == 0);
        CHECK_FALSE(get(*ring, os::Deadline::passed()));
        CHECK(ring->puts() == in);
        CHECK(ring->gets() == in);
    }
    CHECK(leak.leaked() == 0);
}

TEST_CASE("a busy ring stays small", "[shm][ring]") {
    const auto ring = Ring::make();
    const auto before = allocated();
    for (std::uint64_t i = 0; i < 20'000; ++i) {
        REQUIRE(put(*ring, i, 1000) == Outcome::done);
        REQUIRE(get(*ring) == i);
    }
    CHECK(allocated() - before <= 3 * 65536);
}

TEST_CASE("a bound holds", "[shm][ring]") {
    const auto ring = Ring::make(2);
    CHECK(ring->bound() == 2);
    CHECK(put(*ring, 1) == Outcome::done);
    CHECK_FALSE(ring->full());
    CHECK(put_run(*ring, 2) == Outcome::done);
    CHECK(ring->full());
    CHECK(put(*ring, 3, 8, os::Deadline::passed()) == Outcome::timed_out);
    CHECK(put_run(*ring, 3, os::Deadline::after(std::chrono::milliseconds(5))) ==
          Outcome::timed_out);
    CHECK(get(*ring) == 1);
    CHECK(put(*ring, 3) == Outcome::done);
    CHECK(get(*ring) == 2);
    CHECK(get(*ring) == 3);
}

TEST_CASE("what a writer throws leaves the ring as it was", "[shm][ring]") {
    const NoLeak leak;
    {
        const auto ring = Ring::make();
        put(*ring, 1);
        CHECK_THROWS_AS(ring->put(soon(),
                                  [](Ring::Putter& putter) {
                                      for (int i = 0; i < 10; ++i) write(putter, 9, 8000);
                                      throw std::runtime_error("no");
                                  }),
                        std::runtime_error);
        CHECK(ring->size() == 1);
        put(*ring, 2);
        CHECK(get(*ring) == 1);
        CHECK_THROWS_AS(
            ring->take(soon(), [](Ring::Getter&, const Ring::Getter::Record&) {
                throw std::runtime_error("no");
            }),
            std::runtime_error);
        CHECK(get(*ring) == 2);
        CHECK(ring->size() == 0);
    }
    CHECK(leak.leaked() == 0);
}

TEST_CASE("several records become visible together", "[shm][ring]") {
    const auto ring = Ring::make(10);
    std::uint64_t next = 0;
    const auto outcome = ring->put_many(soon(), [&](Ring::Putter& putter) {
        CHECK(ring->size() == 0);
        write(putter, next++, 500);
        return next < 100;
    });
    CHECK(outcome == Outcome::done);
    CHECK(next == 10);  // as many as there was room for
    CHECK(ring->size() == 10);
    for (std::uint64_t i = 0; i < 10; ++i) CHECK(get(*ring) == i);
}

TEST_CASE("of several records those before what could not be written become visible", "[shm][ring]") {
    const auto ring = Ring::make();
    std::uint64_t next = 0;
    CHECK_THROWS_AS(ring->put_many(soon(),
                                   [&](Ring::Putter& putter) {
                                       if (next == 3) throw std::bad_alloc();
                                       write(putter, next++, 500);
                                       return true;
                                   }),
                    std::bad_alloc);
    CHECK(ring->size() == 3);
    for (std::uint64_t i = 0; i < 3; ++i) CHECK(get(*ring) == i);
}

TEST_CASE("a ring that is shut down is drained and no more", "[shm][ring]") {
    const auto ring = Ring::make(1);
    put(*ring, 1);
    Child putter([&] { return put(*ring, 2) == Outcome::shut_down; });
    ring->shut_down();
    CHECK(putter.wait() == 0);
    CHECK(ring->is_shut_down());
    CHECK(put(*ring, 3, 8, os::Deadline::passed()) == Outcome::shut_down);
    CHECK(get(*ring) == 1);
    const auto over = ring->take(soon(), [](Ring::Getter&, const Ring::Getter::Record&) {});
    CHECK(over == Outcome::shut_down);
}

TEST_CASE("what is discarded is freed and counts as done", "[shm][ring]") {
    const NoLeak leak;
    {
        const auto ring = Ring::make();
        for (std::uint64_t i = 0; i < 10; ++i) {
            put(*ring, i, 4000);
            put_run(*ring, i);
        }
        CHECK(get(*ring) == 0);
        ring->discard();
        CHECK(ring->size() == 0);
        CHECK_FALSE(ring->join(os::Deadline::passed()));  // one is in somebody's hands
        CHECK(ring->task_done());
        CHECK(ring->join(os::Deadline::passed()));
        CHECK_FALSE(ring->task_done());
    }
    CHECK(leak.leaked() == 0);
}

TEST_CASE("many producers and many consumers lose and double nothing", "[shm][ring][threads]") {
    const NoLeak leak;
    {
        const std::uint64_t bound = GENERATE(1u, 7u, 1u << 30);
        const auto ring = Ring::make(bound);
        constexpr std::uint64_t each = 1000;
        struct Sums {
            std::atomic<std::uint64_t> count{0};
            std::atomic<std::uint64_t> sum{0};
        };
        const auto sums = shm::Shared<Sums>::make(0);
        const auto produce = [&](std::uint64_t who) {
            for (std::uint64_t i = 0; i < each; ++i) {
                const auto number = who * each + i;
                const auto outcome = i % 100 == 99 ? put_run(*ring, number)
                                                   : put(*ring, number, static_cast<std::uint32_t>(8 + number % 3000));
                if (outcome != Outcome::done) return false;
            }
            return true;
        };
        const auto consume = [&] {
            std::vector<std::uint64_t> last(4, 0);
            while (const auto number = get(*ring)) {
                // One producer's items keep their order.
                if (*number / each >= 4 || (*number != 0 && *number < last[*number / each])) {
                    return false;
                }
                last[*number / each] = *number;
                sums->count.fetch_add(1);
                sums->sum.fetch_add(*number);
            }
            return true;
        };
        Child consumer(consume);
        Child producer_0([&] { return produce(0); });
        Child producer_1([&] { return produce(1); });
        std::atomic<bool> good{true};
        std::thread producing([&] {
            if (!produce(2)) good = false;
        });
        std::thread consuming([&] {
            if (!consume()) good = false;
        });
        CHECK(produce(3));
        producing.join();
        CHECK(producer_0.wait() == 0);
        CHECK(producer_1.wait() == 0);
        ring->shut_down();
        consuming.join();
        CHECK(consumer.wait() == 0);
        CHECK(good);
        CHECK(sums->count == 4 * each);
        CHECK(sums->sum == 4 * each * (4 * each - 1) / 2);
    }
    CHECK(leak.leaked() == 0);
}

TEST_CASE("a put that is under way comes before the shut-down", "[shm][ring]") {
    const auto ring = Ring::make();
    std::thread closing;
    const auto outcome = ring->put(soon(), [&](Ring::Putter& putter) {
        closing = std::thread([&] { ring->shut_down(); });
        for (int i = 0; i < 1000; ++i) {
            std::this_thread::yield();
            if (ring->is_shut_down()) break;
        }
        CHECK_FALSE(ring->is_shut_down());
        write(putter, 1, 8);
    });
    closing.join();
    CHECK(outcome == Outcome::done);
    CHECK(ring->is_shut_down());
    CHECK(put(*ring, 2) == Outcome::shut_down);
    CHECK(get(*ring) == 1);
}

TEST_CASE("a put that was not published is as if it never was", "[shm][ring][crash]") {
    const NoLeak leak;
    {
        const auto ring = Ring::make();
        put(*ring, 1);
        for (int deaths = 0; deaths < 3; ++deaths) {
            Child child([&] {
                Ring::Putter putter(*ring);
                for (int i = 0; i < 10; ++i) write(putter, 9, 3000);
                die();
            });
            CHECK(child.wait() == -SIGKILL);
        }
        CHECK(ring->size() == 1);
        for (std::uint64_t i = 2; i < 50; ++i) put(*ring, i, 2000);
        for (std::uint64_t i = 1; i < 50; ++i) REQUIRE(get(*ring) == i);
    }
    CHECK(leak.leaked() == 0);
}

TEST_CASE("segments that the dead linked are too small for what comes, and passed over",
          "[shm][ring][crash]") {
    const NoLeak leak;
    {
        const auto ring = Ring::make();
        put(*ring, 1, 3800);  // the first segment is nearly full
        // The first links another of 4 KiB at least; the second finds that too small and links one
        // more; the third finds both too small.
        for (const std::uint32_t size : {2000u, 5000u}) {
            Child child([&] {
                Ring::Putter putter(*ring);
                write(putter, 9, size);
                die();
            });
            CHECK(child.wait() == -SIGKILL);
        }
        put(*ring, 2, Ring::inline_most);
        put(*ring, 3, Ring::inline_most);
        for (std::uint64_t i = 1; i < 4; ++i) CHECK(get(*ring) == i);
    }
    CHECK(leak.leaked() == 0);
}

TEST_CASE("a run that was not put goes with its process", "[shm][ring][crash]") {
    const NoLeak leak;
    {
        const auto ring = Ring::make();
        Child child([&] {
            shm::Run run(100'000);
            Ring::Putter putter(*ring);
            write(putter, 9, 8);
            die();
        });
        CHECK(child.wait() == -SIGKILL);
        CHECK(ring->size() == 0);
        put_run(*ring, 1);
        CHECK(get(*ring) == 1);
    }
    CHECK(leak.leaked() == 0);
}

TEST_CASE("a record that was not committed is still there", "[shm][ring][crash]") {
    const auto ring = Ring::make();
    put(*ring, 1);
    put_run(*ring, 2);
    Child child([&] {
        Ring::Getter getter(*ring);
        Ring::Getter::Record record;
        if (getter.peek(record)) getter.take(record);
        die();
    });
    CHECK(child.wait() == -SIGKILL);
    CHECK(get(*ring) == 1);
    CHECK(get(*ring) == 2);
}

TEST_CASE("a run whose taker died goes with it, and the next is served", "[shm][ring][crash]") {
    const NoLeak leak;
    {
        const auto ring = Ring::make(3);
        const bool reaped = GENERATE(false, true);
        put_run(*ring, 1);
        put(*ring, 2);
        put_run(*ring, 3);
        Child child([&] { take_half(*ring); });
        CHECK(child.end() == -SIGKILL);
        if (reaped) child.wait();
        CHECK(get(*ring) == 2);
        CHECK(put(*ring, 4) == Outcome::done);
        CHECK(get(*ring) == 3);
        CHECK(get(*ring) == 4);
    }
    CHECK(leak.leaked() == 0);
}

TEST_CASE("when all that is there went with the dead, there is nothing", "[shm][ring][crash]") {
    const auto ring = Ring::make(1);
    put_run(*ring, 1);
    Child child([&] { take_half(*ring); });
    CHECK(child.wait() == -SIGKILL);
    bool called = false;
    const auto outcome = ring->take(os::Deadline::passed(), [&](Ring::Getter&, const auto&) {
        called = true;
    });
    CHECK(outcome == Outcome::timed_out);
    CHECK_FALSE(called);
    CHECK(ring->size() == 0);
    CHECK(put(*ring, 2, 8, os::Deadline::passed()) == Outcome::done);
    CHECK(get(*ring) == 2);
}

TEST_CASE("undelivered messages go with the ring, and what they bear", "[shm][ring]") {
    const NoLeak leak;
    shm::Ticket ticket;
    {
        const auto ring = Ring::make();
        {
            const auto inner = Ring::make();
            put_run(*inner, 1);
            ticket = inner.depart();
        }
        shm::Run run(8, std::span(&ticket, 1));
        ring->put(soon(), [&](Ring::Putter& putter) { putter.put_run(run.block(), 8); });
        run.release();
        CHECK(leak.leaked() > 0);
    }
    CHECK(leak.leaked() == 0);
}

TEST_CASE("producers and consumers killed at any moment leave a ring that works",
          "[shm][ring][crash]") {
    const NoLeak leak;
    {
        const auto ring = Ring::make(16);
        const auto stage = make_stage();
        for (std::uint32_t round = 1; round <= 60; ++round) {
            Child producer([&] {
                stage->reach(2 * round - 1);
                for (std::uint64_t i = 0;; ++i) {
                    i % 3 == 0 ? put_run(*ring, i)
                               : put(*ring, i, static_cast<std::uint32_t>(8 + (i * 97) % 8000));
                }
            });
            Child consumer([&] {
                stage->await(2 * round - 1);
                stage->reach(2 * round);
                for (;;) static_cast<void>(get(*ring));
            });
            REQUIRE(stage->await(2 * round));
            for (std::uint32_t i = 0; i < round * 100; ++i) os::spin_pause();
            (round % 2 == 0 ? producer : consumer).kill();
            producer.kill_and_wait();
            consumer.kill_and_wait();
            ring->discard();
            REQUIRE(ring->size() == 0);
            REQUIRE(put(*ring, round, 100) == Outcome::done);
            REQUIRE(put_run(*ring, round) == Outcome::done);
            REQUIRE(get(*ring) == round);
            REQUIRE(get(*ring) == round);
        }
    }
    CHECK(leak.leaked() == 0);
}

TEST_CASE("a consumer killed in its sleep keeps no item from the others", "[shm][ring][crash]") {
    const auto ring = Ring::make();
    const auto stage = make_stage();
    std::vector<std::unique_ptr<Child>> doomed;
    for (int i = 0; i < 3; ++i) {
        doomed.push_back(std::make_unique<Child>([&] {
            stage->add();
            static_cast<void>(get(*ring));
        }));
    }
    Child survivor([&] {
        stage->add();
        return get(*ring) == 7;
    });
    REQUIRE(stage->await(4));
    for (auto& child : doomed) child->kill_and_wait();
    put(*ring, 7);
    CHECK(survivor.wait() == 0);
}
