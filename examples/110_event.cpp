// An Event as the starting gun: nobody runs before it is set.
// SPDX-License-Identifier: BSL-1.0
//
//     from multiprocessing import Event, Process, Queue
//
//     def run(number, ready, gun, finish):
//         ready.put(number)
//         gun.wait()
//         finish.put(number)
//
//     if __name__ == "__main__":
//         ready, finish, gun = Queue(), Queue(), Event()
//         runners = [Process(target=run, args=(i, ready, gun, finish)) for i in range(3)]
//         for p in runners: p.start()
//         print("ready:", *sorted(ready.get() for _ in runners))
//         print("home before the gun:", finish.qsize())
//         gun.set()
//         print("home:", *sorted(finish.get() for _ in runners))
//         for p in runners: p.join()
#include <multiprocessing.hpp>

#include <iostream>
#include <set>
#include <vector>

namespace mp = multiprocessing;

void run(int number, mp::Queue<int> ready, mp::Event gun, mp::Queue<int> finish) {
    ready.put(number);
    gun.wait();
    finish.put(number);
}

void print_sorted(const char* title, const mp::Queue<int>& queue, int count) {
    std::set<int> numbers;
    while (count-- > 0) numbers.insert(queue.get());
    std::cout << title;
    for (int number : numbers) std::cout << ' ' << number;
    std::cout << '\n';
}

int main() {
    mp::Queue<int> ready, finish;
    mp::Event gun;
    std::vector<mp::Process> runners;
    for (int i = 0; i < 3; ++i) runners.emplace_back(run, i, ready, gun, finish);
    for (const mp::Process& p : runners) p.start();

    print_sorted("ready:", ready, 3);
    std::cout << "home before the gun: " << finish.qsize() << '\n';
    gun.set();
    print_sorted("home:", finish, 3);
    for (const mp::Process& p : runners) p.join();
}
