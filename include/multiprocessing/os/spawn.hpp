// SPDX-License-Identifier: BSL-1.0
//
// Running this program anew as a child: vfork and exec, whose cost does not grow with the parent's
// memory. The child has the standard streams, the descriptors it is handed, and
// no others. Answers Python's `util.spawnv_passfds`.
#pragma once

#include <multiprocessing/os/environment.hpp>
#include <multiprocessing/os/error.hpp>
#include <multiprocessing/os/executable.hpp>
#include <multiprocessing/os/fd.hpp>
#include <multiprocessing/os/fork.hpp>
#include <multiprocessing/os/signals.hpp>

#include <algorithm>
#include <array>
#include <cinttypes>
#include <climits>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <csignal>
#include <dirent.h>
#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

namespace multiprocessing::os {

/// What a spawned child is told by its environment: where the rest is to be read.
struct SpawnEnvironment {
    int arena_fd;
    std::uint32_t holder;
    int data_fd;
    std::uint64_t program;  // this_program() of the parent
};

/// Set in a process that was spawned. Read when the program is loaded, and taken out of the
/// environment at once, so that no other program sees it.
[[nodiscard]] const std::optional<SpawnEnvironment>& spawn_environment();

/// What a spawned child has of its own.
struct SpawnAttributes {
    std::vector<int> keep;  // descriptors, all above 2, which have the same numbers in the child
    Variables variables;    // beside its parent's
    int folder = -1;        // its working directory, unless its parent's
};

/// Starts this program again with this process's arguments. The child has /dev/null as 0, its
/// parent's 1 and 2, and what it is to keep. Returns its pid. Throws std::system_error when the
/// program cannot be executed, and what Executable::chosen() does.
[[nodiscard]] int spawn_this_program(const SpawnEnvironment& environment,
                                     SpawnAttributes attributes);

// ---------------------------------------------------------------------------------------------------

namespace spawn_detail {

inline constexpr char variable[] = "MULTIPROCESSING_SPAWN";
inline constexpr std::size_t pid_digits = 10;

/// All that the child needs between vfork and exec, made before: it runs in its parent's memory.
struct Request {
    std::vector<char*> arguments;
    std::vector<char*> environment;
    char* pid_text;          // filled in by the child, the first to know
    std::vector<int> keep;   // ascending
    std::vector<int> close;  // where the kernel has no close_range
    const char* executable;
    int executable_fd;  // kept until it is executed
    int null_fd;
    int folder;
    const sigset_t* mask;
    volatile int error = 0;
    const char* volatile failed = "";
};

inline std::optional<SpawnEnvironment> read_environment() {
    const char* const text = std::getenv(variable);
    if (text == nullptr) return std::nullopt;
    int pid = 0;
    SpawnEnvironment found{};
    const bool whole = std::sscanf(text, "%d:%d:%" SCNu32 ":%d:%" SCNu64, &pid, &found.arena_fd,
                                   &found.holder, &found.data_fd, &found.program) == 5;
    ::unsetenv(variable);
    // Meant for another process: somebody has copied the environment.
    if (!whole || pid != ::getpid()) return std::nullopt;
    for (const int fd : {found.arena_fd, found.data_fd}) close_on_exec(fd);
    // The kernel has named us after "/proc/self/exe".
    ::prctl(PR_SET_NAME, program_invocation_short_name);
    return found;
}

inline bool close_range(unsigned first, unsigned last) noexcept {
#if defined(SYS_close_range)
    return ::syscall(SYS_close_range, first, last, 0) == 0;
#else
    return first > last;
#endif
}

inline std::vector<int> open_descriptors() {
    std::vector<int> open;
    DIR* const folder = ::opendir("/proc/self/fd");
    if (folder == nullptr) throw_errno("opendir", "/proc/self/fd");
    while (const dirent* entry = ::readdir(folder)) {
        if (entry->d_name[0] != '.') open.push_back(std::atoi(entry->d_name));
    }
    std::erase(open, ::dirfd(folder));
    ::closedir(folder);
    return open;
}

/// What the command line of this process is: each argument ended by a NUL.
inline std::string command_line() {
    std::string text;
    const Fd file(::open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC));
    std::array<char, 4096> part;
    while (file) {
        const auto got =
            retry_on_signal([&] { return ::read(file.get(), part.data(), part.size()); });
        if (got <= 0) break;
        text.append(part.data(), static_cast<std::size_t>(got));
    }
    if (text.empty()) text = std::string(program_invocation_name) + '\0';
    if (text.back() != '\0') text += '\0';
    return text;
}

/// "NAME=value" for each.
inline std::vector<std::string> entries(const Variables& variables) {
    std::vector<std::string> entries;
    for (const auto& [name, value] : variables) entries.push_back(name + "=" + value);
    return entries;
}

/// The child's part. It shares the parent's memory, so it allocates nothing and runs no handler.
[[noreturn]] inline void execute(Request& request) noexcept {
    const auto fail = [&request](const char* call) {
        request.error = errno;
        request.failed = call;
        ::_exit(127);
    };
    // exec resets handlers, but the mask is to be restored before it.
    for (int number = 1; number < NSIG; ++number) {
        struct ::sigaction action;
        if (::sigaction(number, nullptr, &action) != 0 || action.sa_handler == SIG_IGN ||
            action.sa_handler == SIG_DFL) {
            continue;
        }
        action.sa_handler = SIG_DFL;
        action.sa_flags = 0;
        ::sigaction(number, &action, nullptr);
    }
    if (request.folder >= 0 && ::fchdir(request.folder) != 0) fail("fchdir");
    if (::dup2(request.null_fd, STDIN_FILENO) < 0) fail("dup2");
    for (const int fd : request.close) ::close(fd);
    unsigned next = STDERR_FILENO + 1;
    for (const int fd : request.keep) {
        if (::fcntl(fd, F_SETFD, 0) != 0) fail("fcntl(F_SETFD)");
        if (static_cast<unsigned>(fd) > next && request.close.empty()) {
            close_range(next, static_cast<unsigned>(fd) - 1);
        }
        next = static_cast<unsigned>(fd) + 1;
    }
    if (request.close.empty()) close_range(next, UINT_MAX);
    if (request.executable_fd >= 0) ::fcntl(request.executable_fd, F_SETFD, FD_CLOEXEC);
    auto rest = static_cast<unsigned>(::getpid());
    for (std::size_t digit = pid_digits; digit-- > 0; rest /= 10) {
        request.pid_text[digit] = static_cast<char>('0' + rest % 10);
    }
    ::sigprocmask(SIG_SETMASK, request.mask, nullptr);
    ::execve(request.executable, request.arguments.data(), request.environment.data());
    fail("execve");
    ::_exit(127);
}

inline const bool environment_is_read = (static_cast<void>(spawn_environment()), true);

}  // namespace spawn_detail

inline const std::optional<SpawnEnvironment>& spawn_environment() {
    using Environment = const std::optional<SpawnEnvironment>;
    static constinit Lazy<Environment> environment;
    return environment.get([] { return new Environment(spawn_detail::read_environment()); });
}

inline int spawn_this_program(const SpawnEnvironment& environment, SpawnAttributes attributes) {
    const Executable executable = Executable::chosen();
    spawn_detail::Request request{};
    request.executable = executable.path().c_str();
    request.executable_fd = executable.descriptor();
    request.folder = attributes.folder;
    request.keep = std::move(attributes.keep);
    if (request.executable_fd >= 0) request.keep.push_back(request.executable_fd);
    std::sort(request.keep.begin(), request.keep.end());

    std::string arguments = spawn_detail::command_line();
    for (std::size_t at = 0; at < arguments.size(); at += std::strlen(&arguments[at]) + 1) {
        request.arguments.push_back(&arguments[at]);
    }
    request.arguments.push_back(nullptr);

    std::string entry = spawn_detail::variable;
    entry += '=';
    const std::size_t pid_at = entry.size();
    entry.append(spawn_detail::pid_digits, '0').append(":");
    entry.append(std::to_string(environment.arena_fd)).append(":");
    entry.append(std::to_string(environment.holder)).append(":");
    entry.append(std::to_string(environment.data_fd)).append(":");
    entry.append(std::to_string(environment.program));
    request.pid_text = entry.data() + pid_at;
    std::vector<std::string> entries = spawn_detail::entries(attributes.variables);
    for (char** other = environ; other != nullptr && *other != nullptr; ++other) {
        const std::string_view text = *other;
        const bool replaced =
            !attributes.variables.empty() &&
            attributes.variables.contains(std::string(text.substr(0, text.find('='))));
        if (!replaced) request.environment.push_back(*other);
    }
    for (std::string& own : entries) request.environment.push_back(own.data());
    request.environment.push_back(entry.data());
    request.environment.push_back(nullptr);

    // An empty range is not valid, so this closes nothing: it asks whether the kernel has the call.
    const bool has_close_range = !spawn_detail::close_range(1, 0) && errno == EINVAL;
    if (!has_close_range) {
        request.close = spawn_detail::open_descriptors();
        std::erase_if(request.close, [&](int fd) {
            return fd <= STDERR_FILENO ||
                   std::binary_search(request.keep.begin(), request.keep.end(), fd);
        });
    }
    const Fd opened(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    if (!opened) throw_errno("open", "/dev/null");
    const Fd null = duplicate(opened.get());
    std::erase(request.close, null.get());
    request.null_fd = null.get();

    int pid = 0;
    {
        const BlockSignals until_executed;
        request.mask = &until_executed.before();
        pid = ::vfork();
        if (pid == 0) spawn_detail::execute(request);
    }
    if (pid < 0) throw_errno("vfork");
    if (request.error != 0) {
        retry_on_signal([&] { return ::waitpid(pid, nullptr, 0); });
        throw_error(request.error, request.failed, executable.path());
    }
    return pid;
}

}  // namespace multiprocessing::os
