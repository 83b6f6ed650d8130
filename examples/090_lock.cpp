// A Lock around output: several processes print piece by piece, and no line is torn.
// SPDX-License-Identifier: BSL-1.0
//
//     from multiprocessing import Process, Lock, Value
//
//     def greet(lock, turn):
//         with lock:
//             turn.value += 1
//             for piece in ["hello", " world ", turn.value, "\n"]:
//                 print(piece, end="", flush=True)
//
//     if __name__ == "__main__":
//         lock = Lock()
//         turn = Value("i", 0, lock=False)    # guarded by the lock as well
//         workers = [Process(target=greet, args=(lock, turn)) for _ in range(5)]
//         for p in workers: p.start()
//         for p in workers: p.join()
#include <multiprocessing.hpp>

#include <iostream>
#include <mutex>
#include <string>
#include <vector>

namespace mp = multiprocessing;

void greet(mp::Lock lock, mp::Value<int> turn) {
    std::lock_guard guard(lock);
    turn.value() += 1;
    const std::string number = std::to_string(turn.value());
    for (const std::string& piece : {std::string("hello"), std::string(" world "), number}) {
        std::cout << piece << std::flush;
    }
    std::cout << std::endl;
}

int main() {
    mp::Lock lock;
    mp::Value<int> turn(0, mp::no_lock);  // guarded by the lock as well
    std::vector<mp::Process> workers;
    for (int i = 0; i < 5; ++i) workers.emplace_back(greet, lock, turn);
    for (const mp::Process& p : workers) p.start();
    for (const mp::Process& p : workers) p.join();
}
