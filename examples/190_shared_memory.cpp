// Memory with a name, which a process that is no relative could find too; a manager that unlinks it.
// SPDX-License-Identifier: BSL-1.0
//
//     import numpy as np
//     from multiprocessing import Process
//     from multiprocessing.managers import SharedMemoryManager
//     from multiprocessing.shared_memory import SharedMemory
//
//     def double(name):
//         memory = SharedMemory(name)
//         numbers = np.ndarray(1000, buffer=memory.buf)
//         numbers *= 2
//         memory.close()
//
//     if __name__ == "__main__":
//         with SharedMemoryManager() as manager:
//             memory = manager.SharedMemory(1000 * 8)
//             numbers = np.ndarray(1000, buffer=memory.buf)
//             numbers[:] = range(1000)
//             p = Process(target=double, args=(memory.name,))
//             p.start()
//             p.join()
//             print("the sum is", numbers.sum())
#include <multiprocessing.hpp>

#include <iostream>
#include <numeric>
#include <string>

namespace mp = multiprocessing;
using mp::shared_memory::SharedMemory;

void double_all(const std::string& name) {
    SharedMemory memory(name);
    for (double& number : memory.as<double>()) number *= 2;
    memory.close();
}

int main() {
    mp::managers::SharedMemoryManager manager;
    manager.start();
    auto memory = manager.SharedMemory(1000 * sizeof(double));
    auto numbers = memory.as<double>();
    std::iota(numbers.begin(), numbers.end(), 0);
    mp::Process p(double_all, memory.name());
    p.start();
    p.join();
    std::cout << "the sum is " << std::accumulate(numbers.begin(), numbers.end(), 0.0) << '\n';
    // With its last handle the manager goes, and the name with it.
}
