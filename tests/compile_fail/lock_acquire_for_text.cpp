// SPDX-License-Identifier: BSL-1.0
//
// Neither whether to block nor for how long: pointers are not taken for true.
// EXPECT: no matching function for call to .*acquire|no matching member function for call to .acquire
#include <multiprocessing/synchronize.hpp>

bool acquire(const multiprocessing::Lock& lock) {
    return lock.acquire("1.5");
}
