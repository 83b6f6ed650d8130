// SPDX-License-Identifier: BSL-1.0
//
// ProcessPoolExecutor: what it promises beyond CPython's tests (conformance/*executor*.cpp).

#include <multiprocessing/concurrent/futures.hpp>

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/process.hpp>
#include <multiprocessing/queues.hpp>
#include <multiprocessing/range.hpp>
#include <multiprocessing/sharedctypes.hpp>

#include "concurrent/executors.hpp"
#include "runtime/helpers.hpp"
#include "runtime/pool_helpers.hpp"
#include "support/catch.hpp"
#include "support/ranges.hpp"
#include "threads/crowd.hpp"

#include <atomic>
#include <csignal>
#include <cstddef>
#include <memory>
#include <mutex>
#include <optional>
#include <ranges>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <unistd.h>

namespace mp = multiprocessing;
using namespace support;
using Catch::Matchers::ContainsSubstring;

namespace {

std::string each_method() { return GENERATE(from_range(mp::get_all_start_methods())); }

int die(int x) {
    ::raise(SIGKILL);
    return x;
}
int pass_at_3(const Gate& gate, int x) { return x == 3 ? pass(gate, x) : x; }

int exitcode_of_a_child() {
    const mp::Process child([] { mp::exit(7); });
    child.start();
    child.join(long_enough);
    return child.exitcode().value_or(-1000);
}

struct Unreadable {
    int number = 0;
    template <class Archive>
    void save(Archive& archive, unsigned) const {
        archive & number;
    }
    template <class Archive>
    void load(Archive&, unsigned) {
        throw std::domain_error("unreadable");
    }
    BOOST_SERIALIZATION_SPLIT_MEMBER()
};

void add(const mp::Queue<int>& queue, const mp::Lock& lock, const mp::Value<int>& sum, int x) {
    const std::lock_guard guard(lock);
    sum.store(sum.value() + x);
    queue.put(x);
}

/// The outcome of a callback's attempt to wait: in which way, for what.
template <class Wait>
std::string end_of(Wait wait) {
    try {
        wait();
        return "done";
    } catch (const mp::AssertionError& error) {
        return error.what();
    } catch (const mp::TimeoutError&) {
        return "timeout";
    } catch (const std::exception& error) {
        return std::string("? ") + error.what();
    }
}

struct Force {
    void (ProcessPoolExecutor::*stop)() const;
    std::string signal;
};
Force each_force() {
    return GENERATE(values<Force>({{&ProcessPoolExecutor::terminate_workers, "SIGTERM"},
                                   {&ProcessPoolExecutor::kill_workers, "SIGKILL"}}));
}

}  // namespace

TEST_CASE("workers of an executor may have children", "[executor]") {
    const auto executor = processes(2, each_method());
    CHECK(executor.submit(exitcode_of_a_child).result(long_enough) == 7);
    for (const auto& worker : executor.workers()) CHECK_FALSE(worker.daemon());
}

TEST_CASE("copies of an executor of processes are one, whose end waits for its calls", "[executor]") {
    const auto method = each_method();
    const Gate gate;
    Future<int> runs;
    Future<int> waits;
    {
        const auto first = processes(1, method);
        const auto second = first;
        runs = first.submit(pass, gate, 1);
        waits = second.submit(pass, gate, 2);
        REQUIRE(gate.wait_for(1));
        CHECK(runs.running());
        CHECK_FALSE(waits.running());
        CHECK(first.submit(twice, 1).cancel());
        gate.go.set();
    }
    CHECK(runs.result(0) == 1);
    CHECK(waits.result(0) == 2);
    CHECK(mp::active_children().empty());
}

TEST_CASE("an executor of processes that nobody waits for makes its calls without a handle",
          "[executor]") {
    const auto method = each_method();
    const Gate gate;
    const OpenAtTheEnd open(gate);
    CHECK(run(mp::get_context(method).Process([] {})) == 0);  // and what serves the method is there
    const auto before = open_descriptors();
    std::vector<Future<int>> all;
    std::vector<mp::Process> workers;
    {
        const auto executor = processes(2, method);
        for (int i = 0; i < 20; ++i) all.push_back(executor.submit(pass, gate, i));
        REQUIRE(gate.wait_for(2));
        workers = workers_of(executor, 2);
        executor.shutdown(false);
    }
    CHECK_FALSE(all.front().done());
    gate.go.set();
    CHECK(futures::wait(all, long_enough).not_done.empty());
    for (const auto& worker : workers) CHECK(ended(worker) == 0);
    workers.clear();
    // The pool's thread is the last to leave.
    while (open_descriptors() != before) std::this_thread::yield();
}

TEST_CASE("an executor is dropped with much that is pending", "[executor]") {
    const auto method = each_method();
    const mp::Value<int> calls(0);
    std::vector<Future<int>> all;
    {
        const auto executor = processes(2, method);
        for (int i = 0; i < 3000; ++i) {
            all.push_back(executor.submit([](const mp::Value<int>& n) { return n.fetch_add(1); }, calls));
        }
    }
    CHECK(calls.value() == 3000);
    CHECK(futures::wait(all, 0).not_done.empty());
}

TEST_CASE("a future of a process runs, or is taken back", "[executor]") {
    check_taking_back_with_one_worker(processes(1, each_method()));
}

TEST_CASE("a worker's death breaks the executor, and says how it ended", "[executor]") {
    const auto executor = processes(3, each_method());
    const Gate gate;
    const OpenAtTheEnd open(gate);
    const auto good = executor.submit(twice, 21);
    CHECK(good.result(long_enough) == 42);
    const auto runs = executor.submit(pass, gate, 1);
    const auto mapped = executor.map(mp::partial(pass_at_3, gate), mp::range(4));
    CHECK(some(mapped, 3) == std::vector{0, 1, 2});
    executor.submit(die, 1);
    const auto why = runs.exception(long_enough);
    CHECK(is_an<mp::BrokenProcessPool>(why));
    CHECK(is_an<mp::BrokenExecutor>(why));
    CHECK_THAT(what_of(why), ContainsSubstring("Process-"));
    CHECK_THROWS_AS(mapped.next(), mp::BrokenProcessPool);
    CHECK_THROWS_AS(mapped.next(), mp::StopIteration);
    CHECK_THROWS_AS(executor.map(twice, mp::range(3)), mp::BrokenProcessPool);
    CHECK(good.result(0) == 42);
    executor.shutdown();
    CHECK_THROWS_AS(executor.submit(twice, 1), std::runtime_error);
    CHECK(mp::active_children().empty());
}

TEST_CASE("an idle worker's death breaks the executor, too", "[executor]") {
    const auto executor = processes(2, each_method());
    CHECK(executor.submit(twice, 21).result(long_enough) == 42);
    first_worker(executor).kill();
    // Calls that come in before that is known end with it.
    const auto go = [&] {
        for (;;) executor.submit(twice, 1).result(long_enough);
    };
    CHECK_THROWS_WITH(go(), ContainsSubstring("was killed by SIGKILL"));
}

TEST_CASE("workers are stopped by force: what is done stays, what waits is cancelled, what runs is lost",
          "[executor]") {
    const auto executor = processes(1, each_method());
    const auto [stop, signal] = each_force();
    const Gate gate;
    const OpenAtTheEnd open(gate);
    const auto done = executor.submit(twice, 21);
    CHECK(done.result(long_enough) == 42);
    const auto runs = executor.submit(pass, gate, 1);
    REQUIRE(gate.wait_for(1));
    const auto waits = executor.submit(pass, gate, 2);
    const auto mapped = executor.map(twice, mp::range(100));
    (executor.*stop)();
    CHECK_THROWS_WITH(executor.submit(twice, 1), ContainsSubstring("after shutdown"));
    CHECK(waits.cancelled());
    CHECK_THROWS_AS(mapped.next(), mp::CancelledError);
    const auto why = runs.exception(long_enough);
    CHECK(is_an<mp::BrokenProcessPool>(why));
    CHECK_THAT(what_of(why), ContainsSubstring("was killed by " + signal));
    CHECK(done.result(0) == 42);
    executor.shutdown();
    CHECK(mp::active_children().empty());
}

TEST_CASE("an executor that was stopped by force before its first call takes none", "[executor]") {
    const auto executor = processes(1, each_method());
    const auto [stop, signal] = each_force();
    CAPTURE(signal);
    (executor.*stop)();
    CHECK_THROWS_WITH(executor.submit(twice, 1), ContainsSubstring("after shutdown"));
    CHECK_THROWS_WITH(executor.map(twice, mp::range(3)), ContainsSubstring("after shutdown"));
    CHECK(executor.workers().empty());
}

TEST_CASE("shutdown with cancel_futures cancels the rest of a map of processes", "[executor]") {
    const auto executor = processes(1, each_method());
    const Gate gate;
    const OpenAtTheEnd open(gate);
    const mp::Value<int> calls(0);
    const auto f = [](const Gate& g, const mp::Value<int>& n, int x) {
        n.fetch_add(1);
        return pass(g, x);
    };
    const std::optional<int> buffersize = GENERATE(std::optional<int>(), std::optional<int>(10));
    const auto results = executor.map({.chunksize = 2, .buffersize = buffersize},
                                      mp::partial(f, gate, calls), mp::range(1000));
    const auto waits = executor.submit(twice, 1);
    REQUIRE(gate.wait_for(1));
    executor.shutdown({.wait = false, .cancel_futures = true});
    CHECK(waits.cancelled());
    gate.go.set();
    executor.shutdown();
    CHECK(calls.value() == 2);  // a chunk that has been begun is run to its end
    CHECK(some(results, 2) == std::vector{0, 1});
    CHECK_THROWS_AS(results.next(), mp::CancelledError);
}

TEST_CASE("an executor of processes is dropped while an endless map of it is still there",
          "[executor]") {
    const auto results =
        processes(2, each_method()).map({.buffersize = 4}, twice, support::Generated());
    CHECK(some(results, 4) == std::vector{0, 2, 4, 6});
    CHECK_THROWS_AS(results.next(), mp::CancelledError);
    CHECK_THROWS_AS(results.next(), mp::StopIteration);
}

TEST_CASE("an object that cannot be read costs its own call", "[executor]") {
    const auto executor = processes(2, each_method());
    const auto given = executor.submit([](const Unreadable& u) { return u.number; }, Unreadable());
    const auto made = executor.submit([] { return Unreadable(); });
    for (const auto& why : {given.exception(long_enough), made.exception(long_enough)}) {
        CHECK(is_an<std::domain_error>(why));
        CHECK(what_of(why) == "unreadable");
    }
    CHECK(executor.submit(twice, 21).result(long_enough) == 42);
    int (*const none)(int) = nullptr;
    CHECK(is_an<mp::ValueError>(executor.submit(none, 1).exception(long_enough)));
}

TEST_CASE("queues, locks and values are arguments", "[executor]") {
    const mp::Queue<int> queue;
    const mp::Lock lock;
    const mp::Value<int> sum(0);
    {
        const auto executor = processes(2, each_method());
        for (int i = 1; i <= 100; ++i) executor.submit(add, queue, lock, sum, i);
    }
    CHECK(sum.value() == 5050);
    CHECK(queue.qsize() == 100);
}

TEST_CASE("callbacks run in one thread, and may submit more", "[executor]") {
    const auto executor = processes(2, each_method());
    const mp::Event all_done;
    std::set<std::thread::id> threads;
    std::atomic<int> left{100};
    for (int i = 0; i < 100; ++i) {
        executor.submit(twice, i).add_done_callback([&, i](const Future<int>& future) {
            threads.insert(std::this_thread::get_id());
            executor.submit(twice, future.result(0)).add_done_callback([&, i](const Future<int>& next) {
                threads.insert(std::this_thread::get_id());
                if (next.result(0) == 4 * i && --left == 0) all_done.set();
            });
        });
    }
    CHECK(all_done.wait(long_enough));
    executor.shutdown();
    CHECK(left == 0);
    // Where it was done before there was a callback, that ran here.
    threads.erase(std::this_thread::get_id());
    CHECK(threads.size() == 1);
}

TEST_CASE("a callback that would wait in vain throws AssertionError", "[executor]") {
    const auto executor = processes(2, each_method());
    const Gate gate;
    const OpenAtTheEnd open(gate);
    const auto other = executor.submit(pass, gate, 1);
    REQUIRE(gate.wait_for(1));
    const auto in_vain = ContainsSubstring("cannot wait for them");
    const auto check_from_a_callback = [&](const auto& run) {
        const Gate first;
        const OpenAtTheEnd open_first(first);
        const mp::Event over;
        std::vector<std::string> ends;
        const auto future = executor.submit(pass, first, 2);
        future.add_done_callback([&](const Future<int>&) {
            const Future<int> mine;  // of no executor
            mine.set_result(1);
            ends.push_back(end_of([&] { other.result(); }));
            ends.push_back(end_of([&] { static_cast<void>(other.exception()); }));
            ends.push_back(end_of([&] { other.result(0.01); }));
            ends.push_back(end_of([&] { futures::wait({other, mine}); }));
            ends.push_back(end_of([&] { futures::wait({other, mine}, futures::FIRST_COMPLETED); }));
            ends.push_back(end_of([&] {
                for (const auto& each : futures::as_completed({other, mine})) each.result(0);
            }));
            ends.push_back(end_of([&] { executor.shutdown(true); }));
            over.set();
        });
        first.go.set();
        run();
        CHECK(over.wait(long_enough));
        REQUIRE(ends.size() == 7);
        for (const std::size_t i : {0u, 1u, 3u, 5u, 6u}) CHECK_THAT(ends[i], in_vain);
        CHECK(ends[2] == "timeout");
        CHECK(ends[4] == "done");
    };
    SECTION("in the executor's thread") { check_from_a_callback([] {}); }
    SECTION("in the one that iterates over a map, and brings the results of others as well") {
        const auto results = executor.map({.buffersize = 1}, twice, mp::range(1000000));
        const auto take = [&] {
            // Whichever of the two it is that brings it.
            for (int i = 0; i < 1000; ++i) results.next();
        };
        check_from_a_callback(take);
    }
}

TEST_CASE("a forked child can do nothing with an executor and its futures, and end them", "[executor]") {
    const std::string kind = GENERATE("processes", "threads");
    const auto check = [](auto* executor) {
        const Gate gate;
        const OpenAtTheEnd open(gate);
        const auto done = executor->submit(twice, 21);
        done.result(long_enough);
        const auto runs = executor->submit(pass, gate, 1);
        REQUIRE(gate.wait_for(1));
        auto* results = new auto(executor->map({.buffersize = 1}, twice, mp::range(100)));
        const mp::Process child([&] {
            const auto is_refused = [](const auto& f) {
                try {
                    f();
                } catch (const mp::AssertionError&) {
                    return;
                }
                mp::exit(3);
            };
            is_refused([&] { executor->submit(twice, 1); });
            is_refused([&] { executor->map(twice, mp::range(1)); });
            is_refused([&] { executor->shutdown(); });
            is_refused([&] { executor->shutdown(false); });
            is_refused([&] { runs.result(); });
            is_refused([&] { runs.result(long_enough); });
            is_refused([&] { futures::wait({runs, done}); });
            is_refused([&] { results->next(); });
            is_refused([&] { results->close(); });
            if (done.result(0) != 42 || runs.running() || runs.cancel()) mp::exit(4);
            delete results;
            delete executor;
        });
        CHECK(run(child) == 0);
        delete results;
        gate.go.set();
        CHECK(runs.result(long_enough) == 1);
        CHECK(executor->submit(twice, 21).result(long_enough) == 42);
        delete executor;
    };
    if (kind == "threads") {
        check(new ThreadPoolExecutor(2));
    } else {
        check(new ProcessPoolExecutor(2));
    }
}

TEST_CASE("a task that uses the executor it came by is refused", "[executor]") {
    static ProcessPoolExecutor* inherited = nullptr;
    const ProcessPoolExecutor executor = processes(1, "fork");
    ProcessPoolExecutor copy = executor;
    inherited = &copy;
    const auto future = executor.submit([] { return inherited->submit(twice, 1).result(); });
    CHECK(is_an<mp::AssertionError>(future.exception(long_enough)));
}

TEST_CASE("threads submit together, the first of them too, and may end before their calls",
          "[executor]") {
    const auto executor = processes(2, each_method());
    const Gate gate;
    const OpenAtTheEnd open(gate);
    std::vector<std::vector<Future<int>>> all(crowd);
    run_together([&](int thread) {
        auto& mine = all[static_cast<std::size_t>(thread)];
        for (int i = 0; i < 100; ++i) mine.push_back(executor.submit(pass, gate, i));
    });
    gate.go.set();
    for (const auto& mine : all) {
        CHECK(futures::wait(mine, long_enough).not_done.empty());
        for (int i = 0; i < 100; ++i) CHECK(mine[static_cast<std::size_t>(i)].result(0) == i);
    }
}

TEST_CASE("submit that comes with a break or a shutdown says which it was", "[executor]") {
    const auto method = each_method();
    const bool breaks = GENERATE(true, false);
    const auto executor = processes(2, method);
    std::atomic<int> right{0};
    run_together([&](int thread) {
        try {
            for (int i = 0;; ++i) {
                executor.submit(twice, i);
                if (i % 10 == 0) executor.map(twice, mp::range(2));
                if (thread != 0 || i != 50) continue;
                if (breaks) {
                    executor.submit(die, 1);
                } else {
                    executor.shutdown(false);
                }
            }
        } catch (const mp::BrokenProcessPool&) {
            right += breaks ? 1 : 0;
        } catch (const std::runtime_error& error) {
            right += std::string(error.what()).ends_with("after shutdown") && !breaks ? 1 : 0;
        } catch (...) {
        }
    });
    CHECK(right == crowd);
    executor.shutdown();
}

TEST_CASE("a hundred executors, however they end, leave no shared memory", "[executor]") {
    const auto go = [](int i) {
        const auto executor = processes(1 + i % 2, "fork");
        const auto text = executor.submit([](int n) { return std::string(static_cast<std::size_t>(n), 'x'); },
                                          5000);
        if (i % 2 == 0) CHECK(text.result(long_enough).size() == 5000);
        const auto results = executor.map(twice, mp::range(50));
        if (i % 3 == 0) CHECK(results.next() == 0);
        const auto last = executor.submit(twice, i);
        if (i % 4 == 0) last.cancel();
        if (i % 5 == 0) executor.shutdown(true, true);
        if (i % 7 == 0) executor.submit(die, 1);
        if (i % 11 == 0) executor.kill_workers();
        executor.shutdown();
    };
    for (int i = 0; i < 12; ++i) {
        try {
            go(i);
        } catch (const std::runtime_error&) {  // it has been shut down, or is broken
        }
    }
    const auto before = shared_bytes();
    for (int i = 0; i < 100; ++i) {
        try {
            go(i);
        } catch (const std::runtime_error&) {
        }
    }
    CHECK(shared_bytes() == before);
}
