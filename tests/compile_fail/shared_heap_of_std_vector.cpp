// SPDX-License-Identifier: BSL-1.0
//
// Its elements would be in one process's memory alone.
// EXPECT: the containers of mp::shared instead of std's
#include <multiprocessing/shared_heap.hpp>

#include <vector>

void fill(const multiprocessing::SharedHeap& heap) { heap.construct<std::vector<int>>("numbers"); }
