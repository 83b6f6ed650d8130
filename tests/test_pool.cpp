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

#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <iterator>
#include <memory>
#include <mutex>
#include <optional>
#include <ranges>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

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

int wait_then_square(const mp::Event& go, int x) {
    go.wait();
    return x * x;
}

struct Refused : std::runtime_error {
    using std::runtime_error::runtime_error;
};

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
Generated numbers(int* read) {
    return Generated([read](int x) {
        *read = x + 1;
        return x;
    });
}
std::vector<int> squares(int count) {
    std::vector<int> result;
    for (int i = 0; i < count; ++i) result.push_back(i * i);
    return result;
}

}  // namespace

TEST_CASE("map reads ranges of many kinds", "[pool]") {
    const mp::Pool pool(3);
#if !defined(__clang__) || __clang_major__ >= 16  // whose predecessors do not know libstdc++'s views
    CHECK(pool.map(square, std::views::iota(0, 100)) == squares(100));
#endif
    const int array[] = {4, 5};
    CHECK(pool.map(square, array) == std::vector{16, 25});
    CHECK(pool.map([](long x) { return x; }, std::vector<short>{1, 2}) == std::vector<long>{1, 2});
    std::vector<std::unique_ptr<int>> boxes;
    for (int i = 0; i < 10; ++i) boxes.push_back(std::make_unique<int>(i));
    const auto unboxed = [](const std::unique_ptr<int>& p) { return *p; };
    CHECK(pool.map(unboxed, boxes, 3).at(9) == 9);  // which need not be copied
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

TEST_CASE("what a late callback throws is thrown by then()", "[pool]") {
    const mp::Pool pool(1);
    const auto late = pool.apply_async(square, 3);
    late.wait();
    CHECK_THROWS_AS(late.then([](int) { throw Refused("the callback"); }), Refused);
    CHECK(late.get() == 9);
    CHECK(pool.apply(square, 4) == 16);
}

TEST_CASE("callbacks may not wait for the pool", "[pool]") {
    const mp::Pool pool(1);
    const mp::Event go_on;
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

TEST_CASE("sizes that make no sense are refused", "[pool]") {
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
    CHECK(pids_of(three).contains(three.apply(pid_of, 1)));
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

TEST_CASE("workers of a pool that is closed end by themselves", "[pool][fork][spawn]") {
    const auto ctx = each_context();
    const mp::Pool pool = ctx.Pool(2);
    const auto result = pool.map_async(square, mp::range(1000), 1);
    const auto workers = pool.workers();
    pool.close();
    pool.join();
    CHECK(result.get() == squares(1000));
    for (const auto& worker : workers) CHECK(worker.exitcode() == 0);
    CHECK(pool.workers().empty());
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

TEST_CASE("terminate ends workers whose tasks never end", "[pool][fork][spawn]") {
    const auto ctx = each_context();
    const mp::Pool pool = ctx.Pool(2);
    const mp::Event never;
    const auto workers = pool.workers();
    const auto many = pool.map_async(mp::partial(wait_then_square, never), mp::range(10000), 1);
    pool.terminate();
    pool.join();
    CHECK_THROWS_AS(many.get(), mp::CancelledError);
    for (const auto& worker : workers) CHECK(worker.exitcode() == -SIGTERM);
}

TEST_CASE("the workers of a pool end with its last handle", "[pool]") {
    std::vector<mp::Process> workers;
    std::optional<mp::AsyncResult<int>> result;
    const mp::Event never;
    {
        const mp::Pool pool(2);
        workers = pool.workers();
        result = pool.apply_async(wait_then_square, never, 1);
    }
    for (const auto& worker : workers) CHECK_FALSE(worker.is_alive());
    CHECK_THROWS_AS(result->get(), mp::CancelledError);
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
