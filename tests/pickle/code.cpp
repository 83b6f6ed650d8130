// SPDX-License-Identifier: BSL-1.0
#include "support/catch.hpp"

#include <multiprocessing/pickle.hpp>
#include <multiprocessing/pickle/code.hpp>

#include <cstdio>

namespace mp = multiprocessing;

namespace code_test {

int add(int a, int b) { return a + b; }

struct Base {
    int x = 4;
    virtual ~Base() = default;
    [[nodiscard]] int plus(int a) const { return x + a; }
    [[nodiscard]] virtual int times(int a) { return x * a; }
};
struct Other {
    int y = 1;
    virtual ~Other() = default;
    [[nodiscard]] int minus(int a) const { return y - a; }
};
struct Derived : Base, Other {
    [[nodiscard]] int times(int a) override { return -x * a; }
};

template <class T>
T round_trip(const T& value) {
    return mp::pickle::loads<T>(mp::pickle::dumps(value));
}

}  // namespace code_test

using namespace code_test;

TEST_CASE("function pointers travel, of shared libraries and null too", "[pickle][code]") {
    CHECK(round_trip(&add)(1, 2) == 3);
    CHECK(round_trip(&std::fclose) == &std::fclose);
    CHECK(round_trip(static_cast<int (*)(int, int)>(nullptr)) == nullptr);
    STATIC_REQUIRE(mp::pickle::Picklable<int (*)(int, int)>);
    STATIC_REQUIRE(mp::pickle::Picklable<int (*)(int) noexcept>);
}

TEST_CASE("pointers to members travel, of virtual functions and data too", "[pickle][code]") {
    Derived object;
    CHECK((object.*round_trip(&Base::plus))(1) == 5);
    CHECK((object.*round_trip(&Base::times))(2) == -8);
    CHECK(object.*round_trip(&Base::x) == 4);
    int (Derived::*adjusted)(int) const = &Other::minus;
    // Not called: g++'s sanitizer takes the call of an adjusted pointer for an error.
    CHECK((round_trip(adjusted) == adjusted));
    CHECK(round_trip(static_cast<int (Base::*)(int) const>(nullptr)) == nullptr);
}

TEST_CASE("a function of another program is refused", "[pickle][code]") {
    mp::bytes pickled = mp::pickle::dumps(&add);
    using Function = int (*)(int, int);
    pickled[8] ^= std::byte{1};  // the module
    CHECK_THROWS_WITH(mp::pickle::loads<Function>(pickled),
                      Catch::Matchers::ContainsSubstring("compiled into another program"));
    pickled = mp::pickle::dumps(&add);
    pickled[8 + 8 + 6] = std::byte{0x7f};  // the distance
    CHECK_THROWS_AS(mp::pickle::loads<Function>(pickled), mp::UnpicklingError);
}

TEST_CASE("an address that is no function's cannot be pickled", "[pickle][code]") {
    int local = 0;
    CHECK_THROWS_AS(mp::pickle::code_address(&local), mp::PicklingError);
}
