// SPDX-License-Identifier: BSL-1.0
//
// A client of a manager whose server is another program. Run by tests/managers/remote.cpp with the
// port and the key.
#include <multiprocessing/managers.hpp>
#include <multiprocessing/synchronize.hpp>

#include "../../managers/remote_program.hpp"

#include <iostream>
#include <map>
#include <mutex>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

namespace mp = multiprocessing;

/// Of a server whose program has no such function.
template <class F>
void tell_way_out(F call) {
    try {
        static_cast<void>(call());
        std::cout << "it has\n";
    } catch (const std::runtime_error& error) {
        const std::string text = error.what();
        std::cout << text.substr(text.find("mp::")) << '\n';
    }
}

int main(int, char* argv[]) {
    const mp::managers::BaseManager manager(
        {.address = mp::connection::Address("127.0.0.1", std::stoi(argv[1])),
         .authkey = std::string(argv[2])});
    manager.connect();
    const auto shared = manager.object<remote::Shared>("shared");
    std::cout << "joined: " << shared.call<&remote::Shared::join>("a", "b") << '\n';
    const std::vector<std::pair<std::string, std::string>> pairs{{"a", "b"}, {"c", "d"}};
    for (const auto& each : shared.call_many<&remote::Shared::join>(pairs)) std::cout << each << '\n';
    tell_way_out([&] { return shared.call<&remote::Shared::unnamed>(); });
    tell_way_out([&] { return shared.call_many<&remote::Shared::unnamed>(std::vector{std::tuple()}); });
    tell_way_out([&] { return manager.create<remote::Shared>(); });
    const auto words = manager.object<std::map<std::string, int>>("words");
    words["from afar"] = 1;
    words.update({{"from afar", words.at("from afar") + 1}});
    words["from afar"] += 3;
    words["from afar"] -= 2L;
    const auto lock = manager.object<mp::Lock>("lock");
    const std::scoped_lock holding(lock);
    if (!lock.locked()) return 2;
    if (words.size() != 1 || words.keys().front() != "from afar") return 1;
}
