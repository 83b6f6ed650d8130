// SPDX-License-Identifier: BSL-1.0
//
// Bytes that were damaged: whatever becomes of them, it is an object or an UnpicklingError.
#include "support/catch.hpp"

#include <multiprocessing/pickle.hpp>
#include <multiprocessing/pickle/callable.hpp>
#include <multiprocessing/pickle/exception.hpp>

#include <bitset>
#include <cstring>
#include <deque>
#include <filesystem>
#include <forward_list>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <tuple>
#include <unordered_map>
#include <variant>
#include <vector>

namespace mp = multiprocessing;

namespace fuzz_test {

struct Animal {
    virtual ~Animal() = default;
    std::string name;
    template <class Archive>
    void serialize(Archive& ar, unsigned) {
        ar& name;
    }
};
struct Dog : Animal {
    std::vector<int> bones;
    // Not shared: damage could tie a knot of owners, which no one could ever undo.
    std::unique_ptr<Animal> friend_of;
    template <class Archive>
    void serialize(Archive& ar, unsigned) {
        ar& boost::serialization::base_object<Animal>(*this) & bones& friend_of;
    }
};
struct Stone {
    virtual ~Stone() = default;
    int weight = 3;
    template <class Archive>
    void serialize(Archive& ar, unsigned) {
        ar& weight;
    }
};
struct Pebble : Stone {
    template <class Archive>
    void serialize(Archive& ar, unsigned) {
        ar& boost::serialization::base_object<Stone>(*this);
    }
};

struct Tree {
    int value = 0;
    std::vector<Tree> branches;
    std::unique_ptr<Tree> graft;
    std::vector<std::weak_ptr<int>> leaves;
    template <class Archive>
    void serialize(Archive& ar, unsigned) {
        ar& value& branches& graft& leaves;
    }
};

struct Trusting {
    std::vector<std::string> words;
    template <class Archive>
    void serialize(Archive& ar, unsigned) {
        auto size = static_cast<std::uint32_t>(words.size());
        ar& size;
        words.resize(size % 100000);
        for (auto& word : words) ar& word;
    }
};

}  // namespace fuzz_test

BOOST_CLASS_EXPORT(fuzz_test::Dog)
BOOST_CLASS_EXPORT(fuzz_test::Pebble)

using namespace fuzz_test;

namespace {

std::mt19937 random_bits(20240501);

template <class T>
int try_to_load(const mp::bytes& damaged) {
    try {
        static_cast<void>(mp::pickle::loads<T>(damaged));
        return 0;
    } catch (const mp::UnpicklingError&) {
        return 1;
    }
}

template <class T>
void check_damage(const T& value) {
    INFO(mp::pickle::type_name<T>());
    const mp::bytes pickled = mp::pickle::dumps(value);
    REQUIRE(try_to_load<T>(pickled) == 0);
    int refused = 0;
    for (std::size_t size = 0; size < pickled.size(); ++size)
        REQUIRE(try_to_load<T>(mp::bytes(std::span(pickled).first(size))) == 1);
    // The hash is known to be checked.
    for (std::size_t at = 8; at < pickled.size(); ++at) {
        mp::bytes damaged = pickled;
        for (const unsigned byte : {0u, 1u, 2u, 3u, 4u, 0x7fu, 0x80u, 0xffu}) {
            damaged[at] = static_cast<std::byte>(byte);
            refused += try_to_load<T>(damaged);
        }
        for (int bit = 0; bit < 8; ++bit) {
            damaged[at] = pickled[at] ^ (std::byte{1} << bit);
            refused += try_to_load<T>(damaged);
        }
        damaged = pickled;
        damaged.insert(damaged.begin() + static_cast<std::ptrdiff_t>(at), pickled[at]);
        refused += try_to_load<T>(damaged);
    }
    for (int round = 0; round < 300; ++round) {
        mp::bytes damaged = pickled;
        for (int i = 0; i < 3; ++i)
            damaged[8 + random_bits() % (damaged.size() - 8)] =
                static_cast<std::byte>(random_bits());
        if (round % 3 == 0) {
            const std::size_t at = 8 + random_bits() % (damaged.size() - 8);
            std::memset(damaged.data() + at, 0xff, std::min<std::size_t>(8, damaged.size() - at));
        }
        refused += try_to_load<T>(damaged);
    }
    CHECK(refused > 0);
}

int a_function(int x) { return x; }

}  // namespace

TEST_CASE("damaged bytes of std types are refused or read, never worse", "[pickle][fuzz]") {
    check_damage(std::string("some text"));
    check_damage(std::vector<int>{1, 2, 3});
    check_damage(std::vector<std::string>{"a", "bb", ""});
    check_damage(std::vector<std::vector<std::vector<int>>>{{{1}, {}}, {}});
    check_damage(std::vector<bool>{true, false, true});
    check_damage(std::list<std::string>{"a", "b"});
    check_damage(std::deque<std::optional<int>>{1, std::nullopt});
    check_damage(std::forward_list<bool>{true, false});
    check_damage(std::map<std::string, std::set<int>>{{"a", {1, 2}}, {"b", {}}});
    check_damage(std::unordered_map<int, std::string>{{1, "x"}, {2, "y"}});
    check_damage(std::unordered_multimap<std::string, int>{{"x", 1}, {"x", 2}});
    check_damage(std::make_tuple(true, std::string("x"), std::variant<int, std::string>("y")));
    check_damage(std::filesystem::path("/some/where"));
    check_damage(std::wstring(L"wide"));
    check_damage(std::vector<std::bitset<5>>(3));
}

TEST_CASE("damaged bytes of objects behind pointers are refused or read, never worse",
          "[pickle][fuzz]") {
    const auto dog = std::make_shared<Dog>();
    dog->name = "Rex";
    dog->bones = {1, 2};
    dog->friend_of = std::make_unique<Dog>();
    const std::shared_ptr<Animal> animal = dog;
    check_damage(
        std::make_tuple(animal, dog, std::shared_ptr<Stone>(std::make_shared<Pebble>()), animal));
    const auto number = std::make_shared<int>(4);
    check_damage(std::vector<std::shared_ptr<int>>{number, nullptr, number});
    std::vector<std::unique_ptr<Stone>> stones;
    stones.push_back(std::make_unique<Pebble>());
    stones.push_back(std::make_unique<Stone>());
    check_damage(stones);
    Tree tree;
    tree.branches.resize(2);
    tree.branches[1].graft = std::make_unique<Tree>();
    tree.leaves.push_back(number);
    check_damage(tree);
    check_damage(Trusting{{"a", "b"}});
}

TEST_CASE("damaged bytes of callables are refused or read, never worse", "[pickle][fuzz]") {
    check_damage(&a_function);
    check_damage(mp::partial(&a_function, std::string("x")));
    check_damage(&Tree::serialize<mp::pickle::OArchive>);
}

TEST_CASE("damaged bytes of exceptions are refused or read, never worse", "[pickle][fuzz]") {
    mp::pickle::Buffer buffer;
    mp::pickle::dump_exception(
        std::make_exception_ptr(std::filesystem::filesystem_error(
            "x", "/a", std::make_error_code(std::errc::no_such_file_or_directory))),
        buffer, 1, "worker");
    for (std::size_t at = 0; at < buffer.size(); ++at)
        for (const unsigned byte : {0u, 1u, 0x80u, 0xffu}) {
            mp::bytes damaged(buffer.span());
            damaged[at] = static_cast<std::byte>(byte);
            std::exception_ptr loaded;
            try {
                loaded = mp::pickle::load_exception(damaged.span());
            } catch (const mp::UnpicklingError&) {
                loaded = std::current_exception();
            }
            CHECK(loaded != nullptr);
        }
}
