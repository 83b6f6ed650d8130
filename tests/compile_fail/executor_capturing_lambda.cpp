// SPDX-License-Identifier: BSL-1.0
//
// A closure with captures cannot travel to an executor's worker.
// EXPECT: a callable that travels to another process must be a function pointer, a captureless lambda
#include <multiprocessing/concurrent/futures.hpp>

int scaled(const multiprocessing::concurrent::futures::ProcessPoolExecutor& executor, int factor) {
    return executor.submit([factor](int x) { return factor * x; }, 3).result();
}
