// SPDX-License-Identifier: BSL-1.0
//
// q.get(true) is q.get(block = true), as in Python, and never a timeout of one second.
// EXPECT: (no matching|conversion from .bool.|no viable conversion)
#include <multiprocessing/timeout.hpp>

multiprocessing::Timeout one_second = true;
