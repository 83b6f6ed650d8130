// SPDX-License-Identifier: BSL-1.0
//
// CPython's tests of a manager's containers.
#include <multiprocessing/managers.hpp>

#include "conformance/helpers.hpp"
#include "support/catch.hpp"

#include <algorithm>
#include <map>
#include <numeric>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace mp = multiprocessing;
using mp::managers::DictProxy;
using mp::managers::ListProxy;
using mp::managers::QueueProxy;

namespace {

std::vector<int> up_to(int end) {
    std::vector<int> all(static_cast<std::size_t>(end));
    std::iota(all.begin(), all.end(), 0);
    return all;
}

}  // namespace

TEST_CASE("_TestContainers.test_list", "[managers][conformance]") {
    const auto manager = mp::Manager();
    const auto a = manager.list<int>(up_to(10));
    CHECK(a.copy() == up_to(10));
    const auto b = manager.list<int>();
    CHECK(b.copy().empty());
    b.extend(up_to(5));
    CHECK(b.copy() == up_to(5));
    CHECK(b[2] == 2);
    CHECK(b.slice(2, 10) == std::vector{2, 3, 4});
    b *= 2;
    CHECK(b.copy() == std::vector{0, 1, 2, 3, 4, 0, 1, 2, 3, 4});
    CHECK(b + std::vector{5, 6} == std::vector{0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 5, 6});
    CHECK(a.copy() == up_to(10));

    const auto e = manager.list<ListProxy<int>>({a, b});
    std::vector<std::vector<int>> elements;
    for (const auto& element : e) elements.push_back(element.copy());
    CHECK(elements == std::vector{up_to(10), {0, 1, 2, 3, 4, 0, 1, 2, 3, 4}});

    const auto f = manager.list<ListProxy<int>>({a});
    a.append(10);
    CHECK(f[0]->copy() == up_to(11));
}

TEST_CASE("_TestContainers.test_list_iter", "[managers][conformance]") {
    const auto manager = mp::Manager();
    const auto a = manager.list<int>(up_to(10));
    auto it = a.begin();
    CHECK(std::vector<int>(it, a.end()) == up_to(10));
    // Here a loop goes over a copy, taken when it begins.
    a[0] = 100;
    CHECK(*it == 0);
    CHECK(*a.begin() == 100);
}

TEST_CASE("_TestContainers.test_list_proxy_in_list", "[managers][conformance]") {
    const auto manager = mp::Manager();
    const auto before = manager.number_of_objects();
    {
        std::vector<ListProxy<int>> inner;
        for (int i = 0; i < 3; ++i) inner.push_back(manager.list<int>(up_to(3)));
        const auto a = manager.list<ListProxy<int>>(inner);
        inner.clear();  // the list has them
        for (const auto& each : a) CHECK(each.copy() == up_to(3));
        a.at(0)[-1] = 55;
        CHECK(a[0]->copy() == std::vector{0, 1, 55});
        for (int i = 1; i < 3; ++i) CHECK(a[i]->copy() == up_to(3));
        CHECK(a[1]->pop() == 2);
        CHECK(a[1]->size() == 2);
        for (int i = 0; i < 3; i += 2) CHECK(a[i]->size() == 3);
        CHECK(manager.number_of_objects() == before + 4);
    }
    CHECK(manager.number_of_objects() == before);
}

TEST_CASE("_TestContainers.test_dict", "[managers][conformance]") {
    const auto manager = mp::Manager();
    const auto d = manager.dict<int, std::string>();
    std::map<int, std::string> expected;
    std::vector<int> indices;
    for (int i = 65; i < 70; ++i) {
        indices.push_back(i);
        d[i] = expected[i] = std::string(1, static_cast<char>(i));
    }
    CHECK(d.copy() == expected);
    CHECK(d.keys() == indices);
    CHECK(d.values() == std::vector<std::string>{"A", "B", "C", "D", "E"});
    CHECK(d.items() == std::vector<std::pair<int, std::string>>(expected.begin(), expected.end()));
}

TEST_CASE("_TestContainers.test_dict_iter", "[managers][conformance]") {
    const auto manager = mp::Manager();
    const auto d = manager.dict<int, std::string>();
    for (int i = 65; i < 70; ++i) d[i] = std::string(1, static_cast<char>(i));
    std::vector<int> keys;
    for (const auto& item : d) keys.push_back(item.first);
    CHECK(keys == std::vector{65, 66, 67, 68, 69});
    // Python's iteration fails when the dict changes meanwhile; this one is over a copy.
    auto it = d.begin();
    d.clear();
    CHECK(it->second == "A");
    CHECK(std::distance(it, d.end()) == 5);
}

TEST_CASE("_TestContainers.test_dict_proxy_nested", "[managers][conformance]") {
    using Counts = DictProxy<std::string, int>;
    const auto manager = mp::Manager();
    const auto d = manager.dict<std::string, Counts>();
    {
        const auto pets = manager.dict<std::string, int>({{"ferrets", 2}, {"hamsters", 4}});
        const auto supplies = manager.dict<std::string, int>({{"water", 10}, {"feed", 3}});
        d.update({{"pets", pets}, {"supplies", supplies}});
        CHECK(supplies["water"] == 10);
        CHECK(d.at("supplies")["water"] == 10);
        d.at("supplies")["blankets"] = 5;
        CHECK(supplies["blankets"] == 5);
        CHECK(d.at("supplies")["blankets"] == 5);
        d.at("supplies")["water"] = 7;
        CHECK(supplies["water"] == 7);
        CHECK(d.at("supplies")["water"] == 7);
    }
    CHECK(d.at("pets")["ferrets"] == 2);
    d.at("supplies")["blankets"] = 11;
    CHECK(d.at("supplies")["blankets"] == 11);

    const auto l = manager.list<Counts>();
    {
        const Counts pets = d["pets"];
        const Counts supplies = d["supplies"];
        supplies["water"] = 7;
        CHECK(supplies["water"] == 7);
        CHECK(d.at("supplies")["water"] == 7);
        d.clear();
        CHECK(d.size() == 0);
        CHECK(supplies["water"] == 7);
        CHECK(pets["hamsters"] == 4);
        l.extend({pets, supplies});
        l.at(0)["marmots"] = 1;
        CHECK(pets["marmots"] == 1);
        CHECK(l.at(0)["marmots"] == 1);
    }
    CHECK(l.at(0)["marmots"] == 1);

    using Either = std::variant<std::vector<int>, ListProxy<Counts>>;
    const auto outer = manager.list<Either>({Either(std::vector{88, 99}), Either(l)});
    CHECK(std::get<std::vector<int>>(outer.at(0)) == std::vector{88, 99});  // not a proxy
    CHECK(std::get<ListProxy<Counts>>(outer.at(-1)).at(-1)["feed"] == 3);
}

TEST_CASE("_TestContainers.test_nested_queue", "[managers][conformance]") {
    const auto manager = mp::Manager();
    const auto a = manager.list<QueueProxy<int>>();
    a.append(manager.Queue<int>());
    a[0]->put(123);
    CHECK(a[0]->get() == 123);
    const auto b = manager.dict<int, QueueProxy<int>>();
    b[0] = manager.Queue<int>();
    b[0]->put(456);
    CHECK(b[0]->get() == 456);
}

TEST_CASE("_TestContainers.test_namespace", "[managers][conformance]") {
    const auto manager = mp::Manager();
    const auto n = manager.Namespace();
    n.set("name", "Bob");
    n.set("job", "Builder");
    CHECK(n.get<std::string>("name") == "Bob");
    CHECK(n.get<std::string>("job") == "Builder");
    n.erase("job");
    CHECK(n.names() == std::vector<std::string>{"name"});
    CHECK(n.has("name"));
    CHECK_FALSE(n.has("job"));
    CHECK_THROWS_AS(n.get<std::string>("job"), mp::KeyError);
}
