// SPDX-License-Identifier: BSL-1.0
//
// Values and arrays used by the threads of one process.
#include <multiprocessing/sharedctypes.hpp>

#include "support/catch.hpp"
#include "threads/crowd.hpp"

#include <atomic>
#include <cstdint>
#include <mutex>
#include <thread>

namespace mp = multiprocessing;
using support::crowd;
using support::run_together;

namespace {

struct Pair {
    std::uint64_t first;
    std::uint64_t second;
};

constexpr int times = 2000;

}  // namespace

TEST_CASE("a value is changed under its lock", "[threads][value]") {
    const mp::Value<Pair> value(Pair{0, 0});
    run_together([&](int i) {
        for (int n = 0; n < times; ++n) {
            if ((n + i) % 2 == 0) {
                value.synchronized([](Pair& pair) {
                    ++pair.first;
                    ++pair.second;
                });
            } else {
                const std::lock_guard guard(value.get_lock());
                const std::lock_guard again(value);  // it is recursive
                ++value.value().first;
                ++value.value().second;
            }
        }
    });
    CHECK(value.value().first == crowd * times);
    CHECK(value.value().second == crowd * times);
}

TEST_CASE("atomic operations are atomic", "[threads][value]") {
    const mp::Value<int> sum(0);
    const mp::RawValue<double> real(0.0);
    const mp::Value<std::uint32_t> bits(0u);
    const mp::Value<int> lock(0);
    int plain = 0;
    run_together([&](int) {
        for (int n = 0; n < times; ++n) {
            sum.fetch_add(2);
            sum.fetch_sub(1);
            real.fetch_add(0.5);
            std::uint32_t seen = bits.load();
            while (!bits.compare_exchange(seen, seen + 1)) {
            }
            while (lock.exchange(1) != 0) std::this_thread::yield();
            ++plain;
            lock.store(0);
        }
    });
    CHECK(sum.load() == crowd * times);
    CHECK(real.load() == 0.5 * crowd * times);
    CHECK(bits.load() == crowd * times);
    CHECK(plain == crowd * times);
}

TEST_CASE("an array is changed under its lock, or each by itself", "[threads][value]") {
    const mp::Array<int> array(crowd);
    run_together([&](int i) {
        const auto mine = static_cast<std::size_t>(i);
        for (int n = 0; n < times; ++n) {
            array.synchronized([&](auto all) {
                for (int& one : all) ++one;
            });
        }
        array.synchronized([&](auto all) { all[mine] += 1; });
    });
    for (const int element : array) CHECK(element == crowd * times + 1);
    const mp::RawArray<int> apart(crowd);
    run_together([&](int i) {
        for (int n = 0; n < times; ++n) ++apart[static_cast<std::size_t>(i)];
    });
    for (const int element : apart) CHECK(element == times);
}
