// SPDX-License-Identifier: BSL-1.0
//
// Shared objects in static storage, made before main: each spawned child has its own, a forked one
// its parent's, and none leaves anything behind. Exit code 0: so it was. (CPython:
// TestNamedResource.test_global_named_resource_spawn.)

#include <multiprocessing/context.hpp>

#include <iostream>
#include <string>

namespace mp = multiprocessing;

namespace {

const mp::Lock global_lock;
const mp::Queue<int> global_queue;

void use() {
    const std::lock_guard guard(global_lock);
    global_queue.put(1);
}

}  // namespace

int main() {
    mp::freeze_support();
    const std::lock_guard guard(global_lock);  // theirs is another
    for (const std::string method : {"spawn", "forkserver"}) {
        const auto p = mp::get_context(method).Process(use);
        p.start();
        p.join(60);
        if (p.exitcode() != 0 || !global_queue.empty()) {
            std::cerr << method << ": " << p.exitcode().value_or(1000) << '\n';
            return 1;
        }
    }
    const auto forked = mp::get_context("fork").Process([] { global_queue.put(2); });
    forked.start();
    if (global_queue.get(60.0) != 2) return 2;
    forked.join(60);
}
