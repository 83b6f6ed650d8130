// SPDX-License-Identifier: BSL-1.0
//
// A reference to a variable of this process, for a function that runs in another.
// EXPECT: std::ref has no effect
#include <multiprocessing/pool.hpp>

#include <functional>

void bump(int& number) { ++number; }

void bump_there(const multiprocessing::Pool& pool, int& number) {
    pool.apply(bump, std::ref(number));
}
