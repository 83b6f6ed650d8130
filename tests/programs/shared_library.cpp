// SPDX-License-Identifier: BSL-1.0
//
// Targets that lie in a shared library which the program is linked to, and library and program
// sharing one state of this library. Exit code 0: all was found where it lies.

#include "library/targets.hpp"

#include <multiprocessing/context.hpp>

#include <iostream>
#include <string>

namespace mp = multiprocessing;

int main() {
    mp::freeze_support();
    for (const std::string& method : mp::get_all_start_methods()) {
        const auto ctx = mp::get_context(method);
        const mp::Queue<int> queue;
        const auto p = ctx.Process(library::add, queue, 20, 22);
        p.start();
        const int sum = queue.get(60.0);
        p.join(60);
        if (sum != 42 || p.exitcode() != 0) {
            std::cerr << method << ": a target in the library: " << sum << '\n';
            return 1;
        }
        if (const int code = library::start(method); code != 33) {
            std::cerr << method << ": started by the library: " << code << '\n';
            return 2;
        }
        // A task of a Pool travels in the same way, and a result may be a handle.
        mp::Pool pool = ctx.Pool(1);
        const auto made = pool.apply(
            [](int n) {
                mp::Queue<int> q;
                q.put(n);
                return q;
            },
            5);
        if (made.get(60.0) != 5) return 3;
    }
}
