// SPDX-License-Identifier: BSL-1.0
#include <multiprocessing/synchronize.hpp>

#include "conformance/helpers.hpp"
#include "support/catch.hpp"

#include <regex>
#include <sstream>
#include <string>

namespace mp = multiprocessing;
using namespace support;

TEST_CASE("_TestEvent.test_event", "[event][conformance]") {
    EVERY_START_METHOD;
    const mp::Event event;
    CHECK_FALSE(event.is_set());
    CHECK(elapsed([&] { CHECK_FALSE(event.wait(0)); }) < no_time);
    CHECK(elapsed([&] { CHECK_FALSE(event.wait(timeout1)); }) >= timeout1);
    event.set();
    CHECK(event.is_set());
    CHECK(event.wait());
    CHECK(event.wait(timeout1));
    event.clear();
    CHECK_FALSE(event.is_set());
    Children children(method);
    children.start([](const mp::Event& e) { e.set(); }, event);
    CHECK(event.wait(patient));
    CHECK(children.join());
}

TEST_CASE("_TestEvent.test_repr", "[event][conformance]") {
    const mp::Event event;
    const auto prints = [&](const std::string& pattern) {
        std::ostringstream out;
        out << event;
        return std::regex_match(out.str(), std::regex(pattern));
    };
    CHECK(prints("<Event at 0x[0-9a-f]+ unset>"));
    event.set();
    CHECK(prints("<Event at 0x[0-9a-f]+ set>"));
    event.clear();
    CHECK(prints("<Event at 0x[0-9a-f]+ unset>"));
}
