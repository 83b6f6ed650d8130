// SPDX-License-Identifier: BSL-1.0
//
// map() calls with the tuple itself.
// EXPECT: the function cannot be called .* for a range of tuples there is starmap
#include <multiprocessing/pool.hpp>

int add(int a, int b) { return a + b; }

std::vector<int> sums(const multiprocessing::Pool& pool) {
    return pool.map(add, std::vector<std::pair<int, int>>{{1, 2}});
}
