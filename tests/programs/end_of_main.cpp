// SPDX-License-Identifier: BSL-1.0
//
// The end of main: daemons are terminated, other children joined, and none of them runs what is the
// parent's to run. Without arguments it runs itself and compares what came out; exit code 0: right.

#include <multiprocessing/connection.hpp>
#include <multiprocessing/context.hpp>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <string>

#include <unistd.h>

namespace mp = multiprocessing;

namespace {

struct Static {
    ~Static() {
        if (::getpid() == pid) {
            std::printf("static object\n");
        } else {
            std::printf("static object in a child\n");
        }
    }
    int pid = ::getpid();
} static_object;

void in_order(const mp::Connection& go, const char* what) {
    static_cast<void>(go.recv<int>());
    std::printf("%s\n", what);
}

int act(const std::string& way) {
    static const int pid = ::getpid();
    std::atexit([] { std::printf(::getpid() == pid ? "atexit\n" : "atexit in a child\n"); });
    std::printf("buffered\n");
    auto [reader, writer] = mp::Pipe(false);
    const auto ctx = mp::get_context(way);
    mp::Process joined = ctx.Process(in_order, reader, "joined");
    joined.start();
    mp::Process exits(
        {.context = ctx},
        [](const mp::Connection& w) {
            w.send(1);
            std::exit(0);
        },
        writer);
    exits.start();
    mp::Process daemon({.daemon = true, .context = ctx}, [] {
        for (;;) ::pause();
    });
    daemon.start();
    return 5;
}

}  // namespace

int main(int argc, char* argv[]) {
    mp::freeze_support();
    if (argc > 1) return act(argv[1]);
    for (const std::string way : {"fork", "spawn", "forkserver"}) {
        const std::string self = std::filesystem::read_symlink("/proc/self/exe");
        FILE* const pipe = ::popen(("'" + self + "' " + way).c_str(), "r");
        std::string out;
        for (int c = std::fgetc(pipe); c != EOF; c = std::fgetc(pipe)) out += static_cast<char>(c);
        const int status = ::pclose(pipe);
        std::cout << way << ":\n" << out << std::flush;
        // The parent's atexit function was registered before its first start, so it comes last.
        if (out != "buffered\njoined\natexit\nstatic object\n" || WEXITSTATUS(status) != 5) {
            return 1;
        }
    }
    ::_exit(0);  // this one's own statics say nothing
}
