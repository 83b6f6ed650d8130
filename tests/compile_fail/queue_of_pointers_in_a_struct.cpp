// SPDX-License-Identifier: BSL-1.0
//
// What a member points to does not travel with the bytes.
// EXPECT: the items of a queue must be picklable: give a class a `?serialize
#include <multiprocessing/queues.hpp>

struct Message {
    int number;
    double values[2];
    const char* text;
};

multiprocessing::Queue<Message> queue;
