// SPDX-License-Identifier: BSL-1.0
//
// The Pythons of this machine, and scripts run by them.
#pragma once

#include <multiprocessing/os/fd.hpp>

#include <array>
#include <cstdlib>
#include <filesystem>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

extern char** environ;

namespace support {

/// What a script has done.
struct Ran {
    int exitcode;
    std::string out;
    std::string err;
};

/// Runs a program to its end, without input.
inline Ran run_program(const std::vector<std::string>& command) {
    namespace os = multiprocessing::os;
    auto [out, out_end] = os::pipe();
    auto [err, err_end] = os::pipe();
    ::posix_spawn_file_actions_t actions;
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", 0, 0);
    ::posix_spawn_file_actions_adddup2(&actions, out_end.get(), STDOUT_FILENO);
    ::posix_spawn_file_actions_adddup2(&actions, err_end.get(), STDERR_FILENO);
    std::vector<std::string> words = command;
    std::vector<char*> arguments;
    for (std::string& word : words) arguments.push_back(word.data());
    arguments.push_back(nullptr);
    pid_t pid = 0;
    const int error =
        ::posix_spawnp(&pid, arguments[0], &actions, nullptr, arguments.data(), environ);
    ::posix_spawn_file_actions_destroy(&actions);
    if (error != 0) throw std::runtime_error("cannot run " + command[0]);
    out_end.reset();
    err_end.reset();
    const auto read_all = [](const os::Fd& from) {
        std::string text;
        std::array<char, 4096> part;
        for (ssize_t size; (size = ::read(from.get(), part.data(), part.size())) > 0;) {
            text.append(part.data(), static_cast<std::size_t>(size));
        }
        return text;
    };
    // What these scripts say on stderr is less than a pipe holds.
    Ran ran{0, read_all(out), read_all(err)};
    int status = 0;
    ::waitpid(pid, &status, 0);
    ran.exitcode = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
    return ran;
}

/// Every python3 on the PATH that has `multiprocessing.shared_memory` and at least that minor version, by
/// what it is and not by name.
inline std::vector<std::string> pythons(int minor_version) {
    namespace fs = std::filesystem;
    std::set<std::string> known;
    std::vector<std::string> found;
    const char* const path = std::getenv("PATH");
    std::istringstream folders(path != nullptr ? path : "/usr/bin:/bin");
    std::set<fs::path> files;
    for (std::string folder; std::getline(folders, folder, ':');) {
        const fs::path candidate = fs::path(folder) / "python3";
        std::error_code none;
        const fs::path file = fs::canonical(candidate, none);
        if (none || !files.insert(file).second) continue;
        // It may be a script that runs one of the others.
        const Ran ran = run_program({candidate.string(), "-c",
                                     "import sys, os, multiprocessing.shared_memory\n"
                                     "assert sys.version_info >= (3, " +
                                         std::to_string(minor_version) +
                                         ")\n"
                                         "print(os.path.realpath(sys.executable))"});
        if (ran.exitcode == 0 && known.insert(ran.out).second) found.push_back(candidate.string());
    }
    return found;
}

}  // namespace support

/// Runs the rest of a test case with each of them.
#define EVERY_PYTHON EVERY_PYTHON_SINCE(0)
#define EVERY_PYTHON_SINCE(minor_version)                                                          \
    static const std::vector<std::string> pythons_here = ::support::pythons(minor_version);        \
    if (pythons_here.empty()) SKIP("there is no python3 on the PATH");                             \
    const std::string python = GENERATE(from_range(pythons_here));                                 \
    CAPTURE(python)
