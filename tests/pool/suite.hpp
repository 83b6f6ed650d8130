// SPDX-License-Identifier: BSL-1.0
//
// What every pool is held to, whatever its workers are. Whoever includes this has said before which
// there are:
//
//     struct Kind {
//         using Pool = mp::Pool;                            // what an AnyPool is
//         static std::vector<std::string> modes();          // in each of which every case is run
//         static Pool make(const std::string& mode, int workers);   // so many, or as many as there are
//         static constexpr bool pickles = true;             // arguments and results
//     };
//     using Kinds = std::tuple<Kind, ...>;
#pragma once

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/pickle/archive.hpp>
#include <multiprocessing/pickle/callable.hpp>
#include <multiprocessing/pickle/exception.hpp>
#include <multiprocessing/pool_concept.hpp>
#include <multiprocessing/range.hpp>
#include <multiprocessing/this_task.hpp>

#include "pool/gate.hpp"
#include "runtime/pool_helpers.hpp"
#include "support/catch.hpp"
#include "support/ranges.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <forward_list>
#include <fstream>
#include <future>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

namespace pool_suite {

namespace mp = multiprocessing;
using namespace std::chrono_literals;
using Catch::Matchers::ContainsSubstring;
using support::FileGate;
using support::Generated;
using support::outcomes_of;
using support::square;

inline int add(int a, int b) { return a + b; }
inline std::string join(const std::string& a, const std::string& b) { return a + b; }
inline void nothing(int) {}
inline bool is_even(int x) { return x % 2 == 0; }
inline std::unique_ptr<int> boxed(int x) { return std::make_unique<int>(x); }
inline int scale(int factor, int x) { return factor * x; }
inline int append_and_sum(std::vector<int>& v) {
    v.push_back(1);
    int sum = 0;
    for (const int each : v) sum += each;
    return sum;
}
inline const std::string& name_of_the_weekday(int day) {
    static const auto* const names = new std::vector<std::string>{"Monday", "Tuesday", "Wednesday"};
    return names->at(static_cast<std::size_t>(day));
}
inline int wait_then_square(const std::string& gate, int x) {
    FileGate::wait_for(gate);
    return x * x;
}
/// Goes on until it is told to stop, or for a minute. Whether it was.
inline bool obey(int) {
    const auto give_up = std::chrono::steady_clock::now() + 60s;
    while (!mp::this_task::stop_requested()) {
        if (std::chrono::steady_clock::now() > give_up) return false;
        std::this_thread::sleep_for(1ms);
    }
    return true;
}
inline bool open_and_obey(const std::string& gate) {
    std::ofstream{gate} << "begun";
    return obey(0);
}

struct Point {
    int x = 0;
    std::string name;
    [[nodiscard]] int shifted(int by) const { return x + by; }
    [[nodiscard]] std::string get_name() const { return name; }
    template <class Archive>
    void serialize(Archive& archive, unsigned) {
        archive & x & name;
    }
};
/// Has no default constructor.
struct Meters {
    explicit Meters(double v) : value(v) {}
    double value;
};
inline Meters meters(int x) { return Meters(x); }
struct Scaler {
    int factor = 1;
    int operator()(int x) const { return x * factor; }
    template <class Archive>
    void serialize(Archive& archive, unsigned) {
        archive & factor;
    }
};
/// Counts its calls in itself: so it is another for each task where it travels.
struct Counter {
    int calls = 0;
    int operator()(int) { return ++calls; }
    template <class Archive>
    void serialize(Archive& archive, unsigned) {
        archive & calls;
    }
};

struct Refused : std::runtime_error {
    using std::runtime_error::runtime_error;
};
struct Unknown {};
inline int fail_on_odd(int x) {
    if (x % 2 == 1) throw std::out_of_range("odd: " + std::to_string(x));
    return x;
}
inline int throw_kind(int kind) {
    switch (kind) {
    case 0: throw std::invalid_argument("zero");
    case 1: throw std::system_error(ENOENT, std::generic_category(), "one");
    case 2: throw Refused("two");
    case 3: throw Unknown();
    case 4: throw mp::Empty("four");
    default: throw 5;
    }
}

/// Throws when it is written down, or read, if it is told to.
struct Fragile {
    int write = 0;
    int read = 0;
    template <class Archive>
    void save(Archive& archive, unsigned) const {
        if (write != 0) throw Refused("cannot be written");
        archive << write << read;
    }
    template <class Archive>
    void load(Archive& archive, unsigned) {
        archive >> write >> read;
        if (read != 0) throw Refused("cannot be read");
    }
    BOOST_SERIALIZATION_SPLIT_MEMBER()
};
inline int take_fragile(const Fragile& f) { return f.write; }
inline Fragile make_fragile(int x) { return Fragile{x == 1 ? 1 : 0, x == 2 ? 1 : 0}; }

inline std::vector<int> squares(int count) {
    std::vector<int> result;
    for (int i = 0; i < count; ++i) result.push_back(i * i);
    return result;
}
/// 0, 1, 2, …, and how far they have been read.
inline Generated numbers(std::atomic<int>& read, int throw_at = -1, std::optional<int> count = {}) {
    return Generated(
        [&read, throw_at](int x) {
            if (x == throw_at) throw Refused("no more numbers");
            read = x + 1;
            return x;
        },
        count);
}
inline Generated few(int count) {
    return Generated([](int x) { return x; }, count);
}

/// The rest of the case is run in each of the modes of a kind.
template <class Kind>
std::string each_mode() {
    const std::string mode = GENERATE(from_range(Kind::modes()));
    UNSCOPED_INFO("mode " << mode);
    return mode;
}

}  // namespace pool_suite

template <>
struct multiprocessing::pickle::Codec<pool_suite::Meters> {
    static constexpr bool picklable = true;
    static void save(OArchive& archive, const pool_suite::Meters& m) { archive.put(m.value); }
    static void load(IArchive& archive, pool_suite::Meters& m) { m.value = archive.get<double>(); }
    static pool_suite::Meters load_new(IArchive& archive) {
        return pool_suite::Meters(archive.get<double>());
    }
};

TEMPLATE_LIST_TEST_CASE("every pool: is one", "[pool][suite]", Kinds) {
    static_assert(multiprocessing::AnyPool<typename TestType::Pool>);
    CHECK_THROWS_AS(typename TestType::Pool(0), multiprocessing::ValueError);
    CHECK_THROWS_AS(typename TestType::Pool(-1), multiprocessing::ValueError);
}

TEMPLATE_LIST_TEST_CASE("every pool: apply returns what the function returns", "[pool][suite]", Kinds) {
    using namespace pool_suite;
    const auto pool = TestType::make(each_mode<TestType>(), 2);
    CHECK(pool.apply(square, 7) == 49);
    CHECK(pool.apply(add, 3, 4) == 7);
    CHECK(pool.apply(join, "a literal", std::string(" and a string")) == "a literal and a string");
    CHECK(pool.apply([](int x) { return x + 1; }, 1) == 2);
    CHECK(pool.apply(mp::partial(scale, 3), 5) == 15);
    CHECK(pool.apply(Scaler{4}, 5) == 20);
    CHECK(pool.apply(&Point::shifted, Point{1, "p"}, 9) == 10);
    CHECK(*pool.apply(boxed, 6) == 6);
    CHECK(pool.apply([](const std::unique_ptr<int>& p) { return *p; }, std::make_unique<int>(8)) == 8);
    CHECK(pool.apply(append_and_sum, std::vector{1, 2}) == 4);
    CHECK(pool.apply(meters, 3).value == 3);
    CHECK(pool.apply(name_of_the_weekday, 1) == "Tuesday");
    static_assert(std::is_void_v<decltype(pool.apply(nothing, 1))>);
    pool.apply(nothing, 1);
    int (*null)(int) = nullptr;
    CHECK_THROWS_AS(pool.apply(null, 1), mp::ValueError);
    CHECK_THROWS_AS(pool.map(null, {1, 2}), mp::ValueError);
    CHECK_THROWS_AS(pool.imap(null, {1, 2}).next(), mp::ValueError);
    CHECK(pool.apply(square, 3) == 9);
}

TEMPLATE_LIST_TEST_CASE("every pool: apply_async gives a handle of the result", "[pool][suite]", Kinds) {
    using namespace pool_suite;
    const auto pool = TestType::make(each_mode<TestType>(), 2);
    const FileGate gate;
    const mp::AsyncResult<int> result = pool.apply_async(wait_then_square, gate.name(), 5);
    CHECK_FALSE(result.ready());
    CHECK_THROWS_AS(result.successful(), mp::ValueError);
    CHECK_THROWS_AS(result.get(0.01), mp::TimeoutError);
    CHECK_THROWS_AS(result.get(0), mp::TimeoutError);
    result.wait(0.01);
    CHECK_FALSE(result.ready());
    gate.open();
    result.wait();
    CHECK(result.ready());
    CHECK(result.successful());
    CHECK(result.get() == 25);
    const auto copy = result;
    CHECK(copy.get(1s) == 25);
    const auto list = pool.map_async(square, {1, 2});
    CHECK(list.get() == std::vector{1, 4});
    CHECK(list.get() == std::vector{1, 4});  // a copy, where get() of a temporary moves
    CHECK(*pool.apply_async(boxed, 3).get() == 3);
    const auto none = pool.apply_async(nothing, 1);
    static_assert(std::is_same_v<decltype(none), const mp::AsyncResult<void>>);
    none.get();
    CHECK(none.successful());
    const auto failure = pool.apply_async(fail_on_odd, 1);
    failure.wait();
    CHECK_FALSE(failure.successful());
    CHECK_THROWS_AS(failure.get(), std::out_of_range);
    CHECK_THROWS_AS(failure.get(), std::out_of_range);
}

TEMPLATE_LIST_TEST_CASE("every pool: map returns the results in the order of the items", "[pool][suite]",
                        Kinds) {
    using namespace pool_suite;
    const auto pool = TestType::make(each_mode<TestType>(), 3);
    CHECK(pool.map(square, mp::range(1000)) == squares(1000));
    CHECK(pool.map(square, {1, 2, 3}) == std::vector{1, 4, 9});
    CHECK(pool.map(square, std::vector<int>{}).empty());
    CHECK(pool.map(square, std::vector<int>{}, 1).empty());
    CHECK(pool.map(square, std::set{3, 1, 2}) == std::vector{1, 4, 9});
    CHECK(pool.map(square, std::forward_list{1, 2}) == std::vector{1, 4});
    CHECK(pool.map(square, few(100)) == squares(100));
    CHECK(pool.map([](bool b) { return !b; }, std::vector{true, false}) == std::vector{false, true});
    CHECK(pool.map(is_even, {1, 2, 3}) == std::vector{false, true, false});
    CHECK(pool.map([](const std::string& s) { return s + "!"; }, {"a", "b"}) ==
          std::vector<std::string>{"a!", "b!"});
    CHECK(pool.map(&Point::get_name, std::vector{Point{1, "p"}, Point{2, "q"}}) ==
          std::vector<std::string>{"p", "q"});
    CHECK(pool.map(nothing, {1, 2, 3}).size() == 3);
    CHECK(pool.map(meters, mp::range(100), 7).at(99).value == 99);
    CHECK(pool.map(name_of_the_weekday, {0, 2}) == std::vector<std::string>{"Monday", "Wednesday"});
    CHECK(*pool.map(boxed, mp::range(10), 3).at(9) == 9);
    CHECK(pool.map(square, pool.imap(square, {1, 2, 3})) == std::vector{1, 16, 81});
    CHECK(pool.starmap(add, std::vector<std::pair<int, int>>{{1, 2}, {3, 4}}) == std::vector{3, 7});
    CHECK(pool.starmap(add, {std::tuple(1, 2), std::tuple(5, 6)}, 1) == std::vector{3, 11});
    CHECK(pool.starmap(join, std::map<std::string, std::string>{{"k", "v"}}) ==
          std::vector<std::string>{"kv"});
    CHECK(pool.starmap_async(add, {std::pair(1, 2)}).get() == std::vector{3});
    CHECK(pool.starmap_async(add, std::vector<std::array<int, 2>>{}).get().empty());
}

TEMPLATE_LIST_TEST_CASE("every pool: map takes any chunksize but a negative one", "[pool][suite]", Kinds) {
    using namespace pool_suite;
    const auto pool = TestType::make(each_mode<TestType>(), 3);
    for (const int chunksize : {0, 1, 2, 7, 99, 100, 101, 1000000}) {
        CAPTURE(chunksize);
        CHECK(pool.map(square, mp::range(100), chunksize) == squares(100));
        CHECK(pool.map_async(square, mp::range(100), chunksize).get() == squares(100));
        const auto strings = pool.map([](int x) { return std::to_string(x); }, mp::range(100), chunksize);
        CHECK(strings.at(99) == "99");
        CHECK(pool.map([](const std::string& s) { return s.size(); }, strings, chunksize).at(9) == 1);
        CHECK(pool.map(square, few(100), chunksize) == squares(100));
    }
    CHECK_THROWS_AS(pool.map(square, {1}, -1), mp::ValueError);
    CHECK_THROWS_AS(pool.map_async(square, {1}, -1), mp::ValueError);
}

TEMPLATE_LIST_TEST_CASE("every pool: map runs everything, then throws the first exception in order",
                        "[pool][suite]", Kinds) {
    using namespace pool_suite;
    const auto pool = TestType::make(each_mode<TestType>(), 2);
    for (const int chunksize : {0, 1, 7}) {
        CHECK_THROWS_WITH(pool.map(fail_on_odd, mp::range(100), chunksize), ContainsSubstring("odd: 1"));
        const auto result = pool.map_async(fail_on_odd, mp::range(2, 10), chunksize);
        CHECK_THROWS_WITH(result.get(), ContainsSubstring("odd: 3"));
        CHECK_FALSE(result.successful());
        const auto each = pool.try_map(fail_on_odd, mp::range(20), chunksize);
        for (std::size_t i = 0; i < 20; ++i) CHECK(each.at(i).has_value() == (i % 2 == 0));
        CHECK_THROWS_AS(each[1].value(), std::out_of_range);
        CHECK(each[2].value() == 2);
    }
    CHECK(pool.try_map(square, std::vector<int>()).empty());
    CHECK(pool.try_map(square, {3}).front().value() == 9);
    CHECK_THROWS_AS(pool.try_map(square, {3}, -1), mp::ValueError);
    // A worker counts after it has answered.
    constexpr std::uint64_t all = 3 * (100 + 8 + 20) + 1;
    const auto give_up = std::chrono::steady_clock::now() + 30s;
    while (pool.stats().items < all && std::chrono::steady_clock::now() < give_up) {
        std::this_thread::sleep_for(1ms);
    }
    CHECK(pool.stats().items == all);
}

TEMPLATE_LIST_TEST_CASE("every pool: exceptions keep their type on the way", "[pool][suite]", Kinds) {
    using namespace pool_suite;
    mp::register_exception<Refused>();
    const auto pool = TestType::make(each_mode<TestType>(), 1);
    CHECK_THROWS_AS(pool.apply(throw_kind, 0), std::invalid_argument);
    CHECK_THROWS_AS(pool.apply(throw_kind, 2), Refused);
    CHECK_THROWS_AS(pool.apply(throw_kind, 4), mp::Empty);
    try {
        pool.apply(throw_kind, 1);
        FAIL("nothing thrown");
    } catch (const std::system_error& error) {
        CHECK(error.code() == std::errc::no_such_file_or_directory);
    }
    if constexpr (TestType::pickles) {
        CHECK_THROWS_AS(pool.apply(throw_kind, 3), mp::RemoteError);
        CHECK_THROWS_AS(pool.apply(throw_kind, 5), mp::RemoteError);
        CHECK_THROWS_WITH(pool.apply([] { throw 42; }), "int");
        const int worker = pool.apply(support::pid_of, 0);
        for (const int x : {3, 5}) {
            try {
                pool.apply(support::fail_deep_inside, x);
                FAIL("nothing thrown");
            } catch (const std::out_of_range& error) {
                const auto& remote = dynamic_cast<const mp::RemoteTraceback&>(error);
                const std::string text = remote.text();
                CAPTURE(text);
                CHECK(remote.pid() == worker);
                CHECK_THAT(remote.process_name(), ContainsSubstring(TestType::worker_name));
                CHECK_THAT(remote.type_name(), ContainsSubstring("out_of_range"));
                CHECK_THAT(text, ContainsSubstring("std::out_of_range: deep"));
#if defined(__GLIBCXX__)
                const auto inner = text.find("support::throw_deep_inside(int)");
                const auto outer = text.find("support::fail_deep_inside(int)");
                CHECK(inner != std::string::npos);
                CHECK(outer != std::string::npos);
                CHECK(inner < outer);
#endif
                CHECK(text.find("multiprocessing::runtime") == std::string::npos);
                CHECK(text.find("multiprocessing::mpi") == std::string::npos);
            }
        }
    }
}

TEMPLATE_LIST_TEST_CASE("every pool: what cannot be written or read is an exception of its item",
                        "[pool][suite]", Kinds) {
    using namespace pool_suite;
    if constexpr (TestType::pickles) {
        mp::register_exception<Refused>();
        const auto pool = TestType::make(each_mode<TestType>(), 2);
        CHECK_THROWS_AS(pool.apply(take_fragile, Fragile{1, 0}), Refused);
        CHECK_THROWS_AS(pool.apply(take_fragile, Fragile{0, 1}), Refused);
        CHECK_THROWS_AS(pool.map(take_fragile, std::vector{Fragile{}, Fragile{1, 0}}), Refused);
        CHECK_THROWS_AS(pool.map(take_fragile, std::vector{Fragile{}, Fragile{0, 1}}, 1), Refused);
        // Of a result the former is not what the function has thrown.
        CHECK_THROWS_AS(pool.apply(make_fragile, 1), mp::PicklingError);
        CHECK_THROWS_WITH(pool.apply(make_fragile, 1),
                          ContainsSubstring("the result, of type") && ContainsSubstring("Fragile"));
        CHECK_THROWS_AS(pool.apply(make_fragile, 2), Refused);
        const auto outcomes = outcomes_of(pool.imap(make_fragile, mp::range(4), 4));
        CHECK(outcomes.values.size() == 2);
        CHECK(outcomes.other == 2);
        CHECK(pool.map(square, mp::range(10)) == squares(10));
    } else {
        SUCCEED("nothing is pickled");
    }
}

TEMPLATE_LIST_TEST_CASE("every pool: a function object that changes is another for each task",
                        "[pool][suite]", Kinds) {
    using namespace pool_suite;
    if constexpr (TestType::pickles) {
        const auto pool = TestType::make(each_mode<TestType>(), 1);
        CHECK(pool.apply(Counter{}, 0) == 1);
        CHECK(pool.apply(Counter{}, 0) == 1);
        CHECK(pool.apply(Counter{5}, 0) == 6);
    } else {
        SUCCEED("threads share the one");
    }
}

TEMPLATE_LIST_TEST_CASE("every pool: imap gives results in order, imap_unordered all of them",
                        "[pool][suite]", Kinds) {
    using namespace pool_suite;
    const auto pool = TestType::make(each_mode<TestType>(), 3);
    for (const int chunksize : {1, 7, 1000}) {
        std::vector<int> results;
        for (auto&& r : pool.imap(square, mp::range(200), chunksize)) results.push_back(r);
        CHECK(results == squares(200));
        results.clear();
        for (const int r : pool.imap_unordered(square, mp::range(200), chunksize)) results.push_back(r);
        std::sort(results.begin(), results.end());
        CHECK(results == squares(200));
        CHECK(outcomes_of(pool.imap(square, few(50), chunksize)).values == squares(50));
        CHECK(outcomes_of(pool.imap(square, {1, 2, 3}, chunksize)).values == std::vector{1, 4, 9});
        const auto thrown = pool.imap(fail_on_odd, mp::range(20), chunksize);
        for (int i = 0; i < 20; i += 2) {
            CHECK(thrown.next(30) == i);
            CHECK_THROWS_AS(thrown.next(30), std::out_of_range);
        }
        CHECK_THROWS_AS(thrown.next(30), mp::StopIteration);
        results.clear();
        int errors = 0;
        const auto again = pool.imap(fail_on_odd, mp::range(6), chunksize);
        for (auto it = again.begin(); it != again.end(); ++it) {
            try {
                results.push_back(*it);
            } catch (const std::out_of_range&) {
                ++errors;
            }
        }
        CHECK(results == std::vector{0, 2, 4});
        CHECK(errors == 3);
    }
    for (const int r : pool.imap(square, std::vector<int>{})) FAIL(r);
    const auto empty = pool.imap_unordered(square, std::vector<int>{});
    CHECK_THROWS_AS(empty.next(), mp::StopIteration);
    CHECK_THROWS_AS(empty.next(), mp::StopIteration);
    CHECK(*pool.imap(boxed, {4}).next() == 4);
    static_cast<void>(pool.imap(nothing, {1}).next());
    for (const int none : {0, -1}) {
        CHECK_THROWS_AS(pool.imap(square, {1}, none), mp::ValueError);
        CHECK_THROWS_AS(pool.imap_unordered(square, {1}, none), mp::ValueError);
    }
}

TEMPLATE_LIST_TEST_CASE("every pool: next() takes a timeout and can be called again", "[pool][suite]",
                        Kinds) {
    using namespace pool_suite;
    const auto pool = TestType::make(each_mode<TestType>(), 1);
    const FileGate gate;
    const auto results = pool.imap(mp::partial(wait_then_square, gate.name()), {3, 4});
    CHECK_THROWS_AS(results.next(0.01), mp::TimeoutError);
    CHECK_THROWS_AS(results.next(0), mp::TimeoutError);
    gate.open();
    CHECK(results.next(30) == 9);
    CHECK(results.next(30s) == 16);
    CHECK_THROWS_AS(results.next(30), mp::StopIteration);
}

TEMPLATE_LIST_TEST_CASE("every pool: imap reads its input as results are taken", "[pool][suite]", Kinds) {
    using namespace pool_suite;
    const auto pool = TestType::make(each_mode<TestType>(), 2);
    std::atomic<int> read{0};
    {
        const auto results = pool.imap(square, numbers(read), 2);
        CHECK(read < 100);
        for (int i = 0; i < 1000; ++i) CHECK(results.next(30) == i * i);
        CHECK(read < 1200);
    }
    int taken = 0;
    for (const int r : pool.imap_unordered(square, numbers(read))) {
        CHECK(r >= 0);
        if (++taken == 500) break;
    }
    const auto endless = pool.imap(square, numbers(read));
    CHECK(endless.next(30) == 0);
    pool.close();
    CHECK(endless.next(30) == 1);
    pool.join();
    CHECK(endless.next(30) == 4);
    const auto left = outcomes_of(endless);
    CHECK_FALSE(left.values.empty());
    CHECK(left.other == 1);
    CHECK_THAT(left.last_error, ContainsSubstring("terminated"));
}

TEMPLATE_LIST_TEST_CASE("every pool: no more than buffersize items are read ahead of what was taken",
                        "[pool][suite]", Kinds) {
    using namespace pool_suite;
    const auto pool = TestType::make(each_mode<TestType>(), 2);
    constexpr int count = 400;
    std::atomic<int> read{0};
    const Generated input = numbers(read, -1, count);
    for (const int buffersize : {1, 2, 5, 300}) {
        for (const int chunksize : {1, 3}) {
            for (const bool ordered : {false, true}) {
                CAPTURE(buffersize, chunksize, ordered);
                const auto results = ordered ? pool.imap(square, input, chunksize, buffersize)
                                             : pool.imap_unordered(square, input, chunksize, buffersize);
                CHECK(read == buffersize);
                std::set<int> values;
                int too_many = 0;
                for (int taken = 0; taken < count; ++taken) {
                    values.insert(results.next(30));
                    too_many += read > taken + buffersize;
                }
                CHECK(too_many == 0);
                CHECK(values.size() == count);
                CHECK(read == count);
                CHECK_THROWS_AS(results.next(30), mp::StopIteration);
            }
        }
    }
    CHECK_THROWS_AS(pool.imap(square, input, 1, 0), mp::ValueError);
    CHECK_THROWS_AS(pool.imap(square, input, 1, -3), mp::ValueError);
    CHECK_THROWS_AS(pool.imap_unordered(square, {1, 2}, 1, 0), mp::ValueError);
    CHECK_THROWS_AS(pool.imap_unordered({.timeout = 1}, square, input, 1, -1), mp::ValueError);
    CHECK(pool.imap({.timeout = 60}, square, {3}, 1, 1).next(30) == 9);
}

TEMPLATE_LIST_TEST_CASE("every pool: what the input range throws is thrown", "[pool][suite]", Kinds) {
    using namespace pool_suite;
    const auto pool = TestType::make(each_mode<TestType>(), 2);
    std::atomic<int> read{0};
    CHECK_THROWS_AS(pool.map(square, numbers(read, 0)), Refused);
    CHECK_THROWS_AS(pool.map(square, numbers(read, 20)), Refused);
    CHECK_THROWS_AS(pool.map_async(square, numbers(read, 20)), Refused);
    const auto results = pool.imap(square, numbers(read, 7));
    for (int i = 0; i < 7; ++i) CHECK(results.next(30) == i * i);
    CHECK_THROWS_AS(results.next(30), Refused);
    CHECK_THROWS_AS(results.next(30), mp::StopIteration);
    const auto outcomes = outcomes_of(pool.imap_unordered(square, numbers(read, 7)));
    CHECK(outcomes.values.size() == 7);
    CHECK(outcomes.other == 1);
    // Where results have no order the error comes after them, though it is known before.
    const FileGate gate;
    const auto unordered =
        pool.imap_unordered(mp::partial(wait_then_square, gate.name()), numbers(read, 3));
    gate.open();
    std::set<int> before;
    for (int i = 0; i < 3; ++i) before.insert(unordered.next(30));
    CHECK(before == std::set{0, 1, 4});
    CHECK_THROWS_AS(unordered.next(30), Refused);
    CHECK_THROWS_AS(unordered.next(30), mp::StopIteration);
    for (const int chunksize : {1, 3, 50}) {
        for (int bad = 0; bad < 40; ++bad) {
            CAPTURE(chunksize, bad);
            const int whole = bad - bad % chunksize;  // what is read of the last chunk goes with it
            const auto of_numbers = outcomes_of(pool.imap(square, numbers(read, bad), chunksize));
            CHECK(of_numbers.values == squares(whole));
            CHECK(of_numbers.other == 1);
            CHECK_THROWS_AS(pool.map(square, numbers(read, bad), chunksize), Refused);
            if constexpr (TestType::pickles) {  // one that cannot be written down is the same
                std::vector<Fragile> items(45);
                items[static_cast<std::size_t>(bad)].write = 1;
                const auto of_objects = outcomes_of(pool.imap_unordered(take_fragile, items, chunksize));
                CHECK(of_objects.values.size() == static_cast<std::size_t>(whole));
                CHECK(of_objects.other == 1);
            }
        }
    }
    pool.close();
    pool.join();
}

TEMPLATE_LIST_TEST_CASE("every pool: callbacks run before get() returns, late ones at once",
                        "[pool][suite]", Kinds) {
    using namespace pool_suite;
    const auto pool = TestType::make(each_mode<TestType>(), 2);
    const FileGate gate;
    std::atomic<int> seen{0};
    std::atomic<int> errors{0};
    const auto on_error = [&](const std::exception_ptr& error) {
        CHECK_THROWS_AS(std::rethrow_exception(error), std::out_of_range);
        ++errors;
    };
    const auto result = pool.apply_async(wait_then_square, gate.name(), 3);
    result.then([&](int value) { seen += value; }, on_error).then([&](int value) { seen += value; });
    gate.open();
    CHECK(result.get() == 9);
    CHECK(seen == 18);
    result.then([&](int value) { seen += value; });
    CHECK(seen == 27);
    pool.apply_async(fail_on_odd, 1).then([&](int) { ++seen; }, on_error).wait();
    CHECK(errors == 1);
    pool.apply_async(fail_on_odd, 1).then(nullptr, on_error).wait();
    CHECK(errors == 2);
    bool done = false;
    pool.apply_async(nothing, 1).then([&] { done = true; }).wait();
    CHECK(done);
    // Nobody waits for this one.
    std::promise<int> sum;
    pool.map_async(square, {1, 2}).then([&](const std::vector<int>& v) { sum.set_value(v[0] + v[1]); });
    CHECK(sum.get_future().get() == 5);
    // What one throws is the outcome.
    const FileGate later;
    const auto refused = pool.apply_async(wait_then_square, later.name(), 3);
    refused.then([](int) { throw Refused("the callback"); });
    later.open();
    CHECK_THROWS_AS(refused.get(), Refused);
}

TEMPLATE_LIST_TEST_CASE("every pool: callbacks may use the pool", "[pool][suite]", Kinds) {
    using namespace pool_suite;
    const auto pool = TestType::make(each_mode<TestType>(), 2);
    const FileGate gate;
    std::promise<mp::AsyncResult<int>> next;
    const auto first = pool.apply_async(wait_then_square, gate.name(), 3);
    first.then([&](int value) { next.set_value(pool.apply_async(square, value)); });
    gate.open();
    CHECK(next.get_future().get().get() == 81);
    first.wait();
    const FileGate last;
    const auto result = pool.apply_async({}, wait_then_square, last.name(), 1);
    const auto pending = pool.map_async(obey, mp::range(100), 1);
    result.then([&](int) { pool.terminate(); });
    last.open();
    CHECK(result.get() == 1);
    pool.join();
    CHECK_THROWS_AS(pending.get(), mp::CancelledError);
}

TEMPLATE_LIST_TEST_CASE("every pool: a result can be cancelled until it is there", "[pool][suite]", Kinds) {
    using namespace pool_suite;
    const auto pool = TestType::make(each_mode<TestType>(), 1);
    const FileGate begun;
    const auto running = pool.apply_async(open_and_obey, begun.name());
    // Every other worker there is has something to do as well.
    std::vector<mp::AsyncResult<bool>> others;
    for (int i = 1; i < TestType::workers(pool); ++i) others.push_back(pool.apply_async(obey, i));
    const auto waiting = pool.apply_async(square, 4);
    const auto many = pool.map_async(square, mp::range(100), 1);
    bool told = false;
    waiting.then([](int) {}, [&](const std::exception_ptr&) { told = true; });
    CHECK(waiting.cancel());
    waiting.wait();
    CHECK(told);
    CHECK_FALSE(waiting.cancel());
    CHECK(waiting.ready());
    CHECK_FALSE(waiting.successful());
    CHECK_THROWS_AS(waiting.get(), mp::CancelledError);
    CHECK(many.cancel());
    CHECK_THROWS_AS(many.get(), mp::CancelledError);
    begun.wait();
    for (const auto& other : others) CHECK(other.cancel());
    CHECK(running.cancel());
    CHECK_FALSE(running.cancel());
    CHECK_THROWS_AS(running.get(), mp::CancelledError);
    const auto done = pool.apply_async(square, 5);
    CHECK(done.get(30) == 25);
    CHECK_FALSE(done.cancel());
    CHECK(done.get() == 25);
    const auto thrower = pool.apply_async([] { throw mp::CancelledError("by itself"); });
    thrower.wait();
    CHECK_FALSE(thrower.cancel());
    // From its own callback it is too late.
    const FileGate late;
    const auto own = pool.apply_async(wait_then_square, late.name(), 6);
    bool cancelled = true;
    own.then([&](int) { cancelled = own.cancel(); });
    late.open();
    CHECK(own.get() == 36);
    CHECK_FALSE(cancelled);
    pool.close();
    pool.join();
}

TEMPLATE_LIST_TEST_CASE("every pool: many jobs are cancelled at any moment, and no other loses anything",
                        "[pool][suite]", Kinds) {
    using namespace pool_suite;
    const auto pool = TestType::make(each_mode<TestType>(), 2);
    const auto others = pool.map_async([](int x) { return std::to_string(x); }, mp::range(3000), 1);
    int in_time = 0;
    for (int i = 0; i < 60; ++i) {
        const auto result = pool.map_async({.grace = 30s},
                                           [](int x) {
                                               if (x % 4 == 3) obey(x);
                                               return x;
                                           },
                                           mp::range(8), i % 4 + 1);
        for (int spin = 0; spin < i * 10; ++spin) static_cast<void>(result.ready());
        in_time += result.cancel() ? 1 : 0;
        CHECK_THROWS_AS(result.get(30), mp::CancelledError);
    }
    CHECK(in_time == 60);
    const auto all = others.get(30);
    for (std::size_t i = 0; i < 3000; ++i) CHECK(all.at(i) == std::to_string(i));
    pool.close();
    pool.join();
}

TEMPLATE_LIST_TEST_CASE("every pool: an item that is late is told of at once, and costs nobody else",
                        "[pool][suite]", Kinds) {
    using namespace pool_suite;
    const auto pool = TestType::make(each_mode<TestType>(), 2);
    CHECK_THROWS_AS(pool.apply({.timeout = 50ms, .grace = 30s}, obey, 1), mp::TaskTimeoutError);
    CHECK_THROWS_WITH(pool.apply({.timeout = 50ms, .grace = 30s}, obey, 1),
                      ContainsSubstring("item 0") && ContainsSubstring("0.05"));
    CHECK(pool.apply({.timeout = 30s}, square, 3) == 9);
    const auto one_is_slow = [](int x) {
        if (x == 3) obey(x);
        return x;
    };
    for (const int chunksize : {1, 4, 20}) {
        const auto results =
            pool.try_map({.timeout = 200ms, .grace = 30s}, one_is_slow, mp::range(20), chunksize);
        for (std::size_t i = 0; i < 20; ++i) {
            CAPTURE(chunksize, i);
            if (i == 3) {
                CHECK_THROWS_AS(results[i].value(), mp::TaskTimeoutError);
            } else {
                CHECK(results[i].value() == static_cast<int>(i));
            }
        }
    }
    CHECK_THROWS_AS(pool.apply({.retries = -1}, square, 1), mp::ValueError);
    CHECK_THROWS_AS(pool.map({.retries = -1}, square, {1}), mp::ValueError);
    CHECK_THROWS_AS(pool.imap({.retries = -1}, square, {1}), mp::ValueError);
    CHECK(pool.map({.retries = 2}, square, {1}) == std::vector{1});
}

TEMPLATE_LIST_TEST_CASE("every pool: who waits for a late item does not wait for its worker",
                        "[pool][suite]", Kinds) {
    using namespace pool_suite;
    const FileGate gate;  // open until the pool has ended: who looks for it may be slow
    const auto pool = TestType::make(each_mode<TestType>(), 2);
    if (TestType::workers(pool) < 2) return;
    const auto stubborn = [](const std::string& name, int x) {
        if (x == 0) FileGate::pass(name);
        return x;
    };
    // The late one comes first, the others after it, and of one chunk with it are some.
    const auto results = pool.try_map({.timeout = 100ms, .grace = 30s}, mp::partial(stubborn, gate.name()),
                                      mp::range(8), 1);
    CHECK_THROWS_AS(results.at(0).value(), mp::TaskTimeoutError);
    for (std::size_t i = 1; i < 8; ++i) CHECK(results[i].value() == static_cast<int>(i));
    CHECK_FALSE(gate.is_open());
    gate.open();
    gate.wait_until_passed();
    CHECK(pool.apply(square, 3) == 9);
}

TEMPLATE_LIST_TEST_CASE("every pool: a long task does not keep others' items waiting", "[pool][suite]",
                        Kinds) {
    using namespace pool_suite;
    const auto pool = TestType::make(each_mode<TestType>(), 2);
    if (TestType::workers(pool) < 2) return;
    const FileGate gate;
    // It is sent, or begun, with others after it.
    const auto first_is_long = [](const std::string& name, int x) {
        if (x == 0) FileGate::wait_for(name);
        return x;
    };
    const auto task = mp::partial(first_is_long, gate.name());
    const auto warm = pool.map(task, mp::range(1, 100), 1);  // it takes no time, as far as is known
    CHECK(warm.size() == 99);
    const auto results = pool.imap_unordered(task, mp::range(100), 1, 100);
    std::set<int> seen;
    for (int i = 0; i < 99; ++i) seen.insert(results.next(30));
    CHECK_FALSE(seen.contains(0));
    gate.open();
    CHECK(results.next(30) == 0);
}

TEMPLATE_LIST_TEST_CASE("every pool: close lets what there is be done, and join waits for it",
                        "[pool][suite]", Kinds) {
    using namespace pool_suite;
    const auto pool = TestType::make(each_mode<TestType>(), 2);
    CHECK_THROWS_AS(pool.join(), mp::ValueError);
    const auto result = pool.map_async(square, mp::range(1000), 1);
    const auto ordered = pool.imap(square, mp::range(300), 2);
    const std::vector<int> items = {1, 2, 3};
    const auto unordered = pool.imap_unordered(square, items);
    const auto list = pool.imap(square, std::forward_list<int>(100, 2));
    pool.close();
    pool.close();
    CHECK_THROWS_AS(pool.apply(square, 1), mp::ValueError);
    CHECK_THROWS_AS(pool.map(square, {1}), mp::ValueError);
    CHECK_THROWS_AS(pool.imap(square, {1}), mp::ValueError);
    CHECK_THROWS_WITH(pool.apply_async(square, 1), ContainsSubstring("not running"));
    pool.join();
    pool.join();
    CHECK(result.ready());
    CHECK(result.get() == squares(1000));
    // What is unread when a pool is joined can be read after it.
    CHECK(outcomes_of(ordered).values == squares(300));
    CHECK(outcomes_of(unordered).values.size() == 3);
    CHECK(outcomes_of(list).values.size() == 100);
    pool.terminate();
}

TEMPLATE_LIST_TEST_CASE("every pool: terminate ends everything at once", "[pool][suite]", Kinds) {
    using namespace pool_suite;
    const auto pool = TestType::make(each_mode<TestType>(), 2);
    const auto result = pool.apply_async(obey, 1);
    const auto many = pool.map_async(obey, mp::range(1000), 1);
    const auto results = pool.imap(obey, mp::range(10));
    bool told = false;
    result.then(nullptr, [&](const std::exception_ptr&) { told = true; });
    pool.terminate();
    pool.terminate();
    pool.join();
    CHECK(told);
    CHECK_THROWS_AS(result.get(), mp::CancelledError);
    CHECK_THROWS_AS(many.get(), mp::CancelledError);
    CHECK_THROWS_AS(results.next(), mp::CancelledError);
    CHECK_THROWS_AS(results.next(), mp::StopIteration);
    CHECK_THROWS_AS(pool.map(square, {1}), mp::ValueError);
    CHECK_FALSE(result.cancel());
}

TEMPLATE_LIST_TEST_CASE("every pool: ends with its last handle", "[pool][suite]", Kinds) {
    using namespace pool_suite;
    std::optional<mp::AsyncResult<bool>> result;
    std::optional<mp::IMapIterator<bool>> results;
    {
        auto pool = std::make_unique<typename TestType::Pool>(TestType::make(each_mode<TestType>(), 2));
        const auto copy = *pool;
        pool.reset();
        CHECK(copy.apply(square, 2) == 4);
        result = copy.apply_async(obey, 1);
        results = copy.imap(obey, mp::range(10));
    }
    CHECK_THROWS_AS(result->get(), mp::CancelledError);
    CHECK_FALSE(result->cancel());
    CHECK_THROWS_AS(results->next(), mp::CancelledError);
}

TEMPLATE_LIST_TEST_CASE("every pool: arguments and results may be large", "[pool][suite]", Kinds) {
    using namespace pool_suite;
    const auto pool = TestType::make(each_mode<TestType>(), 2);
    std::vector<int> large(std::size_t{2} << 20);
    for (std::size_t i = 0; i < large.size(); ++i) large[i] = static_cast<int>(i);
    const auto same = [](const std::vector<int>& v) { return v; };
    CHECK(pool.apply(same, large) == large);
    for (const auto& each : pool.map(same, std::vector(6, large), 3)) CHECK(each == large);
    const auto element = [](const std::vector<int>& v, int x) { return v.at(static_cast<std::size_t>(x)); };
    CHECK(pool.map(mp::partial(element, large), mp::range(100), 1).at(99) == 99);
    const std::string text(std::size_t{8} << 20, 'x');
    CHECK_THROWS_WITH(
        pool.apply([](const std::string& s) { throw std::runtime_error(s); }, text), text);
    // Of very different sizes, so that some go with others and some alone.
    std::vector<std::string> mixed;
    for (std::size_t i = 0; i < 200; ++i) mixed.emplace_back(i % 7 == 0 ? 100'000 + i : i, 'y');
    const auto sizes = pool.map([](const std::string& s) { return s.size(); }, mixed, 3);
    for (std::size_t i = 0; i < 200; ++i) CHECK(sizes.at(i) == mixed[i].size());
}

TEMPLATE_LIST_TEST_CASE("every pool: may be used by several threads", "[pool][suite]", Kinds) {
    using namespace pool_suite;
    const auto pool = TestType::make(each_mode<TestType>(), 3);
    std::atomic<int> good{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < 6; ++t) {
        threads.emplace_back([&, t] {
            for (int i = 0; i < 20; ++i) {
                switch ((t + i) % 4) {
                case 0: good += pool.apply(square, i) == i * i; break;
                case 1: good += pool.map(square, mp::range(50), 4) == squares(50); break;
                case 2: good += outcomes_of(pool.imap(square, mp::range(20))).values == squares(20); break;
                default: good += pool.map_async(square, mp::range(9)).get() == squares(9); break;
                }
            }
        });
    }
    for (auto& thread : threads) thread.join();
    threads.clear();
    CHECK(good == 120);
    const auto results = pool.imap(square, mp::range(400));
    std::atomic<int> taken{0};
    for (int t = 0; t < 4; ++t) {
        threads.emplace_back([&] { taken += static_cast<int>(outcomes_of(results).values.size()); });
    }
    for (auto& thread : threads) thread.join();
    CHECK(taken == 400);
}

TEMPLATE_LIST_TEST_CASE("every pool: tells what its workers have done", "[pool][suite]", Kinds) {
    using namespace pool_suite;
    const auto pool = TestType::make(each_mode<TestType>(), 2);
    const auto ids = pool.map([](int) { return mp::this_task::worker_id(); }, mp::range(50), 1);
    for (const int id : ids) CHECK((id >= 0 && id < TestType::workers(pool)));
    CHECK(mp::this_task::worker_id() == -1);
    pool.map(square, mp::range(500), 10);
    pool.close();
    pool.join();
    const mp::PoolStats stats = pool.stats();
    CHECK(stats.items == 550);
    CHECK(stats.tasks >= 1);
    CHECK(stats.deaths == 0);
    CHECK_FALSE(stats.slowest.empty());
}
