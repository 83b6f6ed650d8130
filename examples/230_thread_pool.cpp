// ThreadPool and multiprocessing.dummy: the same interface over threads.
// SPDX-License-Identifier: BSL-1.0
//
//     from multiprocessing.pool import ThreadPool
//     from multiprocessing import dummy
//
//     if __name__ == "__main__":
//         seen = []
//         with ThreadPool(3) as pool:
//             lengths = pool.map(len, ["a", "bcd", "ef"])
//         print(lengths)
//
//         queue = dummy.Queue()
//         worker = dummy.Process(target=lambda: queue.put("from a thread"))
//         worker.start()
//         print(queue.get())
//         worker.join()
#include <multiprocessing.hpp>

#include <iostream>
#include <memory>
#include <string>
#include <vector>

namespace mp = multiprocessing;

int main() {
    const std::string prefix = "length ";
    mp::ThreadPool pool(3);
    // Threads share this process: captures, and what cannot be copied, need not be pickled.
    const auto lengths = pool.map(
        [&prefix](const std::string& word) {
            return std::make_unique<std::string>(prefix + std::to_string(word.size()));
        },
        std::vector<std::string>{"a", "bcd", "ef"});
    for (const auto& length : lengths) std::cout << *length << '\n';

    const mp::dummy::Queue<std::string> queue;
    const mp::dummy::Process worker([queue] { queue.put("from a thread"); });
    worker.start();
    std::cout << queue.get() << '\n';
    worker.join();
}
