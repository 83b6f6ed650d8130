// SPDX-License-Identifier: BSL-1.0
//
// CPython's _TestValue, _TestArray and _TestSharedCTypes.
#include <multiprocessing/sharedctypes.hpp>

#include "conformance/helpers.hpp"
#include "support/catch.hpp"

#include <cstdint>
#include <numeric>
#include <span>
#include <type_traits>
#include <vector>

namespace mp = multiprocessing;
using namespace support;

namespace {

template <template <class> class V>
void set_values(const V<int>& i, const V<double>& d, const V<short>& h, const V<std::int64_t>& q,
                const V<char>& c) {
    i.value() = 4567;
    d.value() = -2.5;
    h.value() = -32768;
    q.value() = std::int64_t{2} << 33;
    c.value() = 'y';
}

template <template <class> class V>
void test_values(const std::string& method) {
    const V<int> i(4343);
    const V<double> d(3.625);
    const V<short> h(-232);
    const V<std::int64_t> q(std::int64_t{2} << 34);
    const V<char> c('x');
    CHECK(i.value() == 4343);
    CHECK(d.value() == 3.625);
    CHECK(h.value() == -232);
    CHECK(q.value() == std::int64_t{2} << 34);
    CHECK(c.value() == 'x');
    Children children(method);
    children.start(set_values<V>, i, d, h, q, c);
    CHECK(children.join());
    CHECK(i.value() == 4567);
    CHECK(d.value() == -2.5);
    CHECK(h.value() == -32768);
    CHECK(q.value() == std::int64_t{2} << 33);
    CHECK(c.value() == 'y');
}

template <class A>
void prefix_sums(const A& array) {
    for (std::size_t i = 1; i < array.size(); ++i) array[i] += array[i - 1];
}

template <class A>
void test_array(const std::string& method) {
    std::vector<int> numbers{680, 626, 934, 821, 150, 233, 548, 982, 714, 831};
    const A array(numbers);
    CHECK(array.size() == numbers.size());
    CHECK(array[2] == numbers[2]);
    CHECK(array.slice(2, 7, 1) == std::vector<int>(numbers.begin() + 2, numbers.begin() + 7));
    for (std::size_t i = 4; i < 8; ++i) numbers[i] = static_cast<int>(i);
    array.set_slice(4, 8, {4, 5, 6, 7});
    CHECK(std::vector<int>(array.begin(), array.end()) == numbers);
    std::partial_sum(numbers.begin(), numbers.end(), numbers.begin());
    Children children(method);
    children.start(prefix_sums<A>, array);
    CHECK(children.join());
    CHECK(std::vector<int>(array.begin(), array.end()) == numbers);
}

struct Foo {
    int x;
    double y;
    std::int64_t z;
};

void double_all(const mp::Value<int>& x, const mp::Value<double>& y, const mp::Value<Foo>& foo,
                const mp::Array<double>& array, const mp::Array<char>& string) {
    x.value() *= 2;
    y.value() *= 2;
    foo.value().x *= 2;
    foo.value().y *= 2;
    for (double& element : array) element *= 2;
    string.set_value(string.value() + string.value());
}

}  // namespace

TEST_CASE("_TestValue.test_value", "[value][conformance]") {
    EVERY_START_METHOD;
    test_values<mp::Value>(method);
}

TEST_CASE("_TestValue.test_rawvalue", "[value][conformance]") {
    EVERY_START_METHOD;
    test_values<mp::RawValue>(method);
}

TEST_CASE("_TestValue.test_getobj_getlock", "[value][conformance]") {
    const mp::Value<int> own(5);
    static_cast<void>(own.get_lock());
    static_cast<void>(own.get_obj());
    const mp::Lock lock;
    const mp::Value<int> given(5, lock);
    CHECK(given.get_lock() == lock);
    CHECK(given.get_obj() == 5);
    const mp::Value<int> none(5, mp::no_lock);
    CHECK_THROWS_AS(none.get_lock(), mp::AssertionError);
    // A raw one has none to get: it does not compile.
    CHECK_FALSE(std::is_invocable_v<decltype([](const auto& v) -> decltype(v.get_lock()) {}),
                                    const mp::RawValue<int>&>);
}

TEST_CASE("_TestArray.test_array", "[array][conformance]") {
    EVERY_START_METHOD;
    test_array<mp::Array<int>>(method);
}

TEST_CASE("_TestArray.test_rawarray", "[array][conformance]") {
    EVERY_START_METHOD;
    test_array<mp::RawArray<int>>(method);
}

TEST_CASE("_TestArray.test_array_from_size", "[array][conformance]") {
    for (int i = 0; i < 3; ++i) {
        const mp::Array<int> array(10);
        CHECK(array.size() == 10);
        CHECK(std::vector<int>(array.begin(), array.end()) == std::vector<int>(10, 0));
        // So that what the next one gets is not zero by chance.
        for (int& element : array) element = 7;
    }
}

TEST_CASE("_TestArray.test_getobj_getlock_obj", "[array][conformance]") {
    const mp::Array<int> own(10);
    static_cast<void>(own.get_lock());
    CHECK(own.get_obj().size() == 10);
    const mp::Lock lock;
    const mp::Array<int> given(10, lock);
    CHECK(given.get_lock() == lock);
    const mp::Array<int> none(10, mp::no_lock);
    CHECK_THROWS_AS(none.get_lock(), mp::AssertionError);
    CHECK_FALSE(std::is_invocable_v<decltype([](const auto& v) -> decltype(v.get_lock()) {}),
                                    const mp::RawArray<int>&>);
}

namespace {

void test_sharedctypes(const std::string& method, bool locked) {
    const auto value = [&](auto initial) {
        using T = decltype(initial);
        return locked ? mp::Value<T>(initial) : mp::Value<T>(initial, mp::no_lock);
    };
    const auto x = value(7);
    const auto y = value(1.0 / 3.0);
    const auto foo = value(Foo{3, 2, std::int64_t{1} << 33});
    const auto array = locked ? mp::Array<double>(10) : mp::Array<double>(10, mp::no_lock);
    for (std::size_t i = 0; i < 10; ++i) array[i] = static_cast<double>(i);
    const mp::Array<char> string(20);
    string.set_value("hello");
    Children children(method);
    children.start(double_all, x, y, foo, array, string);
    CHECK(children.join());
    CHECK(x.value() == 14);
    CHECK(y.value() == 2.0 / 3.0);
    CHECK(foo.value().x == 6);
    CHECK(foo.value().y == 4.0);
    CHECK(foo.value().z == std::int64_t{1} << 33);
    for (std::size_t i = 0; i < 10; ++i) CHECK(array[i] == static_cast<double>(i) * 2);
    CHECK(string.value() == "hellohello");
}

}  // namespace

TEST_CASE("_TestSharedCTypes.test_sharedctypes", "[value][array][conformance]") {
    EVERY_START_METHOD;
    test_sharedctypes(method, false);
}

TEST_CASE("_TestSharedCTypes.test_synchronize", "[value][array][conformance]") {
    EVERY_START_METHOD;
    test_sharedctypes(method, true);
}

TEST_CASE("_TestSharedCTypes.test_copy", "[value][conformance]") {
    const mp::Value<Foo> foo(Foo{2, 5.0, std::int64_t{1} << 33});
    const mp::RawValue<Foo> copy = mp::sharedctypes::copy(foo);
    foo.value() = Foo{};
    CHECK(copy.value().x == 2);
    CHECK(copy.value().y == 5.0);
    CHECK(copy.value().z == std::int64_t{1} << 33);
}
