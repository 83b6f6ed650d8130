// A fork server loads what all children need, once; each child has surroundings of its own.
// SPDX-License-Identifier: BSL-1.0
//
//     import os
//     from multiprocessing import freeze_support, get_context
//
//     # tables.py: squares = [n * n for n in range(1000)]
//
//     def report(queue, n):
//         from tables import squares                    # the server has imported it
//         queue.put((squares[n], os.environ["UNIT"]))   # Python's Process sets no variables
//
//     if __name__ == "__main__":
//         freeze_support()
//         context = get_context("forkserver")
//         context.set_forkserver_preload(["tables"])
//         queue = context.Queue()
//         for n in [12, 25]:
//             p = context.Process(target=report, args=(queue, n))
//             p.start()
//             p.join()
//             print(*queue.get())
#include <multiprocessing.hpp>

#include <cstdlib>
#include <iostream>
#include <string>
#include <utility>
#include <vector>

namespace mp = multiprocessing;

using Answer = std::pair<int, std::string>;

std::vector<int> squares;  // empty here, and full in the server and its children

void load_squares() {
    for (int n = 0; n < 1000; ++n) squares.push_back(n * n);
}

void report(mp::Queue<Answer> queue, std::size_t n) {
    queue.put({squares.at(n), std::getenv("UNIT")});
}

int main() {
    mp::freeze_support();
    auto context = mp::get_context("forkserver");
    context.set_forkserver_preload({load_squares});
    auto queue = context.Queue<Answer>();
    for (std::size_t n : {12, 25}) {
        mp::Process p = context.Process({.env = {{"UNIT", "m²"}}}, report, queue, n);
        p.start();
        p.join();
        auto [square, unit] = queue.get();
        std::cout << square << ' ' << unit << '\n';
    }
}
