// SPDX-License-Identifier: BSL-1.0
//
// One argument where the function wants two.
// EXPECT: the function cannot be called with copies of these arguments: check their number
#include <multiprocessing/pool.hpp>

int add(int a, int b) { return a + b; }

int sum(const multiprocessing::Pool& pool) {
    return pool.apply(add, 1);
}
