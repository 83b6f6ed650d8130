// SPDX-License-Identifier: BSL-1.0
//
// starmap() has nothing to spread in an int.
// EXPECT: starmap is for a range of tuples, pairs or arrays: for other items there is map
#include <multiprocessing/pool.hpp>

int add(int a, int b) { return a + b; }

std::vector<int> sums(const multiprocessing::Pool& pool) {
    return pool.starmap(add, {1, 2, 3});
}
