// SPDX-License-Identifier: BSL-1.0
//
// It would change a copy; what changes the list is list.set(0, 1).
// EXPECT: (discards qualifiers|no viable overloaded)
#include <multiprocessing/shared_memory.hpp>

void change(const multiprocessing::shared_memory::ShareableList& list) { list[0] = 1; }
