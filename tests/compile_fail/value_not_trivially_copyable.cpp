// SPDX-License-Identifier: BSL-1.0
//
// A string's text would stay in one process.
// EXPECT: what stands in shared memory must be trivially copyable and hold no pointers
#include <multiprocessing/sharedctypes.hpp>

#include <string>

multiprocessing::Value<std::string> text("text");
