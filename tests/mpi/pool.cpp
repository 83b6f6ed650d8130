// SPDX-License-Identifier: BSL-1.0
//
// What is of pools over ranks alone.

#include <multiprocessing/mpi.hpp>

#include <multiprocessing/connection.hpp>
#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/queues.hpp>
#include <multiprocessing/sharedctypes.hpp>

#include "pool/gate.hpp"
#include "support/catch.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <fstream>
#include <numeric>
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
using support::FileGate;

namespace {

int square(int x) { return x * x; }
int pid_slowly(int milliseconds) {
    std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds));
    return ::getpid();
}
int die_on_three(int x) {
    if (x == 3) ::raise(SIGKILL);
    return x;
}
/// Dies at its first run, of which the file tells.
int die_once(const std::string& file, int x) {
    if (x == 2 && !std::ifstream(file)) {
        std::ofstream(file) << "once";
        ::raise(SIGKILL);
    }
    return x;
}
int initialized = 0;
void initialize(int value) { initialized = value; }
int get_initialized(int) { return initialized; }
void refuse() { throw std::out_of_range("no such thing"); }
double total(const std::vector<double>& all, int x) {
    return std::accumulate(all.begin(), all.end(), 0.0) + x;
}
/// How often one has been read.
struct Read {
    int payload = 0;
    static inline int times = 0;
    int operator()(int) const { return times; }
    template <class Archive>
    void save(Archive& archive, unsigned) const {
        archive << payload;
    }
    template <class Archive>
    void load(Archive& archive, unsigned) {
        archive >> payload;
        ++times;
    }
    BOOST_SERIALIZATION_SPLIT_MEMBER()
};

/// A pool of ranks, with as many nodes as there are.
mp::mpi::Pool hybrid(int processes) {
    return mp::mpi::Pool({.hybrid = true, .processes_per_node = processes});
}
bool there_are_ranks() { return mp::mpi::this_environment().world() != nullptr; }

}  // namespace

TEST_CASE("a pool over ranks names them", "[mpi]") {
    const mp::mpi::Pool pool;
    const auto ranks = pool.ranks();
    if (!there_are_ranks()) {
        REQUIRE(ranks.size() == 1);
        CHECK(ranks[0].rank == -1);
        CHECK(ranks[0].processes == mp::process_cpu_count());
        return;
    }
    std::set<int> pids;
    for (const auto& rank : ranks) {
        CHECK(rank.rank >= 1);
        CHECK_FALSE(rank.host.empty());
        CHECK(rank.processes == 1);
        pids.insert(rank.pid);
    }
    CHECK(pids.size() == ranks.size());
    CHECK_FALSE(pids.contains(::getpid()));
    const auto at_work = pool.map(pid_slowly, std::vector<int>(4 * ranks.size(), 20), 1);
    CHECK(std::set<int>(at_work.begin(), at_work.end()) == pids);
    const mp::mpi::Pool one(1);
    CHECK(one.ranks().size() == 1);
    CHECK(hybrid(2).ranks().size() == ranks.size() + 1);
}

TEST_CASE("numbers that make no sense are refused by a pool over ranks", "[mpi]") {
    CHECK_THROWS_AS(mp::mpi::Pool({.processes = 0}), mp::ValueError);
    CHECK_THROWS_AS(mp::mpi::Pool({.processes_per_node = 0}), mp::ValueError);
    CHECK_THROWS_AS(mp::mpi::Pool({.maxtasksperchild = 0}), mp::ValueError);
    CHECK_THROWS_AS(mp::mpi::Pool({.spawn = -1}), mp::ValueError);
    CHECK_THROWS_WITH(mp::mpi::Pool({.minimum_ranks = 1000}), ContainsSubstring("mpiexec -n 1001"));
}

TEST_CASE("every rank is initialized once", "[mpi]") {
    const mp::mpi::Pool pool({.initializer = mp::partial(initialize, 7)});
    for (const int value : pool.map(get_initialized, mp::range(200), 1)) CHECK(value == 7);
    const mp::mpi::Pool other({.initializer = mp::partial(initialize, 8)});
    for (const int value : other.map(get_initialized, mp::range(200), 1)) CHECK(value == 8);
    const mp::mpi::Pool refused({.initializer = refuse});
    CHECK_THROWS_AS(refused.map(square, mp::range(10)), std::out_of_range);
    CHECK_THROWS_AS(refused.apply(square, 1), std::out_of_range);
    const mp::mpi::PoolExecutor broken(mp::mpi::PoolOptions{.initializer = refuse});
    CHECK_THROWS_AS(broken.submit(square, 1).result(30), std::exception);
}

TEST_CASE("what only one machine has does not travel to ranks", "[mpi]") {
    const mp::mpi::Pool pool;
    const mp::Queue<int> queue;
    CHECK_THROWS_AS(pool.apply([](const mp::Queue<int>&) {}, queue), mp::PicklingError);
    const mp::Array<int> array(3);
    CHECK_THROWS_AS(pool.map(mp::partial([](const mp::Array<int>& a, int x) { return a[0] + x; }, array),
                             mp::range(3)),
                    mp::PicklingError);
    auto [a, b] = mp::Pipe();
    CHECK_THROWS_AS(pool.apply([](const mp::Connection&) {}, a), mp::PicklingError);
    CHECK_THROWS_AS(pool.apply([] { return mp::Queue<int>(); }), mp::PicklingError);
    CHECK_THROWS_AS(hybrid(1).apply([] { return mp::Queue<int>(); }), mp::PicklingError);
    CHECK(pool.apply(square, 3) == 9);
}

TEST_CASE("a function's state is read once by each rank, whatever its size", "[mpi]") {
    if (!there_are_ranks()) return;
    const mp::mpi::Pool pool;
    const auto times = pool.map(Read{41}, mp::range(300), 1);
    CHECK(*std::max_element(times.begin(), times.end()) == 1);
    // It is the same to a later call.
    const auto again = pool.map(Read{41}, mp::range(300), 1);
    CHECK(*std::max_element(again.begin(), again.end()) == 1);
    const auto other = pool.map(Read{42}, mp::range(300), 1);
    CHECK(*std::max_element(other.begin(), other.end()) == 2);

    const std::vector<double> large(std::size_t{1} << 18, 0.5);
    const auto sums = pool.map(mp::partial(total, large), mp::range(100), 1);
    for (int i = 0; i < 100; ++i) CHECK(sums.at(static_cast<std::size_t>(i)) == (1 << 17) + i);
}

TEST_CASE("functions that are not called any more are forgotten", "[mpi]") {
    const mp::mpi::Pool pool;
    for (int round = 0; round < 200; ++round) {
        CHECK(pool.apply([](const std::string& s, int x) { return s + std::to_string(x); }, "a", round) ==
              "a" + std::to_string(round));
        CHECK(pool.map(mp::partial([](int add, int x) { return add + x; }, round), {1, 2}) ==
              std::vector{round + 1, round + 2});
    }
}

TEST_CASE("several pools share the ranks", "[mpi]") {
    const mp::mpi::Pool one;
    const mp::mpi::Pool two;
    const mp::mpi::PoolExecutor three;
    const auto first = one.map_async(pid_slowly, std::vector<int>(20, 1), 1);
    const auto second = two.map_async(square, mp::range(1000), 1);
    const auto third = three.submit(square, 7);
    CHECK(third.result(30) == 49);
    CHECK(second.get(30).at(999) == 999 * 999);
    CHECK(first.get(30).size() == 20);
    // One that is ended while the others work costs them nothing.
    const auto rest = one.map_async(square, mp::range(3000), 1);
    {
        const mp::mpi::Pool four;
        static_cast<void>(four.map_async(square, mp::range(3000), 1));
    }
    CHECK(rest.get(30).at(2999) == 2999 * 2999);
}

TEST_CASE("a rank that is at something long keeps no other pool waiting", "[mpi]") {
    const mp::mpi::Pool pool;
    if (pool.ranks().size() < 2) return;
    const FileGate gate;
    const auto wait = [](const std::string& name) { FileGate::wait_for(name); };
    const auto busy = pool.apply_async(wait, gate.name());
    const mp::mpi::Pool other;
    CHECK(other.map(square, mp::range(500), 1).at(499) == 499 * 499);
    gate.open();
    busy.get(30);
}

TEST_CASE("a process of a node that dies costs its task alone", "[mpi][hybrid]") {
    const mp::mpi::Pool pool = hybrid(2);
    for (const int chunksize : {0, 1, 5}) {
        const auto results = pool.try_map(die_on_three, mp::range(20), chunksize);
        for (std::size_t i = 0; i < 20; ++i) {
            CAPTURE(chunksize, i);
            if (i == 3) {
                CHECK_THROWS_AS(results[i].value(), mp::WorkerLostError);
            } else {
                CHECK(results[i].value() == static_cast<int>(i));
            }
        }
    }
    try {
        pool.apply(die_on_three, 3);
        FAIL("nothing thrown");
    } catch (const mp::WorkerLostError& error) {
        CHECK(error.exitcode() == -SIGKILL);
        CHECK(error.pid() > 0);
    }
    const FileGate once;
    CHECK(pool.map({.retries = 1}, mp::partial(die_once, once.name()), mp::range(5)) ==
          std::vector{0, 1, 2, 3, 4});
    // One that does not stop is ended.
    CHECK_THROWS_AS(pool.apply({.timeout = 100ms, .grace = 20ms}, [] { std::this_thread::sleep_for(60s); }),
                    mp::TaskTimeoutError);
    CHECK(pool.apply(square, 4) == 16);
}

TEST_CASE("an executor over ranks is one", "[mpi][executor]") {
    const mp::mpi::PoolExecutor executor;
    CHECK(executor.submit(square, 5).result() == 25);
    int sum = 0;
    for (const int x : executor.map(square, {1, 2, 3})) sum += x;
    CHECK(sum == 14);
    CHECK_THROWS_AS(executor.submit([] { throw std::out_of_range("x"); }).result(), std::out_of_range);
    std::vector<mp::concurrent::futures::Future<int>> futures;
    for (int i = 0; i < 100; ++i) futures.push_back(executor.submit(square, i));
    for (int i = 0; i < 100; ++i) CHECK(futures[static_cast<std::size_t>(i)].result(30) == i * i);
    std::atomic<int> called{0};
    const auto future = executor.submit(square, 6);
    future.add_done_callback([&](const auto& done) { called = done.result(); });
    CHECK(future.result() == 36);
    const auto until = std::chrono::steady_clock::now() + 30s;
    while (called != 36 && std::chrono::steady_clock::now() < until) std::this_thread::yield();
    CHECK(called == 36);
    executor.shutdown();
    CHECK_THROWS_AS(executor.submit(square, 1), std::runtime_error);
}

TEST_CASE("what an executor over ranks has not sent can be cancelled", "[mpi][executor]") {
    const FileGate gate;
    const mp::mpi::PoolExecutor executor;
    const auto wait = [](const std::string& name, int x) {
        FileGate::wait_for(name);
        return x;
    };
    std::vector<mp::concurrent::futures::Future<int>> futures;
    for (int i = 0; i < 100; ++i) futures.push_back(executor.submit(wait, gate.name(), i));
    CHECK(futures.back().cancel());
    CHECK(futures.back().cancelled());
    CHECK_FALSE(futures.front().cancel());
    CHECK(futures.front().running());
    executor.shutdown({.wait = false, .cancel_futures = true});
    gate.open();
    CHECK(futures.front().result(30) == 0);
    int cancelled = 0;
    for (const auto& future : futures) {
        try {
            static_cast<void>(future.result(30));
        } catch (const mp::CancelledError&) {
            ++cancelled;
        }
    }
    CHECK(cancelled >= 50);
    executor.shutdown();
}

TEST_CASE("nothing but the standard limits how large a message is", "[mpi][large]") {
    const mp::mpi::Pool pool(1);
    // As one message, and one of more than a part.
    const std::string text(std::size_t{40} << 20, 'x');
    CHECK(pool.apply([](const std::string& s) { return s; }, text) == text);
}
