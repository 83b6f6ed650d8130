// SPDX-License-Identifier: BSL-1.0
//
// Addresses: what they are made from, what they say of themselves, and how they travel.
#include <multiprocessing/connection/address.hpp>

#include <multiprocessing/context.hpp>
#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/pickle.hpp>
#include <multiprocessing/process.hpp>
#include <multiprocessing/queues.hpp>

#include "runtime/helpers.hpp"
#include "support/catch.hpp"
#include "support/outcome.hpp"

#include <limits>
#include <set>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <sys/socket.h>

namespace mp = multiprocessing;
using namespace std::string_literals;
using namespace std::string_view_literals;
using Catch::Matchers::ContainsSubstring;
using mp::connection::Address;
using mp::connection::Family;
using support::text_of;

namespace {

std::vector<Address> all_kinds() {
    return {Address(),           "/some/path",  "relative",  "\0abstract", "\0of\0three\0parts"s,
            {"127.0.0.1", 5000}, {"a.name", 0}, {"", 65535}, {"::1", 80}};
}

void check_given(const std::vector<Address>& given, const Address& expected) {
    if (given != all_kinds() || expected.path() != "\0as an argument"sv) mp::exit(1);
}

}  // namespace

TEST_CASE("an address is made from a path, whatever it is held in", "[connection][listener]") {
    const char array[20] = "/tmp/socket";  // longer than its text
    char writable[12] = "/tmp/socket";
    const char* const pointer = "/tmp/socket";
    for (const Address& address :
         {Address("/tmp/socket"), Address("/tmp/socket"s), Address("/tmp/socket"sv), Address(array),
          Address(writable), Address(pointer)}) {
        CHECK(address.path() == "/tmp/socket");
        CHECK(address.family() == AF_UNIX);
        CHECK(address.str() == "/tmp/socket");
    }
    const char full[4] = {'p', 'a', 't', 'h'};  // no NUL at all
    CHECK(Address(full).path() == "path");
    const auto take = [](const Address& address) { return address.path(); };
    CHECK(take("implicitly") == "implicitly");
    CHECK(take("implicitly"s) == "implicitly");
    CHECK(take("implicitly"sv) == "implicitly");
}

TEST_CASE("a leading NUL is kept: an abstract name", "[connection][listener]") {
    const char array[20] = "\0socket";
    for (const Address& address :
         {Address("\0socket"), Address("\0socket"s), Address("\0socket"sv), Address(array)}) {
        CHECK(address.path() == "\0socket"sv);
        CHECK(address.family() == AF_UNIX);
        CHECK(address.str() == "@socket");
    }
    CHECK(Address("\0with\0more"s).path() == "\0with\0more"s);  // of strings all bytes count
    CHECK(Address("\0"s).path() == "\0"s);
}

TEST_CASE("what is empty is a path that is empty", "[connection][listener]") {
    const char zeros[5] = {};
    for (const Address& address : {Address(""), Address(""s), Address(zeros), Address()}) {
        CHECK(address.path().empty());
        CHECK(address == Address());
        CHECK(address.str().empty());
    }
}

TEST_CASE("an address of a host and a port", "[connection][listener]") {
    const Address four("127.0.0.1", 5000);
    CHECK(four.host() == "127.0.0.1");
    CHECK(four.port() == 5000);
    CHECK(four.family() == AF_INET);
    CHECK(four.str() == "127.0.0.1:5000");
    const Address named{"a.name", 65535};
    CHECK(named.family() == AF_INET);
    CHECK(named.port() == 65535);
    const Address six("::1", 0);
    CHECK(six.host() == "::1");
    CHECK(six.port() == 0);
    CHECK(six.family() == AF_INET6);
    CHECK(six.str() == "[::1]:0");
    const Address every("", 80);
    CHECK(every.host().empty());
    CHECK(every.family() == AF_INET);
    CHECK(every.str() == ":80");
    CHECK(every != Address(""));
}

TEST_CASE("what is no address is a ValueError", "[connection][listener]") {
    for (const int port :
         {-1, 65536, std::numeric_limits<int>::max(), std::numeric_limits<int>::min()}) {
        CHECK_THROWS_AS(Address("localhost", port), mp::ValueError);
        CHECK_THROWS_WITH(Address("localhost", port), ContainsSubstring(std::to_string(port)));
    }
    CHECK_THROWS_AS(Address("local\0host"s, 80), mp::ValueError);
    CHECK_THROWS_WITH(Address(R"(\\.\pipe\name)"), ContainsSubstring("AF_PIPE"));
    CHECK_THROWS_AS(Address(R"(\\.\pipe\name)"s), mp::ValueError);
    CHECK_NOTHROW(Address(R"(\one)"));  // a file may well be called that
}

TEST_CASE("a question to an address of another family is a ValueError", "[connection][listener]") {
    const Address path("/tmp/socket");
    const Address port("localhost", 80);
    CHECK_THROWS_AS(path.host(), mp::ValueError);
    CHECK_THROWS_WITH(path.port(), ContainsSubstring("/tmp/socket"));
    CHECK_THROWS_WITH(port.path(), ContainsSubstring("localhost:80"));
    CHECK_THROWS_AS(Address("::1", 1).path(), mp::ValueError);
    CHECK_THROWS_AS(Address().host(), mp::ValueError);
    CHECK_THROWS_AS(Address().port(), mp::ValueError);
}

TEST_CASE("addresses are equal when all of them is", "[connection][listener]") {
    const auto addresses = all_kinds();
    for (std::size_t i = 0; i < addresses.size(); ++i) {
        for (std::size_t j = 0; j < addresses.size(); ++j) {
            CHECK((addresses[i] == addresses[j]) == (i == j));
        }
    }
    CHECK(Address("localhost", 1) != Address("localhost", 2));
    CHECK(Address("/a") == "/a");
    CHECK(text_of(Address("::1", 1)) == "[::1]:1");
}

TEST_CASE("a family is one by its name and by its constant", "[connection][listener]") {
    const Family family = Address("localhost", 80).family();
    CHECK(family == AF_INET);
    CHECK(family == "AF_INET");
    CHECK(family == "AF_INET"s);
    CHECK(family == "AF_INET"sv);
    CHECK("AF_INET" == family);
    CHECK(AF_INET == family);
    CHECK(family != AF_INET6);
    CHECK(family != "AF_UNIX");
    CHECK(family.name() == "AF_INET");
    CHECK(family.value() == AF_INET);
    CHECK(text_of(Family(AF_INET6)) == "AF_INET6");
    CHECK(Family("AF_UNIX") == AF_UNIX);
    CHECK_THROWS_AS(Family("AF_PIPE"), mp::ValueError);
    CHECK_THROWS_WITH(Family("inet"), ContainsSubstring("inet") && ContainsSubstring("AF_INET"));
    CHECK_THROWS_AS(Family(""), mp::ValueError);
    CHECK_THROWS_AS(Family(AF_UNSPEC), mp::ValueError);
    CHECK_THROWS_AS(Family(12345), mp::ValueError);
    CHECK_THROWS_AS(family == "AF_PIPE", mp::ValueError);
}

TEST_CASE("an address travels through a queue", "[connection][listener]") {
    const mp::Queue<Address> queue;
    for (const Address& address : all_kinds()) {
        queue.put(address);
        CHECK(queue.get(30) == address);
    }
}

TEST_CASE("an address is an argument of a process", "[connection][listener][fork][spawn]") {
    const auto ctx = mp::get_context(GENERATE(from_range(mp::get_all_start_methods())));
    CHECK(support::run(ctx.Process(check_given, all_kinds(), Address("\0as an argument"))) == 0);
}

TEST_CASE("bytes that hold no address are an UnpicklingError", "[connection][listener]") {
    mp::bytes good = mp::pickle::dumps(Address("localhost", 1));
    CHECK(mp::pickle::loads<Address>(good) == Address("localhost", 1));
    REQUIRE(good.size() > 4);
    // The port is what stands last.
    for (const std::string_view port :
         {"\xfe\xff\xff\xff"sv, "\x00\x00\x01\x00"sv, "\x00\x00\x00\x80"sv}) {
        mp::bytes bad = good;
        std::copy(port.begin(), port.end(), reinterpret_cast<char*>(bad.data() + bad.size() - 4));
        CHECK_THROWS_AS(mp::pickle::loads<Address>(bad), mp::UnpicklingError);
    }
    for (std::size_t size = 0; size < good.size(); ++size) {
        CHECK_THROWS_AS(mp::pickle::loads<Address>(mp::bytes(good.span().first(size))),
                        mp::UnpicklingError);
    }
}
