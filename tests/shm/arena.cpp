// SPDX-License-Identifier: BSL-1.0
#include <multiprocessing/shm/arena.hpp>

#include <multiprocessing/shm/run.hpp>

#include "shm/helpers.hpp"
#include "support/catch.hpp"

#include <array>
#include <cstdint>
#include <vector>

using namespace support;

namespace {

// A list head in the arena to hang blocks on.
struct List {
    shm::Offset head = 0;
};

}  // namespace

TEST_CASE("blocks hang on lists and change between them", "[shm][arena]") {
    const NoLeak leak;
    {
        const auto a = shm::Shared<List>::make(0);
        const auto b = shm::Shared<List>::make(0);
        const shm::Arena& arena = shm::Arena::instance();
        shm::Transaction tx = arena.transaction();
        std::array<shm::Block*, 3> blocks{};
        for (auto& block : blocks) block = &arena.allocate(tx, 10, a->head);
        const shm::Ticket middle = arena.ticket(*blocks[1]);
        CHECK(a->head == arena.offset_of(blocks[2]));
        CHECK_FALSE(arena.transfer(tx, middle, b->head, a->head));  // it is not there
        CHECK_FALSE(arena.transfer(tx, {middle.offset, middle.serial + 1}, a->head, b->head));
        CHECK(arena.transfer(tx, middle, a->head, b->head));
        CHECK(b->head == arena.offset_of(blocks[1]));
        CHECK(blocks[2]->next == arena.offset_of(blocks[0]));
        CHECK(blocks[0]->previous == arena.offset_of(blocks[2]));
        tx.commit();
        for (auto* block : blocks) arena.destroy(tx, *block);
        CHECK(a->head == 0);
        CHECK(b->head == 0);
    }
    CHECK(leak.leaked() == 0);
}

TEST_CASE("with a block goes what it owns, however deep, and what its tickets kept", "[shm][arena]") {
    const NoLeak leak;
    {
        const shm::Arena& arena = shm::Arena::instance();
        std::vector<shm::Ticket> tickets;
        {
            const auto object = shm::Ref::create(100);
            tickets = {object.depart(), object.depart()};
        }
        shm::Run top(10);
        {
            shm::Run message(24, tickets);
            shm::Transaction tx = arena.transaction();
            shm::Block* owner = &top.block();
            for (int depth = 0; depth < 1000; ++depth) {
                owner = &arena.allocate(tx, 50, owner->owned);
                tx.commit();
            }
            shm::Block& inner = message.release();
            arena.unhang(tx, inner);
            arena.hang(tx, owner->owned, inner);
            tx.commit();
        }
        CHECK(arena.find(tickets[0]) != nullptr);
    }
    CHECK(leak.leaked() == 0);
}

TEST_CASE("a destruction that a death interrupts is ended by others", "[shm][arena][crash]") {
    const NoLeak leak;
    {
        const auto list = shm::Shared<List>::make(0);
        const shm::Arena& arena = shm::Arena::instance();
        shm::Block* block = nullptr;
        {
            shm::Transaction tx = arena.transaction();
            block = &arena.allocate(tx, 50, list->head);
            for (int i = 0; i < 10; ++i) arena.allocate(tx, 50, block->owned);
            tx.commit();
        }
        Child child([&] {
            // The first step of destroy(), and half of the second.
            shm::Transaction tx = arena.transaction();
            arena.unhang(tx, *block);
            arena.hang(tx, arena.header().doomed, *block);
            tx.commit();
            arena.unhang(tx, *arena.at<shm::Block>(block->owned));
            die();
        });
        CHECK(child.wait() == -SIGKILL);
        CHECK(arena.header().doomed == 0);
        CHECK(list->head == 0);
    }
    CHECK(leak.leaked() == 0);
}

TEST_CASE("offsets and addresses", "[shm][arena]") {
    const shm::Arena& arena = shm::Arena::instance();
    const auto object = shm::Ref::create(64);
    CHECK(arena.contains(object.get()));
    int local = 0;
    CHECK_FALSE(arena.contains(&local));
    CHECK(arena.at<shm::Counted>(arena.ticket(object.counted()).offset) == &object.counted());
    CHECK(&shm::Arena::counted_of(object.get<void>()) == &object.counted());
    CHECK(&shm::Arena::block_of(object.get<std::array<char, 64>>()) == &object.counted());
    CHECK(reinterpret_cast<std::uintptr_t>(object.get()) % 64 == 0);
}
