// An Array that several processes fill, each its own part.
// SPDX-License-Identifier: BSL-1.0
//
//     from multiprocessing import Process, Array
//
//     def fill(squares, first, last):
//         for i in range(first, last):
//             squares[i] = i * i
//
//     if __name__ == "__main__":
//         squares = Array("i", 12)
//         workers = [Process(target=fill, args=(squares, i, i + 4)) for i in range(0, 12, 4)]
//         for p in workers: p.start()
//         for p in workers: p.join()
//         print(*squares)
#include <multiprocessing.hpp>

#include <cstddef>
#include <iostream>
#include <vector>

namespace mp = multiprocessing;

void fill(mp::Array<int> squares, std::size_t first, std::size_t last) {
    for (std::size_t i = first; i < last; ++i) squares[i] = static_cast<int>(i * i);
}

int main() {
    mp::Array<int> squares(12);
    std::vector<mp::Process> workers;
    for (std::size_t i = 0; i < squares.size(); i += 4) {
        workers.emplace_back(fill, squares, i, i + 4);
    }
    for (const mp::Process& p : workers) p.start();
    for (const mp::Process& p : workers) p.join();

    const char* separator = "";
    for (int square : squares) {
        std::cout << separator << square;
        separator = " ";
    }
    std::cout << '\n';
}
