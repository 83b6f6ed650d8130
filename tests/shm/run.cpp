// SPDX-License-Identifier: BSL-1.0
#include <multiprocessing/shm/run.hpp>

#include "shm/helpers.hpp"
#include "support/catch.hpp"

#include <cstring>
#include <utility>
#include <vector>

using namespace support;

TEST_CASE("a run ends with its owner", "[shm][run]") {
    const NoLeak leak;
    {
        shm::Run run(13);
        CHECK(run);
        CHECK(run.tickets().empty());
        std::memset(run.data(), 1, 13);
        shm::Run other = std::move(run);
        CHECK_FALSE(run);
        CHECK(other);
        shm::Run third;
        third = std::move(other);
        CHECK(third);
    }
    CHECK(leak.leaked() == 0);
    Child child([] {
        const shm::Run run(100'000);
        die();
    });
    CHECK(child.wait() == -SIGKILL);
    CHECK(leak.leaked() == 0);
}

TEST_CASE("a run's tickets stand behind its bytes and end with it", "[shm][run]") {
    const NoLeak leak;
    {
        const auto object = shm::Ref::create(8);
        const std::vector<shm::Ticket> tickets{object.depart(), object.depart()};
        const shm::Run run(13, tickets);
        REQUIRE(run.tickets().size() == 2);
        CHECK(run.tickets()[1].offset == shm::Arena::instance().offset_of(&object.counted()));
        CHECK(reinterpret_cast<std::byte*>(run.tickets().data()) == run.data() + 16);
        CHECK(object.counted().counts >> 32 == 2);
    }
    CHECK(leak.leaked() == 0);
}
