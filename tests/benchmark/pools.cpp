// SPDX-License-Identifier: BSL-1.0
//
// Pools and executors beside the bare limit, with two workers. What each subject is, and the same in
// CPython, is in pools.py.
#include <multiprocessing.hpp>

#include "measure.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <climits>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include <linux/futex.h>
#include <malloc.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

namespace mp = multiprocessing;
namespace futures = mp::concurrent::futures;

namespace {

using benchmark::Child;
using benchmark::Contender;
using benchmark::Mapped;
using benchmark::microseconds;
using benchmark::race;
using benchmark::rate;
using benchmark::seconds;

int square(int x) { return x * x; }

// One that has done something: what is measured is not its start.
mp::Pool warm_pool() {
    const mp::Pool pool(2);
    pool.map(square, mp::range(1000));
    return pool;
}

template <class Range>
void take_all(const Range& results) {
    for (const auto& each : results) static_cast<void>(each);
}

void map_of_squares(const std::string& name) {
    constexpr long items = 1'000'000;
    std::vector<int> numbers(items);
    std::iota(numbers.begin(), numbers.end(), 0);
    const mp::Pool pool = warm_pool();
    std::vector<int> squares(items);
    race(name, rate("M/s", 1e-6), items,
         {{"ours",
           [&](long count) {
               return seconds([&] {
                   for (long i = 0; i < count; i += items) static_cast<void>(pool.map(square, numbers));
               });
           }},
          // What one process needs to do it.
          {"limit",
           [&](long count) {
               return seconds([&] {
                   for (long i = 0; i < count; i += items) {
                       std::transform(numbers.begin(), numbers.end(), squares.begin(), square);
                       asm volatile("" ::"r"(squares.data()) : "memory");
                   }
               });
           }}},
         items);
}

void imap_unordered(const std::string& name) {
    const mp::Pool pool = warm_pool();
    race(name, rate("M/s", 1e-6), 10'000, {{"ours", [&](long count) {
             return seconds(
                 [&] { take_all(pool.imap_unordered(square, mp::range(static_cast<int>(count)))); });
         }}});
}

void imap(const std::string& name) {
    const mp::Pool pool = warm_pool();
    race(name, rate("M/s", 1e-6), 10'000, {{"ours", [&](long count) {
             return seconds([&] { take_all(pool.imap(square, mp::range(static_cast<int>(count)))); });
         }}});
}

/// Two that sleep in turn: the word says whose turn it is.
double futex_trips(long count) {
    const Mapped<std::atomic<int>> turn;
    const auto await = [&](int mine) {
        for (;;) {
            const int now = turn->load(std::memory_order_acquire);
            if (now == mine) return;
            ::syscall(SYS_futex, &*turn, FUTEX_WAIT, now, nullptr, nullptr, 0);
        }
    };
    const auto pass = [&](int to) {
        turn->store(to, std::memory_order_release);
        ::syscall(SYS_futex, &*turn, FUTEX_WAKE, 1, nullptr, nullptr, 0);
    };
    const Child other([&] {
        for (long i = 0; i < count; ++i) {
            await(1);
            pass(0);
        }
    });
    return seconds([&] {
        for (long i = 0; i < count; ++i) {
            pass(1);
            await(0);
        }
    });
}

void apply(const std::string& name) {
    const mp::Pool pool = warm_pool();
    race(name, microseconds(), 1000,
         {{"ours",
           [&](long count) {
               return seconds([&] {
                   for (long i = 0; i < count; ++i) {
                       static_cast<void>(pool.apply(square, static_cast<int>(i)));
                   }
               });
           }},
          {"limit", futex_trips}});
}

void start_close_join(const std::string& name) {
    race(name, microseconds(), 20,
         {{"ours",
           [](long count) {
               return seconds([&] {
                   for (long i = 0; i < count; ++i) {
                       const mp::Pool pool(2);
                       pool.close();
                       pool.join();
                   }
               });
           }},
          {"limit", [](long count) {
               return seconds([&] {
                   for (long i = 0; i < count; ++i) {
                       const Child one([] {});
                       const Child two([] {});
                   }
               });
           }}});
}

void submit(const std::string& name) {
    const futures::ProcessPoolExecutor executor(2);
    static_cast<void>(executor.submit(square, 1).result());
    race(name, rate("k/s", 1e-3), 5000, {{"ours", [&](long count) {
             return seconds([&] {
                 std::vector<futures::Future<int>> all;
                 all.reserve(static_cast<std::size_t>(count));
                 for (long i = 0; i < count; ++i) all.push_back(executor.submit(square, 7));
                 for (const auto& each : all) static_cast<void>(each.result());
             });
         }}});
}

void submit_round_trip(const std::string& name) {
    const futures::ProcessPoolExecutor executor(2);
    static_cast<void>(executor.submit(square, 1).result());
    race(name, microseconds(), 1000, {{"ours", [&](long count) {
             return seconds([&] {
                 for (long i = 0; i < count; ++i) static_cast<void>(executor.submit(square, 7).result());
             });
         }}});
}

constexpr std::size_t mebibyte = std::size_t{1} << 20;

std::vector<double> make_array(int value) {
    return std::vector<double>(mebibyte / sizeof(double), value);
}

/// One process fills memory that both share, the other copies it out, in turn: what a result costs at
/// least whose bytes are made by one process and belong to another in the end.
double filled_and_copied(long count) {
    struct Shared {
        std::atomic<long> made{0};
        std::atomic<long> taken{0};
        alignas(64) double bytes[2][mebibyte / sizeof(double)];
    };
    const Mapped<Shared> shared;
    const Child maker([&] {
        for (long i = 0; i < count; ++i) {
            while (i - shared->taken.load(std::memory_order_acquire) >= 2) benchmark::pause();
            const std::vector<double> made = make_array(static_cast<int>(i));
            std::memcpy(shared->bytes[i % 2], made.data(), mebibyte);
            shared->made.store(i + 1, std::memory_order_release);
        }
    });
    return seconds([&] {
        for (long i = 0; i < count; ++i) {
            while (shared->made.load(std::memory_order_acquire) <= i) benchmark::pause();
            const double* from = shared->bytes[i % 2];
            const std::vector<double> taken(from, from + mebibyte / sizeof(double));
            asm volatile("" ::"r"(taken.data()) : "memory");
            shared->taken.store(i + 1, std::memory_order_release);
        }
    });
}

void large_results(const std::string& name) {
    // Of what is freed glibc gives blocks as large as these back to the system, for all contenders: to fault
    // them in anew takes ten times as long as all else. See docs/pools.md.
    ::mallopt(M_MMAP_THRESHOLD, 32 << 20);
    ::mallopt(M_TRIM_THRESHOLD, 1 << 30);
    const mp::Pool pool = warm_pool();
    take_all(pool.imap_unordered(make_array, mp::range(200)));
    race(name, rate("GB/s", mebibyte / 1e9), 100,
         {{"ours",
           [&](long count) {
               return seconds([&] {
                   take_all(pool.imap_unordered(make_array, mp::range(static_cast<int>(count))));
               });
           }},
          {"limit", filled_and_copied}});
}

// Computes for about 100 µs, however long the clock says that takes: the same work for everybody.
std::uint64_t compute(std::uint64_t seed) {
    static const long rounds = [] {
        long tried = 1000;
        for (;;) {
            volatile std::uint64_t x = 1;
            const double taken = seconds([&] {
                std::uint64_t y = x;
                for (long i = 0; i < tried; ++i) y = y * 6364136223846793005u + 1442695040888963407u;
                x = y;
            });
            if (taken > 0.02) return static_cast<long>(static_cast<double>(tried) / taken * 100e-6);
            tried *= 2;
        }
    }();
    for (long i = 0; i < rounds; ++i) seed = seed * 6364136223846793005u + 1442695040888963407u;
    return seed;
}
std::uint64_t compute_one(int seed) { return compute(static_cast<std::uint64_t>(seed)); }

/// The same work by two processes that need not talk to anybody.
double split_in_two(long count) {
    const auto half = [&] {
        std::uint64_t sum = 0;
        for (long i = 0; i < count / 2; ++i) sum += compute(static_cast<std::uint64_t>(i));
        asm volatile("" ::"r"(sum));
    };
    return seconds([&] {
        const Child other(half);
        half();
    });
}

void short_tasks(const std::string& name) {
    static_cast<void>(compute(1));  // children inherit how long it takes
    const mp::Pool pool = warm_pool();
    race(name, rate("k/s", 1e-3), 2000,
         {{"ours",
           [&](long count) {
               return seconds([&] {
                   static_cast<void>(pool.map(compute_one, mp::range(static_cast<int>(count))));
               });
           }},
          {"limit", split_in_two}},
         2, 1.0);
}

void short_tasks_one_by_one(const std::string& name) {
    static_cast<void>(compute(1));
    const mp::Pool pool = warm_pool();
    race(name, rate("k/s", 1e-3), 2000,
         {{"ours",
           [&](long count) {
               return seconds([&] {
                   take_all(pool.imap_unordered(compute_one, mp::range(static_cast<int>(count))));
               });
           }},
          {"limit", split_in_two}},
         2, 1.0);
}

}  // namespace

int main(int argc, char* argv[]) {
    mp::freeze_support();
    return benchmark::run({{"pool.map of 10^6 squares", map_of_squares},
                           {"pool.imap_unordered, chunks of 1", imap_unordered},
                           {"pool.imap, chunks of 1", imap},
                           {"pool.apply round trip", apply},
                           {"pool start, close, join", start_close_join},
                           {"pool, 1 MiB results", large_results},
                           {"pool.map of 100 µs tasks", short_tasks},
                           {"pool.imap_unordered of 100 µs tasks", short_tasks_one_by_one},
                           {"executor.submit, many", submit},
                           {"executor.submit and result", submit_round_trip}},
                          argc, argv);
}
