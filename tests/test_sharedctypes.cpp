// SPDX-License-Identifier: BSL-1.0
#include <multiprocessing/sharedctypes.hpp>

#include <multiprocessing/queues.hpp>

#include "conformance/helpers.hpp"
#include "shm/helpers.hpp"
#include "support/catch.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <list>
#include <mutex>
#include <new>
#include <numeric>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <thread>
#include <type_traits>
#include <vector>

namespace mp = multiprocessing;
using Catch::Matchers::ContainsSubstring;
using support::Children;
using support::NoLeak;
using support::patient;

namespace {

struct Point {
    double x = 0;
    double y = 0;
};

void add_in_every_way(const mp::Value<int>& value, int times) {
    for (int i = 0; i < times; ++i) {
        value.fetch_add(1);
        int expected = value.load();
        while (!value.compare_exchange(expected, expected + 1)) {}
    }
}
void add_locked(const mp::Value<int>& value, int times) {
    for (int i = 0; i < times; ++i) {
        const std::lock_guard guard(value.get_lock());
        value.value() += 1;
        value.synchronized([](int& v) { ++v; });  // recursive, as Python's is
    }
}

}  // namespace

TEST_CASE("a value is seen by all", "[value][fork][spawn]") {
    EVERY_START_METHOD;
    const mp::Value<int> value(5);
    Children children(method);
    children.start(add_locked, value, 500);
    add_locked(value, 500);
    CHECK(children.join());
    CHECK(value.value() == 5 + 2000);
}

TEST_CASE("atomic operations need no lock", "[value][fork][spawn]") {
    EVERY_START_METHOD;
    const mp::Value<int> value(0);
    Children children(method);
    children.start(add_in_every_way, value, 1000);
    add_in_every_way(value, 1000);
    CHECK(children.join());
    CHECK(value.load() == 4000);
    CHECK(value.fetch_add(5) == 4000);
    CHECK(value.fetch_sub(1) == 4005);
    value.store(7);
    CHECK(value.exchange(8) == 7);
    int expected = 9;
    CHECK_FALSE(value.compare_exchange(expected, 1));
    CHECK(expected == 8);
    CHECK(value.compare_exchange(expected, 1));
    CHECK(value.value() == 1);

    const mp::Value<double> real(1.5);
    CHECK(real.fetch_add(2.0) == 1.5);
    CHECK(real.load() == 3.5);
}

TEST_CASE("values of every kind", "[value]") {
    CHECK(mp::Value<int>().value() == 0);
    CHECK(mp::Value<bool>(true).value());
    CHECK(mp::Value<char>('c').value() == 'c');
    CHECK(mp::Value<std::uint64_t>(~std::uint64_t{0}).load() == ~std::uint64_t{0});
    const mp::Value<Point> point(Point{1, 2});
    point.value().x += 10;
    CHECK(point.get_obj().x == 11);
    CHECK(point.synchronized([](Point& p) { return p.x + p.y; }) == 13);
    int& reference = mp::Value<int>(3).synchronized([](int& v) -> int& { return v; });
    static_cast<void>(reference);
    const mp::Value<std::array<int, 100>> array;
    CHECK(array.value()[99] == 0);
    CHECK(mp::Value<long double>(1.25L).value() == 1.25L);
}

TEST_CASE("which lock a value has", "[value]") {
    const mp::Value<int> own(0);
    CHECK(own.acquire());
    CHECK(own.get_lock().locked());
    CHECK(own.get_lock().acquire(false));  // recursive
    own.release();
    own.release();
    CHECK_THROWS_AS(own.release(), mp::AssertionError);
    {
        std::unique_lock guard(own.get_lock());
        std::thread([&] { CHECK_FALSE(own.get_lock().try_lock()); }).join();
    }

    const mp::Lock lock;
    const mp::Value<int> given(0, lock);
    CHECK(given.get_lock() == lock);
    const std::lock_guard guard(given.get_lock());
    CHECK(lock.locked());
    const mp::RLock rlock;
    CHECK(mp::Value<int>(0, rlock).get_lock() == rlock);

    const mp::Value<int> none(1, mp::no_lock);
    CHECK(none.value() == 1);
    CHECK(none.fetch_add(1) == 1);
    CHECK_THROWS_AS(none.get_lock(), mp::AssertionError);
    CHECK_THROWS_WITH(none.get_lock(), ContainsSubstring("no_lock"));
    CHECK_THROWS_AS(none.acquire(), mp::AssertionError);
    CHECK_THROWS_AS(none.synchronized([](int&) {}), mp::AssertionError);
}

TEST_CASE("a value goes on when somebody dies with its lock", "[value][crash]") {
    const mp::Value<int> value(1);
    mp::Process holder([value] {
        value.acquire();
        value.value() = 2;
        support::die();
    });
    holder.start();
    holder.join(patient);
    CHECK(value.acquire(true, patient));
    CHECK(value.get_lock().abandoned());
    CHECK(value.value() == 2);
    value.release();
    CHECK_FALSE(value.get_lock().abandoned());
}

TEST_CASE("arrays are made from a size or from elements", "[array]") {
    const mp::Array<double> zeros(10);
    CHECK(zeros.size() == 10);
    for (const double element : zeros) CHECK(element == 0);
    const mp::Array<double> two({1, 2});
    CHECK(std::vector<double>(two.begin(), two.end()) == std::vector<double>{1, 2});
    const mp::Array<int> one({10});
    CHECK(one.size() == 1);
    CHECK(one[0] == 10);
    CHECK(mp::Array<int>(10).size() == 10);
    CHECK(mp::Array<int>(std::size_t{10}).size() == 10);
    CHECK(mp::Array<int>(std::vector<int>{1, 2, 3}).size() == 3);
    CHECK(mp::Array<double>(std::list<int>{4, 5})[1] == 5);
    CHECK(mp::Array<char>(std::string("hello"))[4] == 'o');
    CHECK(mp::Array<int>(std::span<const int>()).empty());
    const mp::Array<int> none(0);
    CHECK(none.empty());
    CHECK(none.begin() == none.end());
    CHECK_THROWS_AS(none.at(0), std::out_of_range);
}

TEST_CASE("elements and bounds", "[array]") {
    const mp::Array<int> array({1, 2, 3});
    array[1] = 20;
    CHECK(array.at(1) == 20);
    array.at(2) = 30;
    CHECK(array.span().size() == 3);
    CHECK(array.span()[2] == 30);
    CHECK(array.get_obj().data() == &array[0]);
    CHECK(std::accumulate(array.begin(), array.end(), 0) == 51);
    CHECK_THROWS_AS(array.at(3), std::out_of_range);
    CHECK_THROWS_WITH(array.at(3), ContainsSubstring("3"));
    CHECK(array.synchronized([](std::span<int> s) { return s.size(); }) == 3);
}

TEST_CASE("sizes that cannot be", "[array]") {
    const NoLeak leak;
    CHECK_THROWS_AS(mp::Array<int>(-1), mp::ValueError);
    CHECK_THROWS_WITH(mp::Array<int>(-1), ContainsSubstring("-1"));
    CHECK_THROWS_AS(mp::RawArray<int>(-5), mp::ValueError);
    CHECK_THROWS_AS(mp::Array<double>(std::size_t{1} << 62), std::bad_alloc);
    CHECK_THROWS_AS(mp::Array<double>(~std::size_t{0}), std::bad_alloc);
    CHECK_THROWS_AS(mp::Array<double>(std::int64_t{1} << 40), std::bad_alloc);
    CHECK(leak.leaked() == 0);
}

TEST_CASE("which lock an array has", "[array]") {
    const mp::Lock lock;
    CHECK(mp::Array<int>(3, lock).get_lock() == lock);
    CHECK(mp::Array<int>({1, 2}, lock).get_lock() == lock);
    CHECK(mp::Array<int>(std::vector<int>{1}, lock).get_lock() == lock);
    CHECK_THROWS_AS(mp::Array<int>(3, mp::no_lock).get_lock(), mp::AssertionError);
    CHECK_THROWS_AS(mp::Array<int>({1, 2}, mp::no_lock).get_lock(), mp::AssertionError);
    CHECK_THROWS_AS(mp::Array<int>(std::vector<int>{1}, mp::no_lock).get_lock(),
                    mp::AssertionError);
    const mp::Array<int> own(3);
    const std::lock_guard guard(own.get_lock());
    CHECK(own.get_lock().locked());
}

TEST_CASE("an array is filled by several", "[array][fork][spawn]") {
    EVERY_START_METHOD;
    const mp::Array<int> array(1000);
    Children children(method);
    for (int part = 0; part < 4; ++part) {
        children.start(
            [](const mp::Array<int>& a, int which) {
                for (std::size_t i = static_cast<std::size_t>(which); i < a.size(); i += 4) {
                    a[i] = static_cast<int>(i);
                }
            },
            array, part);
    }
    CHECK(children.join());
    for (std::size_t i = 0; i < array.size(); ++i) REQUIRE(array[i] == static_cast<int>(i));
}

TEST_CASE("raw values and arrays", "[value][array][fork][spawn]") {
    EVERY_START_METHOD;
    const mp::RawValue<int> value(3);
    const mp::RawArray<int> array({1, 2, 3});
    CHECK(mp::RawArray<int>(4).size() == 4);
    CHECK(mp::RawArray<int>(std::vector<int>{1, 2})[1] == 2);
    Children children(method);
    children.start(
        [](const mp::RawValue<int>& v, const mp::RawArray<int>& a) {
            v.value() = 4;
            a[2] = 5;
        },
        value, array);
    CHECK(children.join());
    CHECK(value.value() == 4);
    CHECK(array[2] == 5);
}

TEST_CASE("values travel through queues with the lock they have", "[value][queue]") {
    const NoLeak leak;
    {
        const mp::Queue<mp::Value<int>> queue;
        const mp::Lock lock;
        queue.put(mp::Value<int>(1));
        queue.put(mp::Value<int>(2, lock));
        queue.put(mp::Value<int>(3, mp::no_lock));
        const auto own = queue.get();
        CHECK(own.value() == 1);
        CHECK(own.get_lock().try_lock());
        own.release();
        CHECK(queue.get().get_lock() == lock);
        CHECK_THROWS_AS(queue.get().get_lock(), mp::AssertionError);
        const mp::Queue<mp::Array<double>> arrays;
        arrays.put(mp::Array<double>({1, 2, 3}));
        CHECK(arrays.get()[2] == 3);
    }
    CHECK(leak.leaked() == 0);
}

TEST_CASE("what can stand in shared memory is known at compile time", "[value]") {
    STATIC_REQUIRE(mp::Shareable<Point>);
    STATIC_REQUIRE(mp::Shareable<int[3]>);
    STATIC_REQUIRE_FALSE(mp::Shareable<std::string>);
    STATIC_REQUIRE_FALSE(mp::Shareable<int*>);
    STATIC_REQUIRE_FALSE(mp::Shareable<std::vector<int>>);
}

TEST_CASE("large arrays, and many", "[array]") {
    const NoLeak leak;
    {
        const mp::Array<std::uint8_t> large(50'000'000);
        large[49'999'999] = 1;
        CHECK(large[0] == 0);
        std::vector<mp::Value<int>> many;
        for (int i = 0; i < 2000; ++i) many.emplace_back(i);
        CHECK(many[1999].value() == 1999);
    }
    CHECK(leak.leaked() < 64 * 1024);  // the ledger's chunks stay
}

TEST_CASE("an array of a string literal has its characters, a buffer all of its own", "[array]") {
    CHECK(mp::Array<char>("abc").size() == 3);
    CHECK(mp::RawArray<char>("abc").size() == 3);
    CHECK(mp::Array<char>("", mp::no_lock).empty());
    CHECK(mp::Array<char>("ab", mp::Lock()).size() == 2);
    CHECK(mp::Array<wchar_t>(L"abc").size() == 3);
    CHECK(mp::Array<char>(std::string("abc")).size() == 3);
    char buffer[8] = "abc";
    CHECK(mp::Array<char>(buffer).size() == 8);
    const int numbers[] = {1, 0};
    CHECK(mp::Array<int>(numbers).size() == 2);
}

namespace {

template <class T>
concept can_add = requires(const mp::Value<T>& value, T operand) {
    value.fetch_add(operand);
};
template <class T>
concept can_or = requires(const mp::Value<T>& value, T operand) {
    value.fetch_or(operand);
};

}  // namespace

TEST_CASE("a slice is what Python's is", "[array]") {
    const mp::Array<int> a({0, 1, 2, 3, 4, 5, 6, 7, 8, 9});
    const auto list = [](auto&& elements) {
        return std::vector<int>(elements.begin(), elements.end());
    };
    using L = std::vector<int>;
    CHECK(list(a.slice()) == L{0, 1, 2, 3, 4, 5, 6, 7, 8, 9});
    CHECK(list(a.slice(2, 5)) == L{2, 3, 4});
    CHECK(list(a.slice(-3)) == L{7, 8, 9});
    CHECK(list(a.slice(std::nullopt, -8)) == L{0, 1});
    CHECK(list(a.slice(5, 2)).empty());
    CHECK(list(a.slice(8, 100)) == L{8, 9});
    CHECK(list(a.slice(-100, 2)) == L{0, 1});
    CHECK(list(a.slice(100)).empty());
    CHECK(a.slice(1, 8, 3) == L{1, 4, 7});
    CHECK(a.slice(std::nullopt, std::nullopt, 4) == L{0, 4, 8});
    CHECK(a.slice(std::nullopt, std::nullopt, -1) == L{9, 8, 7, 6, 5, 4, 3, 2, 1, 0});
    CHECK(a.slice(7, 2, -2) == L{7, 5, 3});
    CHECK(a.slice(-1, -4, -1) == L{9, 8, 7});
    CHECK(a.slice(2, 7, -1).empty());
    CHECK(a.slice(0, 100, std::numeric_limits<std::ptrdiff_t>::max()) == L{0});
    CHECK(a.slice(100, std::nullopt, std::numeric_limits<std::ptrdiff_t>::min()) == L{9});
    CHECK_THROWS_AS(a.slice(0, 5, 0), mp::ValueError);
    CHECK(mp::Array<int>(0).slice(std::nullopt, std::nullopt, -1).empty());
}

TEST_CASE("a slice is the array's own elements", "[array]") {
    const mp::Array<int> a({0, 1, 2, 3, 4});
    for (int& element : a.slice(1, 3)) element *= 10;
    a.set_slice(3, std::nullopt, {7, 8});
    CHECK(std::vector<int>(a.begin(), a.end()) == std::vector<int>{0, 10, 20, 7, 8});
    CHECK_THROWS_WITH(a.set_slice(0, 2, {1}), Catch::Matchers::ContainsSubstring("same size"));
    CHECK_THROWS_AS(a.set_slice(0, 2, std::vector<int>{1, 2, 3}), mp::ValueError);
    CHECK(a[0] == 0);
    a.set_slice(std::nullopt, std::nullopt, std::vector<double>{1.5, 2.5, 3.5, 4.5, 5.5});
    CHECK(a[4] == 5);
}

TEST_CASE("at() counts from the end for a negative index, and looks at the bounds", "[array]") {
    const mp::Array<int> a({1, 2, 3});
    CHECK(a.at(-1) == 3);
    CHECK(a.at(-3) == 1);
    CHECK(a.at(std::size_t{2}) == 3);
    CHECK_THROWS_AS(a.at(3), std::out_of_range);
    CHECK_THROWS_AS(a.at(-4), std::out_of_range);
    CHECK_THROWS_AS(a.at(std::numeric_limits<std::uint64_t>::max()), std::out_of_range);
    CHECK_THROWS_AS(a.at(std::numeric_limits<std::int64_t>::min()), std::out_of_range);
}

TEST_CASE("an array of chars is a text and all of its bytes", "[array]") {
    const mp::Array<char> a(8);
    CHECK(a.value().empty());
    a.set_value("hello");
    CHECK(a.value() == "hello");
    CHECK(a.raw() == std::string("hello\0\0\0", 8));
    a.set_value("hi");
    CHECK(a.value() == "hi");
    CHECK(a.raw() == std::string("hi\0lo\0\0\0", 8));
    a.set_value("12345678");
    CHECK(a.value() == "12345678");
    CHECK_THROWS_WITH(a.set_value("123456789"), Catch::Matchers::ContainsSubstring("too long"));
    CHECK(a.value() == "12345678");
}

TEST_CASE("a copy is another object, and synchronized gives the same one a lock",
          "[value][array]") {
    const mp::RawValue<int> raw(5);
    const mp::RawValue<int> copied = mp::sharedctypes::copy(raw);
    raw.value() = 6;
    CHECK(copied.value() == 5);
    const mp::Value<int> locked = mp::sharedctypes::synchronized(raw);
    const mp::Value<int> also = mp::sharedctypes::synchronized(raw);
    CHECK(locked.get_lock() == also.get_lock());
    locked.synchronized([](int& n) { n = 7; });
    CHECK(raw.value() == 7);
    const mp::Lock lock;
    CHECK(mp::sharedctypes::synchronized(raw, lock).get_lock() == lock);

    const mp::RawArray<int> numbers({1, 2});
    const mp::RawArray<int> other = mp::sharedctypes::copy(numbers);
    const mp::Array<int> with_lock = mp::sharedctypes::synchronized(numbers, lock);
    with_lock[0] = 9;
    CHECK(numbers[0] == 9);
    CHECK(other[0] == 1);
    const mp::Process child(
        [](const mp::Array<int>& a) { a.synchronized([](auto all) { all[1] = 8; }); },
        mp::sharedctypes::synchronized(numbers));
    child.start();
    child.join(patient);
    CHECK(numbers[1] == 8);
}

TEST_CASE("the bits of a value are changed atomically", "[value]") {
    const mp::Value<unsigned> bits(0b1100);
    CHECK(bits.fetch_or(0b0011) == 0b1100);
    CHECK(bits.fetch_and(0b0110) == 0b1111);
    CHECK(bits.fetch_xor(0b0101) == 0b0110);
    CHECK(bits.load() == 0b0011);
    CHECK(bits.exchange(1) == 0b0011);
    STATIC_REQUIRE_FALSE(can_add<bool>);
    STATIC_REQUIRE(can_add<double>);
    STATIC_REQUIRE_FALSE(can_or<double>);
}
