// SPDX-License-Identifier: BSL-1.0
//
// A main that does not call freeze_support cannot spawn, and is told so. Exit code 0: it was.

#include <multiprocessing/context.hpp>

#include <iostream>
#include <stdexcept>
#include <string>

namespace mp = multiprocessing;

int main() {
    const auto p = mp::get_context("spawn").Process({.name = "early"}, [] {});
    try {
        p.start();
    } catch (const std::runtime_error& error) {
        const std::string what = error.what();
        std::cout << what << '\n';
        const bool helpful = what.find("mp::freeze_support();") != std::string::npos &&
                             what.find("'early'") != std::string::npos;
        const bool nothing_started = !p.pid() && mp::active_children().empty();
        // Fork asks for nothing, and the spawned one may yet be, once main is guarded.
        mp::Process forked([] { mp::exit(3); });
        forked.start();
        forked.join();
        return helpful && nothing_started && forked.exitcode() == 3 ? 0 : 1;
    }
    return 2;
}
