// SPDX-License-Identifier: BSL-1.0
//
// A main that does not call freeze_support can start nothing but forks, and is told so; nothing is
// started that could run this main again. CPython's TestNoForkBomb. Exit code 0: it is so.

#include <multiprocessing/context.hpp>

#include <cerrno>
#include <iostream>
#include <stdexcept>
#include <string>

#include <sys/wait.h>

namespace mp = multiprocessing;

namespace {

// By the system's account, not the library's: there is no child, not even one that has ended.
bool has_no_children() {
    siginfo_t info{};
    return ::waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) != 0 && errno == ECHILD;
}

bool is_refused(const std::string& method) {
    const auto p = mp::get_context(method).Process({.name = "early"}, [] {});
    try {
        p.start();
    } catch (const std::runtime_error& error) {
        const std::string what = error.what();
        std::cout << method << ": " << what << '\n';
        return what.find("mp::freeze_support();") != std::string::npos &&
               what.find("'early'") != std::string::npos && !p.pid() &&
               mp::active_children().empty() && has_no_children();
    }
    return false;
}

}  // namespace

int main() {
    for (const auto& method : mp::get_all_start_methods()) {
        if (method != "fork" && !is_refused(method)) return 1;
    }
    // Fork asks for nothing, and the others may yet be started, once main is guarded.
    mp::Process forked([] { mp::exit(3); });
    forked.start();
    forked.join();
    return forked.exitcode() == 3 ? 0 : 2;
}
