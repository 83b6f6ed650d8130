// Containers in shared memory that several processes change in place. Python has nothing like it.
// SPDX-License-Identifier: BSL-1.0
#include <multiprocessing.hpp>

#include <iostream>
#include <sstream>
#include <string>
#include <vector>

namespace mp = multiprocessing;

using Counts = mp::shared::map<mp::shared::string, int>;

void count(mp::SharedHeap heap, std::string text) {
    mp::SharedPtr<Counts> counts = heap.find<Counts>("counts");
    std::istringstream words(text);
    for (std::string word; words >> word;) {
        // The lock of the map is held for the call, so nobody comes in between.
        counts.synchronized([&](Counts& all) { all[word.c_str()] += 1; });
    }
}

int main() {
    mp::SharedHeap heap(1 << 20);
    auto counts = heap.construct<Counts>("counts");
    std::vector<mp::Process> workers;
    for (const char* text : {"to be or not to be", "to see or not to see"}) {
        workers.emplace_back(count, heap, text);
    }
    for (const mp::Process& p : workers) p.start();
    for (const mp::Process& p : workers) p.join();
    for (const auto& [word, times] : *counts) std::cout << word << ' ' << times << '\n';
}
