// concurrent.futures: executors, as_completed, and a future awaited in a coroutine.
// SPDX-License-Identifier: BSL-1.0
//
//     from concurrent.futures import ProcessPoolExecutor, as_completed
//
//     def square(x):
//         return x * x
//
//     if __name__ == "__main__":
//         with ProcessPoolExecutor(2) as executor:
//             futures = [executor.submit(square, x) for x in range(5)]
//             print(sorted(f.result() for f in as_completed(futures)))
//             print(list(executor.map(pow, [2, 3], [10, 4])))
#include <multiprocessing.hpp>

#include <algorithm>
#include <coroutine>
#include <exception>
#include <iostream>
#include <vector>

namespace mp = multiprocessing;
namespace futures = mp::concurrent::futures;

int square(int x) { return x * x; }
int power(int base, int exponent) { return exponent == 0 ? 1 : base * power(base, exponent - 1); }

// The least that a coroutine needs.
struct Job {
    struct promise_type {
        Job get_return_object() { return {}; }
        std::suspend_never initial_suspend() { return {}; }
        std::suspend_never final_suspend() noexcept { return {}; }
        void return_void() {}
        void unhandled_exception() { std::terminate(); }
    };
};

Job sum_of_squares(const futures::ProcessPoolExecutor& executor, int a, int b, futures::Future<int> sum) {
    const auto one = executor.submit(square, a);
    const auto other = executor.submit(square, b);
    const int first = co_await one;
    const int second = co_await other;
    sum.set_result(first + second);
}

int main() {
    futures::ProcessPoolExecutor executor(2);
    std::vector<futures::Future<int>> all;
    for (int x = 0; x < 5; ++x) all.push_back(executor.submit(square, x));
    std::vector<int> squares;
    for (const auto& future : futures::as_completed(all)) squares.push_back(future.result());
    std::sort(squares.begin(), squares.end());
    for (const int each : squares) std::cout << each << ' ';
    std::cout << '\n';

    for (const int each : executor.map(power, std::vector{2, 3}, std::vector{10, 4})) std::cout << each << ' ';
    std::cout << '\n';

    const futures::Future<int> sum;
    sum_of_squares(executor, 3, 4, sum);
    std::cout << sum.result() << '\n';
}
