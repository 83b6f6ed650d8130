// A shared Value that several processes increment under its lock.
// SPDX-License-Identifier: BSL-1.0
//
//     from multiprocessing import Process, Value
//
//     def count(total, times):
//         for _ in range(times):
//             with total.get_lock():
//                 total.value += 1
//
//     if __name__ == "__main__":
//         total = Value("i", 0)
//         workers = [Process(target=count, args=(total, 1000)) for _ in range(4)]
//         for p in workers: p.start()
//         for p in workers: p.join()
//         print("counted to", total.value)
#include <multiprocessing.hpp>

#include <iostream>
#include <mutex>
#include <vector>

namespace mp = multiprocessing;

void count(mp::Value<int> total, int times) {
    for (int i = 0; i < times; ++i) {
        std::lock_guard guard(total.get_lock());
        total.value() += 1;
    }
}

int main() {
    mp::Value<int> total(0);
    std::vector<mp::Process> workers;
    for (int i = 0; i < 4; ++i) workers.emplace_back(count, total, 1000);
    for (const mp::Process& p : workers) p.start();
    for (const mp::Process& p : workers) p.join();
    std::cout << "counted to " << total.value() << '\n';
}
