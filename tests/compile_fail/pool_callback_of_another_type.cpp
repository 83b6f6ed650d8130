// SPDX-License-Identifier: BSL-1.0
//
// A callback that cannot take the result.
// EXPECT: the callback takes the result, by value or by const reference
#include <multiprocessing/pool.hpp>

#include <string>

int answer() { return 42; }

void print(const multiprocessing::Pool& pool) {
    pool.apply_async(answer).then([](std::string) {});
}
