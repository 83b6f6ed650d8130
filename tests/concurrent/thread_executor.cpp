// SPDX-License-Identifier: BSL-1.0
//
// ThreadPoolExecutor, and with it what executors have in common. Nothing here forks.

#include <multiprocessing/concurrent/futures.hpp>

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/range.hpp>

#include "concurrent/executors.hpp"
#include "runtime/pool_helpers.hpp"
#include "support/catch.hpp"
#include "support/ranges.hpp"
#include "threads/crowd.hpp"

#include <atomic>
#include <barrier>
#include <chrono>
#include <coroutine>
#include <functional>
#include <future>
#include <list>
#include <map>
#include <memory>
#include <numeric>
#include <optional>
#include <ranges>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace mp = multiprocessing;
using namespace support;
using Catch::Matchers::ContainsSubstring;

namespace {

// A coroutine that begins at once, and whose end is told to a promise.
struct Waiting {
    struct promise_type {
        std::promise<int> result;
        Waiting get_return_object() { return {result.get_future()}; }
        std::suspend_never initial_suspend() noexcept { return {}; }
        std::suspend_never final_suspend() noexcept { return {}; }
        void return_value(int value) { result.set_value(value); }
        void unhandled_exception() { result.set_exception(std::current_exception()); }
    };
    std::future<int> result;
};
Waiting sum_of(Future<int> a, Future<int> b) { co_return co_await a + co_await b; }

int value_of(std::future<int>& future) {
    if (future.wait_for(std::chrono::duration<double>(long_enough)) != std::future_status::ready) {
        throw std::runtime_error("it does not come");
    }
    return future.get();
}

// Its own code throws when it is moved from a task to its future.
struct Immovable {
    explicit Immovable(int n) : left(n) {}
    Immovable(const Immovable&) = default;
    Immovable(Immovable&& other) : left(other.left - 1) {
        if (left < 0) throw std::domain_error("moved once too often");
    }
    Immovable& operator=(const Immovable&) = default;
    ~Immovable() = default;
    int left;
};

}  // namespace

TEST_CASE("a thread executor takes any callable with any arguments, and gives any result",
          "[executor][threads]") {
    const ThreadPoolExecutor executor(2);
    int seen = 0;
    executor.submit([&seen] { seen = 42; }).result(long_enough);
    CHECK(seen == 42);
    auto owner = std::make_unique<int>(7);
    auto moved = executor.submit([owner = std::move(owner)] { return *owner; });
    CHECK(moved.result(long_enough) == 7);
    auto result = executor.submit(
        [](std::unique_ptr<int> given) {
            ++*given;
            return given;
        },
        std::make_unique<int>(7));
    CHECK(*std::move(result).result(long_enough) == 8);
    int changed = 1;
    executor.submit([](int& x) { ++x; }, std::ref(changed)).result(long_enough);
    CHECK(changed == 2);
    CHECK(executor.submit([](const std::string& text) { return text.size(); }, "literal")
              .result(long_enough) == 7);
}

TEST_CASE("what a thread throws is the very exception", "[executor][threads]") {
    struct Own {
        int* where;
    };
    const ThreadPoolExecutor executor(1);
    int here = 0;
    const auto future = executor.submit([&here] { throw Own{&here}; });
    try {
        future.result(long_enough);
        FAIL("nothing was thrown");
    } catch (const Own& own) {
        CHECK(own.where == &here);
    }
    CHECK(is_an<mp::SystemExit>(executor.submit([] { mp::exit(3); }).exception(long_enough)));
    CHECK(is_an<std::bad_function_call>(
        executor.submit([] { throw std::bad_function_call(); }).exception(long_enough)));
}

TEST_CASE("a result that throws as it is moved fails its own future", "[executor][threads]") {
    const ThreadPoolExecutor executor(1);
    int failed = 0;
    for (int moves = 0; moves < 8; ++moves) {
        const auto future = executor.submit([moves] { return Immovable(moves); });
        failed += is_an<std::domain_error>(future.exception(long_enough)) ? 1 : 0;
    }
    CHECK(failed > 0);
    CHECK(failed < 8);
    CHECK(executor.submit(twice, 21).result(long_enough) == 42);
}

TEST_CASE("copies of an executor are one, and the last waits for what there is to do",
          "[executor][threads]") {
    const Gate gate;
    const OpenAtTheEnd open(gate);
    Future<int> future;
    auto first = std::make_unique<ThreadPoolExecutor>(1);
    {
        const ThreadPoolExecutor second = *first;
        future = second.submit(pass, gate, 1);
    }
    REQUIRE(gate.wait_for(1));
    CHECK(future.running());
    const auto late = first->submit(twice, 21);
    CHECK_FALSE(late.running());
    gate.go.set();
    first.reset();
    CHECK(future.done());
    CHECK(late.result(0) == 42);
}

TEST_CASE("a shut down executor that nobody waits for makes its calls without a handle",
          "[executor][threads]") {
    const Gate gate;
    const OpenAtTheEnd open(gate);
    std::vector<Future<int>> all;
    {
        const ThreadPoolExecutor executor(2);
        for (int i = 0; i < 10; ++i) all.push_back(executor.submit(pass, gate, i));
        executor.shutdown(false);
        CHECK_THROWS_AS(executor.submit(twice, 1), std::runtime_error);
        CHECK_THROWS_WITH(executor.map(twice, mp::range(3)),
                          ContainsSubstring("cannot schedule new futures after shutdown"));
    }
    CHECK_FALSE(all.front().done());
    gate.go.set();
    CHECK(futures::wait(all, long_enough).not_done.empty());
    for (int i = 0; i < 10; ++i) CHECK(all[static_cast<std::size_t>(i)].result(0) == i);
}

TEST_CASE("a task may have the last handle of its executor", "[executor][threads]") {
    const Gate gate;
    const OpenAtTheEnd open(gate);
    Future<int> future;
    std::weak_ptr<int> captured;
    {
        const ThreadPoolExecutor executor(1);
        const auto mark = std::make_shared<int>(1);
        captured = mark;
        future = executor.submit([executor, mark, gate] { return pass(gate, 42); });
        REQUIRE(gate.wait_for(1));
    }
    gate.go.set();
    CHECK(future.result(long_enough) == 42);
    // What the task captured goes after its result is there.
    const auto until = std::chrono::steady_clock::now() + std::chrono::duration<double>(long_enough);
    while (!captured.expired() && std::chrono::steady_clock::now() < until) std::this_thread::yield();
    CHECK(captured.expired());
}

TEST_CASE("a future that waits can be cancelled, one that runs cannot", "[executor][threads]") {
    check_taking_back_with_one_worker(ThreadPoolExecutor(1));
}

TEST_CASE("threads whose initializer has failed run nothing", "[executor][threads]") {
    std::atomic<int> ran{0};
    for (int round = 0; round < 200; ++round) {
        std::barrier<> all(4);  // for the executor starts a thread for each call that finds none idle
        const ThreadPoolExecutor executor({.max_workers = 4, .initializer = [&all] {
            all.arrive_and_wait();
            throw std::runtime_error("no");
        }});
        std::vector<Future<void>> futures;
        try {
            for (int i = 0; i < 8; ++i) futures.push_back(executor.submit([&ran] { ++ran; }));
        } catch (const mp::BrokenExecutor&) {  // already
        }
        for (const auto& future : futures) {
            CHECK(is_an<mp::BrokenExecutor>(future.exception(long_enough)));
        }
    }
    CHECK(ran == 0);
}

TEST_CASE("a callback may submit more, and what it captured goes with it", "[executor][threads]") {
    const ThreadPoolExecutor executor(2);
    const mp::Event done;
    std::atomic<int> last{0};
    const std::function<void(const Future<int>&)> next = [&](const Future<int>& future) {
        last = future.result(0);
        if (last >= 1000) return done.set();
        executor.submit(twice, last.load()).add_done_callback(next);
    };
    executor.submit(twice, 1).add_done_callback(next);
    CHECK(done.wait(long_enough));
    CHECK(last == 1024);
}

TEST_CASE("a coroutine awaits futures of an executor", "[executor][threads]") {
    const ThreadPoolExecutor executor(2);
    auto sum = sum_of(executor.submit(twice, 1), executor.submit(twice, 20));
    CHECK(value_of(sum.result) == 42);
    auto fails = sum_of(executor.submit(twice, 1),
                        executor.submit([]() -> int { throw std::out_of_range("no"); }));
    CHECK_THROWS_AS(value_of(fails.result), std::out_of_range);
}

TEST_CASE("wait and as_completed take submitted futures", "[executor][threads]") {
    const ThreadPoolExecutor executor(2);
    const Gate gate;
    const OpenAtTheEnd open(gate);
    const std::vector<Future<int>> all{executor.submit(pass, gate, 1), executor.submit(twice, 1)};
    const auto [done, not_done] = futures::wait(all, long_enough, futures::FIRST_COMPLETED);
    CHECK(done == std::vector{all[1]});
    CHECK(not_done == std::vector{all[0]});
    std::vector<Future<int>> completed;
    for (const auto& future : futures::as_completed(all, long_enough)) {
        completed.push_back(future);
        gate.go.set();
    }
    CHECK(completed == std::vector{all[1], all[0]});
}

TEST_CASE("map reads ranges of several kinds side by side, until the shortest ends",
          "[executor][threads]") {
    const ThreadPoolExecutor executor(2);
    const std::list<std::string> names{"a", "b", "c"};
    const std::map<int, double> numbers{{1, 0.5}, {2, 1.5}, {3, 2.5}, {4, 3.5}};
    const auto text = [](const std::string& name, const std::pair<int, double>& number, int x) {
        std::ostringstream out;
        out << name << number.first << ' ' << number.second << ' ' << x;
        return out.str();
    };
    CHECK(list(executor.map(text, names, numbers, Generated([](int x) { return x + 7; }))) ==
          std::vector<std::string>{"a1 0.5 7", "b2 1.5 8", "c3 2.5 9"});
#if !defined(__clang__) || __clang_major__ >= 16  // whose predecessors do not know libstdc++'s views
    std::istringstream input("1 2 3");
    CHECK(list(executor.map(twice, std::views::istream<int>(input))) == std::vector{2, 4, 6});
#endif
    CHECK(list(executor.map(twice, std::vector<int>())).empty());
    CHECK(list(executor.map(std::plus<int>(), {1, 2, 3}, {10, 20, 30})) == std::vector{11, 22, 33});
    CHECK(list(executor.map({.buffersize = 1}, twice, {1, 2, 3})) == std::vector{2, 4, 6});
}

TEST_CASE("map reads a range that ends at once, and an endless one as results are taken",
          "[executor][threads]") {
    const ThreadPoolExecutor executor(2);
    int read = 0;
    const auto count = [&read](int x) {
        ++read;
        return x;
    };
#if !defined(__clang__) || __clang_major__ >= 16  // whose predecessors do not know libstdc++'s views
    {
        std::vector<int> gone(1000);
        std::iota(gone.begin(), gone.end(), 0);
        const auto results = executor.map(twice, gone | std::views::transform(count));
        CHECK(read == 1000);
        gone.clear();
        CHECK(list(results).size() == 1000);
    }
#endif
    read = 0;
    const Generated endless(count);
    const auto results = executor.map(twice, endless);
    CHECK(read > 0);
    CHECK(read < 1000);
    CHECK(some(results, 100).back() == 198);
    CHECK(read < 1000);
}

TEST_CASE("a range that throws ends its map with that, after the results before",
          "[executor][threads]") {
    const ThreadPoolExecutor executor(2);
    const auto results =
        executor.map(twice,
                     Generated([](int x) { return x == 3 ? throw std::out_of_range("no more") : x; }));
    CHECK(some(results, 3) == std::vector{0, 2, 4});
    CHECK_THROWS_AS(results.next(), std::out_of_range);
    CHECK_THROWS_AS(results.next(), mp::StopIteration);
}

TEST_CASE("what nobody has begun of a map is cancelled when its results are dropped",
          "[executor][threads]") {
    const ThreadPoolExecutor executor(1);
    const Gate gate;
    const OpenAtTheEnd open(gate);
    std::atomic<int> calls{0};
    const auto f = [&](int x) {
        ++calls;
        return pass(gate, x);
    };
    const bool close = GENERATE(true, false);
    std::optional results(executor.map(f, mp::range(100)));
    REQUIRE(gate.wait_for(1));
    if (close) {
        results->close();
        CHECK(list(*results).empty());
    } else {
        results.reset();
    }
    gate.go.set();
    executor.shutdown();
    CHECK(calls == 1);
}

TEST_CASE("a map whose time is over is at its end, and the rest of it cancelled",
          "[executor][threads]") {
    const ThreadPoolExecutor executor(1);
    const Gate gate;
    const OpenAtTheEnd open(gate);
    std::atomic<int> calls{0};
    const auto results = executor.map(
        {.timeout = 0},
        [&](int x) {
            ++calls;
            return pass(gate, x);
        },
        mp::range(100));
    REQUIRE(gate.wait_for(1));
    CHECK_THROWS_AS(results.next(), mp::TimeoutError);
    CHECK_THROWS_AS(results.next(), mp::StopIteration);
    gate.go.set();
    executor.shutdown();
    CHECK(calls == 1);
}

TEST_CASE("shutdown with cancel_futures cancels the rest of a map, too", "[executor][threads]") {
    const ThreadPoolExecutor executor(1);
    const Gate gate;
    const OpenAtTheEnd open(gate);
    const int chunksize = GENERATE(1, 2);
    const bool is_endless = GENERATE(false, true);
    const auto results = is_endless
                             ? executor.map({.chunksize = chunksize}, mp::partial(pass, gate),
                                            mp::range(1000))
                             : executor.map({.chunksize = chunksize, .buffersize = 10},
                                            mp::partial(pass, gate), mp::range(1000));
    const auto waits = executor.submit(twice, 1);
    REQUIRE(gate.wait_for(1));
    executor.shutdown(false, true);
    CHECK(waits.cancelled());
    gate.go.set();
    executor.shutdown();
    CHECK(some(results, static_cast<std::size_t>(chunksize)).front() == 0);
    int cancelled = 0;
    for (bool more = true; more;) {
        try {
            results.next();
            FAIL_CHECK("what was cancelled has been run");
        } catch (const mp::CancelledError&) {
            ++cancelled;
        } catch (const mp::StopIteration&) {
            more = false;
        }
    }
    CHECK(cancelled > 1);
}

TEST_CASE("an executor is dropped while an endless map of it is still there", "[executor][threads]") {
    const auto results = ThreadPoolExecutor(2).map({.buffersize = 4}, twice, Generated());
    CHECK(some(results, 4) == std::vector{0, 2, 4, 6});
    CHECK_THROWS_AS(results.next(), mp::CancelledError);
    CHECK_THROWS_AS(results.next(), mp::StopIteration);
    // One that has been shut down, and that nobody waits for, goes on as long as somebody takes.
    auto executor = std::make_unique<ThreadPoolExecutor>(2);
    const auto more = executor->map({.buffersize = 4}, twice, Generated());
    executor->shutdown(false);
    executor.reset();
    CHECK(some(more, 100).back() == 198);
}

TEST_CASE("several threads submit, map and cancel at the same time, and one shuts down",
          "[executor][threads]") {
    const ThreadPoolExecutor executor(3);
    std::atomic<int> results{0};
    std::atomic<int> refused{0};
    run_together(4, [&](int thread) {
        try {
            for (int i = 0;; ++i) {  // until it is refused
                const auto future = executor.submit(twice, i);
                if (i % 7 == 0) future.cancel();
                if (i % 50 == 0) results += static_cast<int>(list(executor.map(twice, mp::range(20))).size());
                if (!futures::wait({future}, long_enough).not_done.empty()) return;
                if (thread == 0 && i == 150) executor.shutdown();
            }
        } catch (const std::runtime_error& error) {
            refused += std::string(error.what()).ends_with("after shutdown") ? 1 : 100;
        }
    });
    CHECK(results > 0);
    CHECK(refused == 4);
}

TEST_CASE("an initializer runs once in each thread", "[executor][threads]") {
    std::atomic<int> runs{0};
    {
        const ThreadPoolExecutor executor({.max_workers = 3, .initializer = [&runs] { ++runs; }});
        const Gate gate;
        const OpenAtTheEnd open(gate);
        for (int i = 0; i < 3; ++i) executor.submit(pass, gate, i);
        CHECK(gate.wait_for(3));
        CHECK(runs == 3);
    }
    CHECK(runs == 3);
}

TEST_CASE("a thousand thread executors, made and dropped, leave nothing", "[executor][threads]") {
    const auto before = shared_bytes();
    for (int i = 0; i < 1000; ++i) {
        const ThreadPoolExecutor executor(2);
        const auto future = executor.submit(twice, i);
        if (i % 3 == 0) executor.shutdown(false);
    }
    CHECK(shared_bytes() == before);
}
