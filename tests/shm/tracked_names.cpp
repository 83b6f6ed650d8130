// SPDX-License-Identifier: BSL-1.0
//
// tracked_names.hpp and named_segment.hpp
#include <multiprocessing/shm/named_segment.hpp>
#include <multiprocessing/shm/tracked_names.hpp>

#include "shm/helpers.hpp"
#include "shm/single_step.hpp"
#include "support/catch.hpp"

#include <set>
#include <string>

#include <unistd.h>

using namespace support;
using shm::NamedSegment;

namespace {

std::string name_of(const char* what) {
    return std::string("mp_") + what + std::to_string(::getpid());
}

bool exists(const std::string& name) { return ::access(("/dev/shm/" + name).c_str(), F_OK) == 0; }

std::multiset<std::string> tracked() {
    const auto tx = shm::Arena::instance().transaction();
    std::multiset<std::string> names;
    shm::visit_tracked_names([&](const shm::TrackedName& entry, const shm::Block&) {
        names.insert(entry.name());
        return false;
    });
    return names;
}

}  // namespace

TEST_CASE("a tracked name is on the list from before it is given to after it is taken away",
          "[shm][tracked_names]") {
    const NoLeak leak;
    const std::string name = name_of("tracked");
    const auto before = tracked();
    NamedSegment segment(100);
    REQUIRE(segment.give_name(name, {.tree = true}));
    CHECK(tracked().count(name) == 1);
    NamedSegment other(100);
    CHECK_FALSE(other.give_name(name, {.tree = true}));
    CHECK(tracked().count(name) == 1);
    CHECK_THROWS_AS(other.give_name("a/b", {.tree = true}), std::system_error);
    NamedSegment::unlink("/" + name);
    CHECK(tracked() == before);
    REQUIRE(other.give_name(name, {}));
    CHECK(tracked() == before);
    NamedSegment::unlink(name);
    CHECK(leak.leaked() == 0);
}

TEST_CASE("the names of a group are taken away, and no others", "[shm][tracked_names]") {
    const NoLeak leak;
    const auto make = [](const std::string& name, std::uint64_t group) {
        NamedSegment segment(1);
        REQUIRE(segment.give_name(name, {.tree = true, .group = group}));
    };
    make(name_of("mine1"), 17);
    make(name_of("other"), 18);
    make(name_of("mine2"), 17);
    make(name_of("gone"), 17);
    ::unlink(("/dev/shm/" + name_of("gone")).c_str());  // somebody else has been faster
    shm::remove_names_of(17);
    CHECK_FALSE(exists(name_of("mine1")));
    CHECK_FALSE(exists(name_of("mine2")));
    CHECK(exists(name_of("other")));
    CHECK(tracked().count(name_of("gone")) == 0);
    shm::remove_names_of(18);
    CHECK_FALSE(exists(name_of("other")));
    CHECK(leak.leaked() == 0);
}

TEST_CASE("killed anywhere in the giving of a name, it is on the list or was never given",
          "[shm][tracked_names][killed]") {
    const std::string name = name_of("killed");
    kill_anywhere([] {},
                  [&] {
                      NamedSegment segment(1);
                      static_cast<void>(segment.give_name(name, {.tree = true}));
                      NamedSegment::unlink(name);
                  },
                  [&] {
                      CHECK((!exists(name) || tracked().count(name) == 1));
                      shm::remove_names_of(0);
                      CHECK_FALSE(exists(name));
                      CHECK(tracked().count(name) == 0);
                  });
}
