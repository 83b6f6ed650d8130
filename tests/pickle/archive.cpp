// SPDX-License-Identifier: BSL-1.0
//
// What Boost.Serialization offers to a class's serialize, on our archives.
#include "support/catch.hpp"

#include <multiprocessing/pickle.hpp>

#include <boost/serialization/array.hpp>
#include <boost/serialization/binary_object.hpp>
#include <boost/serialization/deque.hpp>
#include <boost/serialization/nvp.hpp>
#include <boost/serialization/optional.hpp>
#include <boost/serialization/queue.hpp>
#include <boost/serialization/split_member.hpp>
#include <boost/serialization/vector.hpp>
#include <boost/serialization/version.hpp>

#include <queue>
#include <string>
#include <vector>

namespace mp = multiprocessing;
using Catch::Matchers::ContainsSubstring;

namespace archive_test {

struct Split {
    std::string text;
    bool loaded = false;
    template <class Archive>
    void save(Archive& ar, unsigned) const {
        ar << text;
    }
    template <class Archive>
    void load(Archive& ar, unsigned) {
        ar >> text;
        loaded = true;
    }
    BOOST_SERIALIZATION_SPLIT_MEMBER()
};

struct Versioned {
    unsigned version = 0;
    template <class Archive>
    void serialize(Archive&, const unsigned found) {
        version = found;
    }
};

struct Wrapped {
    std::string name;
    int number = 0;
    std::vector<double> values;
    std::vector<std::string> words;
    char raw[8] = {};
    int table[2][3] = {};
    template <class Archive>
    void serialize(Archive& ar, unsigned) {
        ar& BOOST_SERIALIZATION_NVP(name);
        ar& boost::serialization::make_nvp("count", number);
        std::size_t size = values.size();
        ar& size;
        values.resize(size);
        ar& boost::serialization::make_array(values.data(), values.size());
        size = words.size();
        ar& size;
        words.resize(size);
        ar& boost::serialization::make_array(words.data(), words.size());
        ar& boost::serialization::make_binary_object(raw, sizeof raw);
        ar& table;
    }
};

// Types that Boost's own headers know and ours do not.
struct Foreign {
    boost::optional<int> optional;
    std::queue<std::string> queue;
    template <class Archive>
    void serialize(Archive& ar, unsigned) {
        ar& optional& queue;
    }
};

struct Base {
    int base = 0;
    template <class Archive>
    void serialize(Archive& ar, unsigned) {
        ar& base;
    }
};
struct Derived : Base {
    int derived = 0;
    template <class Archive>
    void serialize(Archive& ar, unsigned) {
        ar& boost::serialization::base_object<Base>(*this);
        ar& derived;
    }
};

}  // namespace archive_test

BOOST_CLASS_VERSION(archive_test::Versioned, 5)

using namespace archive_test;

namespace {
template <class T>
T round_trip(const T& value) {
    return mp::pickle::loads<T>(mp::pickle::dumps(value));
}
}  // namespace

TEST_CASE("save and load may be two functions", "[pickle][archive]") {
    const auto back = round_trip(Split{"x", false});
    CHECK(back.text == "x");
    CHECK(back.loaded);
}

TEST_CASE("a class's version reaches its serialize, and a later one is refused",
          "[pickle][archive]") {
    CHECK(round_trip(Versioned()).version == 5);
    mp::bytes pickled = mp::pickle::dumps(Versioned());
    pickled[8] = std::byte{6};
    CHECK_THROWS_WITH(mp::pickle::loads<Versioned>(pickled), ContainsSubstring("version 6"));
    pickled[8] = std::byte{2};
    CHECK(mp::pickle::loads<Versioned>(pickled).version == 2);
}

TEST_CASE("names, arrays and raw memory may be wrapped for the archive", "[pickle][archive]") {
    Wrapped object{"n", 3, {1, 2}, {"a", "b"}, "raw", {{1, 2, 3}, {4, 5, 6}}};
    const auto back = round_trip(object);
    CHECK(back.name == "n");
    CHECK(back.number == 3);
    CHECK(back.values == std::vector<double>{1, 2});
    CHECK(back.words == std::vector<std::string>{"a", "b"});
    CHECK(std::string(back.raw) == "raw");
    CHECK(back.table[1][2] == 6);
}

TEST_CASE("Boost's own serialization of other types works", "[pickle][archive]") {
    Foreign object;
    object.optional = 4;
    object.queue.push("first");
    object.queue.push("second");
    const auto back = round_trip(object);
    CHECK(back.optional.value() == 4);
    CHECK(back.queue.size() == 2);
    CHECK(back.queue.front() == "first");
}

TEST_CASE("a base class is written by its own serialize", "[pickle][archive]") {
    Derived object;
    object.base = 1;
    object.derived = 2;
    const auto back = round_trip(object);
    CHECK(back.base == 1);
    CHECK(back.derived == 2);
}

TEST_CASE("an archive reads what another wrote, piece by piece", "[pickle][archive]") {
    mp::pickle::Buffer buffer;
    mp::pickle::OArchive out(buffer);
    out << 1 << std::string("two");
    out& std::vector<int>{3};
    mp::pickle::IArchive in(buffer.span());
    int one = 0;
    std::string two;
    std::vector<int> three;
    in >> one >> two;
    in& three;
    CHECK(one == 1);
    CHECK(two == "two");
    CHECK(three == std::vector<int>{3});
    CHECK(in.remaining() == 0);
    CHECK_THROWS_AS(in >> one, mp::UnpicklingError);
}

TEST_CASE("without a cargo nothing travels beside the bytes", "[pickle][archive]") {
    mp::pickle::Buffer buffer;
    mp::pickle::OArchive out(buffer);
    CHECK_THROWS_AS(out.cargo(), mp::PicklingError);
    mp::pickle::IArchive in(buffer.span());
    CHECK_THROWS_AS(in.cargo(), mp::UnpicklingError);
}
