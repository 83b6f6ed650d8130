// SPDX-License-Identifier: BSL-1.0
//
// A client of a manager whose server is another program. Run by tests/managers/remote.cpp with the
// port and the key.
#include <multiprocessing/managers.hpp>

#include "../../managers/remote_program.hpp"

#include <iostream>
#include <map>
#include <stdexcept>
#include <string>

namespace mp = multiprocessing;

int main(int, char* argv[]) {
    const mp::managers::BaseManager manager(
        {.address = mp::connection::Address("127.0.0.1", std::stoi(argv[1])),
         .authkey = std::string(argv[2])});
    manager.connect();
    const auto shared = manager.object<remote::Shared>("shared");
    std::cout << "joined: " << shared.call<&remote::Shared::join>("a", "b") << '\n';
    try {
        std::cout << shared.call<&remote::Shared::unnamed>() << '\n';
    } catch (const std::runtime_error& error) {
        const bool helps = std::string(error.what()).find("expose") != std::string::npos;
        std::cout << "no such function: " << (helps ? "expose" : error.what()) << '\n';
    }
    const auto words = manager.object<std::map<std::string, int>>("words");
    words["from afar"] = 1;
    words.update({{"from afar", words.at("from afar") + 1}});
    if (words.size() != 1 || words.keys().front() != "from afar") return 1;
}
