// SPDX-License-Identifier: BSL-1.0
//
// A function that is none of the managed object's.
// EXPECT: the function is none of the managed object's class
#include <multiprocessing/managers.hpp>

#include <string>

struct Counter {
    int total = 0;
};

auto size(const multiprocessing::managers::Proxy<Counter>& counter) {
    return counter.call<&std::string::clear>();
}
