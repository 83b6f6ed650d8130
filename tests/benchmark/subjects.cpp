// SPDX-License-Identifier: BSL-1.0
//
// Pools and locks beside the bare limit. What each subject is, and the same in CPython, is in
// subjects.py.
#include <multiprocessing.hpp>

#include "measure.hpp"

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
    print(name, "ours", items / seconds([&] { pool.map(square, numbers); }) / 1e6,
          "M/s");
    // The limit: what one process needs to do it, write it down and read it back.
    std::vector<int> squares(items);
    print(name, "limit", items / seconds([&] {
              for (int i = 0; i < items; ++i) squares[static_cast<std::size_t>(i)] = square(numbers[static_cast<std::size_t>(i)]);
              asm volatile("" ::"r"(squares.data()) : "memory");
          }) / 1e6, "M/s");
}

void pool_apply(const std::string& name) {
    constexpr int calls = 5000;
    const mp::Pool pool(2);
    pool.apply(square, 1);
    print(name, "ours", seconds([&] {
              for (int i = 0; i < calls; ++i) static_cast<void>(pool.apply(square, i));
          }) / calls * 1e6, "µs");
    int there[2];
    int back[2];
    if (::pipe(there) != 0 || ::pipe(back) != 0) return;
    {
        const Child echo([&] {
            ::close(there[1]);
            for (char byte; ::read(there[0], &byte, 1) == 1;) {
                if (::write(back[1], &byte, 1) != 1) break;
            }
        });
        print(name, "limit", seconds([&] {
                  for (int i = 0; i < calls; ++i) {
                      char byte = 0;
                      if (::write(there[1], &byte, 1) != 1 || ::read(back[0], &byte, 1) != 1) return;
                  }
              }) / calls * 1e6, "µs");
        ::close(there[1]);
    }
    for (const int fd : {there[0], back[0], back[1]}) ::close(fd);
}

void pool_imap(const std::string& name) {
    constexpr int items = 50'000;
    const mp::Pool pool(2);
    pool.map(square, mp::range(1000));
    print(name, "ours", items / seconds([&] {
              for (const int each : pool.imap_unordered(square, mp::range(items))) static_cast<void>(each);
          }) / 1e3, "k/s");
}

void locks(const std::string& name) {
    constexpr int pairs = 2'000'000;
    const mp::Lock lock;
    print(name, "ours", seconds([&] {
              for (int i = 0; i < pairs; ++i) {
                  lock.acquire();
                  lock.release();
              }
          }) / pairs * 1e9, "ns");
    mp::shm::RobustMutex bare;
    print(name, "limit", seconds([&] {
              for (int i = 0; i < pairs; ++i) {
                  bare.lock();
                  bare.unlock();
              }
          }) / pairs * 1e9, "ns");
}

}  // namespace

int main(int argc, char* argv[]) {
    mp::freeze_support();
    return benchmark::run({{"pool.map of 10^6 squares", pool_map},
                           {"pool.apply round trip", pool_apply},
                           {"pool.imap_unordered, chunks of 1", pool_imap},
                           {"lock and unlock, alone", locks}},
                          argc, argv);
}
