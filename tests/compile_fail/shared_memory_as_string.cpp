// SPDX-License-Identifier: BSL-1.0
//
// EXPECT: what is in shared memory must be trivially copyable
#include <multiprocessing/shared_memory.hpp>

#include <string>

auto strings(const multiprocessing::shared_memory::SharedMemory& memory) { return memory.as<std::string>(); }
