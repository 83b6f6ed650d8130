// SPDX-License-Identifier: BSL-1.0
#include <multiprocessing/shm/journal.hpp>

#include "shm/helpers.hpp"
#include "support/catch.hpp"

#include <array>
#include <cstdint>
#include <stdexcept>

using namespace support;

namespace {

struct Words {
    std::array<std::uint64_t, 600> word{};
};

}  // namespace

TEST_CASE("a transaction that is not committed is undone, newest change first", "[shm][journal]") {
    const auto words = shm::Shared<Words>::make(0);
    auto& word = words->word;
    word[0] = 1;
    {
        shm::Transaction tx = shm::Arena::instance().transaction();
        const auto room = tx.room();
        tx.set(word[0], 2);
        tx.set(word[0], 3);
        tx.set(word[1], 4);
        CHECK(tx.room() == room - 3);
        CHECK(word[0] == 3);
    }
    CHECK(word[0] == 1);
    CHECK(word[1] == 0);
    CHECK_THROWS_AS(
        [&] {
            shm::Transaction tx = shm::Arena::instance().transaction();
            tx.set(word[0], 5);
            throw std::runtime_error("on the way");
        }(),
        std::runtime_error);
    CHECK(word[0] == 1);
}

TEST_CASE("what is committed stands, what follows is a unit of its own", "[shm][journal]") {
    const auto words = shm::Shared<Words>::make(0);
    auto& word = words->word;
    {
        shm::Transaction tx = shm::Arena::instance().transaction();
        tx.set(word[0], 2);
        tx.commit();
        tx.set(word[1], 3);
        tx.roll_back();
        CHECK(word[1] == 0);
        tx.set(word[2], 4);
        tx.unlock();
        CHECK(word[2] == 0);
    }
    CHECK(word[0] == 2);
}

TEST_CASE("the next to come rolls back what a killed process had begun", "[shm][journal][crash]") {
    const auto words = shm::Shared<Words>::make(0);
    auto& word = words->word;
    const auto stage = make_stage();
    Child child([&] {
        stage->await(1);  // the start of a process is a transaction too
        shm::Transaction tx = shm::Arena::instance().transaction();
        tx.set(word[0], 1);
        tx.set(word[1], 1);
        tx.commit();
        for (std::size_t i = 0; i < shm::Journal::capacity; ++i) tx.set(word[i], 7);
        die();
    });
    stage->reach(1);
    CHECK(child.end() == -SIGKILL);
    CHECK(word[5] == 7);
    { shm::Transaction tx = shm::Arena::instance().transaction(); }
    CHECK(word[0] == 1);
    CHECK(word[1] == 1);
    for (std::size_t i = 2; i < word.size(); ++i) CHECK(word[i] == 0);
}

TEST_CASE("a death during a roll-back is no harm", "[shm][journal][crash]") {
    const auto words = shm::Shared<Words>::make(0);
    auto& word = words->word;
    word[0] = 1;
    Child child([&] {
        shm::Transaction tx = shm::Arena::instance().transaction();
        tx.set(word[0], 2);
        tx.set(word[1], 2);
        // As far as a roll-back has come when it has restored a word and not noted it yet.
        word[1] = 0;
        die();
    });
    CHECK(child.end() == -SIGKILL);
    { shm::Transaction tx = shm::Arena::instance().transaction(); }
    CHECK(word[0] == 1);
    CHECK(word[1] == 0);
}
