// SPDX-License-Identifier: BSL-1.0
//
// A /dev/shm of one megabyte, as containers have small ones: shared memory with a name is all there
// or an exception that says how much there was, and what has no name does not care. Exit code 0: it
// is so.
#include <multiprocessing/shared_heap.hpp>
#include <multiprocessing/shared_memory.hpp>
#include <multiprocessing/sharedctypes.hpp>

#include "checks.hpp"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <iostream>
#include <new>
#include <string>

#include <sched.h>
#include <sys/mount.h>

namespace mp = multiprocessing;
using mp::shared_memory::ShareableList;
using mp::shared_memory::SharedMemory;

namespace {

// This process alone sees another /dev/shm from now on.
bool have_a_small_one() {
    return ::unshare(CLONE_NEWNS) == 0 &&
           ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
           ::mount("shm", "/dev/shm", "tmpfs", 0, "size=1m") == 0;
}

template <class F>
std::string refusal(F make) {
    try {
        make();
    } catch (const std::bad_alloc& error) {
        return error.what();
    }
    return "nothing thrown";
}

}  // namespace

int main() {
    if (!have_a_small_one()) {
        std::cout << "not tested: only root may mount a file system of its own\n";
        return 0;
    }
    constexpr int size = 600 << 10;
    const SharedMemory first({.create = true, .size = size});
    std::memset(first.buf().data(), 1, first.size());
    const auto second = [] { return SharedMemory({.create = true, .size = size}); };
    const std::string what = refusal(second);
    check(what.find("no memory for 614400 bytes") != std::string::npos, "the message: " + what);
    check(what.find("bytes are left in /dev/shm") != std::string::npos, "what is left: " + what);
    check(refusal([] { ShareableList({std::string(size, 'x')}); }).starts_with("no memory for 6"),
          "a list: the same");
    const auto bytes = first.buf();
    check(std::all_of(bytes.begin(), bytes.end(), [](std::byte b) { return b == std::byte{1}; }),
          "what is there is as it was");
    first.unlink();
    check(refusal(second) == what, "what is mapped is still there");
    first.close();
    check(refusal(second) == what, "what has a view is still there");

    const mp::Array<char> array(20 << 20);
    std::fill(array.begin(), array.end(), 'x');
    const mp::SharedHeap heap(1 << 10);
    heap.construct<mp::shared::vector<int>>("v")->resize(5 << 20);
    check(array[size] == 'x', "what has no name does not need /dev/shm");
    return failures;
}
