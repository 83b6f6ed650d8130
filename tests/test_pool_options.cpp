// SPDX-License-Identifier: BSL-1.0
//
// What may be said of a pool's tasks, and of its workers: TaskOptions, AsyncResult::cancel(), try_map,
// buffersize, mp::this_task, PoolOptions, resize().

#include <multiprocessing/pool.hpp>

#include <multiprocessing/context.hpp>
#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/os/affinity.hpp>
#include <multiprocessing/os/memory.hpp>
#include <multiprocessing/process.hpp>
#include <multiprocessing/sharedctypes.hpp>
#include <multiprocessing/synchronize.hpp>

#include "runtime/helpers.hpp"
#include "runtime/pool_helpers.hpp"
#include "support/catch.hpp"
#include "support/ranges.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <functional>
#include <iterator>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include <sched.h>
#include <unistd.h>

namespace mp = multiprocessing;
using namespace std::chrono_literals;
using Catch::Matchers::ContainsSubstring;
using support::Generated;
using support::each_context;
using support::pid_of;
using support::pids_of;
using support::square;

namespace {

// Long for what is to be done in no time, short for who waits until it is over.
constexpr auto some_time = 200ms;
// Nobody waits that long.
constexpr auto patience = 30s;

std::size_t index(int x) { return static_cast<std::size_t>(x); }

/// Of the items of a job one in ten, 3, 13, 23 and so on, takes for ever; each is counted.
enum Manner {
    blocked,   // and does not look whether it is to stop
    deaf,      // nor does it mind SIGTERM
    obedient,  // until it is told to stop
};
void take_for_ever(Manner manner) {
    if (manner == deaf) std::signal(SIGTERM, SIG_IGN);
    if (manner == obedient) {
        while (!mp::this_task::stop_requested()) std::this_thread::yield();
    } else {
        const mp::Event never;
        never.wait();
    }
}
int behave(const mp::Array<int>& runs, Manner manner, int x) {
    std::atomic_ref(runs[index(x)]).fetch_add(1);
    if (x % 10 == 3) take_for_ever(manner);
    return x;
}
std::string behave_with_text(const mp::Array<int>& runs, Manner manner, const std::string& x) {
    return std::to_string(behave(runs, manner, std::stoi(x)));
}
int add_behaving(const mp::Array<int>& runs, Manner manner, int x, int y) {
    return behave(runs, manner, x) + y;
}
int block(const mp::Event& go, int x) {
    go.wait();
    return x;
}

std::vector<int> numbers(int count) {
    std::vector<int> result;
    for (int i = 0; i < count; ++i) result.push_back(i);
    return result;
}
std::vector<std::string> texts(int count) {
    std::vector<std::string> result;
    for (int i = 0; i < count; ++i) result.push_back(std::to_string(i));
    return result;
}
void check_each_ran_once(const mp::Array<int>& runs) {
    for (const int times : runs) CHECK(times == 1);
}

/// What has become of an item: its value, or what sort of error.
template <class R>
std::string fate(const std::exception_ptr& error, const R* value) {
    if (!error) {
        if constexpr (std::is_arithmetic_v<R>) {
            return std::to_string(*value);
        } else {
            return *value;
        }
    }
    try {
        std::rethrow_exception(error);
    } catch (const mp::TaskTimeoutError&) {
        return "late";
    } catch (const mp::WorkerLostError&) {
        return "lost";
    } catch (const std::exception& other) {
        return other.what();
    }
}
template <class R>
std::vector<std::string> fates(const std::vector<mp::Result<R>>& results) {
    std::vector<std::string> all;
    for (const auto& each : results) {
        all.push_back(fate(each.error(), each.has_value() ? &each.value() : nullptr));
    }
    return all;
}
template <class R>
std::vector<std::string> fates(const mp::IMapIterator<R>& results) {
    std::vector<std::string> all;
    for (;;) {
        try {
            const R value = results.next(patience);
            all.push_back(fate(nullptr, &value));
        } catch (const mp::StopIteration&) {
            return all;
        } catch (const mp::TaskTimeoutError&) {
            all.emplace_back("late");
        } catch (const mp::TimeoutError&) {
            throw;
        } catch (...) {
            all.push_back(fate<R>(std::current_exception(), nullptr));
        }
    }
}
/// Of so many items of which one in ten was late.
std::vector<std::string> one_in_ten_late(int count) {
    std::vector<std::string> all = texts(count);
    for (int i = 3; i < count; i += 10) all[index(i)] = "late";
    return all;
}
std::vector<std::string> sorted(std::vector<std::string> all) {
    std::sort(all.begin(), all.end());
    return all;
}

/// 0, 1, … below `count`, and how far they have been read.
Generated counted(int count, std::atomic<int>& read) {
    return Generated(
        [&read](int x) {
            read = x + 1;
            return x;
        },
        count);
}

/// Waits until so many others are here too, and says which of the workers this is.
int meet(const mp::Barrier& all, int) {
    all.wait(patience);
    return mp::this_task::worker_id();
}
/// The numbers of workers that are at work at once.
std::set<int> workers_at_once(const mp::Pool& pool, int count) {
    const mp::Barrier all(count);
    const auto ids = pool.map_async(mp::partial(meet, all), numbers(count), 1).get(patience);
    return {ids.begin(), ids.end()};
}
std::set<int> first_numbers(int count) {
    const auto all = numbers(count);
    return {all.begin(), all.end()};
}
void wait_for_size(const mp::Pool& pool, std::size_t size) {
    const auto until = mp::os::Deadline::after(patience);
    while (pool.workers().size() != size && !until.expired()) std::this_thread::yield();
    CHECK(pool.workers().size() == size);
}

}  // namespace

// ---------------------------------------------------------------------------------------- Timeouts

TEST_CASE("a task that takes longer than its timeout ends with TaskTimeoutError",
          "[pool][timeout][fork][spawn][forkserver]") {
    const auto ctx = each_context();
    const mp::Pool pool = ctx.Pool(1);
    const mp::Event never;
    CHECK_THROWS_AS(pool.apply({.timeout = 50ms}, block, never, 1), mp::TaskTimeoutError);
    CHECK_THROWS_AS(pool.apply({.timeout = 0}, block, never, 1), mp::TimeoutError);
    CHECK_THROWS_WITH(pool.apply({.timeout = 50ms}, block, never, 1),
                      ContainsSubstring("item 0") && ContainsSubstring("0.05") &&
                          ContainsSubstring("PoolWorker-"));
    CHECK(pool.apply({.timeout = patience}, square, 3) == 9);
    CHECK(pool.workers().size() == 1);
}

TEST_CASE("one item that is late costs nobody else", "[pool][timeout][fork][spawn][forkserver]") {
    const auto ctx = each_context();
    const Manner manner = GENERATE(blocked, deaf);
    const mp::Pool pool = ctx.Pool(2);
    const mp::Array<int> runs(20);
    const auto results = pool.try_map({.timeout = some_time, .grace = 20ms},
                                      mp::partial(behave, runs, manner), mp::range(20), 10);
    CHECK(fates(results) == one_in_ten_late(20));
    check_each_ran_once(runs);
}

TEST_CASE("one item that is late costs nobody else, in every call", "[pool][timeout]") {
    const int chunksize = GENERATE(1, 7, 20);
    constexpr int count = 20;
    const mp::TaskOptions options{.timeout = some_time, .grace = 0};
    const mp::Pool pool(2);
    const mp::Array<int> runs(count);
    const auto task = mp::partial(behave, runs, blocked);

    SECTION("map") {
        CHECK_THROWS_AS(pool.map(options, task, numbers(count), chunksize), mp::TaskTimeoutError);
    }
    SECTION("map_async") {
        CHECK_THROWS_AS(pool.map_async(options, task, mp::range(count), chunksize).get(patience),
                        mp::TaskTimeoutError);
    }
    SECTION("starmap") {
        std::vector<std::pair<int, int>> pairs;
        for (int i = 0; i < count; ++i) pairs.emplace_back(i, 1);
        CHECK_THROWS_AS(
            pool.starmap(options, mp::partial(add_behaving, runs, blocked), pairs, chunksize),
            mp::TaskTimeoutError);
    }
    SECTION("try_map") {
        CHECK(fates(pool.try_map(options, task, numbers(count), chunksize)) == one_in_ten_late(count));
    }
    SECTION("imap") {
        CHECK(fates(pool.imap(options, task, numbers(count), chunksize)) == one_in_ten_late(count));
    }
    SECTION("imap_unordered") {
        CHECK(sorted(fates(pool.imap_unordered(options, task, mp::range(count), chunksize))) ==
              sorted(one_in_ten_late(count)));
    }
    SECTION("try_map of texts") {
        const auto of_texts = mp::partial(behave_with_text, runs, blocked);
        CHECK(fates(pool.try_map(options, of_texts, texts(count), chunksize)) ==
              one_in_ten_late(count));
    }
    SECTION("imap_unordered of texts") {
        const auto of_texts = mp::partial(behave_with_text, runs, blocked);
        CHECK(sorted(fates(pool.imap_unordered(options, of_texts, texts(count), chunksize))) ==
              sorted(one_in_ten_late(count)));
    }
    check_each_ran_once(runs);
    CHECK(pool.map(square, {1, 2}) == std::vector{1, 4});
}

TEST_CASE("who is late is told at once, though the task goes on", "[pool][timeout]") {
    const mp::Pool pool(2);
    const mp::Event go;
    // For ever is what the worker is given to end by itself.
    const mp::TaskOptions options{.timeout = 50ms, .grace = std::nullopt};
    const auto before = pids_of(pool);
    CHECK_THROWS_AS(pool.apply_async(options, block, go, 1).get(patience), mp::TaskTimeoutError);
    CHECK_THROWS_AS(pool.map_async(options, mp::partial(block, go), {1}).get(patience),
                    mp::TaskTimeoutError);
    go.set();
    CHECK(pool.imap(options, mp::partial(block, go), {2}).next(patience) == 2);
    CHECK(pids_of(pool) == before);
}

TEST_CASE("a task is asked to stop, and one that obeys keeps its worker",
          "[pool][timeout][fork][spawn][forkserver]") {
    const auto ctx = each_context();
    const mp::Pool pool = ctx.Pool(2);
    const auto before = pids_of(pool);
    constexpr int count = 40;
    const mp::TaskOptions options{.timeout = some_time, .grace = std::nullopt};
    const int chunksize = GENERATE(1, 40);
    const mp::Array<int> runs(count);
    const auto task = mp::partial(behave, runs, obedient);
    // Several in one chunk, which goes on after each.
    CHECK(fates(pool.try_map(options, task, numbers(count), chunksize)) == one_in_ten_late(count));
    check_each_ran_once(runs);
    CHECK(pids_of(pool) == before);
    // What it returned in the end has been no result of another's.
    CHECK(pool.map(square, {1, 2, 3}) == std::vector{1, 4, 9});
}

TEST_CASE("several items of a chunk that are late are told of once each", "[pool][timeout]") {
    const mp::Pool pool(1);
    constexpr int count = 30;
    const mp::TaskOptions options{.timeout = some_time, .grace = std::nullopt};
    const mp::Array<int> runs(count);
    const bool ordered = GENERATE(false, true);
    SECTION("numbers") {
        const auto task = mp::partial(behave, runs, obedient);
        const auto results = ordered ? pool.imap(options, task, numbers(count), count)
                                     : pool.imap_unordered(options, task, numbers(count), count);
        CHECK(sorted(fates(results)) == sorted(one_in_ten_late(count)));
    }
    SECTION("texts") {
        const auto task = mp::partial(behave_with_text, runs, obedient);
        const auto results = ordered ? pool.imap(options, task, texts(count), count)
                                     : pool.imap_unordered(options, task, texts(count), count);
        CHECK(sorted(fates(results)) == sorted(one_in_ten_late(count)));
    }
    check_each_ran_once(runs);
}

TEST_CASE("a task that does not stop is ended by SIGTERM, or by SIGKILL", "[pool][timeout][fork][spawn]") {
    const auto ctx = each_context();
    const Manner manner = GENERATE(blocked, deaf);
    const mp::Pool pool = ctx.Pool(1);
    const mp::Process worker = pool.workers().front();
    const mp::Array<int> runs(10);
    const mp::TaskOptions options{.timeout = 50ms, .grace = 50ms};
    const auto result = pool.map_async(options, mp::partial(behave, runs, manner), {3});
    CHECK_THROWS_AS(result.get(patience), mp::TaskTimeoutError);
    worker.join(30);
    CHECK(worker.exitcode() == (manner == deaf ? -SIGKILL : -SIGTERM));
    CHECK(pool.apply_async(square, 3).get(patience) == 9);
}

TEST_CASE("there is time for a task to stop in before it is ended", "[pool][timeout]") {
    const mp::Pool pool(1);
    const mp::Value<int> asked(0);
    const auto note = [](const mp::Value<int>& how_often, int) {
        if (mp::this_task::stop_requested()) how_often.fetch_add(100);
        take_for_ever(obedient);
        how_often.fetch_add(1);
        return 0;
    };
    const auto before = pids_of(pool);
    for (int i = 0; i < 5; ++i) {
        CHECK_THROWS_AS(pool.apply({.timeout = 20ms, .grace = patience}, note, asked, i),
                        mp::TaskTimeoutError);
    }
    // What the last one was asked is not asked of the next.
    CHECK_FALSE(pool.apply([] { return mp::this_task::stop_requested(); }));
    CHECK(asked.load() == 5);
    CHECK(pids_of(pool) == before);
    CHECK_FALSE(mp::this_task::stop_requested());
}

TEST_CASE("a timeout that is long enough changes nothing", "[pool][timeout][fork][spawn]") {
    const auto ctx = each_context();
    const mp::Pool pool = ctx.Pool(2);
    const auto before = pids_of(pool);
    const mp::Timeout timeout = GENERATE(mp::Timeout(60), mp::Timeout(1e9), mp::Timeout(1e30), mp::Timeout());
    const mp::TaskOptions options{.timeout = timeout, .retries = 3, .grace = timeout};
    CHECK(pool.apply(options, square, 3) == 9);
    CHECK(pool.apply_async(options, square, 4).get() == 16);
    CHECK(pool.map(options, square, mp::range(100), 7) == pool.map(square, mp::range(100)));
    CHECK(pool.map(options, [](const std::string& s) { return s; }, texts(100), 7) == texts(100));
    CHECK(pool.starmap(options, [](int a, int b) { return a + b; }, {std::pair(1, 2)}) == std::vector{3});
    CHECK(fates(pool.imap(options, [](int x) { return x; }, mp::range(100), 3)) == texts(100));
    CHECK(fates(pool.try_map(options, [](int x) { return x; }, mp::range(100))) == texts(100));
    CHECK_THROWS_AS(pool.apply(options, [] { throw std::out_of_range("x"); }), std::out_of_range);
    CHECK(pids_of(pool) == before);
}

TEST_CASE("jobs with different timeouts do not mind each other", "[pool][timeout]") {
    const mp::Pool pool(6);
    const mp::Event go;
    const auto without = pool.apply_async(block, go, 1);
    const auto long_one = pool.apply_async({.timeout = patience * 4}, block, go, 2);
    const auto second = pool.apply_async({.timeout = 300ms}, block, go, 3);
    const auto first = pool.map_async({.timeout = 20ms}, mp::partial(block, go), {4, 5});
    CHECK_THROWS_AS(first.get(patience), mp::TaskTimeoutError);
    CHECK_THROWS_AS(second.get(patience), mp::TaskTimeoutError);
    CHECK(pool.apply_async({.timeout = some_time}, square, 3).get(patience) == 9);
    CHECK_FALSE(without.ready());
    CHECK_FALSE(long_one.ready());
    go.set();
    CHECK(without.get(patience) == 1);
    CHECK(long_one.get(patience) == 2);
}

TEST_CASE("a timeout counts from the start of the item", "[pool][timeout]") {
    const mp::Pool pool(1);
    const mp::Event go;
    const auto first = pool.apply_async(block, go, 1);
    const auto waiting = pool.map_async({.timeout = some_time}, square, {1, 2, 3}, 3);
    // It waits for longer than it may run.
    CHECK_THROWS_AS(waiting.get(some_time * 1.5), mp::TimeoutError);
    go.set();
    CHECK(waiting.get(patience) == std::vector{1, 4, 9});
    CHECK(first.get(patience) == 1);
}

// Takes its time when it is read, which is not part of the call.
struct SlowToRead {
    int number = 0;
    template <class Archive>
    void save(Archive& archive, unsigned) const {
        archive << number;
    }
    template <class Archive>
    void load(Archive& archive, unsigned) {
        archive >> number;
        if (number % 2 == 1) std::this_thread::sleep_for(1s);
    }
    BOOST_SERIALIZATION_SPLIT_MEMBER()
};

TEST_CASE("an argument that is slow to read is not late", "[pool][timeout]") {
    const mp::Pool pool(1);
    const auto before = pids_of(pool);
    std::vector<SlowToRead> items;
    for (int i = 0; i < 4; ++i) items.push_back({i});
    const auto number = [](const SlowToRead& item) { return item.number; };
    CHECK(fates(pool.try_map({.timeout = some_time, .grace = 0}, number, items, 4)) == texts(4));
    CHECK(pids_of(pool) == before);
}

TEST_CASE("items that take just as long as they may have one outcome each", "[pool][timeout]") {
    const mp::Pool pool(2);
    constexpr int count = 600;
    const bool plain = GENERATE(true, false);
    const int chunksize = GENERATE(1, 10);
    const auto spin = [](int x) {
        const auto until = mp::os::Clock::now() + 1ms + std::chrono::microseconds(x % 41 - 20);
        while (mp::os::Clock::now() < until) {
        }
        return x;
    };
    const auto spin_with_text = [](const std::string& x) {
        const auto until = mp::os::Clock::now() + 1ms + std::chrono::microseconds(std::stoi(x) % 41 - 20);
        while (mp::os::Clock::now() < until) {
        }
        return x;
    };
    const mp::TaskOptions options{.timeout = 1ms, .retries = 1, .grace = std::nullopt};
    const auto all = plain ? fates(pool.imap(options, spin, numbers(count), chunksize))
                           : fates(pool.imap(options, spin_with_text, texts(count), chunksize));
    REQUIRE(all.size() == count);
    for (int i = 0; i < count; ++i) {
        const std::string& each = all[index(i)];
        if (each != "late") CHECK(each == std::to_string(i));
    }
    // Those who end in time are not killed, nor what is begun after them.
    const mp::TaskOptions strict{.timeout = 1ms, .grace = 0};
    const auto others = plain ? fates(pool.try_map(strict, spin, numbers(count), chunksize))
                              : fates(pool.try_map(strict, spin_with_text, texts(count), chunksize));
    REQUIRE(others.size() == count);
    for (int i = 0; i < count; ++i) {
        const std::string& each = others[index(i)];
        if (each != "late") CHECK(each == std::to_string(i));
    }
}

TEST_CASE("a task that is late is not run again", "[pool][timeout][retries]") {
    const mp::Pool pool(2);
    const Manner manner = GENERATE(blocked, obedient);
    const mp::Array<int> runs(20);
    const auto results = pool.try_map({.timeout = some_time, .retries = 5, .grace = 50ms},
                                      mp::partial(behave, runs, manner), numbers(20), 5);
    CHECK(fates(results) == one_in_ten_late(20));
    check_each_ran_once(runs);
}

// ----------------------------------------------------------------------------------------- Retries

namespace {

/// Dies so many times, then goes on.
int die_first(const mp::Array<int>& runs, int times, int x) {
    if (std::atomic_ref(runs[index(x)]).fetch_add(1) < times && x % 5 == 2) ::raise(SIGKILL);
    return x;
}
std::string die_first_with_text(const mp::Array<int>& runs, int times, const std::string& x) {
    return std::to_string(die_first(runs, times, std::stoi(x)));
}

}  // namespace

TEST_CASE("a task is run again after deaths, as often as it may", "[pool][retries][fork][spawn]") {
    const auto ctx = each_context();
    const int chunksize = GENERATE(1, 4, 20);
    constexpr int count = 20;
    const mp::Pool pool = ctx.Pool(2);
    const mp::Array<int> runs(count);
    SECTION("map of numbers") {
        CHECK(pool.map({.retries = 2}, mp::partial(die_first, runs, 2), numbers(count), chunksize) ==
              numbers(count));
    }
    SECTION("imap of texts") {
        CHECK(fates(pool.imap({.retries = 2}, mp::partial(die_first_with_text, runs, 2), texts(count),
                              chunksize)) == texts(count));
    }
    SECTION("with a timeout that is long enough") {
        CHECK(fates(pool.try_map({.timeout = patience, .retries = 2}, mp::partial(die_first, runs, 2),
                                 mp::range(count), chunksize)) == texts(count));
    }
    for (int x = 0; x < count; ++x) CHECK(runs[index(x)] == (x % 5 == 2 ? 3 : 1));
    runs[2] = 0;
    CHECK(pool.apply({.retries = 3}, die_first, runs, 3, 2) == 2);
    CHECK(runs[2] == 4);
}

TEST_CASE("a task that always dies is given up, and says after how many attempts",
          "[pool][retries][fork][spawn]") {
    const auto ctx = each_context();
    const int chunksize = GENERATE(1, 4, 20);
    constexpr int count = 20;
    constexpr int always = 1000;
    const mp::Pool pool = ctx.Pool(2);
    const mp::Array<int> runs(count);
    const auto results =
        pool.try_map({.retries = 2}, mp::partial(die_first, runs, always), numbers(count), chunksize);
    REQUIRE(results.size() == count);
    for (int x = 0; x < count; ++x) {
        CHECK(runs[index(x)] == (x % 5 == 2 ? 3 : 1));
        if (x % 5 != 2) {
            CHECK(results[index(x)].value() == x);
            continue;
        }
        CHECK_THROWS_AS(results[index(x)].value(), mp::WorkerLostError);
        CHECK_THROWS_WITH(results[index(x)].value(),
                          ContainsSubstring("3 attempts") &&
                              ContainsSubstring("item " + std::to_string(x) + " of the job"));
    }
    CHECK_THROWS_WITH(pool.apply(die_first, runs, always, 2), !ContainsSubstring("attempts"));
}

TEST_CASE("what throws is not run again", "[pool][retries]") {
    const mp::Pool pool(2);
    const mp::Value<int> runs(0);
    const auto fail = [](const mp::Value<int>& n) {
        n.fetch_add(1);
        throw std::out_of_range("no");
    };
    CHECK_THROWS_AS(pool.apply({.retries = 5}, fail, runs), std::out_of_range);
    CHECK(runs.load() == 1);
}

// ------------------------------------------------------------------------------------------ Cancel

TEST_CASE("cancel ends a task that runs, and replaces its worker",
          "[pool][cancel][fork][spawn][forkserver]") {
    const auto ctx = each_context();
    const mp::Pool pool = ctx.Pool(2);
    const mp::Event begun;
    const mp::Event never;
    const auto begin = [](const mp::Event& b, const mp::Event& n) {
        b.set();
        n.wait();
    };
    const auto workers = pool.workers();
    const auto others = pool.map_async(square, mp::range(1000), 3);
    const auto result = pool.apply_async({.grace = 20ms}, begin, begun, never);
    REQUIRE(begun.wait(30));
    CHECK(result.cancel());
    CHECK_FALSE(result.cancel());
    CHECK(result.ready());
    CHECK_THROWS_AS(result.get(0), mp::CancelledError);
    CHECK(others.get(patience).at(999) == 999 * 999);
    // One of the two was it.
    const auto until = mp::os::Deadline::after(patience);
    const auto has_ended = [](const mp::Process& worker) { return !worker.is_alive(); };
    while (std::none_of(workers.begin(), workers.end(), has_ended) && !until.expired()) {
        std::this_thread::yield();
    }
    int ended = 0;
    for (const auto& worker : workers) {
        if (worker.is_alive()) continue;
        ++ended;
        CHECK(worker.exitcode() == -SIGTERM);
    }
    CHECK(ended == 1);
    CHECK(workers_at_once(pool, 2) == first_numbers(2));
    CHECK_FALSE(others.cancel());
}

TEST_CASE("who cancels is not kept waiting by a task that goes on", "[pool][cancel]") {
    const mp::Pool pool(1);
    const mp::Event begun;
    const mp::Event go;
    const auto before = pids_of(pool);
    const auto result = pool.apply_async(
        {.grace = std::nullopt},
        [](const mp::Event& b, const mp::Event& g) {
            b.set();
            g.wait(patience);
        },
        begun, go);
    const auto next = pool.apply_async(square, 3);
    REQUIRE(begun.wait(patience));
    CHECK(result.cancel());
    CHECK_THROWS_AS(result.get(patience), mp::CancelledError);
    CHECK_FALSE(next.ready());
    go.set();
    CHECK(next.get(patience) == 9);
    CHECK(pids_of(pool) == before);
}

TEST_CASE("a task that looks whether it is cancelled keeps its worker", "[pool][cancel]") {
    const mp::Pool pool(1);
    const auto before = pids_of(pool);
    const mp::Event begun;
    const mp::Event ended;
    const mp::Timeout timeout = GENERATE(mp::Timeout(), mp::Timeout(60));
    const auto result = pool.apply_async(
        {.timeout = timeout, .grace = patience},
        [](const mp::Event& b, const mp::Event& e) {
            b.set();
            take_for_ever(obedient);
            e.set();
        },
        begun, ended);
    REQUIRE(begun.wait(30));
    CHECK(result.cancel());
    CHECK(ended.wait(30));
    CHECK_THROWS_AS(result.get(), mp::CancelledError);
    CHECK(pool.apply(square, 3) == 9);
    CHECK(pids_of(pool) == before);
}

TEST_CASE("what has not begun when its job is cancelled is not run", "[pool][cancel]") {
    const mp::Pool pool(2);
    const int chunksize = GENERATE(1, 10, 100);
    const mp::Timeout timeout = GENERATE(mp::Timeout(), mp::Timeout(60));
    const mp::Array<int> runs(100);
    const mp::Event begun;
    const auto run = [](const mp::Array<int>& n, const mp::Event& b, int x) {
        std::atomic_ref(n[index(x)]).fetch_add(1);
        b.set();
        take_for_ever(obedient);
        return x;
    };
    const auto result = pool.map_async({.timeout = timeout, .grace = patience},
                                       mp::partial(run, runs, begun), numbers(100), chunksize);
    const auto others = pool.map_async(square, mp::range(100), 7);
    REQUIRE(begun.wait(30));
    CHECK(result.cancel());
    CHECK_THROWS_AS(result.get(), mp::CancelledError);
    CHECK(others.get(patience).size() == 100);
    int sum = 0;
    for (const int times : runs) sum += times;
    CHECK(sum >= 1);
    CHECK(sum <= 2);
}

TEST_CASE("many jobs are cancelled at any moment, and no other loses anything", "[pool][cancel]") {
    const mp::Pool pool(2);
    const mp::Timeout timeout = GENERATE(mp::Timeout(), mp::Timeout(60));
    const auto others = pool.map_async(
        [](int x) { return std::to_string(x); }, mp::range(3000), 1);
    int in_time = 0;
    for (int i = 0; i < 200; ++i) {
        const auto result = pool.map_async({.timeout = timeout, .grace = 0},
                                           [](int x) {
                                               if (x % 4 == 3) take_for_ever(obedient);
                                               return x;
                                           },
                                           numbers(8), i % 4 + 1);
        for (int spin = 0; spin < i * 10; ++spin) static_cast<void>(result.ready());
        in_time += result.cancel() ? 1 : 0;
        CHECK_THROWS_AS(result.get(patience), mp::CancelledError);
    }
    CHECK(in_time == 200);
    const auto all = others.get(patience);
    for (int i = 0; i < 3000; ++i) CHECK(all[index(i)] == std::to_string(i));
    pool.close();
    pool.join();
}

// ------------------------------------------------------------------------------------------ try_map

TEST_CASE("try_map gives values and errors side by side", "[pool][try_map][fork][spawn]") {
    const auto ctx = each_context();
    const mp::Pool pool = ctx.Pool(2);
    const int chunksize = GENERATE(0, 1, 3, 20);
    const auto fail_or_die = [](int x) {
        if (x % 5 == 1) throw std::out_of_range("odd one");
        if (x % 5 == 3) ::raise(SIGKILL);
        return x;
    };
    std::vector<std::string> expected = texts(20);
    for (int i = 0; i < 20; ++i) {
        if (i % 5 == 1) expected[index(i)] = "odd one";
        if (i % 5 == 3) expected[index(i)] = "lost";
    }
    const auto results = pool.try_map(fail_or_die, mp::range(20), chunksize);
    CHECK(fates(results) == expected);
    CHECK(results[0].value() == 0);
    CHECK(*results[2] == 2);
    CHECK(results[1].value_or(-1) == -1);
    CHECK_THROWS_AS(*results[1], std::out_of_range);
    CHECK_THROWS_AS(results[3].value(), mp::WorkerLostError);
    CHECK_FALSE(results[1]);

    const auto texts_of = pool.try_map(
        [](const std::string& s) {
            if (s.size() == 1) throw std::out_of_range(s);
            return s + "!";
        },
        {"a", "bc"});
    CHECK(fates(texts_of) == std::vector<std::string>{"a", "bc!"});
}

// ---------------------------------------------------------------------------------------- buffersize

TEST_CASE("what is late or lost makes room in the buffer", "[pool][buffersize][timeout]") {
    const mp::Pool pool(2);
    const int buffersize = GENERATE(1, 3);
    std::atomic<int> read{0};
    const mp::Array<int> runs(20);
    const Generated input = counted(20, read);
    const auto results = pool.imap({.timeout = some_time, .grace = 0}, mp::partial(behave, runs, blocked),
                                   input, 1, buffersize);
    CHECK(fates(results) == one_in_ten_late(20));
    check_each_ran_once(runs);
}

// ----------------------------------------------------------------------------------------- Workers

TEST_CASE("a task knows the number of its worker", "[pool][worker_id][fork][spawn][forkserver]") {
    const auto ctx = each_context();
    CHECK(mp::this_task::worker_id() == -1);
    const mp::Pool pool = ctx.Pool({.processes = 3, .initializer = [] {
                                        if (mp::this_task::worker_id() < 0) std::abort();
                                    }});
    CHECK(workers_at_once(pool, 3) == first_numbers(3));
    CHECK(mp::this_task::worker_id() == -1);
    CHECK(pool.apply([] {
        int of_thread = -2;
        std::thread([&] { of_thread = mp::this_task::worker_id(); }).join();
        return of_thread - mp::this_task::worker_id();
    }) == 0);
    // Who takes the place of another has its number.
    for (int i = 0; i < 3; ++i) {
        CHECK_THROWS_AS(pool.apply([] { ::raise(SIGKILL); }), mp::WorkerLostError);
        CHECK(workers_at_once(pool, 3) == first_numbers(3));
    }
    const mp::Pool brief = ctx.Pool({.processes = 2, .maxtasksperchild = 1});
    for (int i = 0; i < 4; ++i) CHECK(workers_at_once(brief, 2) == first_numbers(2));
}

TEST_CASE("a pool grows and shrinks", "[pool][resize][fork][spawn][forkserver]") {
    const auto ctx = each_context();
    const mp::Pool pool = ctx.Pool(2);
    pool.resize(4);
    CHECK(workers_at_once(pool, 4) == first_numbers(4));
    wait_for_size(pool, 4);
    const auto four = pool.workers();
    pool.resize(1);
    for (std::size_t i = 1; i < 4; ++i) {
        CHECK(support::ended(four[i]) == 0);
    }
    wait_for_size(pool, 1);
    CHECK(four[0].is_alive());
    CHECK(workers_at_once(pool, 1) == first_numbers(1));
    pool.resize(3);
    CHECK(workers_at_once(pool, 3) == first_numbers(3));
    CHECK_THROWS_AS(pool.resize(0), mp::ValueError);
    CHECK_THROWS_AS(pool.resize(-1), mp::ValueError);
    CHECK(workers_at_once(pool, 3) == first_numbers(3));
    pool.close();
    CHECK_THROWS_AS(pool.resize(2), mp::ValueError);
    pool.join();
}

TEST_CASE("who is too many ends what it has in hand", "[pool][resize]") {
    const mp::Pool pool(4);
    const int chunksize = GENERATE(1, 5);
    const mp::Event go;
    const auto in_hand = pool.map_async(mp::partial(block, go), numbers(20), chunksize);
    const auto before = pool.workers();
    pool.resize(1);
    const auto later = pool.map_async(square, mp::range(20), 1);
    go.set();
    CHECK(in_hand.get(patience) == numbers(20));
    CHECK(later.get(patience).size() == 20);
    for (std::size_t i = 1; i < 4; ++i) CHECK(support::ended(before[i]) == 0);
    wait_for_size(pool, 1);
}

TEST_CASE("a pool may be resized while it works", "[pool][resize][fork][spawn]") {
    const auto ctx = each_context();
    const mp::Pool pool = ctx.Pool(2);
    std::atomic<bool> done{false};
    std::thread resizer([&] {
        for (int i = 0; !done; ++i) {
            pool.resize(i * 7 % 5 + 1);
            pool.apply_async(square, 1).wait(10);
        }
        pool.resize(2);
    });
    const auto all = fates(pool.imap([](int x) { return std::to_string(x); }, mp::range(4000), 3));
    const auto mapped = pool.map(square, mp::range(4000), 2);
    done = true;
    resizer.join();
    CHECK(all == texts(4000));
    CHECK(mapped.at(3999) == 3999 * 3999);
    wait_for_size(pool, 2);
    CHECK(workers_at_once(pool, 2).size() == 2);
    wait_for_size(pool, 2);
}

TEST_CASE("workers that have nothing to do for long leave, and come back with work",
          "[pool][idle][fork][spawn][forkserver]") {
    const auto ctx = each_context();
    const mp::Pool pool = ctx.Pool({.processes = 3, .idle_timeout = 20ms});
    for (int round = 0; round < 3; ++round) {
        CHECK(workers_at_once(pool, 3) == first_numbers(3));
        wait_for_size(pool, 1);
    }
    CHECK(pool.map(square, mp::range(1000), 1).at(999) == 999 * 999);
    // However few of them that took.
    CHECK(workers_at_once(pool, 3) == first_numbers(3));
    wait_for_size(pool, 1);
    const auto last = pool.workers();
    pool.resize(2);
    CHECK(workers_at_once(pool, 2) == first_numbers(2));
    pool.close();
    pool.join();
    CHECK(last.front().exitcode() == 0);
}

TEST_CASE("a task that takes long does not make a pool idle", "[pool][idle]") {
    const mp::Pool pool({.processes = 3, .idle_timeout = 20ms});
    const mp::Event go;
    const auto result = pool.map_async(mp::partial(block, go), numbers(3), 1);
    const auto before = pids_of(pool);
    CHECK_THROWS_AS(result.get(0.2), mp::TimeoutError);
    CHECK(pids_of(pool) == before);
    go.set();
    CHECK(result.get(patience) == numbers(3));
}

TEST_CASE("a pool that has something to do now and then is not idle", "[pool][idle]") {
    const mp::Pool pool({.processes = 2, .idle_timeout = 1s});
    const auto before = pids_of(pool);
    const mp::Event never;
    const auto until = mp::os::Deadline::after(1500ms);
    while (!until.expired()) {
        CHECK(pool.apply(square, 3) == 9);
        never.wait(0.1);
    }
    CHECK(pids_of(pool) == before);
}

namespace {

/// Takes memory, and does not give it back.
int hoard(std::size_t bytes) {
    static std::vector<char> hoarded;
    hoarded.assign(bytes, 'x');
    return ::getpid();
}

}  // namespace

TEST_CASE("a worker that has too much memory is replaced", "[pool][memory][fork][spawn]") {
    const auto ctx = each_context();
    constexpr std::size_t much = std::size_t{64} << 20;
    const mp::Pool pool = ctx.Pool({.processes = 1, .max_memory_per_child = much / 2});
    const auto first = pool.workers().front();
    CHECK(pool.apply(hoard, much) == first.pid());
    CHECK(support::ended(first) == 0);
    const int second = pool.apply(pid_of, 1);
    CHECK(second != first.pid());
    for (int i = 0; i < 20; ++i) CHECK(pool.apply(pid_of, i) == second);
    // The chunks of a task, too, are given to others.
    const auto pids = pool.map([](std::size_t bytes) { return hoard(bytes); },
                               std::vector<std::size_t>(3, much), 1);
    CHECK(std::set<int>(pids.begin(), pids.end()).size() >= 2);
    CHECK_THROWS_AS(ctx.Pool({.processes = 1, .max_memory_per_child = 0}), mp::ValueError);
}

TEST_CASE("what a worker was forked with is not too much memory", "[pool][memory]") {
    constexpr std::size_t much = std::size_t{64} << 20;
    const std::vector<char> inherited(much, 'x');
    const mp::Pool pool({.processes = 1, .max_memory_per_child = much / 2});
    const int worker = pool.apply(pid_of, 1);  // after which it is weighed
    for (int i = 0; i < 5; ++i) CHECK(pool.apply(pid_of, 1) == worker);
}

TEST_CASE("workers are kept to the processors they are given",
          "[pool][affinity][fork][spawn][forkserver]") {
    const auto ctx = each_context();
    const auto allowed = [] {
        cpu_set_t set;
        CPU_ZERO(&set);
        ::sched_getaffinity(0, sizeof set, &set);
        std::vector<int> processors;
        for (int i = 0; i < CPU_SETSIZE; ++i) {
            if (CPU_ISSET(index(i), &set)) processors.push_back(i);
        }
        return processors;
    };
    const auto here = allowed();
    const std::vector one{here.back()};
    const mp::Pool pool = ctx.Pool({.processes = 2, .cpu_affinity = one});
    CHECK(pool.apply(allowed) == one);
    CHECK_THROWS_AS(pool.apply([] { ::raise(SIGKILL); }), mp::WorkerLostError);
    CHECK(pool.apply(allowed) == one);
    pool.resize(3);
    CHECK(workers_at_once(pool, 3) == first_numbers(3));
    CHECK(pool.map([](int) { return mp::process_cpu_count(); }, mp::range(9), 1) ==
          std::vector<int>(9, 1));
    CHECK(allowed() == here);

    const auto children = mp::active_children().size();
    CHECK_THROWS_AS(ctx.Pool({.processes = 2, .cpu_affinity = {100'000}}), std::system_error);
    CHECK_THROWS_AS(ctx.Pool({.processes = 2, .cpu_affinity = {-1}}), mp::ValueError);
    CHECK_THROWS_AS(ctx.Pool({.processes = 2, .cpu_affinity = {here.front(), -1}}), mp::ValueError);
    CHECK(mp::active_children().size() == children);
    CHECK(allowed() == here);
}
