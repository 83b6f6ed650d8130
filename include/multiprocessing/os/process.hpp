// SPDX-License-Identifier: BSL-1.0
//
// Processes as the kernel has them: who lives, how one ended, signals, descriptors for their ends.
#pragma once

#include <multiprocessing/os/bound.hpp>
#include <multiprocessing/os/clock.hpp>
#include <multiprocessing/os/error.hpp>
#include <multiprocessing/os/fd.hpp>
#include <multiprocessing/os/poll.hpp>

#include <array>
#include <charconv>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <optional>
#include <string>
#include <utility>

#include <csignal>
#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

namespace multiprocessing::os {

[[nodiscard]] inline int this_pid() noexcept { return ::getpid(); }
[[nodiscard]] inline int parent_pid() noexcept { return ::getppid(); }
[[nodiscard]] inline int this_thread_id() noexcept {
    return static_cast<int>(::syscall(SYS_gettid));
}

/// Is the calling thread the one that its process began with, by exec or by fork?
[[nodiscard]] inline bool in_main_thread() noexcept { return this_thread_id() == this_pid(); }
/// The name that the kernel has of the calling thread, which pthread_setname_np(3) gives; at most
/// 15 characters.
[[nodiscard]] inline std::string this_thread_name() {
    char name[16] = {};
    ::pthread_getname_np(::pthread_self(), name, sizeof name);
    return name;
}

/// A descriptor that becomes readable when the process ends.
[[nodiscard]] inline Fd open_pidfd(int pid) {
    Fd fd(static_cast<int>(bound<&::syscall>(SYS_pidfd_open, pid, 0)));
    if (!fd) throw_errno("pidfd_open", "process " + std::to_string(pid));
    return clear_of_standard_streams(std::move(fd));
}

/// Has the kernel kill this process when its parent's thread that made it ends. Returns false when
/// the parent, `parent_pid`, has ended already.
[[nodiscard]] inline bool die_with_parent_thread(int parent_pid) noexcept {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    return ::getppid() == parent_pid;
}

/// Sends a signal through a pidfd: never to another process that has got the number since. Returns
/// false when the process is gone.
inline bool signal_process(int pidfd, int signal) {
    if (::syscall(SYS_pidfd_send_signal, pidfd, signal, nullptr, 0) == 0) return true;
    if (errno == ESRCH) return false;
    throw_errno("pidfd_send_signal");
}

/// By number: for one that cannot have been reaped yet.
inline void kill_process(int pid) noexcept { ::kill(pid, SIGKILL); }

inline void signal_this_process(int signal) noexcept { ::kill(::getpid(), signal); }

/// "SIGTERM"; for one without a name its number.
[[nodiscard]] inline std::string signal_name(int signal) {
#if defined(__GLIBC__) && (__GLIBC__ > 2 || __GLIBC_MINOR__ >= 32)
    if (const char* name = ::sigabbrev_np(signal)) return std::string("SIG") + name;
#endif
    return std::to_string(signal);
}

/// The exit code of a child whose end nobody could see.
inline constexpr int unknown_exitcode = 255;

/// A child that was reaped: `exitcode` is the negated number of the signal that killed it.
struct Reaped {
    int pid;
    int exitcode;
};

/// Reaps a child that has ended, any if `pid` is -1; nothing while there is none.
[[nodiscard]] inline std::optional<Reaped> try_reap(int pid) {
    int status = 0;
    const auto result = retry_on_signal([&] { return ::waitpid(pid, &status, WNOHANG); });
    if (result <= 0) return std::nullopt;
    return Reaped{result, WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status)};
}

/// The exit code of a child that has ended, which is reaped; nothing while it runs.
[[nodiscard]] inline std::optional<int> reap(int pid) {
    errno = 0;
    if (const auto ended = try_reap(pid)) return ended->exitcode;
    if (errno == ECHILD) return unknown_exitcode;  // somebody else has reaped it
    return std::nullopt;
}

/// Undoes a child that was just made.
inline void kill_and_reap(int pid) noexcept {
    ::kill(pid, SIGKILL);
    retry_on_signal([&] { return ::waitpid(pid, nullptr, 0); });
}

/// What makes a pid unique in time, and whether the process has ended (a zombie has).
struct ProcessState {
    std::uint64_t start_time;  // in clock ticks since boot
    bool ended;
};

/// Now, in the unit of a process's start time.
[[nodiscard]] inline std::uint64_t ticks_since_boot() noexcept {
    timespec now{};
    ::clock_gettime(CLOCK_BOOTTIME, &now);
    const auto ticks = static_cast<std::uint64_t>(::sysconf(_SC_CLK_TCK));
    return static_cast<std::uint64_t>(now.tv_sec) * ticks +
           static_cast<std::uint64_t>(now.tv_nsec) * ticks / 1'000'000'000;
}

/// Fields of /proc/PID/stat.
class ProcessStat {
public:
    /// Empty when it cannot be read.
    explicit ProcessStat(const Fd& file) noexcept {
        const auto size =
            retry_on_signal([&] { return ::read(file.get(), text_, sizeof text_ - 1); });
        text_[size > 0 ? size : 0] = '\0';
    }
    /// The fields are counted from 1, as in proc(5); this is for those after the second, the
    /// program's name, which may hold anything: so they are counted from its end.
    [[nodiscard]] const char* field(int number) const noexcept {
        const char* at = std::strrchr(text_, ')');
        for (int passed = 2; at != nullptr && passed < number; ++passed) {
            at = std::strchr(at, ' ');
            if (at != nullptr) ++at;
        }
        return at;
    }

private:
    char text_[1024];
};

/// The threads of this process; 1 if that cannot be found out.
[[nodiscard]] inline int thread_count() noexcept {
    const Fd file(::open("/proc/self/stat", O_RDONLY | O_CLOEXEC));
    const ProcessStat stat(file);
    const char* count = stat.field(20);
    return count != nullptr ? std::atoi(count) : 1;
}

/// The state of any process, from /proc; nothing when there is no such process.
[[nodiscard]] inline std::optional<ProcessState> process_state(int pid) noexcept {
    std::array<char, 40> path{"/proc/"};
    char* end =
        std::to_chars(path.data() + std::strlen("/proc/"), path.data() + path.size(), pid).ptr;
    std::strcpy(end, "/stat");
    const Fd file(::open(path.data(), O_RDONLY | O_CLOEXEC));
    if (!file) {
        // Without /proc the best that is left is whether the number is in use.
        if (errno == ENOENT && ::access("/proc/self/stat", F_OK) == 0) return std::nullopt;
        if (::kill(pid, 0) != 0 && errno == ESRCH) return std::nullopt;
        return ProcessState{0, false};
    }
    const ProcessStat stat(file);
    const char* state = stat.field(3);
    const char* threads = stat.field(20);
    const char* start_time = stat.field(22);
    if (state == nullptr || threads == nullptr || start_time == nullptr) return std::nullopt;
    std::uint64_t ticks = 0;
    std::from_chars(start_time, start_time + std::strlen(start_time), ticks);
    // The state is that of the first thread, which others may outlive.
    return ProcessState{ticks, (*state == 'Z' || *state == 'X') && std::atoi(threads) <= 1};
}

}  // namespace multiprocessing::os
