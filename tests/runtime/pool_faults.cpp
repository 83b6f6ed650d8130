// SPDX-License-Identifier: BSL-1.0
//
// Pools whose workers die: at every place, in every way, many at a time.

#include <multiprocessing/pool.hpp>

#include <multiprocessing/connection.hpp>
#include <multiprocessing/context.hpp>
#include <multiprocessing/process.hpp>
#include <multiprocessing/queues.hpp>
#include <multiprocessing/sharedctypes.hpp>
#include <multiprocessing/synchronize.hpp>

#include "runtime/helpers.hpp"
#include "runtime/pool_helpers.hpp"
#include "support/catch.hpp"

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <memory>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <sys/resource.h>
#include <unistd.h>

namespace mp = multiprocessing;
using namespace std::chrono_literals;
using Catch::Matchers::ContainsSubstring;
using support::each_context;
using support::outcomes_of;
using support::pids_of;
using support::shared_bytes;
using support::square;

namespace {

enum Way { by_kill, by_abort, by_quick_exit, by_mp_exit, by_exit, by_exit_0 };
constexpr int exitcodes[] = {-SIGKILL, -SIGABRT, 3, 3, 3, 0};

void die(Way way) {
    switch (way) {
    case by_kill: ::raise(SIGKILL); break;
    case by_abort: std::abort();
    case by_quick_exit: ::_exit(3);
    case by_mp_exit: mp::exit(3);
    case by_exit: std::exit(3);
    case by_exit_0: std::exit(0);
    }
}

int die_now(Way way, int x) {
    die(way);
    return x;
}
// Counts the runs of each item; every tenth dies.
int die_at_5(const mp::Array<int>& runs, Way way, int x) {
    runs[static_cast<std::size_t>(x)] += 1;
    if (x % 10 == 5) die(way);
    return x;
}
std::string die_at_5_with_text(const mp::Array<int>& runs, Way way, const std::string& text) {
    return std::to_string(die_at_5(runs, way, std::stoi(text)));
}

int pid_after(const mp::Event& go) {
    go.wait();
    return ::getpid();
}

void die_in_initializer(Way way) { die(way); }
void throw_in_initializer() { throw std::domain_error("not today"); }
// Good for so many workers.
void die_after(const mp::Value<int>& starts, int good, Way way) {
    if (starts.fetch_add(1) >= good) die(way);
}

}  // namespace

TEST_CASE("a worker that dies costs its own item", "[pool][death][fork][spawn]") {
    const auto ctx = each_context();
    const Way way = GENERATE(by_kill, by_abort, by_quick_exit, by_mp_exit, by_exit, by_exit_0);
    const mp::Pool pool = ctx.Pool(2);
    const auto before = pids_of(pool);
    try {
        pool.apply(die_now, way, 1);
        FAIL("nothing thrown");
    } catch (const mp::WorkerLostError& lost) {
        CHECK(lost.exitcode() == exitcodes[way]);
        CHECK(before.contains(lost.pid()));
        CHECK_THAT(lost.what(), ContainsSubstring("PoolWorker-"));
    }
    CHECK(pool.apply(square, 3) == 9);
    bool told = false;
    const auto result = pool.apply_async(die_now, way, 1);
    result.then(nullptr, [&](const std::exception_ptr& error) {
        CHECK_THROWS_AS(std::rethrow_exception(error), mp::WorkerLostError);
        told = true;
    });
    result.wait();
    // Told to this one too if it was late.
    CHECK(told);
    CHECK(pool.map(square, mp::range(3)) == std::vector{0, 1, 4});
    pool.close();
    pool.join();
}

TEST_CASE("a death costs one item whatever the chunk size", "[pool][death][fork][spawn]") {
    const auto ctx = each_context();
    const Way way = GENERATE(by_kill, by_mp_exit, by_exit);
    const int chunksize = GENERATE(1, 3, 10, 100);
    constexpr int count = 20;
    const mp::Pool pool = ctx.Pool(2);
    const auto check = [&](auto f, const auto& items) {
        for (const bool ordered : {false, true}) {
            const mp::Array<int> runs(count);
            const auto task = mp::partial(f, runs, way);
            const auto outcomes = outcomes_of(ordered ? pool.imap(task, items, chunksize)
                                                      : pool.imap_unordered(task, items, chunksize));
            CHECK(outcomes.values.size() == 18);
            CHECK(outcomes.lost == 2);
            CHECK(outcomes.other == 0);
            for (const int times : runs) CHECK(times == 1);
        }
    };
    check(die_at_5, mp::range(count));
    std::vector<std::string> texts;
    for (int i = 0; i < count; ++i) texts.push_back(std::to_string(i));
    check(die_at_5_with_text, texts);
}

TEST_CASE("map goes on when workers die", "[pool][death]") {
    const mp::Pool pool(2);
    const mp::Array<int> runs(100);
    CHECK_THROWS_AS(pool.map(mp::partial(die_at_5, runs, by_kill), mp::range(100)), mp::WorkerLostError);
    for (const int times : runs) CHECK(times == 1);
    CHECK(pool.map(square, mp::range(3)) == std::vector{0, 1, 4});
}

TEST_CASE("handles that a dead worker had sent are there", "[pool][death]") {
    const mp::Pool pool(2);
    const auto make_queue = [](int x) {
        if (x == 7) ::raise(SIGKILL);
        const mp::Queue<int> queue;
        queue.put(x);
        return queue;
    };
    int sum = 0;
    const auto outcomes = outcomes_of(pool.imap(make_queue, mp::range(10), 10));
    for (const auto& queue : outcomes.values) sum += queue.get(30s);
    CHECK(outcomes.lost == 1);
    CHECK(outcomes.other == 0);
    CHECK(sum == 45 - 7);
}

TEST_CASE("errors that a dead worker had found are there", "[pool][death]") {
    const mp::Pool pool(1);
    const auto fail_then_die = [](int x) {
        if (x % 2 == 0) throw std::out_of_range("even");
        if (x == 5) ::raise(SIGKILL);
        return x;
    };
    const auto outcomes = outcomes_of(pool.imap(fail_then_die, mp::range(10), 10));
    CHECK(outcomes.values == std::vector{1, 3, 7, 9});
    CHECK(outcomes.lost == 1);
    CHECK(outcomes.other == 5);
    CHECK(outcomes.last_error == "even");
}

TEST_CASE("workers killed while they are idle are replaced", "[pool][death][fork][spawn]") {
    const auto ctx = each_context();
    const mp::Pool pool = ctx.Pool(3);
    CHECK(pool.apply(square, 2) == 4);
    for (int round = 0; round < 20; ++round) {
        const auto workers = pool.workers();
        for (const auto& worker : workers) worker.kill();
        for (const auto& worker : workers) worker.join();
    }
    CHECK(pool.map(square, mp::range(100), 3).at(99) == 9801);
    CHECK(pool.workers().size() == 3);
}

TEST_CASE("a worker whose handle has been closed is replaced", "[pool][death]") {
    const mp::Pool pool(1);
    {
        auto worker = pool.workers().front();
        worker.kill();
        worker.join();
        worker.close();
    }
    CHECK(pool.apply(square, 2) == 4);
}

TEST_CASE("all workers killed again and again cost no more than what they had in hand",
          "[pool][death][fork][spawn]") {
    const auto ctx = each_context();
    const int chunksize = GENERATE(1, 16);
    const int items = 4000;
    const mp::Pool pool = ctx.Pool(4);
    std::atomic<bool> done{false};
    std::atomic<int> killed{0};
    std::thread killer([&] {
        for (int round = 0; round < 25 && !done; ++round) {
            for (const auto& worker : pool.workers()) {
                if (worker.is_alive()) ++killed;
                worker.kill();
            }
            // Until there is another one, who has done something.
            pool.apply_async(square, 1).wait(10);
        }
    });
    const auto text = [](int x) { return std::to_string(x); };
    const auto outcomes = outcomes_of(pool.imap_unordered(text, mp::range(items), chunksize));
    done = true;
    killer.join();
    std::set<std::string> values(outcomes.values.begin(), outcomes.values.end());
    CHECK(values.size() == outcomes.values.size());
    CHECK(outcomes.other == 0);
    CHECK(static_cast<int>(values.size()) + outcomes.lost == items);
    CHECK(outcomes.lost <= killed);
}

TEST_CASE("an initializer that throws ends every task with its error", "[pool][death][fork][spawn]") {
    const auto ctx = each_context();
    const mp::Pool pool = ctx.Pool({.processes = 3, .initializer = throw_in_initializer});
    CHECK_THROWS_AS(pool.apply(square, 1), std::domain_error);
    CHECK_THROWS_WITH(pool.map(square, mp::range(100)), ContainsSubstring("not today"));
    CHECK_THROWS_AS(pool.imap(square, mp::range(100)).next(30), std::domain_error);
    const auto later = pool.map_async(square, mp::range(100));
    CHECK_THROWS_AS(later.get(30), std::domain_error);
    pool.close();
    pool.join();
}

TEST_CASE("an initializer that kills its process ends every task", "[pool][death][fork][spawn]") {
    const auto ctx = each_context();
    const Way way = GENERATE(by_kill, by_abort, by_quick_exit, by_mp_exit, by_exit, by_exit_0);
    const mp::Pool pool =
        ctx.Pool({.processes = 2, .initializer = mp::partial(die_in_initializer, way)});
    CHECK_THROWS_AS(pool.apply_async(square, 1).get(30), mp::WorkerLostError);
    CHECK_THROWS_AS(pool.map_async(square, mp::range(100)).get(30), mp::WorkerLostError);
    pool.close();
    pool.join();
}

TEST_CASE("an initializer may fail in replacements only", "[pool][death][fork][spawn]") {
    const auto ctx = each_context();
    const Way way = GENERATE(by_kill, by_exit);
    const mp::Value<int> starts(0);
    const mp::Pool pool =
        ctx.Pool({.processes = 2, .initializer = mp::partial(die_after, starts, 2, way)});
    const mp::Event never;
    const auto in_hand = pool.apply_async(pid_after, never);
    CHECK_THROWS_AS(pool.apply_async(die_now, by_kill, 1).get(30), mp::WorkerLostError);
    // One worker is as good as ever, but the pool is not what was asked for.
    CHECK_THROWS_AS(in_hand.get(30), mp::WorkerLostError);
    never.set();
    CHECK_THROWS_AS(pool.map_async(square, mp::range(100)).get(30), mp::WorkerLostError);
    pool.close();
    pool.join();
}

TEST_CASE("a broken pool whose last workers die with tasks can be joined", "[pool][death]") {
    const mp::Value<int> starts(0);
    const mp::Event go;
    const auto init = [](const mp::Value<int>& n) {
        if (n.fetch_add(1) >= 2) throw std::domain_error("no more");
    };
    const mp::Pool pool({.processes = 2, .initializer = mp::partial(init, starts)});
    const auto wait_and_die = [](const mp::Event& e, int) {
        e.wait();
        ::raise(SIGKILL);
    };
    const auto in_hand = pool.map_async(mp::partial(wait_and_die, go), mp::range(10), 10);
    CHECK_THROWS_AS(pool.apply_async(die_now, by_kill, 1).get(30), mp::WorkerLostError);
    CHECK_THROWS_AS(pool.apply_async(square, 1).get(30), std::domain_error);
    CHECK_THROWS_AS(in_hand.get(30), std::domain_error);
    go.set();
    pool.close();
    pool.join();
}

TEST_CASE("a worker that dies while the pool closes is replaced if there is work", "[pool][death]") {
    const mp::Pool pool(1);
    const mp::Array<int> runs(40);
    const auto results = pool.imap_unordered(mp::partial(die_at_5, runs, by_kill), mp::range(40), 10);
    pool.close();
    pool.join();
    const auto outcomes = outcomes_of(results);
    CHECK(outcomes.values.size() == 36);
    CHECK(outcomes.lost == 4);
}

TEST_CASE("workers end with a parent that is killed", "[pool][death][fork][spawn]") {
    const std::string method = GENERATE(from_range(mp::get_all_start_methods()));
    auto [reader, writer] = mp::Pipe(false);
    const bool from_a_thread = GENERATE(false, true);
    const mp::Process parent([=, w = writer] {
        const auto make = [&] {
            mp::Pool pool(mp::PoolOptions{.processes = 3, .context = mp::get_context(method)});
            const mp::Event never;
            static_cast<void>(pool.apply(square, 1));
            static_cast<void>(pool.map_async(mp::partial(pid_after), std::vector(10, never), 1));
            w.send(pids_of(pool));
            support::wait_for_signal();
        };
        if (from_a_thread) {
            std::thread(make).join();
        } else {
            make();
        }
    });
    parent.start();
    writer.close();
    std::vector<mp::os::Fd> workers;
    for (const int pid : reader.recv<std::set<int>>()) workers.push_back(mp::os::open_pidfd(pid));
    CHECK(workers.size() == 3);
    parent.kill();
    for (const auto& worker : workers) {
        CHECK(mp::os::poll(worker.get(), mp::os::poll_in, mp::os::Deadline::after(30s)));
    }
    CHECK(support::ended(parent) == -SIGKILL);
}

TEST_CASE("workers that do not listen to SIGTERM are killed", "[pool][death]") {
    const mp::Pool pool({.processes = 2, .initializer = [] { std::signal(SIGTERM, SIG_IGN); }});
    CHECK(pool.apply(square, 3) == 9);
    const auto workers = pool.workers();
    pool.terminate();
    for (const auto& worker : workers) CHECK(worker.exitcode().has_value());
}

TEST_CASE("workers do not mind SIGINT", "[pool][fork][spawn]") {
    const auto ctx = each_context();
    const mp::Pool pool = ctx.Pool(2);
    const auto before = pool.map([](int) { return ::getpid(); }, mp::range(20), 1);
    for (const int pid : before) ::kill(pid, SIGINT);
    CHECK(pool.apply([] { return ::raise(SIGINT); }) == 0);
    for (const int pid : pids_of(pool)) CHECK(::kill(pid, 0) == 0);
    CHECK(pool.map(square, mp::range(10)).size() == 10);
    for (const int pid : before) CHECK(pids_of(pool).contains(pid));
}

TEST_CASE("a pool that cannot start all of its workers starts none", "[pool][fork][spawn]") {
    const auto ctx = each_context();
    static_cast<void>(ctx.Pool(1));
    const auto children = mp::active_children().size();
    rlimit before{};
    ::getrlimit(RLIMIT_NOFILE, &before);
    rlimit few = before;
    few.rlim_cur = static_cast<rlim_t>(support::open_descriptors()) + 12;
    ::setrlimit(RLIMIT_NOFILE, &few);
    CHECK_THROWS_AS(ctx.Pool(20), std::system_error);
    ::setrlimit(RLIMIT_NOFILE, &before);
    CHECK(mp::active_children().size() == children);
    CHECK(ctx.Pool(2).apply(square, 3) == 9);
}

TEST_CASE("an initializer that cannot travel to a spawned worker is refused", "[pool][spawn]") {
    int number = 3;
    const auto capturing = [number] { static_cast<void>(number); };
    CHECK_THROWS_AS(mp::get_context("spawn").Pool({.processes = 2, .initializer = capturing}),
                    mp::PicklingError);
    CHECK(mp::Pool({.processes = 1, .initializer = capturing}).apply(square, 2) == 4);
}

TEST_CASE("a pool gives back its shared memory", "[pool][memory]") {
    const auto work = [] {
        const mp::Pool pool({.processes = 3, .maxtasksperchild = 20});
        const mp::Array<int> runs(40);
        const mp::Queue<int> queue;
        CHECK(pool.map(square, mp::range(1000), 7).size() == 1000);
        const std::string large(100000, 'x');
        CHECK(pool.apply([](const std::string& s) { return s + s; }, large).size() == 200000);
        static_cast<void>(outcomes_of(pool.imap(mp::partial(die_at_5, runs, by_kill), mp::range(40), 10)));
        const auto put = [](const mp::Queue<int>& q, int x) {
            if (x == 7) ::raise(SIGKILL);
            q.put(x);
            return q;
        };
        static_cast<void>(outcomes_of(pool.imap(mp::partial(put, queue), mp::range(10), 5)));
        CHECK_THROWS_AS(pool.map([](int x) { return x == 50 ? throw std::out_of_range("x") : x; },
                                 mp::range(100), 10),
                        std::out_of_range);
        const mp::Event never;
        const auto pending = pool.map_async(pid_after, std::vector(20, never), 1);
        const auto cancelled = pool.map_async(pid_after, std::vector(20, never), 1);
        CHECK(cancelled.cancel());
        const auto unread = pool.imap_unordered(mp::partial(put, queue), mp::range(100, 200), 3);
    };
    work();
    // What the grandchildren of other tests held: each start of a process looks after one.
    for (int i = 0; i < 40; ++i) CHECK(support::run(mp::Process([] {})) == 0);
    const auto before = shared_bytes();
    for (int i = 0; i < 3; ++i) {
        work();
        CHECK(shared_bytes() == before);
    }
}
