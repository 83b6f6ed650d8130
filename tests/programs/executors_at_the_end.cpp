// SPDX-License-Identifier: BSL-1.0
//
// The end of main with executors that nobody shuts down, or waits for: what they have been given is done,
// and nobody hangs. Without arguments it runs itself and counts what came out; exit code 0: right.

#include <multiprocessing/concurrent/futures.hpp>
#include <multiprocessing/context.hpp>

#include "checks.hpp"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <string>

#include <unistd.h>

namespace mp = multiprocessing;
namespace futures = mp::concurrent::futures;

namespace {

// Destroyed after all that main has to do with processes has ended.
futures::ThreadPoolExecutor static_threads(2);
futures::ProcessPoolExecutor static_processes(2);

void print(char what) { static_cast<void>(::write(STDOUT_FILENO, &what, 1)); }

template <class Executor>
void give(const Executor& executor, char what) {
    for (int i = 0; i < 20; ++i) executor.submit(print, what);
}

template <class Make>
void act(Make make, char first) {
    give(*new auto(make()), first);  // for good
    const auto executor = make();    // without a handle, and nobody waits
    give(executor, static_cast<char>(first + 1));
    executor.shutdown(false);
}

int act(const std::string& method) {
    const auto processes = [&] {
        return futures::ProcessPoolExecutor({.max_workers = 2, .mp_context = mp::get_context(method)});
    };
    act(processes, 'a');
    act([] { return futures::ThreadPoolExecutor(2); }, 'c');
    give(static_threads, 'e');
    give(static_processes, 'f');
    return 5;
}

}  // namespace

int main(int argc, char* argv[]) {
    mp::freeze_support();
    if (argc > 1) return act(argv[1]);
    for (const std::string method : {"fork", "spawn", "forkserver"}) {
        const std::string self = std::filesystem::read_symlink("/proc/self/exe");
        FILE* const pipe = ::popen(("'" + self + "' " + method).c_str(), "r");
        std::string out;
        for (int c = std::fgetc(pipe); c != EOF; c = std::fgetc(pipe)) out += static_cast<char>(c);
        const int status = ::pclose(pipe);
        check(WIFEXITED(status) && WEXITSTATUS(status) == 5, method + ": it ends as main does");
        for (const char what : std::string("abcdef")) {
            check(std::count(out.begin(), out.end(), what) == 20,
                  method + ": all of " + what + " is done, not " + out);
        }
    }
    return failures;
}
