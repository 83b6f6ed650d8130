// SPDX-License-Identifier: BSL-1.0
//
// Nobody knows what a std::function holds.
// EXPECT: a callable that travels to another process must be a function pointer, a captureless lambda
#include <multiprocessing/pool.hpp>

#include <functional>

int call(const multiprocessing::Pool& pool, std::function<int(int)> f) {
    return pool.apply(f, 1);
}
