// A Pool whose workers are set up once each, by an initializer with arguments.
// SPDX-License-Identifier: BSL-1.0
//
//     from multiprocessing import Pool
//
//     def load(text):                         # runs once in every worker
//         global dictionary
//         dictionary = set(text.split())
//
//     def is_known(word):                     # uses what the initializer has left
//         return word in dictionary
//
//     if __name__ == "__main__":
//         words = ["hello", "bonjour", "goodbye"]
//         with Pool(2, initializer=load, initargs=("hello and goodbye",)) as pool:
//             for word, known in zip(words, pool.map(is_known, words)):
//                 print(word, "is known" if known else "is unknown")
#include <multiprocessing.hpp>

#include <cstddef>
#include <iostream>
#include <set>
#include <sstream>
#include <string>
#include <vector>

namespace mp = multiprocessing;

std::set<std::string> dictionary;  // each worker's own

void load(const std::string& text) {  // runs once in every worker
    std::istringstream in(text);
    for (std::string word; in >> word;) dictionary.insert(word);
}

bool is_known(const std::string& word) {  // uses what the initializer has left
    return dictionary.contains(word);
}

int main() {
    const std::vector<std::string> words{"hello", "bonjour", "goodbye"};
    mp::Pool pool({.processes = 2, .initializer = mp::partial(load, "hello and goodbye")});
    const std::vector<bool> known = pool.map(is_known, words);
    for (std::size_t i = 0; i < words.size(); ++i) {
        std::cout << words[i] << (known[i] ? " is known\n" : " is unknown\n");
    }
}
