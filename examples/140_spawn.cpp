// A process that is spawned, or forked by a server, starts afresh; a forked one is a copy of its parent.
// SPDX-License-Identifier: BSL-1.0
//
//     from multiprocessing import freeze_support, get_context
//
//     greeting = "hello"
//
//     def report(queue):
//         queue.put(greeting)
//
//     if __name__ == "__main__":
//         freeze_support()
//         greeting = "good evening"
//         for method in ["fork", "spawn", "forkserver"]:
//             context = get_context(method)
//             queue = context.Queue()
//             p = context.Process(target=report, args=(queue,))
//             p.start()
//             print(method, "says", queue.get())
//             p.join()
#include <multiprocessing.hpp>

#include <iostream>
#include <string>

namespace mp = multiprocessing;

std::string greeting = "hello";

void report(mp::Queue<std::string> queue) { queue.put(greeting); }

int main() {
    mp::freeze_support();  // one that is not forked runs its target in here, and never comes out
    greeting = "good evening";
    for (const char* method : {"fork", "spawn", "forkserver"}) {
        auto context = mp::get_context(method);
        auto queue = context.Queue<std::string>();
        mp::Process p = context.Process(report, queue);
        p.start();
        std::cout << method << " says " << queue.get() << '\n';
        p.join();
    }
}
