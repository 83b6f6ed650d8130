// imap_unordered: results of a slow function as they come, whichever is ready first.
// SPDX-License-Identifier: BSL-1.0
//
//     import time
//     from multiprocessing import Pool
//
//     def slow_cube(x):
//         time.sleep(0.01 * (8 - x))          # the first take longest
//         return x, x ** 3
//
//     if __name__ == "__main__":
//         with Pool(4) as pool:
//             cubes = {}
//             for x, cube in pool.imap_unordered(slow_cube, range(8)):
//                 cubes[x] = cube             # in the order of arrival, a new one each run
//         for x, cube in sorted(cubes.items()):
//             print(x, "cubed is", cube)
#include <multiprocessing.hpp>

#include <chrono>
#include <iostream>
#include <map>
#include <thread>
#include <utility>

namespace mp = multiprocessing;

std::pair<int, int> slow_cube(int x) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10 * (8 - x)));  // the first take longest
    return {x, x * x * x};
}

int main() {
    mp::Pool pool(4);
    std::map<int, int> cubes;  // sorted: the order of arrival is a new one each run
    for (const auto& result : pool.imap_unordered(slow_cube, mp::range(8))) cubes.insert(result);

    for (const auto& [x, cube] : cubes) std::cout << x << " cubed is " << cube << '\n';
}
