// SPDX-License-Identifier: BSL-1.0
//
// A callback that wants the result, not the future.
// EXPECT: the callback takes the Future, by value or by const reference, or nothing
#include <multiprocessing/concurrent/futures/future.hpp>

void print(const multiprocessing::concurrent::futures::Future<int>& future) {
    future.add_done_callback([](int) {});
}
