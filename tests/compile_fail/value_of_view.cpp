// SPDX-License-Identifier: BSL-1.0
//
// What a view looks at would stay in one process.
// EXPECT: what stands in shared memory must be trivially copyable and hold no pointers
#include <multiprocessing/sharedctypes.hpp>

#include <string_view>

multiprocessing::Array<std::string_view> texts(3);
