// SPDX-License-Identifier: BSL-1.0
#include "support/catch.hpp"

#include <multiprocessing/pickle.hpp>

#include <algorithm>
#include <array>
#include <cstring>
#include <functional>
#include <limits>
#include <map>
#include <string>
#include <valarray>
#include <vector>

namespace mp = multiprocessing;
using Catch::Matchers::ContainsSubstring;

namespace message_test {

struct Person {
    std::string name;
    int age = 0;
    template <class Archive>
    void serialize(Archive& ar, unsigned) {
        ar& name& age;
    }
};

struct Throws {
    template <class Archive>
    void serialize(Archive&, unsigned) {
        if (Archive::is_saving::value) throw std::runtime_error("not me");
    }
};

// Believes its input, as most do.
struct Trusting {
    std::vector<int> v;
    template <class Archive>
    void serialize(Archive& ar, unsigned) {
        std::size_t size = v.size();
        ar& size;
        v.resize(size);
        for (auto& element : v) ar& element;
    }
};

template <class T>
struct Counting {
    using value_type = T;
    static inline std::size_t largest = 0;
    Counting() = default;
    template <class U>
    Counting(const Counting<U>&) {}
    T* allocate(std::size_t count) {
        largest = std::max(largest, count * sizeof(T));
        return std::allocator<T>().allocate(count);
    }
    void deallocate(T* memory, std::size_t count) { std::allocator<T>().deallocate(memory, count); }
    bool operator==(const Counting&) const = default;
};

struct Large {
    std::array<char, 4096> content{};
    template <class Archive>
    void serialize(Archive& ar, unsigned) {
        ar& content[0];
    }
};

}  // namespace message_test

using namespace message_test;

TEST_CASE("another type than was written is refused, and both are named", "[pickle][message]") {
    const mp::bytes pickled = mp::pickle::dumps(Person{"x", 1});
    CHECK_THROWS_AS(mp::pickle::loads<int>(pickled), mp::UnpicklingError);
    CHECK_THROWS_WITH(mp::pickle::loads<std::vector<int>>(pickled),
                      "expected std::vector<int> but the message holds message_test::Person");
}

TEST_CASE("bytes left over are refused", "[pickle][message]") {
    mp::bytes pickled = mp::pickle::dumps(std::string("abc"));
    pickled.push_back(std::byte{0});
    CHECK_THROWS_WITH(mp::pickle::loads<std::string>(pickled), ContainsSubstring("left over"));
}

TEST_CASE("every truncation is refused", "[pickle][message]") {
    const mp::bytes pickled = mp::pickle::dumps(std::map<std::string, Person>{{"k", {"x", 1}}});
    for (std::size_t size = 0; size < pickled.size(); ++size)
        CHECK_THROWS_AS((mp::pickle::loads<std::map<std::string, Person>>(
                            std::span<const std::byte>(pickled).first(size))),
                        mp::UnpicklingError);
}

TEST_CASE("a literal is pickled as a string, a reference as what it refers to",
          "[pickle][message]") {
    CHECK(mp::pickle::loads<std::string>(mp::pickle::dumps("literal")) == "literal");
    int number = 4;
    CHECK(mp::pickle::loads<int>(mp::pickle::dumps(std::ref(number))) == 4);
    STATIC_REQUIRE(std::is_same_v<mp::pickle::travel_decay_t<const char(&)[4]>, std::string>);
    STATIC_REQUIRE(std::is_same_v<mp::pickle::travel_decay_t<const int&>, int>);
    STATIC_REQUIRE(std::is_same_v<mp::pickle::travel_decay_t<std::reference_wrapper<int>>, int>);
}

TEST_CASE("the size of bytes, strings and vectors of bytes is known beforehand",
          "[pickle][message]") {
    const auto check = [](const auto& value) {
        using T = std::decay_t<decltype(value)>;
        const std::size_t size = mp::pickle::exact_size(value).value();
        std::vector<std::byte> out(size);
        mp::pickle::dump_to(value, out.data());
        CHECK(mp::pickle::load<T>(out) == value);
    };
    check(5);
    check(std::string("abc"));
    check(std::vector<double>{1, 2, 3});
    check(std::make_pair(1, 2.0));
    check(mp::bytes("abc"));
    CHECK_FALSE(mp::pickle::exact_size(Person{}).has_value());
}

TEST_CASE("what a serialize throws while writing comes out, and leaves nothing behind",
          "[pickle][message]") {
    mp::pickle::Buffer buffer;
    mp::pickle::dump(1, buffer);
    const auto size = buffer.size();
    CHECK_THROWS_WITH(mp::pickle::dump(Throws(), buffer), "not me");
    CHECK(buffer.size() == size);
}

TEST_CASE("corrupt counts that a trusting serialize allocates by are UnpicklingError",
          "[pickle][message]") {
    mp::bytes pickled = mp::pickle::dumps(Trusting{{1, 2, 3}});
    constexpr std::size_t count = 9;  // after the hash and the class's version
    for (const std::size_t lie : {std::numeric_limits<std::size_t>::max(), std::size_t{4}}) {
        std::memcpy(pickled.data() + count, &lie, sizeof lie);
        CHECK_THROWS_AS(mp::pickle::loads<Trusting>(pickled), mp::UnpicklingError);
    }
}

TEST_CASE("no more memory is asked for than the bytes are worth", "[pickle][message]") {
    using Vector = std::vector<Large, Counting<Large>>;
    mp::bytes pickled = mp::pickle::dumps(Vector(100));
    const std::uint64_t lie = pickled.size() - 16;  // a byte each would do
    std::memcpy(pickled.data() + 8, &lie, sizeof lie);
    Counting<Large>::largest = 0;
    CHECK_THROWS_AS(mp::pickle::loads<Vector>(pickled), mp::UnpicklingError);
    // Twice as much as the hundred that are there.
    CHECK(Counting<Large>::largest <= 256 * sizeof(Large));

    using Ints = std::vector<int, Counting<int>>;
    pickled = mp::pickle::dumps(Ints(100));
    for (const std::uint64_t count : {std::uint64_t{1} << 62, std::uint64_t{101}}) {
        std::memcpy(pickled.data() + 8, &count, sizeof count);
        Counting<int>::largest = 0;
        CHECK_THROWS_AS(mp::pickle::loads<Ints>(pickled), mp::UnpicklingError);
        CHECK(Counting<int>::largest == 0);
    }

    mp::bytes array = mp::pickle::dumps(std::valarray<int>{1, 2, 3});
    const std::uint64_t terabytes = std::uint64_t{1} << 44;
    std::memcpy(array.data() + 8, &terabytes, sizeof terabytes);
    CHECK_THROWS_AS(mp::pickle::loads<std::valarray<int>>(array), mp::UnpicklingError);
}
