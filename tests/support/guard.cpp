// SPDX-License-Identifier: BSL-1.0
#include <support/guard.hpp>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <system_error>

#include <sys/wait.h>
#include <unistd.h>

namespace support {

namespace {

namespace fs = std::filesystem;

// What the alarm's handler needs, which may not allocate.
std::string deadline_message;
bool own_process_group = false;
pid_t guarded_process = 0;

void on_alarm(int) {
    if (::getpid() != guarded_process) return;
    [[maybe_unused]] const auto written =
        ::write(STDERR_FILENO, deadline_message.data(), deadline_message.size());
    if (own_process_group) ::kill(0, SIGKILL);
    ::_exit(124);
}

std::map<int, std::string> open_descriptors() {
    std::map<int, std::string> found;
    std::vector<int> numbers;
    for (const auto& entry : fs::directory_iterator("/proc/self/fd")) {
        numbers.push_back(std::stoi(entry.path().filename()));
    }
    for (const int fd : numbers) {
        // The one that the iteration itself had open is gone by now.
        std::error_code gone;
        const fs::path target = fs::read_symlink("/proc/self/fd/" + std::to_string(fd), gone);
        if (!gone) found.emplace(fd, target);
    }
    return found;
}

std::set<std::string> names_in_shared_memory() {
    std::set<std::string> names;
    std::error_code none;
    for (const auto& entry : fs::directory_iterator("/dev/shm", none)) {
        names.insert(entry.path().filename());
    }
    return names;
}

// Tests run side by side: a name that another process has mapped is that one's.
bool mapped_elsewhere(const std::string& name) {
    const std::string path = "/dev/shm/" + name;
    std::error_code error;
    for (const auto& process : fs::directory_iterator("/proc", error)) {
        const std::string pid = process.path().filename();
        if (pid.find_first_not_of("0123456789") != std::string::npos) continue;
        if (pid == std::to_string(::getpid())) continue;
        std::ifstream maps(process.path() / "maps");
        for (std::string line; std::getline(maps, line);) {
            if (line.ends_with(path)) return true;
        }
    }
    return false;
}

// Whether a name is there after a while: another test may be about to take its own away.
bool stays(const std::string& name) {
    for (int times = 0; times < 100; ++times) {
        if (!fs::exists("/dev/shm/" + name) || mapped_elsewhere(name)) return false;
        ::usleep(10'000);
    }
    return true;
}

// The children of this process, the ended but unreaped ones included.
std::map<pid_t, std::string> children() {
    std::map<pid_t, std::string> found;
    std::error_code error;
    for (const auto& process : fs::directory_iterator("/proc", error)) {
        const std::string pid = process.path().filename();
        if (pid.find_first_not_of("0123456789") != std::string::npos) continue;
        std::ifstream file(process.path() / "stat");
        std::string text;
        std::getline(file, text);
        const auto parenthesis = text.rfind(')');
        if (parenthesis == std::string::npos) continue;
        // After the name: " STATE PARENT ...".
        const char state = text.at(parenthesis + 2);
        const int parent = std::atoi(text.c_str() + parenthesis + 4);
        if (parent == ::getpid()) {
            found.emplace(std::stoi(pid), state == 'Z' ? "ended, but nobody has joined it"
                                                       : "still running");
        }
    }
    return found;
}

bool has_children() {
    siginfo_t info{};
    return ::waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0 || errno != ECHILD;
}

unsigned deadline_seconds() {
    const char* text = std::getenv("MULTIPROCESSING_TEST_DEADLINE");
    const int seconds = text == nullptr ? 0 : std::atoi(text);
    return seconds > 0 ? static_cast<unsigned>(seconds) : 60;
}

}  // namespace

Guard::Guard() : pid_(::getpid()) {
    guarded_process = pid_;
    own_process_group = ::isatty(STDOUT_FILENO) == 0 && ::setpgid(0, 0) == 0;
    struct sigaction action {};
    action.sa_handler = on_alarm;
    ::sigaction(SIGALRM, &action, nullptr);
}

void Guard::begin(const std::string& name) {
    name_ = name;
    descriptors_ = open_descriptors();
    shared_memory_names_ = names_in_shared_memory();
    const unsigned seconds = deadline_seconds();
    deadline_message = "\n" + name + ": not done after " + std::to_string(seconds) +
                       " s, the deadline of a test case\n";
    ::alarm(seconds);
}

bool Guard::in_forked_child() const noexcept {
    return ::getpid() != pid_;
}

void Guard::end() {
    ::alarm(0);
    if (has_children()) {
        for (const auto& [pid, state] : children()) {
            complain("the child " + std::to_string(pid) + ", " + state);
            ::kill(pid, SIGKILL);
            ::waitpid(pid, nullptr, 0);
        }
    }
    for (const auto& [fd, target] : open_descriptors()) {
        const auto before = descriptors_.find(fd);
        if (before == descriptors_.end() || before->second != target) {
            complain("the descriptor " + std::to_string(fd) + ", " + target);
        }
    }
    for (const std::string& name : names_in_shared_memory()) {
        if (!shared_memory_names_.contains(name) && stays(name)) complain("the name /dev/shm/" + name);
    }
}

void Guard::complain(const std::string& what) {
    satisfied_ = false;
    std::cerr << '\n' << name_ << ": left behind: " << what << std::endl;
}

}  // namespace support
