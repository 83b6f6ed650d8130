// SPDX-License-Identifier: BSL-1.0
//
// C++ types as Python's pickle and back: what dumps writes, what loads makes, and what it says when
// there is something else. (With Python itself: interop/python_pickle.cpp.)
#include <multiprocessing/python.hpp>
#include <multiprocessing/range.hpp>

#include "support/catch.hpp"
#include "support/ranges.hpp"

#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <deque>
#include <filesystem>
#include <forward_list>
#include <limits>
#include <list>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <variant>
#include <vector>

namespace mp = multiprocessing;

namespace python_tests {

namespace python = mp::python;
using Catch::Matchers::ContainsSubstring;

// What is between PROTO 4 and STOP.
template <class T>
std::string body_of(const T& value) {
    const std::string whole = python::dumps(value).str();
    REQUIRE(whole.starts_with("\x80\x04"));
    REQUIRE(whole.ends_with('.'));
    return whole.substr(2, whole.size() - 3);
}

std::string operator""_s(const char* text, std::size_t size) { return {text, size}; }

template <class T>
T there_and_back(const T& value) {
    return python::loads<T>(python::dumps(value));
}

// What loads<T> says of the pickle of that value.
template <class T, class Value>
std::string complaint(const Value& value) {
    try {
        static_cast<void>(python::loads<T>(python::dumps(value)));
    } catch (const mp::UnpicklingError& error) {
        return error.what();
    }
    return "";
}

template <class T>
void check_integer() {
    INFO(sizeof(T));
    for (const T value :
         {python::integers::lowest<T>, python::integers::highest<T>, T{0}, T{1}, T{127},
          static_cast<T>(-1), static_cast<T>(-128), static_cast<T>(0xff), static_cast<T>(0x100),
          static_cast<T>(0xffff), static_cast<T>(0x10000), static_cast<T>(0x7fffffff),
          static_cast<T>(0x80000000u), static_cast<T>(0xffffffffu)}) {
        CHECK(bool(there_and_back(value) == value));
        CHECK(there_and_back(std::vector<T>{value, value}) == std::vector<T>{value, value});
    }
}

TEST_CASE("python::dumps writes the opcodes of protocol 4", "[python]") {
    CHECK(body_of(mp::None) == "N");
    CHECK(body_of(std::nullopt) == "N");
    CHECK(body_of(nullptr) == "N");
    CHECK(body_of(std::monostate()) == "N");
    CHECK(body_of(true) == "\x88");
    CHECK(body_of(false) == "\x89");
    CHECK(body_of(0) == "K\0"_s);
    CHECK(body_of(255) == "K\xff");
    CHECK(body_of(256) == "M\0\1"_s);
    CHECK(body_of(65535) == "M\xff\xff");
    CHECK(body_of(65536) == "J\0\0\1\0"_s);
    CHECK(body_of(-1) == "J\xff\xff\xff\xff");
    CHECK(body_of(std::numeric_limits<std::int32_t>::min()) == "J\0\0\0\x80"_s);
    CHECK(body_of(std::int64_t{1} << 31) == "\x8a\5\0\0\0\x80\0"_s);
    CHECK(body_of(-(std::int64_t{1} << 31) - 1) == "\x8a\5\xff\xff\xff\x7f\xff"_s);
    CHECK(body_of(std::numeric_limits<std::uint64_t>::max()) ==
          "\x8a\x09\xff\xff\xff\xff\xff\xff\xff\xff\0"_s);
    CHECK(body_of(1.5) == "G\x3f\xf8\0\0\0\0\0\0"_s);
    CHECK(body_of(1.5f) == "G\x3f\xf8\0\0\0\0\0\0"_s);
    CHECK(body_of('x') == "\x8c\1x");
    CHECK(body_of("na\u00efve") == "\x8c\6na\xc3\xafve"_s);
    CHECK(body_of(std::string(256, 'x')) == "X\0\1\0\0"_s + std::string(256, 'x'));
    CHECK(body_of(mp::bytes("a\xff")) == "C\2a\xff"_s);
    CHECK(body_of(std::vector<std::byte>(256)) == "B\0\1\0\0"_s + std::string(256, '\0'));
    CHECK(body_of(std::vector{1, 2}) == "](K\1K\2e");
    CHECK(body_of(std::vector<std::string>{"a"}) == "](\x8c\1ae"_s);
    CHECK(body_of(std::vector<int>()) == "]");
    CHECK(body_of(std::tuple()) == ")");
    CHECK(body_of(std::tuple(1)) == "K\1\x85");
    CHECK(body_of(std::pair(1, 'a')) == "K\1\x8c\1a\x86"_s);
    CHECK(body_of(std::tuple(1, 2, 3)) == "K\1K\2K\3\x87");
    CHECK(body_of(std::tuple(1, 2, 3, 4)) == "(K\1K\2K\3K\4t");
    CHECK(body_of(std::map<int, bool>{{1, true}}) == "}(K\1\x88u");
    CHECK(body_of(std::map<int, bool>()) == "}");
    CHECK(body_of(std::set<int>{1, 2}) == "\x8f(K\1K\2\x90");
    CHECK(body_of(std::set<int>()) == "\x8f");
    CHECK(body_of(std::optional(1)) == "K\1");
    CHECK(body_of(std::optional<int>()) == "N");
    CHECK(body_of(std::variant<int, std::string>("x")) == "\x8c\1x");
}

TEST_CASE("python::dumps freezes what Python must hash", "[python]") {
    CHECK(body_of(std::set<std::set<int>>{{1}}) == "\x8f((K\1\x91\x90");
    CHECK(body_of(std::map<std::vector<int>, std::vector<int>>{{{1}, {2}}}) == "}((K\1t](K\2eu");
    CHECK(body_of(std::set<std::optional<std::pair<int, std::vector<bool>>>>{
              std::pair(1, std::vector{true})}) == "\x8f(K\1(\x88t\x86\x90");
    CHECK(there_and_back(std::map<std::set<std::vector<int>>, int>{{{{1, 2}, {}}, 3}}) ==
          std::map<std::set<std::vector<int>>, int>{{{{1, 2}, {}}, 3}});
    // Only within the key.
    CHECK(body_of(std::vector{std::map<std::set<int>, std::set<int>>{{{1}, {2}}}}) ==
          "](}((K\1\x91\x8f(K\2\x90ue");
}

TEST_CASE("python::dumps writes long lists in batches", "[python]") {
    const std::vector<int> many(2500, 7);
    const std::string text = body_of(many);
    CHECK(text.size() == 1 + 3 * 2 + 2500 * 2);
    CHECK(text.substr(2000, 3) == "K\7e");
    CHECK(there_and_back(many) == many);
    // Many containers beside one another are none in one another.
    const std::vector<std::vector<int>> lists(2500, {1});
    CHECK(there_and_back(lists) == lists);
    const std::vector<std::string> words(2500, "x");
    CHECK(there_and_back(words) == words);
    CHECK(there_and_back(std::vector<int>(1000, 7)) == std::vector<int>(1000, 7));
    std::map<int, std::string> map;
    std::unordered_set<int> set;
    for (int i = 0; i < 2500; ++i) {
        map[i] = std::to_string(i);
        set.insert(i);
    }
    CHECK(there_and_back(map) == map);
    CHECK(there_and_back(set) == set);
}

TEST_CASE("integers of every type go to Python's pickle and back", "[python]") {
    check_integer<signed char>();
    check_integer<unsigned char>();
    check_integer<short>();
    check_integer<unsigned short>();
    check_integer<int>();
    check_integer<unsigned>();
    check_integer<long>();
    check_integer<unsigned long>();
    check_integer<long long>();
    check_integer<unsigned long long>();
    check_integer<python::int128>();
    check_integer<python::uint128>();
    for (int shift = 0; shift < 127; ++shift) {
        const python::int128 power = python::int128{1} << shift;
        for (const python::int128 value : {power, power - 1, -power, -power - 1})
            CHECK(bool(there_and_back(value) == value));
    }
}

TEST_CASE("floating-point numbers go to Python's pickle and back exactly", "[python]") {
    using Limits = std::numeric_limits<double>;
    for (const double value :
         {0.0, -0.0, 0.1, 1e300, Limits::max(), Limits::lowest(), Limits::denorm_min(),
          Limits::infinity(), -Limits::infinity(), Limits::quiet_NaN(), -Limits::quiet_NaN()}) {
        const double again = there_and_back(value);
        CHECK(std::memcmp(&again, &value, sizeof value) == 0);
    }
    CHECK(there_and_back(0.1f) == 0.1f);
    CHECK(std::isinf(there_and_back(std::numeric_limits<float>::infinity())));
    CHECK(there_and_back(0.5L) == 0.5L);
    CHECK_THROWS_AS(python::dumps(std::numeric_limits<long double>::max()), mp::PicklingError);
    CHECK_THAT(complaint<float>(1e300), ContainsSubstring("the float 1e+300, which is too large"));
}

TEST_CASE("text and bytes go to Python's pickle and back", "[python]") {
    const std::string text = "a\u20ac\U0001F600\n\0 '\"\\"_s;
    CHECK(there_and_back(text) == text);
    CHECK(python::loads<std::string>(python::dumps(std::string_view(text))) == text);
    const char* const literal = "abc";
    CHECK(python::loads<std::string>(python::dumps(literal)) == "abc");
    const char full[] = {'a', 'b'};
    CHECK(python::loads<std::string>(python::dumps(full)) == "ab");
    const char padded[8] = "ab";
    CHECK(python::loads<std::string>(python::dumps(padded)) == "ab");
    CHECK(there_and_back('\0') == '\0');
    for (const std::size_t size : {0u, 255u, 256u, 70000u}) {
        CHECK(there_and_back(std::string(size, 'x')).size() == size);
        CHECK(there_and_back(mp::bytes(std::string(size, '\xff'))).size() == size);
    }
    const std::vector<std::byte> raw{std::byte{0}, std::byte{255}};
    CHECK(there_and_back(raw) == raw);
    CHECK(python::loads<mp::bytes>(python::dumps(std::span(raw))) == mp::bytes(raw));
    using Array = std::array<std::byte, 2>;
    CHECK(there_and_back(Array{std::byte{1}, std::byte{2}}) == Array{std::byte{1}, std::byte{2}});
    CHECK_THAT(complaint<Array>(mp::bytes("abc")), ContainsSubstring("expected bytes of 2"));
}

TEST_CASE("text that is not UTF-8 is no str for Python", "[python]") {
    for (const std::string& text : {"\xff"_s, "a\xc3"_s, "\xc0\x80"_s, "\xed\xa0\x80"_s,
                                    "\xf4\x90\x80\x80"_s, "\xe2\x28\xa1"_s, "12345678\x80"_s,
                                    "\xf0\x80\x80\x80"_s, "\xe0\x80\x80"_s, "\xf5\x80\x80\x80"_s}) {
        INFO(mp::shared_memory::ShareableItem(mp::bytes(text)));
        CHECK_THROWS_MATCHES(python::dumps(text), mp::PicklingError,
                             Catch::Matchers::Message(std::string("python::dumps: a string ") +
                                                      python::text::fault(text) +
                                                      ": send mp::bytes instead"));
    }
    CHECK_THROWS_AS(python::dumps('\xff'), mp::PicklingError);
    CHECK_THROWS_AS(python::dumps(static_cast<const char*>(nullptr)), mp::PicklingError);
    CHECK_THROWS_AS(python::object(static_cast<const char*>(nullptr)), mp::ValueError);
}

TEST_CASE("containers go to Python's pickle and back", "[python]") {
    CHECK(there_and_back(std::vector<bool>{true, false}) == std::vector<bool>{true, false});
    CHECK(there_and_back(std::deque{1, 2}) == std::deque{1, 2});
    CHECK(there_and_back(std::list<std::string>{"a", "b"}) == std::list<std::string>{"a", "b"});
    CHECK(there_and_back(std::forward_list{1, 2}) == std::forward_list{1, 2});
    CHECK(there_and_back(std::array{1, 2}) == std::array{1, 2});
    CHECK(there_and_back(std::array<int, 0>()) == std::array<int, 0>());
    CHECK(there_and_back(std::vector<char>{'a', 'b'}) == std::vector<char>{'a', 'b'});
    using Table = std::unordered_map<std::string, std::vector<std::optional<double>>>;
    const Table table{{"a", {1.0, std::nullopt}}, {"b", {}}};
    CHECK(there_and_back(table) == table);
    const std::map<std::pair<int, std::string>, std::set<std::string>> map{{{1, "x"}, {"y", "z"}}};
    CHECK(there_and_back(map) == map);
    const std::tuple<int, std::string, std::tuple<>, std::pair<bool, char>> tuple{
        1, "x", {}, {true, 'c'}};
    CHECK(there_and_back(tuple) == tuple);
    const std::optional<std::optional<int>> twice(std::optional<int>(1));
    CHECK(there_and_back(twice) == twice);
    CHECK(there_and_back(std::monostate()) == std::monostate());
}

TEST_CASE("any range is a list for Python", "[python]") {
    const std::vector expected{0, 1, 4};
    const auto list_of = [](const mp::bytes& pickled) {
        return python::loads<std::vector<int>>(pickled);
    };
    CHECK(list_of(python::dumps(support::Generated([](int x) { return x * x; }, 3))) == expected);
    CHECK(list_of(python::dumps(std::span(expected))) == expected);
    CHECK(list_of(python::dumps(mp::range(3))) == std::vector{0, 1, 2});
    const python::object made = support::Generated([](int x) { return x * x; }, 3);
    CHECK(made == python::list{0, 1, 4});
}

TEST_CASE("python::loads takes lists for tuples and tuples for lists", "[python]") {
    CHECK(python::loads<std::vector<int>>(python::dumps(std::tuple(1, 2))) == std::vector{1, 2});
    CHECK(python::loads<std::array<int, 2>>(python::dumps(std::pair(1, 2))) == std::array{1, 2});
    CHECK(python::loads<std::pair<int, int>>(python::dumps(std::vector{1, 2})) == std::pair(1, 2));
    CHECK(python::loads<python::list>(python::dumps(std::tuple(1, 2))) == python::list{1, 2});
    CHECK(python::loads<python::tuple>(python::dumps(std::vector{1, 2})) == python::tuple{1, 2});
}

TEST_CASE("python::loads says what is there instead of what was asked for", "[python]") {
    CHECK(complaint<int>("abc") ==
          "python::loads: expected int from -2147483648 to 2147483647, but "
          "there is the str 'abc'");
    CHECK_THAT(complaint<std::uint8_t>(256), ContainsSubstring("expected int from 0 to 255"));
    CHECK_THAT(complaint<std::uint8_t>(-1), ContainsSubstring("there is the int -1"));
    CHECK_THAT(complaint<std::int64_t>(std::uint64_t{1} << 63),
               ContainsSubstring("there is the int 9223372036854775808"));
    CHECK_THAT(complaint<std::int64_t>(python::int128{1} << 80),
               ContainsSubstring("there is an int of 81 bits"));
    CHECK_THAT(complaint<python::object>(python::uint128{1} << 127),
               ContainsSubstring("int of 64 bits") && ContainsSubstring("an int of 128 bits"));
    CHECK_THAT(complaint<int>(true), ContainsSubstring("there is the bool True"));
    CHECK_THAT(complaint<int>(1.0), ContainsSubstring("there is the float 1.0"));
    CHECK_THAT(complaint<bool>(1), ContainsSubstring("expected bool, but there is the int 1"));
    CHECK_THAT(complaint<double>(false), ContainsSubstring("expected float"));
    CHECK_THAT(complaint<std::string>(mp::bytes("a\xff")),
               ContainsSubstring("expected str, but there is the bytes b'a\\xff'"));
    CHECK_THAT(complaint<mp::bytes>("a"),
               ContainsSubstring("expected bytes, but there is the str"));
    CHECK_THAT(complaint<char>("ab"), ContainsSubstring("expected str of one ASCII character"));
    CHECK_THAT(complaint<char>("\u00e9"), ContainsSubstring("expected str of one ASCII character"));
    CHECK_THAT(complaint<std::vector<int>>(mp::None),
               ContainsSubstring("expected list or tuple, but there is None"));
    CHECK_THAT(complaint<std::vector<int>>(std::set<int>{1}), ContainsSubstring("a set of 1"));
    CHECK_THAT(complaint<std::set<int>>(std::vector{1, 2}), ContainsSubstring("a list of 2"));
    CHECK_THAT(complaint<std::set<int>>(std::map<int, int>{{1, 2}}),
               ContainsSubstring("a dict of 1"));
    CHECK_THAT((complaint<std::map<int, int>>(std::tuple(1, 2, 3))),
               ContainsSubstring("a tuple of 3"));
    CHECK_THAT((complaint<std::array<int, 2>>(std::vector{1})),
               ContainsSubstring("expected list or tuple of 2, but there is a list of 1"));
    CHECK_THAT((complaint<std::pair<int, int>>(std::vector{1, 2, 3})),
               ContainsSubstring("expected list or tuple of 2, but there is a list of 3"));
    CHECK_THAT(complaint<mp::none_t>(0),
               ContainsSubstring("expected None, but there is the int 0"));
    CHECK_THAT(complaint<std::optional<bool>>(1), ContainsSubstring("expected bool or None"));
    CHECK_THAT((complaint<std::variant<bool, std::string>>(1.5)),
               ContainsSubstring("expected bool or str, but there is the float 1.5"));
    CHECK_THAT(complaint<int>(std::string(100, 'x')),
               ContainsSubstring(std::string(40, 'x') + "'..."));
    CHECK_THAT(complaint<int>(std::string(39, 'x') + "\u20ac\u20ac"),
               ContainsSubstring(std::string(39, 'x') + "'..."));
}

TEST_CASE("python::loads says where what does not fit is", "[python]") {
    using Inner = std::map<std::string, std::vector<int>>;
    const std::vector<python::object> values{python::dict{{"x", python::list{1, 2}}},
                                             python::dict{{"y", python::list{1, "abc"}}}};
    CHECK_THAT(complaint<std::vector<Inner>>(values),
               ContainsSubstring("expected int from -2147483648 to 2147483647 at [1]['y'][1], but "
                                 "there is the str 'abc'"));
    CHECK_THAT((complaint<std::map<std::string, int>>(std::map<int, int>{{7, 1}})),
               ContainsSubstring("expected str at [key 7]"));
    CHECK_THAT(complaint<std::vector<std::set<bool>>>(std::vector{std::set{1}}),
               ContainsSubstring("expected bool at [0][item 0]"));
    CHECK_THAT((complaint<std::tuple<int, std::optional<std::pair<int, bool>>>>(
                   std::tuple(1, std::pair(1, 1)))),
               ContainsSubstring("expected bool at [1][1]"));
    CHECK_THAT(complaint<std::forward_list<int>>(std::vector<std::string>{"a"}),
               ContainsSubstring("at [0]"));
    CHECK_THAT((complaint<std::array<int, 1>>(std::vector<std::string>{"a"})),
               ContainsSubstring("at [0]"));
    CHECK_THAT(complaint<std::vector<bool>>(std::vector<std::string>{"a"}),
               ContainsSubstring("at [0]"));
}

TEST_CASE("an int is read as a floating-point number that it is exactly", "[python]") {
    CHECK(python::loads<double>(python::dumps(std::int64_t{1} << 53)) == 0x1p53);
    CHECK(python::loads<double>(python::dumps(-3)) == -3.0);
    CHECK(python::loads<double>(python::dumps(std::numeric_limits<std::int64_t>::min())) ==
          -0x1p63);
    CHECK(python::loads<double>(python::dumps(python::int128{1} << 100)) == 0x1p100);
    CHECK(python::loads<float>(python::dumps(1 << 24)) == 0x1p24f);
    CHECK_THAT(complaint<double>((std::int64_t{1} << 53) + 1),
               ContainsSubstring("which the C++ type does not hold exactly"));
    CHECK_THAT(complaint<double>(std::numeric_limits<std::uint64_t>::max()),
               ContainsSubstring("exactly"));
    CHECK_THAT(complaint<double>(~python::uint128{0}), ContainsSubstring("exactly"));
    CHECK_THAT(complaint<float>((1 << 24) + 1), ContainsSubstring("exactly"));
    CHECK(python::loads<std::vector<double>>(python::dumps(std::tuple(1, 2.5))) ==
          std::vector{1, 2.5});
}

TEST_CASE("a variant is read as the first alternative that fits exactly, or else at all",
          "[python]") {
    using Number = std::variant<double, std::int64_t>;
    CHECK(python::loads<Number>(python::dumps(3)).index() == 1);
    CHECK(python::loads<Number>(python::dumps(3.0)).index() == 0);
    using Real = std::variant<std::string, double>;
    CHECK(std::get<double>(python::loads<Real>(python::dumps(3))) == 3.0);
    using Lists = std::variant<std::vector<double>, std::vector<int>>;
    CHECK(python::loads<Lists>(python::dumps(std::vector{1, 2})).index() == 1);
    CHECK(python::loads<Lists>(python::dumps(std::tuple(1, 2.5))).index() == 0);
    using Pairs = std::variant<std::vector<int>, std::pair<int, int>>;
    CHECK(python::loads<Pairs>(python::dumps(std::pair(1, 2))).index() == 1);
    CHECK(python::loads<Pairs>(python::dumps(std::vector{1, 2})).index() == 0);
    CHECK(python::loads<Pairs>(python::dumps(std::tuple(1, 2, 3))).index() == 0);
    using Nested = std::variant<std::monostate, Number, std::vector<Number>>;
    CHECK(there_and_back(Nested(std::vector<Number>{1.5, std::int64_t{2}})) ==
          Nested(std::vector<Number>{1.5, std::int64_t{2}}));
    CHECK(there_and_back(Nested()) == Nested());
    using Small = std::variant<std::int8_t, std::int64_t>;
    CHECK(python::loads<Small>(python::dumps(100)).index() == 0);
    CHECK(python::loads<Small>(python::dumps(300)).index() == 1);
}

TEST_CASE("what cannot be sent to Python is known at compile time", "[python]") {
    struct Plain {};
    enum class Colour { red };
    STATIC_REQUIRE(!python::Dumpable<Plain>);
    STATIC_REQUIRE(!python::Dumpable<Colour>);
    STATIC_REQUIRE(!python::Dumpable<int*>);
    STATIC_REQUIRE(!python::Dumpable<wchar_t>);
    STATIC_REQUIRE(!python::Dumpable<std::wstring>);
    STATIC_REQUIRE(!python::Dumpable<std::vector<Plain>>);
    STATIC_REQUIRE(!python::Dumpable<std::map<int, Plain>>);
    STATIC_REQUIRE(!python::Dumpable<std::map<std::map<int, int>, int>>);
    STATIC_REQUIRE(!python::Dumpable<std::set<std::vector<std::map<int, int>>>>);
    STATIC_REQUIRE(!python::Dumpable<std::multimap<int, int>>);
    STATIC_REQUIRE(!python::Dumpable<std::unordered_multiset<int>>);
    STATIC_REQUIRE(!python::Dumpable<std::filesystem::path>);
    STATIC_REQUIRE(!python::Dumpable<std::variant<int, Plain>>);
    STATIC_REQUIRE(!python::Dumpable<std::optional<std::pair<int, Plain>>>);
    STATIC_REQUIRE(!python::Dumpable<std::byte>);
    STATIC_REQUIRE(python::Dumpable<const std::vector<std::string>&>);
    STATIC_REQUIRE(python::Dumpable<const char(&)[3]>);
    STATIC_REQUIRE(python::Dumpable<python::object>);
    STATIC_REQUIRE(python::Dumpable<std::map<std::set<int>, python::dict>>);
    STATIC_REQUIRE(!python::Loadable<std::string_view>);
    STATIC_REQUIRE(!python::Loadable<const char*>);
    STATIC_REQUIRE(!python::Loadable<std::span<int>>);
    STATIC_REQUIRE(!python::Loadable<std::span<std::byte>>);
    STATIC_REQUIRE(!python::Loadable<int&>);
    STATIC_REQUIRE(!python::Loadable<Plain>);
    STATIC_REQUIRE(!python::Loadable<std::vector<std::string_view>>);
    STATIC_REQUIRE(!python::Loadable<std::nullopt_t>);
    STATIC_REQUIRE(python::Loadable<std::map<std::string, std::optional<python::object>>>);
}

TEST_CASE("a connection sends to Python and receives from it", "[python]") {
    const auto [a, b] = mp::Pipe();
    a.send_python(std::map<std::string, std::vector<double>>{{"x", {1, 2.5}}});
    CHECK(b.recv_python() == python::dict{{"x", python::list{1, 2.5}}});
    b.send_python("text");
    CHECK(a.recv_python<std::string>() == "text");
    // What does not fit is taken all the same, and the next message is read.
    b.send_python(1);
    b.send_python(python::object(python::tuple{2}));
    CHECK_THROWS_AS(a.recv_python<std::string>(), mp::UnpicklingError);
    CHECK(a.recv_python<std::tuple<int>>() == std::tuple(2));
    // What cannot be pickled leaves the connection as it was.
    CHECK_THROWS_AS(a.send_python("\xff"), mp::PicklingError);
    a.send_python(3);
    CHECK(b.recv_python<int>() == 3);
}

}  // namespace python_tests
