// SPDX-License-Identifier: BSL-1.0
//
// Nearly all of it is decided while compiling.
#include "support/catch.hpp"

#include <multiprocessing/pickle.hpp>

#include <boost/serialization/is_bitwise_serializable.hpp>
#include <boost/serialization/split_free.hpp>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <iterator>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace mp = multiprocessing;
using mp::pickle::Bitwise;
using mp::pickle::HasSerialize;
using mp::pickle::Picklable;

namespace concepts_test {

struct Plain {
    int a;
    double b;
};
enum class Colour : char { red, green };
union Either {
    int a;
    float b;
};

struct Public {
    int x = 0;
    template <class Archive>
    void serialize(Archive& ar, unsigned) {
        ar& x;
    }
};
class Private {
public:
    [[nodiscard]] int value() const { return x_; }
    explicit Private(int x) : x_(x) {}

private:
    friend class boost::serialization::access;
    Private() = default;
    template <class Archive>
    void serialize(Archive& ar, unsigned) {
        ar& x_;
    }
    int x_ = 0;
};
struct Final final {
    std::string x;
    template <class Archive>
    void serialize(Archive& ar, unsigned) {
        ar& x;
    }
};
struct Inherits : Public {};

struct FreeHere {
    std::string x;
};
template <class Archive>
void serialize(Archive& ar, FreeHere& object, unsigned) {
    ar& object.x;
}

struct FreeInBoost {
    std::string x;
};
struct SplitInBoost {
    std::string x;
};
template <class T>
struct TemplateInBoost {
    std::string x;
    T y{};
};

// Its serialize is something else.
struct Speaks {
    int x;
    [[nodiscard]] std::string serialize() const { return std::to_string(x); }
};

struct NotPlain {
    std::string x;
};
struct NoDefault {
    explicit NoDefault(int value) : x(value) {}
    int x;
};
struct Incomplete;
struct Abstract {
    virtual ~Abstract() = default;
    virtual void f() = 0;
};
class Opaque {
public:
    Opaque() = default;

private:
    ~Opaque() = default;
};
class ByDeclaration {
public:
    ByDeclaration() = default;
    explicit ByDeclaration(int value) : x(value) {}
    ByDeclaration(const ByDeclaration& other) : x(other.x) {}
    ByDeclaration& operator=(const ByDeclaration&) = default;
    int x = 0;
};

struct PointsFirst {
    const char* text;
};
struct PointsLater {
    double values[2];
    Plain plain;
    std::chrono::seconds span;
    bool flag;
    PointsLater* next;
};
struct PointsInArray {
    int n;
    void* pointers[2];
};
struct Calls {
    int (*function)(int);
};
struct DerivedPoints : Plain {
    int* p;
};
struct NoPointers {
    char text[64];
    Plain plain[2];
    std::array<int, 3> numbers;
    std::chrono::seconds span;
    std::uint64_t offset;
    Colour colour;
    unsigned bits : 3;
    bool flag;
};

}  // namespace concepts_test

BOOST_IS_BITWISE_SERIALIZABLE(concepts_test::ByDeclaration)
BOOST_SERIALIZATION_SPLIT_FREE(concepts_test::SplitInBoost)

namespace boost::serialization {
template <class Archive>
void serialize(Archive& ar, concepts_test::FreeInBoost& object, unsigned) {
    ar& object.x;
}
template <class Archive>
void save(Archive& ar, const concepts_test::SplitInBoost& object, unsigned) {
    ar << object.x;
}
template <class Archive>
void load(Archive& ar, concepts_test::SplitInBoost& object, unsigned) {
    ar >> object.x;
}
template <class Archive, class T>
void serialize(Archive& ar, concepts_test::TemplateInBoost<T>& object, unsigned) {
    ar& object.x& object.y;
}
}  // namespace boost::serialization

using namespace concepts_test;

static_assert(Bitwise<int> && Bitwise<bool> && Bitwise<char8_t> && Bitwise<long double>);
static_assert(Bitwise<Colour> && Bitwise<std::byte> && Bitwise<Plain> && Bitwise<Either>);
static_assert(Bitwise<std::array<int, 3>> && Bitwise<std::pair<int, char>> && Bitwise<int[4]>);
static_assert(Bitwise<std::chrono::nanoseconds> && Bitwise<std::complex<double>>);
static_assert(Bitwise<std::chrono::system_clock::time_point>);
static_assert(Bitwise<std::tuple<int, Plain>> && Bitwise<ByDeclaration> && Bitwise<Speaks>);
static_assert(!Bitwise<std::pair<int, bool>>, "not every byte is a bool");
static_assert(!Bitwise<std::string> && !Bitwise<Public> && !Bitwise<int*> && !Bitwise<NoDefault>);

static_assert(HasSerialize<Public> && HasSerialize<Private> && HasSerialize<Final>);
static_assert(HasSerialize<FreeHere> && HasSerialize<FreeInBoost> && HasSerialize<SplitInBoost>);
static_assert(HasSerialize<TemplateInBoost<int>> && HasSerialize<Inherits>);
static_assert(!HasSerialize<Plain> && !HasSerialize<Speaks> && !HasSerialize<NotPlain>);
static_assert(!HasSerialize<std::string> && !HasSerialize<int> && !HasSerialize<Incomplete>);

static_assert(Picklable<Public> && Picklable<Private> && Picklable<std::vector<FreeHere>>);
static_assert(Picklable<const int> && Picklable<int*> && Picklable<std::unique_ptr<Abstract>>);

// What must not travel, and what must only be asked about.
static_assert(!Picklable<std::string_view> && !Picklable<std::span<int>> && !Picklable<int&>);
static_assert(!Picklable<const char*> && !Picklable<void*> && !Picklable<void> &&
              !Picklable<std::nullptr_t*>);
static_assert(!Picklable<std::reference_wrapper<int>> && !Picklable<std::function<void()>>);
static_assert(!Picklable<std::vector<int>::iterator> && !Picklable<std::thread>);
static_assert(!Picklable<std::atomic<int>> && !Picklable<std::mutex> && !Picklable<NotPlain>);
static_assert(!Picklable<Incomplete> && !Picklable<Abstract> && !Picklable<Opaque>);
static_assert(!Picklable<std::vector<std::string_view>> && !Picklable<std::unique_ptr<int[]>>);
static_assert(!Picklable<std::map<int, std::thread>> && !Picklable<std::optional<std::mutex>>);
static_assert(!Picklable<int()> && !Picklable<int[]> && !Picklable<NoDefault>);

template <class T>
T round_trip(const T& value) {
    return mp::pickle::loads<T>(mp::pickle::dumps(value));
}

TEST_CASE("every way to give a class a serialize is found and used", "[pickle][concepts]") {
    CHECK(round_trip(Public{5}).x == 5);
    CHECK(round_trip(Private(5)).value() == 5);
    CHECK(round_trip(Final{"x"}).x == "x");
    CHECK(round_trip(FreeHere{"x"}).x == "x");
    CHECK(round_trip(FreeInBoost{"x"}).x == "x");
    CHECK(round_trip(SplitInBoost{"x"}).x == "x");
    CHECK(round_trip(TemplateInBoost<int>{"x", 3}).y == 3);
    CHECK(round_trip(std::vector{Private(1), Private(2)}).at(1).value() == 2);
}

TEST_CASE("a class that is nothing but its bytes needs no serialize", "[pickle][concepts]") {
    CHECK(round_trip(Plain{1, 2.5}).b == 2.5);
    CHECK(round_trip(Speaks{7}).x == 7);
    CHECK(round_trip(ByDeclaration(7)).x == 7);
    CHECK(round_trip(Colour::green) == Colour::green);
}

TEST_CASE("closures with captures are not picklable, those without are", "[pickle][concepts]") {
    int captured = 1;
    const auto by_value = [captured] { return captured; };
    const auto by_reference = [&captured] { return captured; };
    const auto none = [](int x) { return x + 1; };
    STATIC_REQUIRE(!Picklable<decltype(by_value)>);
    STATIC_REQUIRE(!Picklable<decltype(by_reference)>);
    STATIC_REQUIRE(Picklable<decltype(none)>);
    CHECK(mp::pickle::dumps(none).size() == sizeof(std::uint64_t));
    CHECK(round_trip(none)(1) == 2);
}

TEST_CASE("a class that points elsewhere is not its bytes", "[pickle]") {
    using namespace concepts_test;
    using mp::pickle::has_pointer_member;
    STATIC_REQUIRE(has_pointer_member<PointsFirst>);
    STATIC_REQUIRE(has_pointer_member<PointsLater>);
    STATIC_REQUIRE(has_pointer_member<PointsInArray>);
    STATIC_REQUIRE(has_pointer_member<Calls>);
    STATIC_REQUIRE(has_pointer_member<DerivedPoints>);
    STATIC_REQUIRE_FALSE(has_pointer_member<Plain>);
    STATIC_REQUIRE_FALSE(has_pointer_member<NoPointers>);
    STATIC_REQUIRE_FALSE(Bitwise<PointsLater>);
    STATIC_REQUIRE_FALSE(Picklable<PointsLater>);
    STATIC_REQUIRE(Bitwise<NoPointers>);
}
