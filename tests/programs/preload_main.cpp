// SPDX-License-Identifier: BSL-1.0
//
// What a fork server does of a program before its first child: its static objects and its preloaded
// functions, once, with the program's arguments, however long. Exit code 0: so it was.
// (CPython: MiscTestCase.test_preload_main, …_sys_argv, …_large_sys_argv.)

#include <multiprocessing/context.hpp>

#include <fstream>
#include <iostream>
#include <string>
#include <vector>

#include <sys/wait.h>
#include <unistd.h>

namespace mp = multiprocessing;

namespace {

std::string read_command_line() {
    std::ifstream file("/proc/self/cmdline");
    return {std::istreambuf_iterator<char>(file), {}};
}

int preloads = 0;
std::string preloaded_command_line;
const int initialised_by = ::getpid();

int act(const std::string& arguments) {
    mp::set_forkserver_preload({[] {
        ++preloads;
        preloaded_command_line = read_command_line();
    }});
    const auto ctx = mp::get_context("forkserver");
    auto [ours, theirs] = mp::Pipe();
    std::vector<int> initialisers;
    for (int i = 0; i < 2; ++i) {
        const auto p = ctx.Process(
            [](const mp::Connection& c) {
                c.send(preloads);
                c.send(preloaded_command_line);
                c.send(initialised_by == ::getpid());
                c.send(initialised_by);
            },
            theirs);
        p.start();
        if (ours.recv<int>() != 1) return 1;                  // once, not for each child
        if (ours.recv<std::string>() != arguments) return 2;  // with the arguments
        if (ours.recv<bool>()) return 3;                      // static objects are the server's
        initialisers.push_back(ours.recv<int>());
        p.join(60);
        if (p.exitcode() != 0) return 4;
    }
    return initialisers.front() == initialisers.back() && initialisers.front() != ::getpid() ? 0
                                                                                             : 5;
}

}  // namespace

int main(int argc, char* argv[]) {
    mp::freeze_support();
    if (argc > 1) return act(read_command_line());
    for (const std::size_t length : {1, 100'000}) {
        std::string argument(length, 'x');
        std::vector<char*> arguments(20, argument.data());
        arguments.front() = argv[0];
        arguments.push_back(nullptr);
        const int pid = ::fork();
        if (pid == 0) {
            ::execv("/proc/self/exe", arguments.data());
            ::_exit(100);
        }
        int status = 0;
        ::waitpid(pid, &status, 0);
        if (status != 0) {
            std::cerr << "with arguments of " << length << " characters: " << WEXITSTATUS(status)
                      << '\n';
            return 1;
        }
    }
}
