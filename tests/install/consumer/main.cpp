// SPDX-License-Identifier: BSL-1.0
#include <multiprocessing.hpp>

#include <iostream>
#include <string>

namespace mp = multiprocessing;

void greet(mp::Queue<std::string> queue, std::string from) {
    queue.put("hello from " + from);
}

int main() {
    mp::Queue<std::string> queue;
    mp::Process process(greet, queue, "a process");
    process.start();
    std::cout << queue.get() << '\n';
    process.join();
}
