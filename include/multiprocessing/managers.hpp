// SPDX-License-Identifier: BSL-1.0
//
// Objects that live in a process of their own, and are used by proxies from anywhere: `mp::Manager()`,
// and in `mp::managers` `SyncManager`, `BaseManager` and `SharedMemoryManager`. Answers Python's
// `multiprocessing.managers`.
#pragma once

#include <multiprocessing/managers/base_manager.hpp>
#include <multiprocessing/managers/shared_memory_manager.hpp>
#include <multiprocessing/managers/sync_manager.hpp>
