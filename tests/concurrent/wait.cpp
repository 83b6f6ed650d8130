// SPDX-License-Identifier: BSL-1.0

#include <multiprocessing/concurrent/futures/wait.hpp>

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/runtime/future_state.hpp>

#include "concurrent/helpers.hpp"
#include "support/catch.hpp"
#include "threads/crowd.hpp"

#include <atomic>
#include <chrono>
#include <exception>
#include <map>
#include <memory>
#include <ranges>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <unordered_set>
#include <utility>
#include <vector>

namespace mp = multiprocessing;
using namespace std::chrono_literals;
using mp::concurrent::futures::ALL_COMPLETED;
using mp::concurrent::futures::as_completed;
using mp::concurrent::futures::FIRST_COMPLETED;
using mp::concurrent::futures::FIRST_EXCEPTION;
using mp::concurrent::futures::Future;
using support::long_enough;
using support::run_together;
using support::Threads;

namespace {

using Futures = std::vector<Future<int>>;

Futures made(int count) { return Futures(static_cast<std::size_t>(count)); }

std::exception_ptr a_failure() { return std::make_exception_ptr(std::runtime_error("failed")); }

// Goes through all, which are to be done in time.
Futures collected(const Futures& futures) {
    Futures all;
    for (const auto& future : as_completed(futures, long_enough)) all.push_back(future);
    return all;
}

}  // namespace

TEST_CASE("wait tells the done from the others, in their order", "[future][wait]") {
    const Futures fs = made(5);
    fs[3].set_result(3);
    fs[1].set_exception(a_failure());
    const auto [done, not_done] = mp::concurrent::futures::wait(fs, 0);
    CHECK(done == Futures{fs[1], fs[3]});
    CHECK(not_done == Futures{fs[0], fs[2], fs[4]});
}

TEST_CASE("wait counts a future once", "[future][wait]") {
    const Futures fs = made(2);
    fs[0].set_result(0);
    const Futures given{fs[1], fs[0], fs[1], fs[0], fs[0]};
    const auto [done, not_done] = mp::concurrent::futures::wait(given, 0);
    CHECK(done == Futures{fs[0]});
    CHECK(not_done == Futures{fs[1]});
    fs[1].set_result(1);
    CHECK(mp::concurrent::futures::wait(given).done == Futures{fs[1], fs[0]});
}

TEST_CASE("wait takes every kind of range", "[future][wait]") {
    using mp::concurrent::futures::wait;
    const Future<std::string> a;
    const Future<std::string> b;
    a.set_result("a");
    const std::size_t both = 2;
    const auto number = [](const auto& result) {
        return result.done.size() + result.not_done.size();
    };
    CHECK(number(wait({a, b}, 0)) == both);
    CHECK(number(wait({a, b}, FIRST_COMPLETED)) == both);
    CHECK(number(wait(std::set{a, b}, 0)) == both);
    CHECK(number(wait(std::unordered_set<Future<std::string>>{a, b}, 0)) == both);
#if !defined(__clang__) || __clang_major__ >= 16  // whose predecessors do not know libstdc++'s views
    const std::map<Future<std::string>, int> numbered{{a, 1}, {b, 2}};
    CHECK(number(wait(numbered | std::views::keys, 0)) == both);
#endif
    CHECK(number(wait(std::vector{a, b}, FIRST_COMPLETED)) == both);
    CHECK(number(wait(std::vector<Future<std::string>>{})) == 0);
    CHECK(number(wait(std::vector<Future<void>>{}, std::nullopt, FIRST_EXCEPTION)) == 0);
}

TEST_CASE("wait waits for all", "[future][wait]") {
    const auto when = GENERATE(ALL_COMPLETED, FIRST_EXCEPTION);
    const Futures fs = made(6);
    Threads threads;
    threads.run([fs] {
        for (const auto& future : fs) future.set_result(1);
    });
    const auto [done, not_done] = mp::concurrent::futures::wait(fs, long_enough, when);
    CHECK(done == fs);
    CHECK(not_done.empty());
}

TEST_CASE("wait waits for the first", "[future][wait]") {
    const Futures fs = made(4);
    Threads threads;
    SECTION("that has a result") {
        threads.run([fs] { fs[2].set_result(1); });
    }
    SECTION("that fails") {
        threads.run([fs] { fs[2].set_exception(a_failure()); });
    }
    SECTION("that is cancelled") {
        threads.run([fs] { fs[2].cancel(); });
    }
    const auto [done, not_done] = mp::concurrent::futures::wait(fs, long_enough, FIRST_COMPLETED);
    CHECK(done == Futures{fs[2]});
    CHECK(not_done == Futures{fs[0], fs[1], fs[3]});
}

TEST_CASE("wait waits for the first exception", "[future][wait]") {
    const Futures fs = made(4);
    Threads threads;
    threads.run([fs] {
        fs[0].set_result(0);
        fs[1].cancel();
        fs[3].set_exception(a_failure());
    });
    const auto [done, not_done] = mp::concurrent::futures::wait(fs, long_enough, FIRST_EXCEPTION);
    CHECK(done == Futures{fs[0], fs[1], fs[3]});
    CHECK(not_done == Futures{fs[2]});
}

TEST_CASE("wait does not wait where there is enough", "[future][wait]") {
    using mp::concurrent::futures::wait;
    const Futures fs{support::pending_future(), support::successful_future()};
    CHECK(wait(fs, std::nullopt, FIRST_COMPLETED).done == Futures{fs[1]});
    const Futures some{support::pending_future(), support::failed_future()};
    CHECK(wait(some, std::nullopt, FIRST_EXCEPTION).done == Futures{some[1]});
    const Futures all{support::cancelled_future(), support::cancelled_and_notified_future()};
    CHECK(wait(all).done == all);
}

TEST_CASE("being cancelled is no exception to wait for", "[future][wait]") {
    const Futures fs{support::pending_future(), support::cancelled_future()};
    const auto begin = std::chrono::steady_clock::now();
    CHECK(mp::concurrent::futures::wait(fs, 20ms, FIRST_EXCEPTION).done == Futures{fs[1]});
    CHECK(std::chrono::steady_clock::now() - begin >= 20ms);
    fs[0].cancel();
    CHECK(mp::concurrent::futures::wait(fs, FIRST_EXCEPTION).done == fs);
}

TEST_CASE("wait ends with the time given", "[future][wait]") {
    const auto timeout = GENERATE(as<mp::Timeout>{}, 0, -1, 20ms);
    const auto when = GENERATE(ALL_COMPLETED, FIRST_COMPLETED, FIRST_EXCEPTION);
    const Futures fs = made(3);
    auto [done, not_done] = mp::concurrent::futures::wait(fs, timeout, when);
    CHECK(done.empty());
    CHECK(not_done == fs);
    // Nobody waits any more.
    for (const auto& future : fs) future.set_result(1);
}

TEST_CASE("several threads wait for the same futures", "[future][wait]") {
    for (int n = 0; n < 50; ++n) {
        const Futures fs = made(20);
        std::atomic<int> right{0};
        run_together(6, [&](int i) {
            const auto half = [&](std::size_t from) {
                for (std::size_t k = from; k < fs.size(); k += 2) fs[k].set_result(1);
            };
            if (i < 2) {
                half(static_cast<std::size_t>(i));
            } else if (i < 4) {
                if (mp::concurrent::futures::wait(fs, long_enough).done == fs) ++right;
            } else if (i == 4) {
                const auto first = mp::concurrent::futures::wait(fs, long_enough, FIRST_COMPLETED);
                if (!first.done.empty()) ++right;
            } else {
                // Again and again, with next to no time.
                while (!mp::concurrent::futures::wait(fs, 0.000'02).not_done.empty()) {}
                ++right;
            }
        });
        REQUIRE(right == 4);
    }
}

TEST_CASE("as_completed gives the done first, then the others as they come", "[future][wait]") {
    const Futures fs = made(5);
    fs[3].set_result(3);
    fs[1].cancel();
    Futures seen;
    for (auto& future : as_completed(fs, long_enough)) {
        seen.push_back(future);
        // In the order in which they are done.
        if (seen.size() == 2) {
            fs[4].set_result(4);
            fs[0].set_exception(a_failure());
            fs[2].set_result(2);
        }
    }
    CHECK(seen == Futures{fs[1], fs[3], fs[4], fs[0], fs[2]});
}

TEST_CASE("as_completed gives each future once", "[future][wait]") {
    const Futures fs = made(2);
    fs[1].set_result(1);
    Threads threads;
    threads.run([fs] { fs[0].set_result(0); });
    const Futures all = collected({fs[0], fs[1], fs[0], fs[1], fs[1]});
    CHECK(all.size() == 2);
    CHECK(std::set(all.begin(), all.end()) == std::set(fs.begin(), fs.end()));
    CHECK(collected({}).empty());
}

TEST_CASE("as_completed waits for threads", "[future][wait]") {
    for (int n = 0; n < 50; ++n) {
        const Futures fs = made(40);
        Threads threads;
        for (std::size_t from = 0; from < 3; ++from) {
            threads.run([fs, from] {
                for (std::size_t k = from; k < fs.size(); k += 3) {
                    if (k % 7 == 0) {
                        fs[k].cancel();
                    } else {
                        fs[k].set_result(1);
                    }
                }
            });
        }
        Futures all = collected(fs);
        REQUIRE(all.size() == fs.size());
        REQUIRE(std::set(all.begin(), all.end()) == std::set(fs.begin(), fs.end()));
    }
}

TEST_CASE("as_completed gives what is done, then says that time is over", "[future][wait]") {
    const auto timeout = GENERATE(as<mp::Timeout>{}, 0, -1, 20ms);
    const Futures fs{support::running_future(), support::successful_future(),
                     support::pending_future(), support::failed_future()};
    Futures seen;
    const auto go = [&] {
        for (const auto& future : as_completed(fs, timeout)) seen.push_back(future);
    };
    CHECK_THROWS_WITH(go(), "2 (of 4) futures unfinished");
    CHECK(seen == Futures{fs[1], fs[3]});
    CHECK_THROWS_AS(go(), mp::TimeoutError);
    fs[0].set_result(0);
    fs[2].set_result(2);
    CHECK_NOTHROW(go());
}

TEST_CASE("as_completed's time counts from the call", "[future][wait]") {
    const Futures fs = made(1);
    const auto futures = as_completed(fs, 20ms);
    CHECK(mp::concurrent::futures::wait(fs, 30ms).done.empty());
    const auto begin = std::chrono::steady_clock::now();
    CHECK_THROWS_AS(futures.begin(), mp::TimeoutError);
    // It may be called again, and what is done by then is given.
    fs[0].set_result(1);
    CHECK(*futures.begin() == fs[0]);
    CHECK(futures.begin() == futures.end());
    CHECK(std::chrono::steady_clock::now() - begin < 10s);
}

TEST_CASE("as_completed keeps nothing of what it has given", "[future][wait]") {
    Futures fs = made(6);
    for (std::size_t i = 0; i < 3; ++i) fs[i].set_result(0);
    int given = 0;
    for (auto& future : as_completed(fs, long_enough)) {
        const std::weak_ptr state = mp::runtime::FutureAccess::state(future);
        std::erase(fs, future);
        { const auto taken = std::move(future); }
        REQUIRE(state.expired());
        if (++given >= 3 && !fs.empty()) fs.back().set_result(1);
    }
    CHECK(fs.empty());
    CHECK(given == 6);
}

TEST_CASE("as_completed may be left early", "[future][wait]") {
    const Futures fs = made(4);
    fs[2].set_result(2);
    for (const auto& future : as_completed(fs)) {
        CHECK(future == fs[2]);
        fs[3].set_result(3);  // done, but not given any more
        break;
    }
    for (const std::size_t i : {0u, 1u}) {
        CHECK(mp::runtime::FutureAccess::state(fs[i]).use_count() == 1);
        fs[i].set_result(0);
    }
}

TEST_CASE("as_completed is a range, and goes through adaptors", "[future][wait]") {
    using Range = decltype(as_completed(Futures()));
    static_assert(std::ranges::input_range<Range>);
    static_assert(std::ranges::view<Range>);
    Futures fs;
    for (const int n : {1, 2, 3, 4}) {
        fs.emplace_back();
        fs.back().set_result(n);
    }
    for (auto future : as_completed({fs[3], fs[3]})) CHECK(std::move(future).result() == 4);
#if !defined(__clang__) || __clang_major__ >= 16  // whose predecessors do not know libstdc++'s views
    const auto even = [](const Future<int>& future) { return future.result() % 2 == 0; };
    const auto twice = [](const Future<int>& future) { return 2 * future.result(); };
    std::vector<int> numbers;
    for (const int n : as_completed(fs) | std::views::filter(even) | std::views::transform(twice)) {
        numbers.push_back(n);
    }
    CHECK(numbers == std::vector{4, 8});
    const std::map<Future<int>, std::string> names{{fs[0], "one"}, {fs[1], "two"}};
    std::set<std::string> seen;
    for (const auto& future : as_completed(names | std::views::keys)) seen.insert(names.at(future));
    CHECK(seen == std::set<std::string>{"one", "two"});
#endif
}

TEST_CASE("as_completed is given up in one thread while others complete", "[future][wait]") {
    for (int n = 0; n < 100; ++n) {
        const Futures fs = made(8);
        std::atomic<int> seen{0};
        run_together(3, [&](int i) {
            if (i == 0) {
                for (const auto& future : fs) future.set_result(1);
                return;
            }
            try {
                for (const auto& future : as_completed(fs, i == 1 ? 0.000'05 : long_enough)) {
                    seen += future.result(0);
                    if (i == 2 && seen >= n % 8) break;
                }
            } catch (const mp::TimeoutError&) {}
        });
        REQUIRE(seen <= 16);
    }
}
