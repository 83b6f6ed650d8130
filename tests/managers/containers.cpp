// SPDX-License-Identifier: BSL-1.0
//
// The dict, list, set, Namespace, Value and Array of a manager.
#include <multiprocessing/managers.hpp>

#include "runtime/helpers.hpp"
#include "support/catch.hpp"
#include "support/outcome.hpp"

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace mp = multiprocessing;
using Catch::Matchers::ContainsSubstring;
using mp::managers::ArrayProxy;
using mp::managers::DictProxy;
using mp::managers::ListProxy;
using mp::managers::ValueProxy;

TEST_CASE("a managed dict has the calls of Python's, in Python's order", "[managers]") {
    const auto manager = mp::Manager();
    const auto d = manager.dict<std::string, int>({{"z", 1}, {"a", 2}});
    d["m"] = 3;
    d["z"] = 9;  // keeps its place
    CHECK(d.keys() == std::vector<std::string>{"z", "a", "m"});
    CHECK(d.values() == std::vector{9, 2, 3});
    CHECK(d.copy() == std::map<std::string, int>{{"a", 2}, {"m", 3}, {"z", 9}});
    const int z = d["z"];
    CHECK(z == 9);
    d["a"] = d["m"];
    CHECK(d["a"] == 3);
    CHECK(support::text_of(d["a"]) == "3");
    CHECK(d.get("a") == 3);
    CHECK(d.get("none") == std::nullopt);
    CHECK(d.get("none", 5) == 5);
    CHECK(d.contains("a"));
    CHECK(d.count("none") == 0);
    CHECK(d.pop("a") == 3);
    CHECK(d.pop("a", 8) == 8);
    CHECK(d.erase("m") == 1);
    CHECK(d.erase("m") == 0);
    CHECK(d.setdefault("s", 4) == 4);
    CHECK(d.setdefault("s", 6) == 4);
    d.update(std::unordered_map<std::string, int>{{"s", 7}});
    d.update(std::vector<std::pair<const char*, int>>{{"t", 8}});
    d.update(d);
    CHECK(d.get_many({"s", "none", "t"}) == std::vector<std::optional<int>>{7, std::nullopt, 8});
    CHECK(d.popitem() == std::pair<std::string, int>("t", 8));
    std::string all;
    for (const auto& [key, value] : d) all += key + std::to_string(value);
    CHECK(all == "z9s7");
    d.clear();
    CHECK(d.empty());
    CHECK(manager.dict<int, int>(std::map<int, int>{{1, 2}})[1] == 2);
}

TEST_CASE("a key that a managed dict does not have is a KeyError that names it", "[managers]") {
    const auto manager = mp::Manager();
    const auto d = manager.dict<std::string, int>();
    CHECK_THROWS_AS(d.at("x"), mp::KeyError);
    CHECK_THROWS_AS(d.at("x"), std::out_of_range);
    CHECK_THROWS_WITH(d["x"].get(), ContainsSubstring("'x'"));
    CHECK_THROWS_WITH(manager.set<int>().remove(3), ContainsSubstring("'3'"));
    CHECK_THROWS_WITH(manager.list<int>().index(7), ContainsSubstring("'7'"));
    const auto by_list = manager.dict<std::vector<int>, int>();
    CHECK_THROWS_WITH(by_list.at({1}), ContainsSubstring("no such key:"));
    CHECK_THROWS_AS(d.pop("x"), mp::KeyError);
    CHECK_THROWS_AS(d.popitem(), mp::KeyError);
    CHECK_THROWS_AS(d["x"] += 1, mp::KeyError);
    CHECK_THROWS_AS(d.apply("x", [](int& n) { return ++n; }), mp::KeyError);
    CHECK(d.empty());
}

TEST_CASE("what is added to a managed value may be of another type", "[managers]") {
    const auto manager = mp::Manager();
    const auto text = manager.dict<std::string, std::string>({{"a", "b"}});
    text["a"] += "c";
    text["a"] += 'd';
    CHECK(text["a"] == "bcd");
    const auto numbers = manager.list<double>({1});
    numbers[0] += 1;
    numbers[0] -= 0.5F;
    CHECK(numbers[0] == 1.5);
    const auto bytes = manager.list<std::int8_t>({100});
    bytes[0] -= 200L;
    CHECK(bytes[0] == -100);
    CHECK(-100L == bytes[0]);
    CHECK(bytes[0] == bytes[-1]);
}

TEST_CASE("a proxy is printed as what it is a proxy of", "[managers]") {
    const auto manager = mp::Manager();
    std::ostringstream out;
    out << manager.Lock() << manager.list<int>();
    CHECK_THAT(out.str(), ContainsSubstring("proxy of object 1 ") &&
                              ContainsSubstring("proxy of object 2 ") &&
                              ContainsSubstring(manager.address().str()));
}

TEST_CASE("what several clients change at the same time is changed by all", "[managers]") {
    const auto manager = mp::Manager();
    const auto d = manager.dict<std::string, int>({{"n", 0}, {"m", 0}});
    const auto l = manager.list<int>({0});
    const auto v = manager.Value<int>(0);
    const auto a = manager.Array<int>(1);
    constexpr int times = 100;
    const auto work = [d, l, v, a] {
        for (int i = 0; i < times; ++i) {
            d["n"] += 1;
            d.apply("m", [](int& n, int by) { n += by; }, 2);
            l[0] += 1;
            v.fetch_add(1);
            a[0] += 1;
        }
    };
    const mp::Process one(work);
    const mp::Process two(work);
    one.start();
    two.start();
    CHECK(support::ended(one) == 0);
    CHECK(support::ended(two) == 0);
    CHECK(d["n"] == 2 * times);
    CHECK(d["m"] == 4 * times);
    CHECK(l[0] == 2 * times);
    CHECK(v.value() == 2 * times);
    CHECK(a[0] == 2 * times);
    d["n"] -= 100;
    CHECK(d["n"] == 100);
}

TEST_CASE("a managed list has the calls of Python's", "[managers]") {
    const auto manager = mp::Manager();
    const auto l = manager.list<std::string>({"b", "a"});
    l.append("c");
    l.insert(0, "first");
    l.insert(-1, "before the last");
    l.insert(100, "last");
    CHECK(l.copy() ==
          std::vector<std::string>{"first", "b", "a", "before the last", "c", "last"});
    CHECK(l.pop() == "last");
    CHECK(l.pop(0) == "first");
    CHECK(l.pop(-2) == "before the last");
    l.extend(std::vector<const char*>{"x", "a"});
    CHECK(l.index("a") == 1);
    CHECK(l.index("a", 2) == 4);
    CHECK_THROWS_AS(l.index("a", 2, 4), mp::ValueError);
    CHECK(l.count("a") == 2);
    CHECK(l.contains("x"));
    l.remove("a");
    CHECK_THROWS_AS(l.remove("none"), mp::ValueError);
    l.sort();
    CHECK(l.copy() == std::vector<std::string>{"a", "b", "c", "x"});
    l.sort(true);
    CHECK(l[0] == "x");
    l.sort([](const std::string& one, const std::string& other) { return one < other; });
    CHECK(l[0] == "a");
    l.reverse();
    CHECK(l.slice(1, {}) == std::vector<std::string>{"c", "b", "a"});
    CHECK(l.slice({}, -1) == std::vector<std::string>{"x", "c", "b"});
    CHECK(l.slice(3, 1).empty());
    l.set_slice(1, 3, {"1", "2", "3"});
    CHECK(l.copy() == std::vector<std::string>{"x", "1", "2", "3", "a"});
    l.erase(-1);
    l[0] = l[1];
    CHECK(l[0] == "1");
    l *= 0;
    CHECK(l.empty());
    CHECK_THROWS_AS(l[0].get(), std::out_of_range);
    CHECK_THROWS_AS(l.pop(), std::out_of_range);
    CHECK_THROWS_AS(l[-1] = "x", std::out_of_range);
    CHECK_THROWS_AS(l.erase(0), std::out_of_range);
    CHECK_THROWS_WITH(l.at(3), ContainsSubstring("3"));
    const auto flags = manager.list<bool>({true, false});
    flags[1] = true;
    CHECK(flags.copy() == std::vector{true, true});
    l += std::vector<std::string>{"y"};
    CHECK(l[0]->size() == 1);
}

TEST_CASE("a managed Namespace knows the types of its attributes", "[managers]") {
    const auto manager = mp::Manager();
    const auto ns = manager.Namespace();
    ns.set("x", 3);
    ns.set("list", std::vector{1, 2});
    CHECK(ns.get<int>("x") == 3);
    CHECK(ns.get<std::vector<int>>("list") == std::vector{1, 2});
    CHECK_THROWS_AS(ns.get<double>("x"), mp::UnpicklingError);
    CHECK_THROWS_WITH(ns.get<double>("x"),
                      ContainsSubstring("double") && ContainsSubstring("int") &&
                          ContainsSubstring("'x'"));
    CHECK_THROWS_AS(ns.get<int>("y"), mp::KeyError);
    CHECK(ns.get<int>("y", 7) == 7);
    CHECK_THROWS_AS(ns.erase("y"), mp::KeyError);
}

TEST_CASE("a managed Value holds whatever can be pickled, an Array as many as it began with",
          "[managers]") {
    const auto manager = mp::Manager();
    const auto v = manager.Value<std::map<int, std::string>>({{1, "one"}});
    CHECK(v.value().at(1) == "one");
    v.set_value({});
    CHECK(v.get().empty());
    CHECK(manager.Value<double>().value() == 0);
    const auto total = v.apply([](std::map<int, std::string>& map, int key) {
        map[key] = "new";
        return map.size();
    }, 4);
    CHECK(total == 1);
    const auto a = manager.Array<int>(3);
    CHECK(a.size() == 3);
    CHECK(a.copy() == std::vector{0, 0, 0});
    a[-1] = 5;
    a[0] = a[2];
    CHECK(a.copy() == std::vector{5, 0, 5});
    a.set_slice(1, {7, 8});
    CHECK(a.slice(1, 3) == std::vector{7, 8});
    CHECK_THROWS_AS(a.set_slice(2, {1, 2}), mp::ValueError);
    CHECK_THROWS_AS(a[3].get(), std::out_of_range);
    CHECK_THROWS_AS(a[3] = 1, std::out_of_range);
    CHECK(manager.Array<int>({4})[0] == 4);
    CHECK(manager.Array<int>(std::set{2, 1}).copy() == std::vector{1, 2});
}

TEST_CASE("handles of what processes share are values like others", "[managers]") {
    const auto manager = mp::Manager();
    const mp::Queue<int> queue;
    const auto d = manager.dict<std::string, mp::Queue<int>>();
    d["q"] = queue;
    const mp::Queue<int> same = d["q"];
    CHECK(same == queue);
    same.put(3);
    CHECK(queue.get(20) == 3);
    const auto [ours, theirs] = mp::Pipe();
    const auto ends = manager.list<mp::Connection>();
    CHECK_NOTHROW(ends.append(theirs));
    ends.at(0).send(5);
    CHECK(ours.recv<int>() == 5);
}
