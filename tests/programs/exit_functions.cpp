// SPDX-License-Identifier: BSL-1.0
//
// Exit functions of a main process that starts no child. Without arguments it runs itself and
// compares what came out; exit code 0: right.

#include <multiprocessing/util.hpp>

#include <cstdio>
#include <filesystem>
#include <string>

namespace mp = multiprocessing;

int main(int argc, char*[]) {
    if (argc > 1) {
        mp::util::register_exit([] { std::puts("second"); });
        const mp::util::Finalize unwound({.exitpriority = 9}, [] { std::puts("end of main"); });
        mp::util::register_exit([] { std::puts("last"); }, -1);
        mp::util::register_exit([] { std::puts("first"); }, 2);
        return 3;
    }
    const std::string self = std::filesystem::read_symlink("/proc/self/exe");
    FILE* const pipe = ::popen(("'" + self + "' x").c_str(), "r");
    std::string out;
    for (int c = std::fgetc(pipe); c != EOF; c = std::fgetc(pipe)) out += static_cast<char>(c);
    const int status = ::pclose(pipe);
    std::fputs(out.c_str(), stdout);
    return out == "end of main\nfirst\nsecond\nlast\n" && WEXITSTATUS(status) == 3 ? 0 : 1;
}
