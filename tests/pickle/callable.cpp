// SPDX-License-Identifier: BSL-1.0
#include "support/catch.hpp"

#include <multiprocessing/pickle.hpp>
#include <multiprocessing/pickle/callable.hpp>

#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace mp = multiprocessing;
using mp::pickle::TravellingCallable;

namespace callable_test {

int add(int a, int b) { return a + b; }
int count(std::vector<int>& values, int more) {
    values.push_back(more);
    return static_cast<int>(values.size());
}
int consume(std::vector<int>&& values) {
    const std::vector<int> taken = std::move(values);
    return static_cast<int>(taken.size());
}

struct Counter {
    int n = 3;
    [[nodiscard]] int plus(int a) const { return n + a; }
    template <class Archive>
    void serialize(Archive& ar, unsigned) {
        ar& n;
    }
};

struct Scale {
    double factor = 1;
    double operator()(double x) const { return factor * x; }
    template <class Archive>
    void serialize(Archive& ar, unsigned) {
        ar& factor;
    }
};
struct PlainState {
    int n;
    int operator()() const { return n; }
};

template <class T>
T round_trip(const T& value) {
    return mp::pickle::loads<T>(mp::pickle::dumps(value));
}

}  // namespace callable_test

using namespace callable_test;

TEST_CASE("it is known which callables travel", "[pickle][callable]") {
    int captured = 1;
    const auto closure = [captured](int x) { return captured + x; };
    const auto none = [](int x) { return x; };
    STATIC_REQUIRE(TravellingCallable<int (*)(int, int)>);
    STATIC_REQUIRE(TravellingCallable<int (Counter::*)(int) const>);
    STATIC_REQUIRE(TravellingCallable<int Counter::*>);
    STATIC_REQUIRE(TravellingCallable<std::decay_t<decltype(none)>>);
    STATIC_REQUIRE(TravellingCallable<std::plus<int>>);
    STATIC_REQUIRE(TravellingCallable<Scale>);
    STATIC_REQUIRE(TravellingCallable<decltype(mp::partial(add, 1))>);
    STATIC_REQUIRE(!TravellingCallable<std::decay_t<decltype(closure)>>);
    STATIC_REQUIRE(!TravellingCallable<PlainState>);
    STATIC_REQUIRE(!TravellingCallable<std::function<void()>>);
    STATIC_REQUIRE(!TravellingCallable<decltype(mp::partial(closure, 1))>);
    STATIC_REQUIRE(!TravellingCallable<decltype(mp::partial(add, &closure))>);
    STATIC_REQUIRE(!TravellingCallable<decltype(std::bind(add, 1, 2))>);
    CHECK(closure(1) == 2);
}

TEST_CASE("a callable is called at the other end as here", "[pickle][callable]") {
    mp::pickle::Buffer buffer;
    mp::pickle::OArchive out(buffer);
    const auto lambda = [](int x) { return x + 1; };
    mp::pickle::save_callable(out, &add);
    mp::pickle::save_callable(out, lambda);
    mp::pickle::save_callable(out, Scale{2});
    mp::pickle::IArchive in(buffer.span());
    CHECK(mp::pickle::load_callable<int (*)(int, int)>(in)(1, 2) == 3);
    CHECK(mp::pickle::load_callable<std::decay_t<decltype(lambda)>>(in)(1) == 2);
    CHECK(mp::pickle::load_callable<Scale>(in)(4) == 8);
}

TEST_CASE("partial binds the first arguments", "[pickle][callable]") {
    CHECK(round_trip(mp::partial(add, 5))(2) == 7);
    CHECK(round_trip(mp::partial(add, 5, 6))() == 11);
    CHECK(round_trip(mp::partial(&Counter::plus, Counter{4}))(2) == 6);
    CHECK(round_trip(mp::partial(mp::partial(add, 1), 2))() == 3);
    const auto greet = mp::partial(
        [](const std::string& greeting, const std::string& name) { return greeting + name; },
        "hello ");
    CHECK(round_trip(greet)("you") == "hello you");
}

TEST_CASE("what a function does to its bound arguments does not outlast the call",
          "[pickle][callable]") {
    const auto partial = mp::partial(count, std::vector<int>{1, 2});
    CHECK(partial(3) == 3);
    CHECK(partial(3) == 3);
    const auto consuming = mp::partial(consume, std::vector<int>{1, 2});
    CHECK(consuming() == 2);
    CHECK(consuming() == 2);
}

TEST_CASE("partial takes what does not travel, for where it need not", "[pickle][callable]") {
    const auto number = std::make_unique<int>(4);
    const auto partial = mp::partial([&number](int x) { return *number + x; }, 1);
    CHECK(partial() == 5);
    STATIC_REQUIRE(!std::invocable<decltype(partial), std::string>);
}
