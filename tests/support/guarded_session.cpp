// SPDX-License-Identifier: BSL-1.0
//
// Catch2's session, with the guard around each case.
#include <multiprocessing/process.hpp>
#include <support/guard.hpp>
#include <support/listener.hpp>
#include <support/session.hpp>

#if CATCH_VERSION_MAJOR >= 3
#include <catch2/internal/catch_fatal_condition_handler.hpp>
#endif

#include <csignal>
#include <iostream>
#include <map>

#include <pthread.h>
#include <unistd.h>

namespace {

using support::Listener;

support::Guard& guard() {
    static support::Guard the_guard;
    return the_guard;
}

class GuardListener : public Listener {
public:
    using Listener::Listener;

    void testCaseStarting(const Catch::TestCaseInfo& info) override {
        Listener::testCaseStarting(info);
        // What the reporter has in its buffer is not for children to write again.
        std::cout.flush();
        guard().begin(info.name);
    }

    void testCaseEnded(const Catch::TestCaseStats& stats) override {
        if (guard().in_forked_child()) {
            std::cerr << "a forked child has left the test case it was forked in\n" << std::flush;
            ::_exit(99);
        }
        Listener::testCaseEnded(stats);
        multiprocessing::runtime::this_process().fork_server.stop();  // it would stay to the end of main
        guard().end();
    }
};

CATCH_REGISTER_LISTENER(GuardListener)

#if CATCH_VERSION_MAJOR >= 3

// Catch2 3 is compiled with its handlers of fatal signals, which children inherit by fork. They are
// told from a test's own handlers by looking at what it installs.
std::map<int, void (*)(int)> catch_handlers;

void drop_catch_handlers() {
    for (const auto& [signal, handler] : catch_handlers) {
        struct sigaction current {};
        ::sigaction(signal, nullptr, &current);
        if (current.sa_handler == handler) ::signal(signal, SIG_DFL);
    }
}

void keep_catch_handlers_from_children() {
    Catch::FatalConditionHandler handlers;
    handlers.engage();
    for (const int signal : {SIGINT, SIGILL, SIGFPE, SIGSEGV, SIGTERM, SIGABRT}) {
        struct sigaction installed {};
        ::sigaction(signal, nullptr, &installed);
        if (installed.sa_handler != SIG_DFL && installed.sa_handler != SIG_IGN) {
            catch_handlers.emplace(signal, installed.sa_handler);
        }
    }
    handlers.disengage();
    ::pthread_atfork(nullptr, nullptr, drop_catch_handlers);
}

#else

void keep_catch_handlers_from_children() {}

#endif

}  // namespace

int support::run_guarded_session(int argc, char* argv[]) {
    keep_catch_handlers_from_children();
    warm_up();
    guard();
    const int failed = run_session(argc, argv);
    return failed == 0 && !guard().satisfied() ? 1 : failed;
}
