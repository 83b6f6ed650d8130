// SPDX-License-Identifier: BSL-1.0
//
// A reference to a variable of this process, for a function that an executor's worker runs.
// EXPECT: std::ref has no effect
#include <multiprocessing/concurrent/futures.hpp>

#include <functional>

void bump(int& number) { ++number; }

void bump_there(const multiprocessing::concurrent::futures::ProcessPoolExecutor& executor, int& number) {
    executor.submit(bump, std::ref(number)).result();
}
