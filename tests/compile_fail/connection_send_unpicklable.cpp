// SPDX-License-Identifier: BSL-1.0
//
// A message without serialize().
// EXPECT: this type cannot be sent: give it a `?serialize
#include <multiprocessing/connection.hpp>

struct Handle {
    int* owner = nullptr;
    virtual ~Handle() = default;
};

void send(const multiprocessing::Connection& connection) {
    connection.send(Handle());
}
