// SPDX-License-Identifier: BSL-1.0
//
// Memory with a name, and lists in it: `SharedMemory` and `ShareableList`. Answers Python's
// `multiprocessing.shared_memory`.
#pragma once

#include <multiprocessing/shared_memory/block.hpp>
#include <multiprocessing/shared_memory/item.hpp>
#include <multiprocessing/shared_memory/list.hpp>
