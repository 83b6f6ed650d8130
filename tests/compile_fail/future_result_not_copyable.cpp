// SPDX-License-Identifier: BSL-1.0
//
// A copy of a result that cannot be copied.
// EXPECT: take it with std::move.future..result
#include <multiprocessing/concurrent/futures/future.hpp>

#include <memory>

int unboxed(const multiprocessing::concurrent::futures::Future<std::unique_ptr<int>>& future) {
    return *future.result();
}
