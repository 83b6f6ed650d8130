// The first Pool of every tutorial: map a function over a range.
// SPDX-License-Identifier: BSL-1.0
//
//     from multiprocessing import Pool
//
//     def square(x):
//         return x * x
//
//     if __name__ == "__main__":
//         with Pool(4) as pool:
//             print(*pool.map(square, range(10)))
//             print(*pool.starmap(pow, [(2, 5), (3, 2), (10, 3)]))
//             print(pool.apply(square, (20,)))
#include <multiprocessing.hpp>

#include <iostream>
#include <utility>
#include <vector>

namespace mp = multiprocessing;

int square(int x) { return x * x; }

int power(int base, int exponent) {
    int result = 1;
    while (exponent-- > 0) result *= base;
    return result;
}

void print(const std::vector<int>& numbers) {
    const char* separator = "";
    for (int number : numbers) {
        std::cout << separator << number;
        separator = " ";
    }
    std::cout << '\n';
}

int main() {
    mp::Pool pool(4);
    print(pool.map(square, mp::range(10)));
    print(pool.starmap(power, std::vector<std::pair<int, int>>{{2, 5}, {3, 2}, {10, 3}}));
    std::cout << pool.apply(square, 20) << '\n';
}
