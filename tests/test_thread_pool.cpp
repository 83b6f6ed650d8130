// SPDX-License-Identifier: BSL-1.0

#include <multiprocessing/thread_pool.hpp>

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/synchronize.hpp>

#include "support/catch.hpp"
#include "support/ranges.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <unistd.h>

namespace mp = multiprocessing;
using namespace std::chrono_literals;
using Catch::Matchers::ContainsSubstring;

namespace {

int square(int x) { return x * x; }
int add(int a, int b) { return a + b; }

// Neither picklable nor copyable.
struct Token {
    explicit Token(int v) : value(std::make_unique<int>(v)) {}
    std::unique_ptr<int> value;
};
struct Unregistered : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// Goes on until it is told to stop, or for a minute.
bool obey() {
    const auto give_up = std::chrono::steady_clock::now() + 60s;
    while (!mp::this_task::stop_requested()) {
        if (std::chrono::steady_clock::now() > give_up) return false;
        std::this_thread::yield();
    }
    return true;
}

}  // namespace

TEST_CASE("a pool of threads has all calls of a pool", "[thread_pool]") {
    const mp::ThreadPool pool(3);
    CHECK(pool.apply(square, 3) == 9);
    CHECK(pool.apply_async(add, 3, 4).get() == 7);
    CHECK(pool.map(square, mp::range(5)) == std::vector{0, 1, 4, 9, 16});
    CHECK(pool.map(square, {1, 2, 3}, 2) == std::vector{1, 4, 9});
    CHECK(pool.map_async(square, std::vector{7}).get() == std::vector{49});
    CHECK(pool.starmap(add, std::vector<std::pair<int, int>>{{1, 2}, {3, 4}}) == std::vector{3, 7});
    CHECK(pool.starmap_async(add, {std::pair(1, 2)}).get() == std::vector{3});
    std::vector<int> results;
    for (const int each : pool.imap(square, mp::range(4), 3)) results.push_back(each);
    CHECK(results == std::vector{0, 1, 4, 9});
    results.clear();
    for (const int each : pool.imap_unordered(square, {1, 2, 3})) results.push_back(each);
    std::sort(results.begin(), results.end());
    CHECK(results == std::vector{1, 4, 9});
    const auto one_fails = [](int x) { return x == 1 ? throw std::out_of_range("one") : x; };
    const auto tried = pool.try_map(one_fails, mp::range(3));
    CHECK(tried.at(0).value() == 0);
    CHECK_FALSE(tried.at(1).has_value());
    CHECK_THROWS_AS(tried.at(1).value(), std::out_of_range);
    CHECK(tried.at(2).value() == 2);
    pool.close();
    CHECK_THROWS_AS(pool.apply(square, 1), mp::ValueError);
    pool.join();
}

TEST_CASE("threads take what cannot travel", "[thread_pool]") {
    const mp::ThreadPool pool(2);
    int factor = 3;
    const auto tokens = pool.map([&](int x) { return Token(x * factor); }, mp::range(20), 3);
    CHECK(*tokens.at(19).value == 57);
    int changed = 0;
    pool.apply([](int& x) { x = 5; }, std::ref(changed));
    CHECK(changed == 5);
    CHECK(*pool.apply([](Token t) { return t; }, Token(4)).value == 4);
    try {
        pool.apply([] { throw Unregistered("as it is"); });
        FAIL("nothing thrown");
    } catch (const Unregistered& error) {
        CHECK(std::string(error.what()) == "as it is");
        CHECK(dynamic_cast<const mp::RemoteTraceback*>(&error) == nullptr);
    }
    CHECK(pool.apply([] { return ::getpid(); }) == ::getpid());
}

TEST_CASE("arguments of a task of threads end with its call", "[thread_pool]") {
    const mp::ThreadPool pool(1);
    const auto token = std::make_shared<int>(1);
    std::vector<std::shared_ptr<int>> items(10, token);
    CHECK(pool.map([](const std::shared_ptr<int>& p) { return *p; }, items) == std::vector(10, 1));
    items.clear();
    CHECK(token.use_count() == 1);
}

TEST_CASE("each thread has a number and an initializer", "[thread_pool]") {
    std::atomic<int> initialised{0};
    const mp::ThreadPool pool({.processes = 3, .initializer = [&] { ++initialised; }});
    const mp::Barrier all(3);
    const auto ids = pool.map(
        [&](int) {
            all.wait(30);
            return mp::this_task::worker_id();
        },
        mp::range(3), 1);
    CHECK(std::set(ids.begin(), ids.end()) == std::set{0, 1, 2});
    CHECK(initialised == 3);
    CHECK(mp::this_task::worker_id() == -1);
    CHECK_FALSE(mp::this_task::stop_requested());

    const mp::ThreadPool broken({.processes = 2, .initializer = [] { throw std::domain_error("no"); }});
    CHECK_THROWS_AS(broken.apply(square, 2), std::domain_error);
    CHECK_THROWS_AS(broken.map(square, mp::range(3)), std::domain_error);
}

TEST_CASE("a task of threads that takes too long is given up and asked to stop", "[thread_pool]") {
    const mp::ThreadPool pool(2);
    std::atomic<int> obeyed{0};
    const auto work = [&](int x) {
        if (x == 3) obeyed += obey() ? 1 : 0;
        return x;
    };
    const auto results = pool.try_map({.timeout = 50ms}, work, mp::range(6), 2);
    for (int i = 0; i < 6; ++i) {
        if (i == 3) {
            CHECK_THROWS_AS(results.at(3).value(), mp::TaskTimeoutError);
        } else {
            CHECK(results.at(static_cast<std::size_t>(i)).value() == i);
        }
    }
    pool.close();
    pool.join();
    CHECK(obeyed == 1);
}

TEST_CASE("a task of threads that is cancelled is asked to stop", "[thread_pool]") {
    const mp::ThreadPool pool(1);
    const mp::Event running;
    std::atomic<bool> obeyed{false};
    const auto task = pool.apply_async([&] {
        running.set();
        obeyed = obey();
    });
    const auto waiting = pool.apply_async(square, 3);
    REQUIRE(running.wait(30));
    CHECK(task.cancel());
    CHECK_FALSE(task.cancel());
    CHECK_THROWS_AS(task.get(30), mp::CancelledError);
    CHECK(waiting.get(30) == 9);
    CHECK(obeyed);
}

TEST_CASE("a pool of threads can be terminated from its tasks and callbacks", "[thread_pool]") {
    const mp::ThreadPool pool(2);
    const auto many = pool.map_async([](int x) { return x; }, mp::range(1000), 1);
    const auto ending = pool.apply_async([pool] { pool.terminate(); });
    ending.wait(30);
    CHECK(ending.ready());
    pool.join();
    CHECK(many.ready());

    const mp::ThreadPool other(1);
    const auto result = other.apply_async(square, 2);
    result.then([&](int) { other.terminate(); });
    CHECK(result.get(30) == 4);
    other.join();
}

TEST_CASE("a task may drop the last handle of its pool", "[thread_pool]") {
    const mp::Event dropped;
    const mp::Event go;
    {
        auto pool = std::make_shared<mp::ThreadPool>(1);
        pool->apply_async([pool, &go, &dropped]() mutable {
            go.wait(30);
            pool.reset();
            dropped.set();
        });
        pool.reset();
        go.set();
    }
    CHECK(dropped.wait(30));
}

TEST_CASE("a pool of threads can be made larger and smaller", "[thread_pool]") {
    const mp::ThreadPool pool(1);
    pool.resize(4);
    const mp::Barrier all(4);
    const auto meet = [&](int) {
        all.wait(30);
        return mp::this_task::worker_id();
    };
    const auto ids = pool.map(meet, mp::range(4), 1);
    CHECK(std::set(ids.begin(), ids.end()) == std::set{0, 1, 2, 3});
    pool.resize(1);
    CHECK(pool.map(square, mp::range(100)).size() == 100);
    CHECK_THROWS_AS(pool.resize(0), mp::ValueError);
    CHECK_THROWS_AS(mp::ThreadPool(0), mp::ValueError);
    pool.close();
    CHECK_THROWS_AS(pool.resize(2), mp::ValueError);
    pool.join();
}

TEST_CASE("callbacks of a pool of threads run in its thread before get() returns", "[thread_pool]") {
    const mp::ThreadPool pool(2);
    for (int i = 0; i < 100; ++i) {
        std::thread::id thread;
        const mp::Event go;
        const auto result = pool.apply_async([&] {
            go.wait(30);
            return std::this_thread::get_id();
        });
        result.then([&](std::thread::id) { thread = std::this_thread::get_id(); });
        go.set();
        CHECK(result.get(30) != thread);
        CHECK(thread != std::thread::id());
        CHECK(thread != std::this_thread::get_id());
    }
}

TEST_CASE("a pool of threads reads its input as results are taken", "[thread_pool]") {
    const mp::ThreadPool pool(2);
    int read = 0;
    const support::Generated endless([&](int x) {
        ++read;
        return x;
    });
    {
        const auto results = pool.imap(square, endless, 1, 5);
        CHECK(read <= 5);
        for (int i = 0; i < 100; ++i) {
            CHECK(results.next(30) == i * i);
            CHECK(read <= i + 6);
        }
    }
    CHECK_THROWS_AS(pool.imap(square, mp::range(3), 0), mp::ValueError);
    CHECK_THROWS_AS(pool.imap(square, mp::range(3), 1, 0), mp::ValueError);
    pool.terminate();
    pool.join();
}

TEST_CASE("what the input of a pool of threads throws is thrown", "[thread_pool]") {
    const mp::ThreadPool pool(2);
    const support::Generated bad([](int x) { return x == 5 ? throw std::out_of_range("five") : x; });
    CHECK_THROWS_AS(pool.map(square, bad), std::out_of_range);
    const auto results = pool.imap(square, bad);
    for (int i = 0; i < 5; ++i) CHECK(results.next(30) == i * i);
    CHECK_THROWS_AS(results.next(30), std::out_of_range);
    CHECK_THROWS_AS(results.next(30), mp::StopIteration);
    CHECK(pool.apply(square, 2) == 4);
}

TEST_CASE("a null function is refused by threads too", "[thread_pool]") {
    const mp::ThreadPool pool(1);
    CHECK_THROWS_AS(pool.apply(static_cast<int (*)(int)>(nullptr), 1), mp::ValueError);
    CHECK_THROWS_AS(pool.map(std::function<int(int)>(), mp::range(2)), mp::ValueError);
    CHECK(pool.map(std::function<int(int)>(square), mp::range(2)) == std::vector{0, 1});
}

TEST_CASE("several threads may use one pool of threads", "[thread_pool]") {
    const mp::ThreadPool pool(3);
    std::atomic<int> good{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
        threads.emplace_back([&] {
            for (int i = 0; i < 50; ++i) {
                good += pool.apply(square, i) == i * i ? 1 : 0;
                good += pool.map(square, mp::range(3), 1) == std::vector{0, 1, 4} ? 1 : 0;
            }
        });
    }
    for (auto& thread : threads) thread.join();
    CHECK(good == 400);
}
