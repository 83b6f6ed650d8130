// A manager: a dict, a list and an object of one's own that processes share.
// SPDX-License-Identifier: BSL-1.0
//
//     from multiprocessing import Manager, Process
//
//     def work(counts, log, word):
//         counts[word] = len(word)
//         log.append(word)
//
//     if __name__ == "__main__":
//         with Manager() as manager:
//             counts = manager.dict()
//             log = manager.list()
//             workers = [Process(target=work, args=(counts, log, w)) for w in ("one", "three")]
//             for p in workers: p.start()
//             for p in workers: p.join()
//             print(dict(sorted(counts.items())), len(log))
#include <multiprocessing.hpp>

#include <iostream>
#include <string>
#include <vector>

namespace mp = multiprocessing;
using mp::managers::DictProxy;
using mp::managers::ListProxy;
using mp::managers::Proxy;

// Nothing has to be registered: the manager's server is this program, too.
struct Total {
    int sum = 0;
    int add(int n) { return sum += n; }
};

void work(const DictProxy<std::string, int>& counts, const ListProxy<std::string>& log,
          const Proxy<Total>& total, const std::string& word) {
    counts[word] = static_cast<int>(word.size());
    counts["letters"] += static_cast<int>(word.size());  // one step, in the server
    log.append(word);
    total.call<&Total::add>(1);
}

int main() {
    const auto manager = mp::Manager();
    const auto counts = manager.dict<std::string, int>({{"letters", 0}});
    const auto log = manager.list<std::string>();
    const auto total = manager.create<Total>();
    std::vector<mp::Process> workers;
    for (const char* word : {"one", "three"}) workers.emplace_back(work, counts, log, total, word);
    for (const mp::Process& p : workers) p.start();
    for (const mp::Process& p : workers) p.join();
    for (const auto& [word, count] : counts.copy()) std::cout << word << ' ' << count << '\n';
    std::cout << log.size() << " words by " << total.call<&Total::sum>() << " workers\n";
}
