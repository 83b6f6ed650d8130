// SPDX-License-Identifier: BSL-1.0
//
// mp::python::object and the containers that it holds: Python's equality, hash and repr().
#include <multiprocessing/python.hpp>

#include "support/catch.hpp"
#include "support/outcome.hpp"

#include <cmath>
#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <tuple>
#include <type_traits>
#include <unordered_set>
#include <utility>
#include <variant>
#include <vector>

namespace mp = multiprocessing;

namespace python_object_tests {

namespace python = mp::python;
using Catch::Matchers::ContainsSubstring;
using python::dict;
using python::list;
using python::object;
using python::set;
using python::tuple;
using support::text_of;

template <class T>
std::string complaint(const object& value) {
    try {
        static_cast<void>(value.get<T>());
    } catch (const mp::ValueError& error) {
        return error.what();
    }
    return "";
}

TEST_CASE("a python::object is made from whatever can be sent", "[python][object]") {
    CHECK(object().is_none());
    CHECK(object(mp::None).is_none());
    CHECK(object(std::optional<int>()).is_none());
    CHECK(text_of(object(std::optional(1))) == "1");
    CHECK(text_of(object(true)) == "True");
    CHECK(text_of(object(-1)) == "-1");
    CHECK(text_of(object(std::numeric_limits<std::uint64_t>::max())) == "18446744073709551615");
    CHECK(text_of(object(1.0f)) == "1.0");
    CHECK(text_of(object('x')) == "'x'");
    CHECK(text_of(object("x")) == "'x'");
    CHECK(text_of(object(std::string("x"))) == "'x'");
    CHECK(text_of(object(mp::bytes("x"))) == "b'x'");
    CHECK(text_of(object(std::vector<std::byte>{std::byte{0}})) == "b'\\x00'");
    CHECK(text_of(object(std::vector<bool>{true})) == "[True]");
    CHECK(text_of(object(std::vector<std::vector<int>>{{1}, {}})) == "[[1], []]");
    CHECK(text_of(object(std::pair(1, "x"))) == "(1, 'x')");
    CHECK(text_of(object(std::tuple())) == "()");
    CHECK(text_of(object(std::map<std::string, std::set<int>>{{"x", {1, 2}}})) == "{'x': {1, 2}}");
    CHECK(text_of(object(std::variant<int, std::string>("x"))) == "'x'");
    CHECK(object(3).variant().index() == object(std::uint64_t{3}).variant().index());
    CHECK_THROWS_AS(object(python::int128{1} << 64), mp::ValueError);
    STATIC_REQUIRE(!std::is_convertible_v<int*, object>);
    STATIC_REQUIRE(std::is_nothrow_move_constructible_v<object>);
    STATIC_REQUIRE(std::is_nothrow_move_assignable_v<object>);
    STATIC_REQUIRE(sizeof(object) == 40);
    STATIC_REQUIRE(!std::is_convertible_v<std::multimap<int, int>, object>);
}

TEST_CASE("nested python::objects read well", "[python][object]") {
    const object o = dict{{"a", 1}, {"b", list{1, 2.5, "x", mp::None}}, {2, tuple{set{3}}}};
    CHECK(text_of(o) == "{'a': 1, 'b': [1, 2.5, 'x', None], 2: ({3},)}");
    CHECK(o["b"][2] == "x");
    CHECK(o["b"][-1].is_none());
    CHECK(o[2][0] == set{3});
    CHECK(o.at("a") == 1);
    CHECK(o.size() == 3);
    CHECK(python::loads(python::dumps(o)) == o);
    int sum = 0;
    for (const object& item : object(list{1, 2, 3})) sum += item.get<int>();
    CHECK(sum == 6);
    CHECK(text_of(list{object(list{1, 2})}) == "[[1, 2]]");
}

TEST_CASE("a python::object says its type in Python's words", "[python][object]") {
    const object all = list{mp::None, true,   1,       std::uint64_t{1} << 63, 1.0,    "x",
                            mp::bytes(), list{}, tuple{}, dict{},               set{}};
    std::string names;
    for (const object& one : all) names += std::string(one.type_name()) + " ";
    CHECK(names == "NoneType bool int int float str bytes list tuple dict set ");
}

TEST_CASE("python::objects are equal as Python's are", "[python][object]") {
    CHECK(object(true) == 1);
    CHECK(object(1) == 1.0);
    CHECK(object(false) == -0.0);
    CHECK(object("1") != 1);
    CHECK(object("x") != mp::bytes("x"));
    CHECK(object() != 0);
    CHECK(object() == mp::None);
    CHECK(object(std::uint64_t{1} << 63) == 0x1p63);
    CHECK(object((std::int64_t{1} << 53) + 1) != 0x1p53);
    CHECK(object(std::numeric_limits<std::int64_t>::max()) != 0x1p63);
    CHECK(object(std::numeric_limits<std::uint64_t>::max()) != -1);
    CHECK(object(1) != std::numeric_limits<double>::infinity());
    CHECK(object(std::nan("")) != std::nan(""));
    CHECK(object(list{1, 2}) == list{1.0, 2});
    CHECK(object(list{1}) != tuple{1});
    CHECK_FALSE(list{1} == tuple{1});
    CHECK_FALSE(tuple{1} == list{1});
    CHECK(tuple{1, "x"} == tuple{true, "x"});
    CHECK(tuple{1} != tuple{1, 2});
    CHECK(dict{{"a", 1}, {"b", 2}} == dict{{"b", 2}, {"a", true}});
    CHECK(dict{{"a", 1}} != dict{{"a", 2}});
    CHECK(dict{{"a", 1}} != dict{{"b", 1}});
    CHECK(dict{{"a", 1}} != dict{{"a", 1}, {"b", 1}});
    CHECK(set{1, 2, "x"} == set{"x", 2.0, true});
    CHECK(set{1} != set{2});
    CHECK(object(dict{}) != set{});
}

TEST_CASE("equal python::objects have equal hashes", "[python][object]") {
    const std::hash<object> hash;
    CHECK(hash(1) == hash(true));
    CHECK(hash(1) == hash(1.0));
    CHECK(hash(0) == hash(-0.0));
    CHECK(hash(std::uint64_t{1} << 63) == hash(0x1p63));
    CHECK(hash(tuple{1, "x"}) == hash(tuple{1.0, "x"}));
    CHECK(hash(set{1, 2, 3}) == hash(set{3, 2, 1}));
    CHECK(hash("x") != hash("y"));
    CHECK(hash("x") != hash(mp::bytes("x")));
    CHECK(hash(tuple{1, 2}) != hash(tuple{2, 1}));
    CHECK(hash(1.5) != hash(2.5));
    CHECK(hash("12345678a") != hash("12345678b"));
    CHECK(std::unordered_set<object>{1, true, 1.0, "1"}.size() == 2);
}

TEST_CASE("python::dict keeps the order of its keys and finds them", "[python][object]") {
    dict d;
    for (int i = 0; i < 1000; ++i) {
        d["key" + std::to_string(i)] = i;
        d[i] = list{i};
        if (i % 100 == 3) {
            CHECK(d.at("key3") == 3);
            CHECK(d.at(3.0) == list{3});
            CHECK_FALSE(d.contains(i + 1));
        }
    }
    CHECK(d.size() == 2000);
    int i = 0;
    for (const auto& [key, value] : d) {
        CHECK(key == (i % 2 == 0 ? object("key" + std::to_string(i / 2)) : object(i / 2)));
        ++i;
    }
    CHECK(d.find("none") == d.end());
    CHECK(d.find(7)->second == list{7});
    CHECK_THROWS_MATCHES(d.at("none"), mp::KeyError,
                         Catch::Matchers::Message("python::dict: there is no key 'none'"));
    CHECK(d.insert_or_assign(true, "one").second == false);
    CHECK(text_of(d.find(1)->first) == "1");
    CHECK(d.at(1) == "one");
    d.at(1) = "uno";
    CHECK(std::as_const(d).at(1) == "uno");
    CHECK(d.erase("key0"));
    CHECK_FALSE(d.erase("key0"));
    CHECK(d.size() == 1999);
    CHECK(d.at("key999") == 999);
    CHECK(d.begin()->first == 0);
    const dict copy = d;
    CHECK(copy == d);
    dict moved = std::move(d);
    CHECK(moved == copy);
    moved.clear();
    CHECK(moved.empty());
    moved = copy;
    CHECK(moved.at("key999") == 999);
    CHECK(dict{{"a", 1}, {"a", 2}} == dict{{"a", 2}});
}

TEST_CASE("a small python::dict needs no index, and a growing one gets it", "[python][object]") {
    for (int count = 0; count < 70; ++count) {
        INFO(count);
        dict d;
        set s;
        for (int i = 0; i < count; ++i) {
            CHECK(d.insert_or_assign(i, -i).second);
            CHECK(s.insert(i).second);
        }
        for (int i = 0; i < count; ++i) {
            CHECK_FALSE(s.insert(i).second);
            REQUIRE(d.at(i) == -i);
        }
        CHECK_FALSE(s.contains(count));
        CHECK(s.size() == static_cast<std::size_t>(count));
    }
}

TEST_CASE("what can change is no key", "[python][object]") {
    const std::string unhashable = "unhashable type: 'list'";
    CHECK_THROWS_WITH((dict{{list{1}, 1}}), ContainsSubstring(unhashable));
    CHECK_THROWS_WITH((set{tuple{1, tuple{list{}}}}), ContainsSubstring(unhashable));
    CHECK_THROWS_WITH((set{dict{}}), ContainsSubstring("unhashable type: 'dict'"));
    CHECK_THROWS_AS(dict().contains(list{}), mp::ValueError);
    set many;
    for (int i = 0; i < 20; ++i) many.insert(i);
    CHECK_THROWS_WITH(many.insert(list{}), ContainsSubstring(unhashable));
    CHECK_THROWS_AS(many.contains(dict{}), mp::ValueError);
    CHECK_THROWS_AS(std::hash<object>()(list{}), mp::ValueError);
    // A set stands for a frozenset.
    CHECK(set{set{1, 2}, tuple{set{}}}.contains(set{2, 1}));
    CHECK(dict{{set{1}, "x"}}.at(set{1}) == "x");
}

TEST_CASE("python::object::get is as strict as loads", "[python][object]") {
    CHECK(object(1).get<int>() == 1);
    CHECK(object(1).get<double>() == 1.0);
    CHECK(object(std::uint64_t{1} << 63).get<std::uint64_t>() == std::uint64_t{1} << 63);
    CHECK(object(5).get<std::uint64_t>() == 5);
    CHECK(object("x").get<std::string>() == "x");
    CHECK(object("x").get<char>() == 'x');
    CHECK(object(list{1, 2}).get<std::vector<int>>() == std::vector{1, 2});
    CHECK(object(list{1, 2}).get<list>() == list{1, 2});
    CHECK(object(list{1, 2}).get<object>() == list{1, 2});
    CHECK(object(tuple{1, "x"}).get<std::pair<int, std::string>>() ==
          std::pair<int, std::string>(1, "x"));
    CHECK(object(dict{{"x", set{1}}}).get<std::map<std::string, std::set<int>>>() ==
          std::map<std::string, std::set<int>>{{"x", {1}}});
    CHECK(object(mp::None).get<std::optional<int>>() == std::nullopt);
    CHECK(object(mp::bytes("x")).get<mp::bytes>() == mp::bytes("x"));
    CHECK(complaint<int>("abc") == "python::object: expected int from -2147483648 to 2147483647, "
                                   "but there is the str 'abc'");
    CHECK_THAT(complaint<std::string>(1), ContainsSubstring("expected str, but there is the int 1"));
    CHECK_THAT(complaint<bool>(1), ContainsSubstring("expected bool"));
    CHECK_THAT(complaint<std::int64_t>(std::uint64_t{1} << 63),
               ContainsSubstring("the int 9223372036854775808"));
    CHECK_THAT((complaint<std::map<std::string, std::vector<int>>>(dict{{"a", list{1, true}}})),
               ContainsSubstring("at ['a'][1], but there is the bool True"));
}

TEST_CASE("what is not in a python::object is an error", "[python][object]") {
    const object items = list{1, 2};
    CHECK_THROWS_WITH(items[2], "python::object: index 2 is out of range in a list of 2");
    CHECK_THROWS_AS(items[-3], std::out_of_range);
    CHECK_THROWS_AS(items[std::numeric_limits<std::uint64_t>::max()], std::out_of_range);
    CHECK_THROWS_WITH(items["x"], "python::object: a list has indices, no 'str'");
    CHECK_THROWS_AS(items[1.0], mp::ValueError);
    CHECK(items[true] == 2);
    CHECK_THROWS_AS(object(dict{})["x"], mp::KeyError);
    CHECK_THROWS_WITH(object(1)[0], ContainsSubstring("of type 'int'"));
    CHECK_THROWS_AS(object("abc")[0], mp::ValueError);
    CHECK_THROWS_AS(object(1).size(), mp::ValueError);
    CHECK_THROWS_AS(object(dict{}).begin(), mp::ValueError);
    CHECK(object("\u20acx").size() == 2);
    CHECK(object(mp::bytes("abc")).size() == 3);
}

TEST_CASE("std::visit sees what a python::object holds, and may change it", "[python][object]") {
    object o = dict{{"a", 1}};
    std::get<dict>(o.variant())["b"] = list{};
    CHECK(o == dict{{"a", 1}, {"b", list{}}});
    const bool is_dict = std::visit([](const auto& held) { return requires { held.contains("a"); }; },
                                    std::as_const(o).variant());
    CHECK(is_dict);
    const std::string text = std::get<std::string>(object("moved").variant());
    CHECK(text == "moved");
    o = "text";
    CHECK(o == "text");
    const object& same = o;
    o = same;
    CHECK(o == "text");
    o = list{o, o};
    o = o[0];
    CHECK(o == "text");
}

TEST_CASE("python::object is written as repr() writes it", "[python][object]") {
    CHECK(text_of(object(list{})) == "[]");
    CHECK(text_of(object(tuple{1})) == "(1,)");
    CHECK(text_of(object(tuple{1, 2})) == "(1, 2)");
    CHECK(text_of(object(set{})) == "set()");
    CHECK(text_of(object(dict{})) == "{}");
    CHECK(text_of(object(list{0.1, 1e100, -0.0, std::nan(""), "it's", mp::bytes("\xff")})) ==
          "[0.1, 1e+100, -0.0, nan, \"it's\", b'\\xff']");
    CHECK(text_of(list{1}) + text_of(tuple{}) + text_of(dict{{1, 2}}) + text_of(set{1}) ==
          "[1](){1: 2}{1}");
}

}  // namespace python_object_tests
