// SPDX-License-Identifier: BSL-1.0
#include <multiprocessing/mpi.hpp>

#include <iostream>
#include <string>

namespace mp = multiprocessing;

std::string greet(const std::string& from) {
    return "hello from " + from;
}

int main(int argc, char* argv[]) {
    mp::mpi::freeze_support(argc, argv);
    std::cout << mp::mpi::Pool(1).apply(greet, "a process") << '\n';
}
