// SPDX-License-Identifier: BSL-1.0
#include "support/catch.hpp"

#include <multiprocessing/pickle/cargo.hpp>

#include <utility>
#include <vector>

namespace mp = multiprocessing;
namespace os = multiprocessing::os;
namespace shm = multiprocessing::shm;
using mp::pickle::Cargo;

namespace {

std::uint32_t in_transit(const shm::Ref& object) {
    return static_cast<std::uint32_t>(object.counted().counts >> 32);
}

}  // namespace

TEST_CASE("a shared object travels beside the bytes", "[pickle][cargo]") {
    const shm::Ref object = shm::Ref::create(8);
    std::vector<shm::Ticket> delivered;
    {
        Cargo sent;
        CHECK(sent.empty());
        CHECK(sent.add(object) == 0);
        CHECK(sent.add(object) == 1);
        CHECK(in_transit(object) == 2);
        delivered.assign(sent.tickets().begin(), sent.tickets().end());
        sent.ship();
    }
    CHECK(in_transit(object) == 2);
    {
        Cargo received{std::span(delivered)};
        CHECK(received.take(1) == object);
        CHECK(in_transit(object) == 1);
        CHECK_THROWS_AS(received.take(2), mp::UnpicklingError);
    }
    // What was not taken is given up with the message.
    CHECK(in_transit(object) == 0);
}

TEST_CASE("a message that is not sent keeps no object alive", "[pickle][cargo]") {
    const shm::Ref object = shm::Ref::create(8);
    {
        Cargo never_sent;
        never_sent.add(object);
    }
    CHECK(in_transit(object) == 0);
}

TEST_CASE("descriptors travel where the carrier takes them", "[pickle][cargo]") {
    auto [reading, writing] = os::pipe();
    Cargo cannot(false, "a Queue");
    CHECK_THROWS_AS(cannot.add_descriptor(reading.get()), mp::PicklingError);
    CHECK_THROWS_WITH(cannot.add_descriptor(reading.get()),
                      Catch::Matchers::ContainsSubstring("a Queue"));
    Cargo can(true);
    CHECK(can.add_descriptor(reading.get()) == 0);
    CHECK(can.descriptors()[0] != reading.get());

    std::vector<os::Fd> arrived;
    arrived.push_back(os::duplicate(writing.get()));
    const int number = arrived[0].get();
    Cargo received({}, std::move(arrived));
    CHECK_THROWS_AS(received.take_descriptor(1), mp::UnpicklingError);
    CHECK(received.take_descriptor(0).get() == number);
    CHECK_THROWS_AS(received.take_descriptor(0), mp::UnpicklingError);
}
