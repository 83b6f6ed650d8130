// SPDX-License-Identifier: BSL-1.0

#include <multiprocessing/thread_pool.hpp>

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/synchronize.hpp>

#include "support/catch.hpp"

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
#include <vector>

#include <unistd.h>

namespace mp = multiprocessing;
using namespace std::chrono_literals;

namespace {

int square(int x) { return x * x; }

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
    CHECK_THROWS_AS(results.at(3).value(), mp::TaskTimeoutError);
    pool.close();
    pool.join();
    CHECK(obeyed == 1);
}

TEST_CASE("a pool of threads can be terminated from its tasks", "[thread_pool]") {
    const mp::ThreadPool pool(2);
    const auto many = pool.map_async([](int x) { return x; }, mp::range(1000), 1);
    const auto ending = pool.apply_async([pool] { pool.terminate(); });
    ending.wait(30);
    CHECK(ending.ready());
    pool.join();
    CHECK(many.ready());
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

TEST_CASE("a std::function goes to threads unless it is empty", "[thread_pool]") {
    const mp::ThreadPool pool(1);
    CHECK_THROWS_AS(pool.map(std::function<int(int)>(), mp::range(2)), mp::ValueError);
    CHECK(pool.map(std::function<int(int)>(square), mp::range(2)) == std::vector{0, 1});
}
