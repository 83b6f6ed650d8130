// SPDX-License-Identifier: BSL-1.0
//
// The vector would be in the heap, and the text of its elements not.
// EXPECT: the containers of mp::shared instead of std's
#include <multiprocessing/shared_heap.hpp>

#include <string>

namespace mp = multiprocessing;

void fill(const mp::SharedHeap& heap) { heap.construct<mp::shared::vector<std::string>>("words"); }
