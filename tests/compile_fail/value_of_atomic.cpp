// SPDX-License-Identifier: BSL-1.0
//
// A Value is atomic by itself where the processor can do that.
// EXPECT: for a std::atomic<T> there are mp::Value<T> and its fetch_add
#include <multiprocessing/sharedctypes.hpp>

#include <atomic>

multiprocessing::Value<std::atomic<int>> counter;
