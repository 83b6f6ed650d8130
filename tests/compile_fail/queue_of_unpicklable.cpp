// SPDX-License-Identifier: BSL-1.0
//
// An item of a queue without serialize().
// EXPECT: the items of a queue must be picklable: give a class a `?serialize
#include <multiprocessing/queues.hpp>

struct Handle {
    int* owner = nullptr;
    virtual ~Handle() = default;
};

multiprocessing::Queue<Handle> queue;
