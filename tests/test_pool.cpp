// SPDX-License-Identifier: BSL-1.0

#include <multiprocessing/pool.hpp>

#include <multiprocessing/connection.hpp>
#include <multiprocessing/context.hpp>
#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/process.hpp>
#include <multiprocessing/queues.hpp>
#include <multiprocessing/sharedctypes.hpp>
#include <multiprocessing/synchronize.hpp>

#include "runtime/helpers.hpp"
#include "runtime/pool_helpers.hpp"
#include "support/catch.hpp"
#include "support/ranges.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdlib>
#include <exception>
#include <forward_list>
#include <functional>
#include <future>
#include <iterator>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <ranges>
#include <set>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include <unistd.h>

namespace mp = multiprocessing;
using namespace std::chrono_literals;
using Catch::Matchers::ContainsSubstring;
using support::Generated;
using support::each_context;
using support::outcomes_of;
using support::pid_of;
using support::pids_of;
using support::square;

namespace {

int add(int a, int b) { return a + b; }
std::string join(const std::string& a, const std::string& b) { return a + b; }
void nothing(int) {}
bool is_even(int x) { return x % 2 == 0; }
std::unique_ptr<int> boxed(int x) { return std::make_unique<int>(x); }
int unboxed(const std::unique_ptr<int>& p) { return *p; }
int append_and_sum(std::vector<int>& v) {
    v.push_back(1);
    int sum = 0;
    for (const int each : v) sum += each;
    return sum;
}
int scale(int factor, int x) { return factor * x; }
const std::string& name_of_the_weekday(int day) {
    static const std::vector<std::string> names{"Monday", "Tuesday", "Wednesday"};
    return names.at(static_cast<std::size_t>(day));
}

int wait_then_square(const mp::Event& go, int x) {
    go.wait();
    return x * x;
}

// No default constructor.
struct Meters {
    explicit Meters(double v) : value(v) {}
    double value;
    template <class Archive>
    void serialize(Archive& archive, unsigned) {
        archive & value;
    }
};
}  // namespace

template <>
struct multiprocessing::pickle::Codec<Meters> {
    static constexpr bool picklable = true;
    static void save(OArchive& archive, const Meters& m) { archive.put(m.value); }
    static void load(IArchive& archive, Meters& m) { m.value = archive.get<double>(); }
    static Meters load_new(IArchive& archive) { return Meters(archive.get<double>()); }
};

namespace {

Meters meters(int x) { return Meters(x); }

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

struct Scaler {
    int factor = 1;
    int operator()(int x) const { return x * factor; }
    template <class Archive>
    void serialize(Archive& archive, unsigned) {
        archive & factor;
    }
};

struct Refused : std::runtime_error {
    using std::runtime_error::runtime_error;
};
struct Unknown {};

int fail_on_odd(int x) {
    if (x % 2 == 1) throw std::out_of_range("odd: " + std::to_string(x));
    return x;
}
int throw_kind(int kind) {
    switch (kind) {
    case 0: throw std::invalid_argument("zero");
    case 1: throw std::system_error(ENOENT, std::generic_category(), "one");
    case 2: throw Refused("two");
    case 3: throw Unknown();
    case 4: throw mp::Empty("four");
    default: throw 5;
    }
}

// Throws when it is written down, or read, if it is told to.
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
int take_fragile(const Fragile& f) { return f.write; }
Fragile make_fragile(int x) { return Fragile{x == 1 ? 1 : 0, x == 2 ? 1 : 0}; }

// An exception that is registered, but cannot be made again where it arrives.
struct Poisonous : std::runtime_error {
    Poisonous() : std::runtime_error("") {}
    explicit Poisonous(const std::string& what) : std::runtime_error(what) {}
    template <class Archive>
    void save(Archive& archive, unsigned) const {
        archive << int(1);
    }
    template <class Archive>
    void load(Archive& archive, unsigned) {
        int one = 0;
        archive >> one;
        throw Refused("this exception cannot be read");
    }
    BOOST_SERIALIZATION_SPLIT_MEMBER()
};
int throw_poisonous(int x) {
    if (x == 1) throw Poisonous("venom");
    return x;
}

// 0, 1, 2, …, and how far they have been read.
Generated numbers(int* read, int throw_at = -1) {
    return Generated([read, throw_at](int x) {
        if (x == throw_at) throw Refused("no more numbers");
        *read = x + 1;
        return x;
    });
}
// Known to have an end only when that is reached.
Generated few(int count) {
    return Generated([](int x) { return x; }, count);
}

std::vector<int> squares(int count) {
    std::vector<int> result;
    for (int i = 0; i < count; ++i) result.push_back(i * i);
    return result;
}

}  // namespace

TEST_CASE("apply returns what the function returns", "[pool][fork][spawn]") {
    const auto ctx = each_context();
    const mp::Pool pool = ctx.Pool(2);
    CHECK(pool.apply(square, 7) == 49);
    CHECK(pool.apply(add, 3, 4) == 7);
    CHECK(pool.apply(join, "a literal", std::string(" and a string")) == "a literal and a string");
    CHECK(pool.apply([](int x) { return x + 1; }, 1) == 2);
    CHECK(pool.apply([] { return ::getpid(); }) != ::getpid());
    CHECK(pool.apply(mp::partial(scale, 3), 5) == 15);
    CHECK(pool.apply(Scaler{4}, 5) == 20);
    CHECK(pool.apply(&Point::shifted, Point{1, "p"}, 9) == 10);
    CHECK(*pool.apply(boxed, 6) == 6);
    CHECK(pool.apply(unboxed, std::make_unique<int>(8)) == 8);
    CHECK(pool.apply(append_and_sum, std::vector{1, 2}) == 4);
    CHECK(pool.apply(meters, 3).value == 3.0);
    static_assert(std::is_void_v<decltype(pool.apply(nothing, 1))>);
    pool.apply(nothing, 1);
}

TEST_CASE("apply_async gives a handle of the result", "[pool][fork][spawn]") {
    const auto ctx = each_context();
    const mp::Pool pool = ctx.Pool(2);
    const mp::Event go;
    const mp::AsyncResult<int> result = pool.apply_async(wait_then_square, go, 5);
    CHECK_FALSE(result.ready());
    CHECK_THROWS_AS(result.successful(), mp::ValueError);
    CHECK_THROWS_AS(result.get(0.01), mp::TimeoutError);
    CHECK_THROWS_AS(result.get(0), mp::TimeoutError);
    result.wait(0.01);
    CHECK_FALSE(result.ready());
    go.set();
    result.wait();
    CHECK(result.ready());
    CHECK(result.successful());
    CHECK(result.get() == 25);
    const auto copy = result;
    CHECK(copy.get(1s) == 25);
    CHECK(result.get() == 25);

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

TEST_CASE("get() of a temporary moves, of a name it copies", "[pool]") {
    const mp::Pool pool(1);
    const auto ones = [](std::size_t n) { return std::vector<int>(n, 1); };
    const auto result = pool.apply_async(ones, std::size_t{9});
    CHECK(result.get().size() == 9);
    CHECK(result.get().size() == 9);
    CHECK(*pool.apply_async(boxed, 3).get() == 3);
}

TEST_CASE("map returns the results in the order of the items", "[pool][fork][spawn]") {
    const auto ctx = each_context();
    const mp::Pool pool = ctx.Pool(3);
    const std::vector<int> numbers = pool.map(square, mp::range(1000));
    CHECK(numbers == squares(1000));
    CHECK(pool.map(square, {1, 2, 3}) == std::vector{1, 4, 9});
    CHECK(pool.map(square, std::vector<int>{}).empty());
    CHECK(pool.map(square, std::vector<int>{}, 1).empty());
#if !defined(__clang__) || __clang_major__ >= 16  // whose predecessors do not know libstdc++'s views
    CHECK(pool.map(square, std::views::iota(0, 100)) == squares(100));
#endif
    CHECK(pool.map(square, std::set{3, 1, 2}) == std::vector{1, 4, 9});
    CHECK(pool.map(square, std::list{1, 2}) == std::vector{1, 4});
    CHECK(pool.map(square, std::forward_list{1, 2}) == std::vector{1, 4});
    CHECK(pool.map(square, few(100)) == squares(100));
    const int array[] = {4, 5};
    CHECK(pool.map(square, array) == std::vector{16, 25});
    CHECK(pool.map([](bool b) { return !b; }, std::vector{true, false}) == std::vector{false, true});
    CHECK(pool.map(is_even, {1, 2, 3}) == std::vector{false, true, false});
    CHECK(pool.map([](const std::string& s) { return s + "!"; }, {"a", "b"}) ==
          std::vector<std::string>{"a!", "b!"});
    CHECK(pool.map([](long x) { return x; }, std::vector<short>{1, 2}) == std::vector<long>{1, 2});
    CHECK(pool.map(&Point::get_name, std::vector{Point{1, "p"}, Point{2, "q"}}) ==
          std::vector<std::string>{"p", "q"});
    CHECK(pool.map(nothing, {1, 2, 3}).size() == 3);
    CHECK(pool.map(meters, {1, 2, 3}).at(2).value == 3);
    CHECK(pool.map(meters, mp::range(100), 7).at(99).value == 99);
    std::vector<std::unique_ptr<int>> boxes;
    for (int i = 0; i < 10; ++i) boxes.push_back(std::make_unique<int>(i));
    CHECK(pool.map(unboxed, boxes, 3).at(9) == 9);
    CHECK(*pool.map(boxed, mp::range(10), 3).at(9) == 9);
    CHECK(pool.map(square, pool.imap(square, {1, 2, 3})) == std::vector{1, 16, 81});
}

TEST_CASE("map takes any chunksize but a negative one", "[pool]") {
    const mp::Pool pool(3);
    const int chunksize = GENERATE(0, 1, 2, 7, 99, 100, 101, 1000000);
    CHECK(pool.map(square, mp::range(100), chunksize) == squares(100));
    CHECK(pool.map_async(square, mp::range(100), chunksize).get() == squares(100));
    const auto strings = pool.map([](int x) { return std::to_string(x); }, mp::range(100), chunksize);
    CHECK(strings.at(99) == "99");
    CHECK(pool.map(square, few(100), chunksize) == squares(100));
    CHECK_THROWS_AS(pool.map(square, {1}, -1), mp::ValueError);
    CHECK_THROWS_AS(pool.map_async(square, {1}, -1), mp::ValueError);
}

TEST_CASE("what a function returns by reference is copied", "[pool]") {
    const mp::Pool pool(1);
    const mp::ThreadPool threads(1);
    CHECK(pool.apply(name_of_the_weekday, 1) == "Tuesday");
    CHECK(pool.map(name_of_the_weekday, {0, 2}) == std::vector<std::string>{"Monday", "Wednesday"});
    CHECK(threads.apply(name_of_the_weekday, 1) == "Tuesday");
}

TEST_CASE("starmap spreads tuples and pairs", "[pool][fork][spawn]") {
    const auto ctx = each_context();
    const mp::Pool pool = ctx.Pool(2);
    CHECK(pool.starmap(add, std::vector<std::pair<int, int>>{{1, 2}, {3, 4}}) == std::vector{3, 7});
    CHECK(pool.starmap(add, {std::tuple(1, 2), std::tuple(5, 6)}, 1) == std::vector{3, 11});
    CHECK(pool.starmap(join, std::map<std::string, std::string>{{"k", "v"}}) ==
          std::vector<std::string>{"kv"});
    CHECK(pool.starmap_async(add, {std::pair(1, 2)}).get() == std::vector{3});
    CHECK(pool.starmap_async(add, std::vector<std::array<int, 2>>{}).get().empty());
}

TEST_CASE("map runs everything, then throws the first exception in the order of the items", "[pool]") {
    const mp::Pool pool(2);
    const mp::Value<int> runs(0);
    const auto count_and_fail = mp::partial(
        [](const mp::Value<int>& n, int x) {
            n.fetch_add(1);
            return fail_on_odd(x);
        },
        runs);
    const int chunksize = GENERATE(0, 1, 7);
    CHECK_THROWS_WITH(pool.map(count_and_fail, mp::range(100), chunksize), ContainsSubstring("odd: 1"));
    CHECK(runs.load() == 100);
    const auto result = pool.map_async(count_and_fail, mp::range(2, 10), chunksize);
    CHECK_THROWS_WITH(result.get(), ContainsSubstring("odd: 3"));
    CHECK_FALSE(result.successful());
}

TEST_CASE("exceptions keep their type on the way", "[pool][fork][spawn]") {
    const auto ctx = each_context();
    mp::register_exception<Refused>();
    const mp::Pool pool = ctx.Pool(1);
    CHECK_THROWS_AS(pool.apply(throw_kind, 0), std::invalid_argument);
    CHECK_THROWS_AS(pool.apply(throw_kind, 2), Refused);
    CHECK_THROWS_AS(pool.apply(throw_kind, 3), mp::RemoteError);
    CHECK_THROWS_AS(pool.apply(throw_kind, 4), mp::Empty);
    CHECK_THROWS_AS(pool.apply(throw_kind, 5), mp::RemoteError);
    const int worker = pool.apply([] { return ::getpid(); });
    try {
        pool.apply(throw_kind, 1);
        FAIL("nothing thrown");
    } catch (const std::system_error& error) {
        CHECK(error.code() == std::errc::no_such_file_or_directory);
        const auto& remote = dynamic_cast<const mp::RemoteTraceback&>(error);
        CHECK(remote.pid() == worker);
        CHECK_THAT(remote.process_name(), ContainsSubstring("PoolWorker-1"));
        CHECK_THAT(remote.type_name(), ContainsSubstring("system_error"));
        CHECK_THAT(remote.text(), ContainsSubstring("one"));
    }
}

TEST_CASE("an exception of a worker tells where it was thrown", "[pool][fork][spawn]") {
    const auto ctx = each_context();
    const mp::Pool pool = ctx.Pool(1);
    const auto text_of = [&](int x) -> std::string {
        try {
            pool.apply(support::fail_deep_inside, x);
        } catch (const std::out_of_range& error) {
            return dynamic_cast<const mp::RemoteTraceback&>(error).text();
        }
        return "nothing thrown";
    };
    for (const int x : {3, 5}) {
        const std::string text = text_of(x);
        CAPTURE(text);
        CHECK_THAT(text, ContainsSubstring("std::out_of_range: deep"));
#if defined(__GLIBCXX__)
        const auto inner = text.find("support::throw_deep_inside(int)");
        const auto outer = text.find("support::fail_deep_inside(int)");
        CHECK(inner != std::string::npos);
        CHECK(outer != std::string::npos);
        CHECK(inner < outer);
#endif
        CHECK(text.find("multiprocessing::runtime") == std::string::npos);
    }
}

TEST_CASE("what cannot be written or read is an exception of its item", "[pool]") {
    mp::register_exception<Refused>();
    const mp::Pool pool(2);
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
}

TEST_CASE("an exception that cannot be read is an exception of its item", "[pool]") {
    mp::register_exception<Poisonous>();
    mp::register_exception<Refused>();
    const mp::Pool pool(2);
    CHECK_THROWS_AS(pool.apply(throw_poisonous, 1), std::exception);
    const auto outcomes = outcomes_of(pool.imap(throw_poisonous, mp::range(4), 2));
    CHECK(outcomes.values == std::vector{0, 2, 3});
    CHECK(outcomes.other == 1);
    CHECK(pool.map(square, mp::range(10)) == squares(10));
}

TEST_CASE("imap gives results in order, imap_unordered all of them", "[pool][fork][spawn]") {
    const auto ctx = each_context();
    const mp::Pool pool = ctx.Pool(3);
    const int chunksize = GENERATE(1, 7, 1000);
    std::vector<int> results;
    for (auto&& r : pool.imap(square, mp::range(200), chunksize)) results.push_back(r);
    CHECK(results == squares(200));
    results.clear();
    for (const int r : pool.imap_unordered(square, mp::range(200), chunksize)) results.push_back(r);
    std::sort(results.begin(), results.end());
    CHECK(results == squares(200));
    CHECK(outcomes_of(pool.imap(square, few(50), chunksize)).values == squares(50));
    CHECK(outcomes_of(pool.imap(square, {1, 2, 3}, chunksize)).values == std::vector{1, 4, 9});
    for (const int r : pool.imap(square, std::vector<int>{})) FAIL(r);
    const auto empty = pool.imap_unordered(square, std::vector<int>{});
    CHECK_THROWS_AS(empty.next(), mp::StopIteration);
    CHECK_THROWS_AS(empty.next(), mp::StopIteration);
    CHECK(*pool.imap(boxed, {4}).next() == 4);
    static_cast<void>(pool.imap(nothing, {1}).next());
    CHECK_THROWS_AS(pool.imap(square, {1}, 0), mp::ValueError);
    CHECK_THROWS_AS(pool.imap(square, {1}, -1), mp::ValueError);
    CHECK_THROWS_AS(pool.imap_unordered(square, {1}, 0), mp::ValueError);
}

TEST_CASE("next() takes a timeout and can be called again", "[pool]") {
    const mp::Pool pool(1);
    const mp::Event go;
    const auto results = pool.imap(mp::partial(wait_then_square, go), {3, 4});
    CHECK_THROWS_AS(results.next(0.01), mp::TimeoutError);
    CHECK_THROWS_AS(results.next(0), mp::TimeoutError);
    go.set();
    CHECK(results.next(30) == 9);
    CHECK(results.next(30s) == 16);
    CHECK_THROWS_AS(results.next(30), mp::StopIteration);
}

TEST_CASE("imap reads its input as results are taken", "[pool]") {
    const mp::Pool pool(2);
    int read = 0;
    {
        const auto results = pool.imap(square, numbers(&read), 2);
        CHECK(read < 100);
        for (int i = 0; i < 1000; ++i) CHECK(results.next(30) == i * i);
        CHECK(read < 1100);
    }
    int taken = 0;
    for (const int r : pool.imap_unordered(square, numbers(&read))) {
        CHECK(r >= 0);
        if (++taken == 500) break;
    }
    pool.close();
    pool.join();
}

TEST_CASE("an endless imap takes no more memory the longer it goes on", "[pool][memory]") {
    const mp::Pool pool(2);
    const auto half = [](int x) { return x / 2; };
    const auto text = [](int x) { return std::string(static_cast<std::size_t>(x % 300), 'x'); };
    int ints_read = 0;
    int texts_read = 0;
    const auto ints = pool.imap_unordered(half, numbers(&ints_read));
    const auto texts = pool.imap(text, numbers(&texts_read));
    const auto take = [](const auto& results, int count) {
        for (int i = 0; i < count; ++i) static_cast<void>(results.next(30));
    };
    // Until the input is read as far ahead as it will be.
    take(ints, 20'000);
    take(texts, 20'000);
    const auto before = support::shared_bytes();
    take(ints, 50'000);
    take(texts, 50'000);
    CHECK(support::shared_bytes() < before + (std::uint64_t{1} << 20));
    constexpr int most_ahead = 1024;
    CHECK(ints_read <= 70'000 + most_ahead);
    CHECK(texts_read <= 70'000 + most_ahead);
}

TEST_CASE("imap throws in its place and goes on", "[pool]") {
    const mp::Pool pool(2);
    const int chunksize = GENERATE(1, 3);
    const auto results = pool.imap(fail_on_odd, mp::range(6), chunksize);
    for (int i = 0; i < 6; i += 2) {
        CHECK(results.next(30) == i);
        CHECK_THROWS_AS(results.next(30), std::out_of_range);
    }
    CHECK_THROWS_AS(results.next(30), mp::StopIteration);
    int values = 0;
    int errors = 0;
    const auto again = pool.imap(fail_on_odd, mp::range(6), chunksize);
    for (auto it = again.begin(); it != again.end(); ++it) {
        try {
            const int value = *it;
            CHECK(value % 2 == 0);
            ++values;
        } catch (const std::out_of_range&) {
            ++errors;
        }
    }
    CHECK(values == 3);
    CHECK(errors == 3);
}

TEST_CASE("what the input range throws is thrown", "[pool]") {
    const mp::Pool pool(2);
    int read = 0;
    CHECK_THROWS_AS(pool.map(square, numbers(&read, 0)), Refused);
    CHECK_THROWS_AS(pool.map(square, numbers(&read, 20)), Refused);
    CHECK_THROWS_AS(pool.map_async(square, numbers(&read, 20)), Refused);
    const auto results = pool.imap(square, numbers(&read, 7));
    for (int i = 0; i < 7; ++i) CHECK(results.next(30) == i * i);
    CHECK_THROWS_AS(results.next(30), Refused);
    CHECK_THROWS_AS(results.next(30), mp::StopIteration);
    CHECK_THROWS_AS(pool.imap(square, numbers(&read, 0)).next(30), Refused);
    // Where results have no order the error comes after them, though it is known before.
    const mp::Event go;
    const auto unordered = pool.imap_unordered(mp::partial(wait_then_square, go), numbers(&read, 3));
    go.set();
    std::set<int> before;
    for (int i = 0; i < 3; ++i) before.insert(unordered.next(30));
    CHECK(before == std::set{0, 1, 4});
    CHECK_THROWS_AS(unordered.next(30), Refused);
    CHECK_THROWS_AS(unordered.next(30), mp::StopIteration);
    const auto outcomes = outcomes_of(pool.imap_unordered(square, numbers(&read, 7)));
    CHECK(outcomes.values.size() == 7);
    CHECK(outcomes.other == 1);
    pool.close();
    pool.join();
}

TEST_CASE("all chunks before an item that cannot be read are run", "[pool]") {
    mp::register_exception<Refused>();
    const mp::Pool pool(2);
    const int chunksize = GENERATE(1, 3, 50);
    int read = 0;
    for (int bad = 0; bad < 40; ++bad) {
        CAPTURE(bad);
        const int whole = bad - bad % chunksize;  // what is read of the last chunk goes with it
        const auto of_numbers = outcomes_of(pool.imap(square, numbers(&read, bad), chunksize));
        CHECK(of_numbers.values == squares(whole));
        CHECK(of_numbers.other == 1);
        // One that cannot be written down is the same.
        std::vector<Fragile> items(45);
        items[static_cast<std::size_t>(bad)].write = 1;
        const auto of_objects = outcomes_of(pool.imap_unordered(take_fragile, items, chunksize));
        CHECK(of_objects.values.size() == static_cast<std::size_t>(whole));
        CHECK(of_objects.other == 1);
        CHECK_THROWS_AS(pool.map(square, numbers(&read, bad), chunksize), Refused);
    }
}

TEST_CASE("callbacks run before get() returns, late ones at once", "[pool]") {
    const mp::Pool pool(2);
    const mp::Event go;
    std::atomic<int> seen{0};
    std::atomic<int> errors{0};
    const auto on_error = [&](const std::exception_ptr& error) {
        CHECK_THROWS_AS(std::rethrow_exception(error), std::out_of_range);
        ++errors;
    };
    const auto result = pool.apply_async(wait_then_square, go, 3);
    result.then([&](int value) { seen += value; }, on_error).then([&](int value) { seen += value; });
    go.set();
    CHECK(result.get() == 9);
    CHECK(seen == 18);
    result.then([&](int value) { seen += value; });
    CHECK(seen == 27);

    pool.apply_async(fail_on_odd, 1).then([&](int) { ++seen; }, on_error).wait();
    CHECK(errors == 1);
    pool.apply_async(fail_on_odd, 1).then(nullptr, on_error).wait();
    CHECK(errors == 2);
    std::vector<int> all;
    pool.map_async(square, {1, 2}).then([&](const std::vector<int>& v) { all = v; }).wait();
    CHECK(all == std::vector{1, 4});
    bool done = false;
    pool.apply_async(nothing, 1).then([&] { done = true; }).wait();
    CHECK(done);
}

TEST_CASE("what a callback throws becomes the outcome", "[pool]") {
    const mp::Pool pool(1);
    const mp::Event go;
    const auto result = pool.apply_async(wait_then_square, go, 3);
    result.then([](int) { throw Refused("the callback"); });
    go.set();
    CHECK_THROWS_AS(result.get(), Refused);
    const auto late = pool.apply_async(square, 3);
    late.wait();
    CHECK_THROWS_AS(late.then([](int) { throw Refused("the callback"); }), Refused);
    CHECK(late.get() == 9);
    CHECK(pool.apply(square, 4) == 16);
}

TEST_CASE("callbacks may use the pool, but not wait for it", "[pool]") {
    mp::Pool pool(1);
    const mp::Event go;
    std::promise<mp::AsyncResult<int>> next;
    pool.apply_async(wait_then_square, go, 3).then([&](int value) {
        next.set_value(pool.apply_async(square, value));
    });
    go.set();
    CHECK(next.get_future().get().get() == 81);
    mp::Event go_on;
    const auto refused = pool.apply_async(wait_then_square, go_on, 3);
    refused.then([&](int value) { static_cast<void>(pool.apply(square, value)); });
    const auto refused_map = pool.apply_async(wait_then_square, go_on, 3);
    refused_map.then([&](int value) { static_cast<void>(pool.map(square, mp::range(value))); });
    const auto refused_next = pool.apply_async(wait_then_square, go_on, 3);
    refused_next.then([&](int value) { static_cast<void>(pool.imap(square, mp::range(value)).next()); });
    const auto refused_join = pool.apply_async(wait_then_square, go_on, 3);
    refused_join.then([&](int) {
        pool.close();
        pool.join();
    });
    go_on.set();
    CHECK_THROWS_AS(refused.get(), mp::AssertionError);
    CHECK_THROWS_AS(refused_map.get(), mp::AssertionError);
    CHECK_THROWS_AS(refused_next.get(), mp::AssertionError);
    CHECK_THROWS_AS(refused_join.get(), mp::AssertionError);
}

TEST_CASE("a result can be cancelled until it is there", "[pool]") {
    const mp::Pool pool(1);
    const mp::Event go;
    const auto running = pool.apply_async(wait_then_square, go, 3);
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
    CHECK(running.cancel());
    CHECK_THROWS_AS(running.get(), mp::CancelledError);
    go.set();
    const auto done = pool.apply_async(square, 5);
    CHECK(done.get() == 25);
    CHECK_FALSE(done.cancel());
    CHECK(done.get() == 25);
    // One that throws CancelledError itself was not cancelled.
    const auto thrower = pool.apply_async([] { throw mp::CancelledError("by itself"); });
    thrower.wait();
    CHECK_FALSE(thrower.cancel());
    // From its own callback it is too late.
    const mp::Event late;
    const auto own = pool.apply_async(wait_then_square, late, 6);
    bool cancelled = true;
    own.then([&](int) { cancelled = own.cancel(); });
    late.set();
    CHECK(own.get() == 36);
    CHECK_FALSE(cancelled);
    pool.close();
    pool.join();
}

TEST_CASE("sizes that make no sense are refused", "[pool]") {
    CHECK_THROWS_AS(mp::Pool(0), mp::ValueError);
    CHECK_THROWS_AS(mp::Pool(-1), mp::ValueError);
    CHECK_THROWS_AS(mp::Pool({.processes = 2, .maxtasksperchild = 0}), mp::ValueError);
    CHECK_THROWS_AS(mp::Pool({.processes = 2, .maxtasksperchild = -1}), mp::ValueError);
    CHECK_THROWS_WITH(mp::Pool(0), ContainsSubstring("processes is 0"));
}

TEST_CASE("a pool has one worker for each processor unless told", "[pool]") {
    const mp::Pool pool;
    CHECK(pool.workers().size() == static_cast<std::size_t>(mp::process_cpu_count()));
    const mp::Pool three({.processes = 3});
    CHECK(three.workers().size() == 3);
    CHECK(support::pids_of(three).size() == 3);
    for (const auto& worker : three.workers()) {
        CHECK(worker.daemon());
        CHECK(worker.is_alive());
        CHECK_THAT(worker.name(), ContainsSubstring("ForkPoolWorker-"));
    }
}

TEST_CASE("the initializer runs in every worker, and in their replacements", "[pool][fork][spawn]") {
    const auto ctx = each_context();
    const mp::Value<int> count(0);
    const auto count_up = [](const mp::Value<int>& n, const std::string& text) {
        if (text != "text") throw std::logic_error(text);
        n.fetch_add(1);
    };
    const mp::Pool pool = ctx.Pool(
        {.processes = 2, .initializer = mp::partial(count_up, count, "text"), .maxtasksperchild = 1});
    for (int i = 0; i < 4; ++i) CHECK(pool.apply(square, i) == i * i);
    pool.close();
    pool.join();
    CHECK(count.load() >= 4);
    CHECK(count.load() <= 6);
}

TEST_CASE("maxtasksperchild replaces workers", "[pool][fork][spawn]") {
    const auto ctx = each_context();
    const mp::Pool pool = ctx.Pool({.processes = 2, .maxtasksperchild = 1});
    const auto pids = pool.map(pid_of, mp::range(8), 1);
    CHECK(std::set<int>(pids.begin(), pids.end()).size() == 8);
    // A chunk is one task.
    const auto chunked = pool.map(pid_of, mp::range(8), 4);
    CHECK(std::set<int>(chunked.begin(), chunked.end()).size() == 2);
    CHECK(pool.map(square, mp::range(40), 3) == squares(40));
    CHECK(pool.workers().size() == 2);
    pool.close();
    pool.join();
}

TEST_CASE("close lets what there is be done, and join waits for it", "[pool][fork][spawn]") {
    const auto ctx = each_context();
    const mp::Pool pool = ctx.Pool(2);
    CHECK_THROWS_AS(pool.join(), mp::ValueError);
    const auto result = pool.map_async(square, mp::range(1000), 1);
    const auto workers = pool.workers();
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
    for (const auto& worker : workers) CHECK(worker.exitcode() == 0);
    CHECK(pool.workers().empty());
    pool.terminate();
}

TEST_CASE("what is unread when a pool is joined can be read after it", "[pool]") {
    const mp::Pool pool(2);
    const auto ordered = pool.imap(square, mp::range(300), 2);
    const std::vector<int> numbers = {1, 2, 3};
    const auto unordered = pool.imap_unordered(square, numbers);
    const auto list = pool.imap(square, std::forward_list<int>(100, 2));
    pool.close();
    pool.join();
    CHECK(outcomes_of(ordered).values == squares(300));
    CHECK(outcomes_of(unordered).values.size() == 3);
    CHECK(outcomes_of(list).values.size() == 100);
}

TEST_CASE("an input is not read any more when nobody takes its results", "[pool]") {
    const mp::Pool pool(1);
    const mp::Value<int> runs(0);
    const mp::Event never;
    // What has been given is still under way when the pool is joined.
    const auto count = [](const mp::Value<int>& n, const mp::Event& e, int) {
        n.fetch_add(1);
        e.wait(0.03);
    };
    int read = 0;
    {
        // It has an end, to which the pool would read it, and does not outlive the iterator.
        std::vector<int> items(100);
        const auto results = pool.imap(mp::partial(count, runs, never), items, 1, 10);
        static_cast<void>(results.next(30));
        const auto copy = results;
        const auto endless = pool.imap(square, numbers(&read), 1, 10);
    }
    const int before = read;
    pool.close();
    pool.join();
    CHECK(runs.value() <= 11);
    CHECK(runs.value() >= 10);
    CHECK(read == before);
}

TEST_CASE("an endless input does not keep a pool from being joined", "[pool]") {
    const mp::Pool pool(2);
    int read = 0;
    const auto results = pool.imap(square, numbers(&read));
    CHECK(results.next(30) == 0);
    pool.close();
    CHECK(results.next(30) == 1);
    pool.join();
    CHECK(results.next(30) == 4);
    const auto left = outcomes_of(results);
    CHECK_FALSE(left.values.empty());
    CHECK(left.other == 1);
    CHECK_THAT(left.last_error, ContainsSubstring("terminated"));
}

TEST_CASE("terminate ends everything at once", "[pool][fork][spawn]") {
    const auto ctx = each_context();
    const mp::Pool pool = ctx.Pool(2);
    const mp::Event never;
    const auto workers = pool.workers();
    const auto result = pool.apply_async(wait_then_square, never, 1);
    const auto many = pool.map_async(mp::partial(wait_then_square, never), mp::range(10000), 1);
    const auto results = pool.imap(mp::partial(wait_then_square, never), mp::range(10));
    bool told = false;
    result.then(nullptr, [&](const std::exception_ptr&) { told = true; });
    pool.terminate();
    pool.terminate();
    pool.join();  // nobody waits for tasks that never end
    CHECK(told);
    CHECK_THROWS_AS(result.get(), mp::CancelledError);
    CHECK_THROWS_AS(many.get(), mp::CancelledError);
    CHECK_THROWS_AS(results.next(), mp::CancelledError);
    CHECK_THROWS_AS(results.next(), mp::StopIteration);
    CHECK_THROWS_AS(pool.map(square, {1}), mp::ValueError);
    CHECK_FALSE(result.cancel());
    for (const auto& worker : workers) CHECK(worker.exitcode() == -SIGTERM);
}

TEST_CASE("a pool ends with its last handle", "[pool]") {
    std::vector<mp::Process> workers;
    std::optional<mp::AsyncResult<int>> result;
    std::optional<mp::IMapIterator<int>> results;
    const mp::Event never;
    {
        auto pool = std::make_unique<mp::Pool>(2);
        const mp::Pool copy = *pool;
        pool.reset();
        workers = copy.workers();
        CHECK(copy.apply(square, 2) == 4);
        result = copy.apply_async(wait_then_square, never, 1);
        results = copy.imap(mp::partial(wait_then_square, never), mp::range(10));
    }
    for (const auto& worker : workers) CHECK_FALSE(worker.is_alive());
    CHECK_THROWS_AS(result->get(), mp::CancelledError);
    CHECK_FALSE(result->cancel());
    CHECK_THROWS_AS(results->next(), mp::CancelledError);
}

TEST_CASE("a callback may terminate the pool", "[pool]") {
    const mp::Pool pool(2);
    const mp::Event go;
    const mp::Event never;
    const auto result = pool.apply_async(wait_then_square, go, 1);
    const auto pending = pool.map_async(mp::partial(wait_then_square, never), mp::range(100), 1);
    result.then([&](int) { pool.terminate(); });
    go.set();
    CHECK(result.get() == 1);
    pool.join();
    CHECK_THROWS_AS(pending.get(), mp::CancelledError);
}

TEST_CASE("a callback may drop the last handle of the pool", "[pool]") {
    const mp::Event go;
    const auto open_before = support::open_descriptors();
    auto pool = std::make_unique<mp::Pool>(2);
    auto workers = pool->workers();
    const auto result = pool->apply_async(wait_then_square, go, 1);
    result.then([&](int) { pool.reset(); });
    go.set();
    CHECK(result.get() == 1);
    CHECK(pool == nullptr);
    for (const auto& worker : workers) CHECK(support::ended(worker) == -SIGTERM);
    workers.clear();
    // Its thread is on its way out still.
    while (support::open_descriptors() > open_before) std::this_thread::yield();
}

TEST_CASE("queues, locks and values go to workers and come back", "[pool][fork][spawn]") {
    const auto ctx = each_context();
    const mp::Pool pool = ctx.Pool(2);
    const mp::Queue<int> queue;
    const mp::Lock lock;
    const mp::Value<int> value(0, mp::no_lock);
    const auto put = [](const mp::Queue<int>& q, int x) {
        q.put(x);
        return q;
    };
    CHECK(pool.apply(put, queue, 1).get(30s) == 1);
    for (const auto& same : pool.map(mp::partial(put, queue), mp::range(20), 5)) same.put(-1);
    int sum = 0;
    for (int i = 0; i < 40; ++i) sum += queue.get(30s);
    CHECK(sum == 190 - 20);
    CHECK(queue.empty());
    const auto locked = [](const mp::Lock& l, const mp::Value<int>& v, int x) {
        const std::lock_guard guard(l);
        v.value() += x;
        return l;
    };
    for (const auto& same : pool.map(mp::partial(locked, lock, value), mp::range(100), 3)) {
        CHECK_FALSE(same.locked());
    }
    CHECK(value.value() == 4950);
    // Queues that nobody but the message has; often, for each takes memory beside the tasks'.
    for (int round = 0; round < 100; ++round) {
        const auto fresh = pool.map(
            [](int x) {
                mp::Queue<int> q;
                q.put(x);
                return q;
            },
            mp::range(6), 3);
        for (int i = 0; i < 6; ++i) CHECK(fresh.at(static_cast<std::size_t>(i)).get(30s) == i);
    }
}

TEST_CASE("connections do not travel in a task", "[pool]") {
    const mp::Pool pool(1);
    auto [a, b] = mp::Pipe();
    CHECK_THROWS_AS(pool.apply([](const mp::Connection&) {}, a), mp::PicklingError);
    CHECK_THROWS_AS(pool.apply([] { return mp::Pipe().first; }), mp::PicklingError);
}

TEST_CASE("arguments and results may be large", "[pool][fork][spawn]") {
    const auto ctx = each_context();
    const mp::Pool pool = ctx.Pool(2);
    std::vector<int> large(std::size_t{2} << 20);
    for (std::size_t i = 0; i < large.size(); ++i) large[i] = static_cast<int>(i);
    const auto same = [](const std::vector<int>& v) { return v; };
    CHECK(pool.apply(same, large) == large);
    for (const auto& each : pool.map(same, std::vector(6, large), 3)) CHECK(each == large);
    const std::string text(std::size_t{8} << 20, 'x');
    CHECK_THROWS_WITH(
        pool.apply([](const std::string& s) { throw std::runtime_error(s); }, text), text);
}

TEST_CASE("a pool may be used by several threads", "[pool]") {
    const mp::Pool pool(3);
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
    CHECK(good == 120);
}

TEST_CASE("one iterator may be used by several threads", "[pool]") {
    const mp::Pool pool(2);
    const auto results = pool.imap(square, mp::range(400));
    std::atomic<int> taken{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
        threads.emplace_back([&] { taken += static_cast<int>(outcomes_of(results).values.size()); });
    }
    for (auto& thread : threads) thread.join();
    CHECK(taken == 400);
}

TEST_CASE("a thread that reads its input slowly is waited for by close", "[pool]") {
    const mp::Pool pool(1);
    const mp::Event reading;
    const mp::Event go;
    std::thread thread([&] {
        // The last item comes when the pool has been closed and has nothing to do.
        const Generated items(
            [&](int x) {
                if (x == 5) {
                    reading.set();
                    go.wait();
                }
                return x;
            },
            6);
        CHECK(pool.map(square, items, 1) == squares(6));
    });
    reading.wait();
    pool.close();
    std::thread joiner([&] { pool.join(); });
    go.set();
    thread.join();
    joiner.join();
}

TEST_CASE("processes may be forked while a pool works", "[pool]") {
    const mp::Pool pool({.processes = 2, .maxtasksperchild = 1});
    const auto result = pool.map_async(square, mp::range(300), 2);
    for (int i = 0; i < 30; ++i) CHECK(support::run(mp::Process([] {})) == 0);
    CHECK(result.get() == squares(300));
}

TEST_CASE("a pool is of the process that made it", "[pool]") {
    const mp::Pool pool(2);
    const mp::Event never;
    const auto ready = pool.apply_async(square, 3);
    ready.wait();
    const auto pending = pool.apply_async(wait_then_square, never, 3);
    const auto results = pool.imap(mp::partial(wait_then_square, never), {1, 2});
    const mp::Process child([=] {
        const auto refused = [](auto call) {
            try {
                call();
            } catch (const mp::AssertionError&) {
                return;
            }
            mp::exit(2);
        };
        refused([&] { pool.apply(square, 1); });
        refused([&] { static_cast<void>(pool.map(square, {1})); });
        refused([&] { static_cast<void>(pool.imap(square, {1})); });
        refused([&] { pool.close(); });
        refused([&] { pool.join(); });
        refused([&] { static_cast<void>(pool.workers()); });
        refused([&] { pending.get(); });
        refused([&] { pending.wait(1s); });
        refused([&] { static_cast<void>(results.next()); });
        if (ready.get() != 9) mp::exit(3);
        pool.terminate();
    });
    CHECK(support::run(child) == 0);
    never.set();
    CHECK(pool.apply(square, 5) == 25);
    CHECK(pending.get() == 9);
    CHECK(outcomes_of(results).values == std::vector{1, 4});
}

TEST_CASE("a child may have a pool unless it is a daemon", "[pool][fork][spawn]") {
    const auto ctx = each_context();
    const auto with_pool = [] {
        const mp::Pool pool(2);
        mp::exit(pool.map(square, {1, 2}) == std::vector{1, 4} ? 0 : 1);
    };
    CHECK(support::run(ctx.Process(with_pool)) == 0);
    const mp::Pool pool = ctx.Pool(1);
    CHECK_THROWS_AS(pool.apply([] { return mp::Pool(1).apply(square, 1); }), mp::AssertionError);
}

TEST_CASE("a program may end with a pool that works", "[pool]") {
    const auto leave = [](int how) {
        const mp::Event never;
        static mp::Pool* pool = new mp::Pool(2);
        static_cast<void>(pool->map_async(mp::partial(wait_then_square, never), mp::range(10), 1));
        if (how == 1) mp::exit(5);
        if (how == 2) std::exit(5);
    };
    const int how = GENERATE(0, 1, 2);
    CHECK(support::run(mp::Process(leave, how)) == (how == 0 ? 0 : 5));
}

TEST_CASE("200 workers", "[pool]") {
    const mp::Pool pool(200);
    CHECK(pool.map(square, mp::range(1000)) == squares(1000));
    CHECK(pids_of(pool).size() == 200);
}

TEST_CASE("a null function is refused, and the pool goes on", "[pool]") {
    const mp::Pool pool(1);
    int (*null)(int) = nullptr;
    CHECK_THROWS_AS(pool.apply(null, 1), mp::ValueError);
    CHECK_THROWS_AS(pool.map(null, {1, 2}), mp::ValueError);
    CHECK_THROWS_AS(pool.imap(null, {1, 2}).next(), mp::ValueError);
    CHECK(pool.apply(square, 3) == 9);
}

TEST_CASE("what is thrown without a message is told by its type", "[pool]") {
    const mp::Pool pool(1);
    CHECK_THROWS_WITH(pool.apply([] { throw 42; }), "int");
}

// What std::views::iota(0) is, which clang 14 cannot instantiate from the library of g++ 12.
struct Naturals {
    struct Iterator {
        using value_type = int;
        using difference_type = std::ptrdiff_t;
        int number = 0;
        int operator*() const { return number; }
        Iterator& operator++() {
            ++number;
            return *this;
        }
        Iterator operator++(int) { return {number++}; }
        bool operator==(const Iterator&) const = default;
    };
    [[nodiscard]] static Iterator begin() { return {}; }
    [[nodiscard]] static std::unreachable_sentinel_t end() { return {}; }
};

TEST_CASE("the end of a pool ends a map of an endless range", "[pool]") {
    static_assert(std::ranges::forward_range<Naturals>);
    const mp::Pool pool(2);
    const mp::Event begun;
    std::thread ending([&] {
        begun.wait(30);
        pool.terminate();
    });
    const auto begin = [](const mp::Event& event, int x) {
        event.set();
        return x;
    };
    CHECK_THROWS_AS(pool.map(mp::partial(begin, begun), Naturals()), mp::CancelledError);
    ending.join();
    pool.join();
}
