// SPDX-License-Identifier: BSL-1.0
//
// Several threads that do the same at the same time.
#pragma once

#include <barrier>
#include <cstddef>
#include <thread>
#include <vector>

namespace support {

/// How many threads there are where the number does not matter.
inline constexpr int crowd = 4;

/// Runs `f(i)` in `count` threads, i from 0 on, that begin together; returns when all have ended.
template <class F>
void run_together(int count, F f) {
    std::barrier<> begin(count);
    std::vector<std::thread> threads;
    for (int i = 0; i < count; ++i) {
        threads.emplace_back([&begin, &f, i] {
            begin.arrive_and_wait();
            f(i);
        });
    }
    for (std::thread& thread : threads) thread.join();
}
template <class F>
void run_together(F f) {
    run_together(crowd, f);
}

}  // namespace support
