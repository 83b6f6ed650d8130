// A list of values of several types, in memory that a Python process can open as well.
// SPDX-License-Identifier: BSL-1.0
//
//     from multiprocessing import Process
//     from multiprocessing.shared_memory import ShareableList
//
//     def change(shared):
//         shared[0] += 1
//         shared[3] = "ready"
//
//     if __name__ == "__main__":
//         shared = ShareableList([41, 2.5, None, "waiting", b"raw"])
//         p = Process(target=change, args=(shared,))
//         p.start()
//         p.join()
//         print(list(shared), shared.format)
//         shared.shm.unlink()
#include <multiprocessing.hpp>

#include <iostream>

namespace mp = multiprocessing;
using mp::shared_memory::ShareableList;

void change(ShareableList shared) {
    shared.set(0, shared.get<int>(0) + 1);
    shared.set(3, "ready");  // as long as what was there first, at most
}

int main() {
    ShareableList shared({41, 2.5, mp::None, "waiting", mp::bytes("raw")});
    mp::Process p(change, shared);
    p.start();
    p.join();
    for (const auto& item : shared) std::cout << item << ' ';
    std::cout << shared.format() << '\n';
    shared.shm().unlink();
}
