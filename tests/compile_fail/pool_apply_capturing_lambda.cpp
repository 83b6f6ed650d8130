// SPDX-License-Identifier: BSL-1.0
//
// Nor can one that captures by reference.
// EXPECT: a callable that travels to another process must be .* or mp::partial.f, args
#include <multiprocessing/pool.hpp>

void count(const multiprocessing::Pool& pool, int& counter) {
    pool.apply([&counter] { ++counter; });
}
