// SPDX-License-Identifier: BSL-1.0
//
// Everything of the standard library that may travel.
#include "support/catch.hpp"

#include <multiprocessing/pickle.hpp>

#include <bitset>
#include <chrono>
#include <complex>
#include <deque>
#include <filesystem>
#include <forward_list>
#include <limits>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <unordered_map>
#include <unordered_set>
#include <valarray>
#include <variant>
#include <vector>

namespace mp = multiprocessing;

namespace {

template <class T>
T round_trip(const T& value) {
    const mp::bytes pickled = mp::pickle::dumps(value);
    if (const auto size = mp::pickle::exact_size(value)) CHECK(*size == pickled.size());
    return mp::pickle::loads<T>(pickled);
}

template <class T>
void check_round_trip(const T& value) {
    INFO(mp::pickle::type_name<T>());
    CHECK((round_trip(value) == value));
}

struct User {
    std::optional<std::string> name;
    std::variant<int, std::vector<int>> either;
    std::tuple<int, std::string> both;
    std::filesystem::path path;
    std::chrono::seconds time{};
    std::unordered_map<std::string, std::set<int>> table;
    template <class Archive>
    void serialize(Archive& ar, unsigned) {
        ar& name& either& both& path& time& table;
    }
    bool operator==(const User&) const = default;
};

struct Nothing {
    bool operator==(const Nothing&) const = default;
};

}  // namespace

TEST_CASE("numbers come back", "[pickle][std]") {
    check_round_trip(42);
    check_round_trip(true);
    check_round_trip('x');
    check_round_trip(std::numeric_limits<std::int64_t>::min());
    check_round_trip(1.5L);
    check_round_trip(-std::numeric_limits<double>::infinity());
    check_round_trip(std::byte{200});
    check_round_trip(std::complex<float>(1, -2));
    check_round_trip(std::bitset<70>("1011"));
}

TEST_CASE("strings come back, with NULs and of every character type", "[pickle][std]") {
    check_round_trip(std::string());
    check_round_trip(std::string("a\0b", 3));
    check_round_trip(std::string(100000, 'x'));
    check_round_trip(std::wstring(L"wide"));
    check_round_trip(std::u16string(u"sixteen"));
    check_round_trip(std::u32string(U"thirty-two"));
    check_round_trip(std::filesystem::path("/tmp/with space"));
    check_round_trip(mp::bytes("by\0tes"));
}

TEST_CASE("sequences come back", "[pickle][std]") {
    check_round_trip(std::vector<int>{1, 2, 3});
    check_round_trip(std::vector<int>{});
    check_round_trip(std::vector<std::string>{"a", "", "ccc"});
    check_round_trip(std::vector<std::vector<double>>{{1, 2}, {}, {3}});
    check_round_trip(std::vector<bool>{true, false, true, true, false, false, true, false, true});
    check_round_trip(std::vector<std::pair<int, bool>>{{1, true}, {2, false}});
    check_round_trip(std::list<std::string>{"a", "b"});
    check_round_trip(std::deque<int>{1, 2, 3});
    check_round_trip(std::forward_list<int>{1, 2, 3});
    check_round_trip(std::array<int, 3>{1, 2, 3});
    check_round_trip(std::array<std::string, 2>{"a", "b"});
    check_round_trip(std::array<bool, 2>{true, false});
    check_round_trip(std::vector<Nothing>(5));
    check_round_trip(std::list<std::monostate>(3));
    const auto numbers = round_trip(std::valarray<double>{1, 2, 3});
    CHECK(numbers.size() == 3);
    CHECK(numbers.sum() == 6);
}

TEST_CASE("a vector of as many elements as there is no room for at once comes back",
          "[pickle][std]") {
    std::vector<std::string> many(10000);
    for (std::size_t i = 0; i < many.size(); ++i) many[i] = std::to_string(i % 7);
    check_round_trip(many);
    check_round_trip(std::vector<std::array<bool, 64>>(1000, std::array<bool, 64>{true}));
}

TEST_CASE("sets and maps come back", "[pickle][std]") {
    check_round_trip(std::set<int>{3, 1, 2});
    check_round_trip(std::multiset<int>{1, 1, 2});
    check_round_trip(std::unordered_set<std::string>{"a", "b"});
    check_round_trip(std::unordered_multiset<int>{1, 1, 2});
    check_round_trip(std::map<std::string, int>{{"a", 1}, {"b", 2}});
    check_round_trip(std::map<int, std::map<int, std::string>>{{1, {{2, "x"}}}});
    check_round_trip(std::unordered_map<int, std::string>{{1, "a"}, {2, "b"}});
    check_round_trip(std::unordered_multimap<int, int>{{1, 2}, {1, 3}});
    const std::multimap<int, std::string> pairs{{1, "first"}, {1, "second"}, {0, "zeroth"}};
    check_round_trip(pairs);
    check_round_trip(std::set<int, std::greater<>>{3, 1, 2});
}

TEST_CASE("pairs, tuples, optionals and variants come back", "[pickle][std]") {
    check_round_trip(std::pair<int, std::string>(1, "a"));
    check_round_trip(std::make_tuple(1, 2.5, std::string("x"), true));
    check_round_trip(std::tuple<>());
    check_round_trip(std::optional<int>());
    check_round_trip(std::optional<std::string>("x"));
    using Variant = std::variant<std::monostate, int, std::string, std::vector<int>>;
    check_round_trip(Variant());
    check_round_trip(Variant(1));
    check_round_trip(Variant("x"));
    check_round_trip(Variant(std::vector<int>{1, 2}));
    check_round_trip(std::monostate());
}

TEST_CASE("durations and points in time come back", "[pickle][std]") {
    check_round_trip(std::chrono::milliseconds(1500));
    check_round_trip(std::chrono::duration<double>(1.5));
    check_round_trip(std::chrono::system_clock::now());
    check_round_trip(std::chrono::steady_clock::now());
}

TEST_CASE("what Boost's own headers cannot serialize works inside a user's serialize",
          "[pickle][std]") {
    check_round_trip(User{"name",
                          std::vector<int>{1, 2},
                          {3, "x"},
                          "/tmp",
                          std::chrono::seconds(4),
                          {{"k", {1, 2}}}});
    check_round_trip(std::vector<User>(3));
}

TEST_CASE("owned objects come back", "[pickle][std]") {
    CHECK(*mp::pickle::loads<std::unique_ptr<std::string>>(
              mp::pickle::dumps(std::make_unique<std::string>("x"))) == "x");
    CHECK(mp::pickle::loads<std::unique_ptr<int>>(mp::pickle::dumps(std::unique_ptr<int>())) ==
          nullptr);
    CHECK(*round_trip(std::make_shared<int>(5)) == 5);
    CHECK(*round_trip(std::make_shared<const std::vector<int>>(3)) == std::vector<int>(3));
    int number = 5;
    const std::unique_ptr<int> copy(round_trip(&number));
    CHECK(*copy == 5);
    CHECK(round_trip(static_cast<int*>(nullptr)) == nullptr);
}

TEST_CASE("a bool that is neither true nor false, a variant of no alternative and the like are "
          "refused",
          "[pickle][std]") {
    mp::bytes pickled = mp::pickle::dumps(true);
    pickled.back() = std::byte{2};
    CHECK_THROWS_AS(mp::pickle::loads<bool>(pickled), mp::UnpicklingError);
    pickled = mp::pickle::dumps(std::vector<std::pair<int, bool>>{{1, true}});
    pickled.back() = std::byte{200};
    CHECK_THROWS_AS((mp::pickle::loads<std::vector<std::pair<int, bool>>>(pickled)),
                    mp::UnpicklingError);
    using Variant = std::variant<int, std::string>;
    pickled = mp::pickle::dumps(Variant(1));
    pickled[8] = std::byte{2};
    CHECK_THROWS_AS(mp::pickle::loads<Variant>(pickled), mp::UnpicklingError);
    pickled = mp::pickle::dumps(std::bitset<3>("101"));
    pickled[8] = std::byte{0xff};
    CHECK(mp::pickle::loads<std::bitset<3>>(pickled).count() == 3);
}
