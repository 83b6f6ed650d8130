// SPDX-License-Identifier: BSL-1.0
//
// A closure with captures cannot travel to a worker that already runs.
// EXPECT: a callable that travels to another process must be a function pointer, a captureless lambda
#include <multiprocessing/pool.hpp>

std::vector<int> scaled(const multiprocessing::Pool& pool, int factor) {
    return pool.map([factor](int x) { return factor * x; }, {1, 2, 3});
}
