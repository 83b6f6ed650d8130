// SPDX-License-Identifier: BSL-1.0
#include <multiprocessing/shm/ref.hpp>

#include <multiprocessing/shm/run.hpp>

#include "shm/helpers.hpp"
#include "support/catch.hpp"

#include <cstdint>
#include <thread>
#include <vector>

using namespace support;

namespace {

std::uint64_t handles(const shm::Ref& ref) { return ref.counted().counts & 0xffff'ffff; }
std::uint64_t in_transit(const shm::Ref& ref) { return ref.counted().counts >> 32; }
bool exists(const shm::Ticket& ticket) {
    const shm::Arena& arena = shm::Arena::instance();
    const shm::Transaction tx = arena.transaction();
    return arena.find(ticket) != nullptr;
}

}  // namespace

TEST_CASE("an object ends with its last handle", "[shm][ref]") {
    const NoLeak leak;
    shm::Ticket ticket;
    {
        shm::Ref a = shm::Ref::create(100);
        CHECK(a);
        const shm::Ref b = a;  // the same handle
        CHECK(handles(b) == 1);
        CHECK(a == b);
        a = shm::Ref();
        CHECK_FALSE(a);
        CHECK(a == shm::Ref());
        ticket = shm::Arena::instance().ticket(b.counted());
        CHECK(exists(ticket));
    }
    CHECK_FALSE(exists(ticket));
    CHECK(leak.leaked() == 0);
}

TEST_CASE("a ticket keeps its object until it is used", "[shm][ref]") {
    const NoLeak leak;
    shm::Ticket ticket;
    {
        const auto a = shm::Shared<std::uint64_t>::make(0, 42u);
        ticket = a.depart();
        CHECK(in_transit(a) == 1);
    }
    CHECK(exists(ticket));
    {
        shm::Ticket used = ticket;
        const shm::Ref b = shm::Ref::arrive(used);
        CHECK(used.serial == 0);
        CHECK(*b.get<std::uint64_t>() == 42);
        CHECK(handles(b) == 1);
        CHECK(in_transit(b) == 0);
        // Read twice: another handle, and no count is used that is not there.
        shm::Ticket again = ticket;
        const shm::Ref c = shm::Ref::arrive(again);
        CHECK(handles(b) == 2);
        CHECK(in_transit(b) == 0);
    }
    CHECK_FALSE(exists(ticket));
    CHECK_THROWS_AS(shm::Ref::arrive(ticket), shm::StaleTicket);
    CHECK(leak.leaked() == 0);
}

TEST_CASE("an abandoned ticket gives its object up", "[shm][ref]") {
    const NoLeak leak;
    shm::Ticket ticket;
    {
        const shm::Ref a = shm::Ref::create(100);
        ticket = a.depart();
        shm::Ticket second = a.depart();
        shm::abandon(second);
        CHECK(second.serial == 0);
        shm::abandon(second);  // nothing any more
        CHECK(in_transit(a) == 1);
    }
    shm::Ticket spent = ticket;
    shm::abandon(ticket);
    CHECK_FALSE(exists(spent));
    shm::abandon(spent);  // stale: nothing to give up
    CHECK(leak.leaked() == 0);
}

TEST_CASE("tickets of what never was are stale", "[shm][ref]") {
    for (shm::Ticket ticket : {shm::Ticket{}, shm::Ticket{8, 1}, shm::Ticket{~std::uint64_t{0}, 3},
                               shm::Ticket{std::uint64_t{1} << 40, 1}}) {
        CHECK_THROWS_AS(shm::Ref::arrive(ticket), shm::StaleTicket);
    }
}

TEST_CASE("a forked child has its parent's handles, and its death gives them back", "[shm][ref]") {
    const NoLeak leak;
    {
        std::vector<shm::Ref> refs;
        for (int i = 0; i < 500; ++i) refs.push_back(shm::Ref::create(8));  // several ledger chunks
        const auto stage = make_stage();
        Child child([&] {
            refs.erase(refs.begin() + 100, refs.end());
            const shm::Ref own = shm::Ref::create(1000);
            stage->reach(1);
            stage->await(2);
            die();
        });
        REQUIRE(stage->await(1));
        CHECK(handles(refs[0]) == 2);
        CHECK(handles(refs[99]) == 2);
        CHECK(handles(refs[100]) == 1);
        stage->reach(2);
        CHECK(child.wait() == -SIGKILL);
        CHECK(handles(refs[0]) == 1);
        CHECK(handles(refs[499]) == 1);
    }
    CHECK(leak.leaked() == 0);
}

TEST_CASE("what a child alone has ends with it", "[shm][ref][crash]") {
    const NoLeak leak;
    for (const bool orderly : {false, true}) {
        Child child([orderly] {
            std::vector<shm::Ref> refs;
            for (int i = 0; i < 300; ++i) refs.push_back(shm::Ref::create(64));
            shm::Run(100).release();
            if (!orderly) die();
        });
        CHECK(child.wait() == (orderly ? 0 : -SIGKILL));
        CHECK(leak.leaked() == 0);
    }
}

TEST_CASE("a reader that dies after it took an object from a message has it once",
          "[shm][ref][crash]") {
    const NoLeak leak;
    {
        const shm::Ref object = shm::Ref::create(8);
        const std::vector<shm::Ticket> tickets{object.depart(), object.depart()};
        {
            shm::Run message(16, tickets);
            Child child([&] {
                const shm::Ref arrived = shm::Ref::arrive(message.tickets()[0]);
                die();
            });
            CHECK(child.wait() == -SIGKILL);
            CHECK(message.tickets()[0].serial == 0);
            CHECK(handles(object) == 1);
            CHECK(in_transit(object) == 1);
        }
        CHECK(in_transit(object) == 0);
    }
    CHECK(leak.leaked() == 0);
}

TEST_CASE("a death while a ticket is being given up loses no count", "[shm][ref][crash]") {
    const NoLeak leak;
    {
        const shm::Ref object = shm::Ref::create(8);
        const std::vector<shm::Ticket> tickets{object.depart()};
        {
            shm::Run message(16, tickets);
            Child child([&] {
                // abandon() as far as it has come before the count.
                shm::Transaction tx = shm::Arena::instance().transaction();
                tx.set(message.tickets()[0].serial, 0);
                die();
            });
            CHECK(child.wait() == -SIGKILL);
        }
        CHECK(in_transit(object) == 0);
    }
    CHECK(leak.leaked() == 0);
}

TEST_CASE("handles in many threads", "[shm][ref][threads]") {
    const NoLeak leak;
    {
        const shm::Ref shared = shm::Ref::create(8);
        std::vector<std::thread> threads;
        for (int t = 0; t < 4; ++t) {
            threads.emplace_back([&] {
                for (int i = 0; i < 500; ++i) {
                    shm::Ticket ticket = shared.depart();
                    const shm::Ref copy = shm::Ref::arrive(ticket);
                    const shm::Ref own = shm::Ref::create(static_cast<std::uint64_t>(i));
                }
            });
        }
        for (auto& thread : threads) thread.join();
        CHECK(handles(shared) == 1);
        CHECK(in_transit(shared) == 0);
    }
    CHECK(leak.leaked() == 0);
}

TEST_CASE("copies of a handle come and go in many threads", "[shm][ref][threads]") {
    const NoLeak leak;
    std::vector<std::thread> threads;
    {
        const shm::Ref first = shm::Ref::create(8);
        const shm::Ticket ticket = shm::Arena::instance().ticket(first.counted());
        std::atomic<int> ready{0};
        for (int t = 0; t < 4; ++t) {
            threads.emplace_back([&] {
                for (++ready; ready != 4;) std::this_thread::yield();
                for (int i = 0; i < 300'000; ++i) {
                    shm::Ref another = first;
                    const shm::Ref third = another;
                    another = shm::Ref();
                }
            });
        }
        for (auto& thread : threads) thread.join();
        REQUIRE(exists(ticket));
        CHECK(handles(first) == 1);
        threads.clear();
        for (int t = 0; t < 4; ++t) threads.emplace_back([copy = first] {});
    }
    for (auto& thread : threads) thread.join();  // whoever is the last to have one
    CHECK(leak.leaked() == 0);
}

TEST_CASE("forks while other threads make and drop handles", "[shm][ref][threads]") {
    const NoLeak leak;
    {
        std::atomic<bool> stop{false};
        std::thread worker([&] {
            while (!stop) static_cast<void>(shm::Ref::create(8));
        });
        for (int i = 0; i < 30; ++i) {
            Child child([] {
                const shm::Ref own = shm::Ref::create(8);
                return own.counted().counts == 1;
            });
            CHECK(child.wait() == 0);
        }
        stop = true;
        worker.join();
    }
    CHECK(leak.leaked() == 0);
}
