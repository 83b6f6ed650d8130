// Two workers that sleep at the same time: start, join, exitcode.
// SPDX-License-Identifier: BSL-1.0
//
//     import sys, time
//     from multiprocessing import Process
//
//     def worker(seconds, code):
//         time.sleep(seconds)
//         sys.exit(code)
//
//     if __name__ == "__main__":
//         alice = Process(target=worker, args=(0.1, 0), name="Alice")
//         bob = Process(target=worker, args=(0.05, 3), name="Bob")
//         workers = [alice, bob]
//         for p in workers:
//             p.start()
//             print(p.name, "sleeps")
//         for p in workers:
//             p.join()
//             print(p.name, "woke up and left with exit code", p.exitcode)
#include <multiprocessing.hpp>

#include <chrono>
#include <iostream>
#include <thread>

namespace mp = multiprocessing;

void worker(double seconds, int code) {
    std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
    mp::exit(code);
}

int main() {
    mp::Process alice({.name = "Alice"}, worker, 0.1, 0);
    mp::Process bob({.name = "Bob"}, worker, 0.05, 3);

    for (const mp::Process& p : {alice, bob}) {
        p.start();
        std::cout << p.name() << " sleeps\n";
    }
    for (const mp::Process& p : {alice, bob}) {
        p.join();
        std::cout << p.name() << " woke up and left with exit code " << p.exitcode().value()
                  << '\n';
    }
}
