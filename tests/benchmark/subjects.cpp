// SPDX-License-Identifier: BSL-1.0
//
// Pools beside the bare limit. What each subject is, and the same in CPython, is in
// subjects.py.
#include <multiprocessing.hpp>

#include "measure.hpp"

#include <algorithm>
#include <numeric>
#include <string>
#include <vector>

#include <unistd.h>

namespace mp = multiprocessing;

namespace {

using benchmark::Child;
using benchmark::print;
using benchmark::seconds;

int square(int x) { return x * x; }

void pool_map(const std::string& name) {
    constexpr int items = 1'000'000;
    std::vector<int> numbers(items);
    std::iota(numbers.begin(), numbers.end(), 0);
    const mp::Pool pool(2);
    pool.map(square, mp::range(1000));
    const double ours = seconds([&] { pool.map(square, numbers); });
    print(name, "ours", items / ours / 1e6, "M/s");
    // What one process needs to do it, write it down and read it back.
    std::vector<int> squares(items);
    const double limit = seconds([&] {
        std::transform(numbers.begin(), numbers.end(), squares.begin(), square);
        asm volatile("" ::"r"(squares.data()) : "memory");
    });
    print(name, "limit", items / limit / 1e6, "M/s");
}

/// Seconds for so many bytes to go to a child through one pipe and back through another.
double byte_trips(int count) {
    int there[2];
    int back[2];
    if (::pipe(there) != 0 || ::pipe(back) != 0) return 0;
    double taken = 0;
    {
        const Child echo([&] {
            ::close(there[1]);
            for (char byte; ::read(there[0], &byte, 1) == 1;) {
                if (::write(back[1], &byte, 1) != 1) break;
            }
        });
        taken = seconds([&] {
            for (int i = 0; i < count; ++i) {
                char byte = 0;
                if (::write(there[1], &byte, 1) != 1 || ::read(back[0], &byte, 1) != 1) return;
            }
        });
        ::close(there[1]);
    }
    for (const int fd : {there[0], back[0], back[1]}) ::close(fd);
    return taken;
}

void pool_apply(const std::string& name) {
    constexpr int calls = 5000;
    const mp::Pool pool(2);
    pool.apply(square, 1);
    const double ours = seconds([&] {
        for (int i = 0; i < calls; ++i) static_cast<void>(pool.apply(square, i));
    });
    print(name, "ours", ours / calls * 1e6, "µs");
    print(name, "limit", byte_trips(calls) / calls * 1e6, "µs");
}

void pool_imap(const std::string& name) {
    constexpr int items = 50'000;
    const mp::Pool pool(2);
    pool.map(square, mp::range(1000));
    const double ours = seconds([&] {
        for (const int each : pool.imap_unordered(square, mp::range(items))) {
            static_cast<void>(each);
        }
    });
    print(name, "ours", items / ours / 1e3, "k/s");
}

}  // namespace

int main(int argc, char* argv[]) {
    mp::freeze_support();
    return benchmark::run({{"pool.map of 10^6 squares", pool_map},
                           {"pool.apply round trip", pool_apply},
                           {"pool.imap_unordered, chunks of 1", pool_imap}},
                          argc, argv);
}
