// SPDX-License-Identifier: BSL-1.0
//
// So would what a member points to.
// EXPECT: what stands in shared memory must be trivially copyable and hold no pointers
#include <multiprocessing/sharedctypes.hpp>

struct Named {
    int number;
    const char* name;
};

multiprocessing::Value<Named> named;
