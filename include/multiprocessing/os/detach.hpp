// SPDX-License-Identifier: BSL-1.0
//
// A forked process that outlives the one it was forked from, and keeps nothing of it alive: no
// descriptor, no memory, no terminal, no folder. It waits for the end of all who share an open
// file. Nothing here allocates, and after shed_memory() nothing may: what the C library keeps in
// its heap is gone.
#pragma once

#include <multiprocessing/os/bound.hpp>
#include <multiprocessing/os/error.hpp>
#include <multiprocessing/os/exit.hpp>
#include <multiprocessing/os/fd.hpp>
#include <multiprocessing/os/fork.hpp>
#include <multiprocessing/os/signals.hpp>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <utility>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

// Sanitizers keep what they know of all memory in memory.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define MULTIPROCESSING_SHADOW_MEMORY 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) ||                         \
    __has_feature(memory_sanitizer)
#define MULTIPROCESSING_SHADOW_MEMORY 1
#endif
#endif
#if !defined(MULTIPROCESSING_SHADOW_MEMORY)
#define MULTIPROCESSING_SHADOW_MEMORY 0
#endif

namespace multiprocessing::os {

/// Another opening of the file behind a descriptor, which shares no lock with it.
[[nodiscard]] inline Fd reopen(int fd) {
    const std::string path = "/proc/self/fd/" + std::to_string(fd);
    Fd other(::open(path.c_str(), O_RDWR | O_CLOEXEC));
    if (!other) throw_errno("open", path);
    return clear_of_standard_streams(std::move(other));
}

/// Marks an opening as in use, for as long as any process has a descriptor or a mapping of it.
inline void mark_in_use(int fd) {
    if (retry_on_signal([&] { return ::flock(fd, LOCK_SH); }) != 0)
        throw_errno("flock", "shared memory");
}

/// Blocks until no other opening of the file is in use.
inline void await_disuse(int fd) noexcept {
    while (bound<&::syscall>(SYS_flock, fd, LOCK_EX) != 0 && errno == EINTR) {}
}

/// The whole of a file in memory, or null.
[[nodiscard]] inline std::byte* map_whole(int fd, std::size_t size) noexcept {
    void* const address = bound<&::mmap>(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    return address == MAP_FAILED ? nullptr : static_cast<std::byte*>(address);
}
inline void unmap(void* address, std::size_t size) noexcept { bound<&::munmap>(address, size); }

inline void write_at_once(int fd, std::string_view text) noexcept {
    bound<&::write>(fd, text.data(), text.size());
}

namespace detach_detail {

/// Reads a file of /proc by lines, without allocating.
class Lines {
public:
    explicit Lines(const char* path) noexcept
        : fd_(static_cast<int>(
              bound<&::syscall>(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0))) {}
    ~Lines() { bound<&::syscall>(SYS_close, fd_); }
    Lines(const Lines&) = delete;
    Lines& operator=(const Lines&) = delete;

    /// False at the end. Of a line that is too long the beginning.
    bool next(std::string_view& line) noexcept {
        std::size_t length = 0;
        for (;;) {
            if (at_ == end_) {
                const long got = bound<&::syscall>(SYS_read, fd_, buffer_.data(), buffer_.size());
                if (got <= 0) return false;
                at_ = 0;
                end_ = static_cast<std::size_t>(got);
            }
            const char c = buffer_[at_++];
            if (c == '\n') break;
            if (length < line_.size()) line_[length++] = c;
        }
        line = {line_.data(), length};
        return true;
    }

private:
    int fd_;
    std::size_t at_ = 0;
    std::size_t end_ = 0;
    std::array<char, 4096> buffer_;
    std::array<char, 512> line_;
};

/// A number at the beginning of `text`, which is taken off it.
inline std::uintptr_t number(std::string_view& text, unsigned base) noexcept {
    std::uintptr_t value = 0;
    for (; !text.empty(); text.remove_prefix(1)) {
        const char c = text.front();
        const unsigned digit = c >= '0' && c <= '9'   ? static_cast<unsigned>(c - '0')
                               : c >= 'a' && c <= 'f' ? static_cast<unsigned>(c - 'a' + 10)
                                                      : base;
        if (digit >= base) break;
        value = value * base + digit;
    }
    return value;
}

/// Has `ps` show the title instead of the command line that this process was forked with.
inline void overwrite_command_line(std::string_view title) noexcept {
    Lines lines("/proc/self/stat");
    std::string_view line;
    if (!lines.next(line)) return;
    line.remove_prefix(std::min(line.rfind(')') + 2, line.size()));
    // Fields 48 and 49 of proc(5), and the next is the third.
    std::array<std::uintptr_t, 50> fields{};
    for (std::size_t i = 3; i < fields.size(); ++i) {
        fields[i] = number(line, 10);
        const std::size_t space = line.find(' ');
        line.remove_prefix(space == std::string_view::npos ? line.size() : space + 1);
    }
    const std::uintptr_t begin = fields[48];
    const std::uintptr_t end = fields[49];
    if (begin == 0 || end <= begin) return;
    auto* const text = reinterpret_cast<volatile char*>(begin);
    for (std::size_t i = 0; i < end - begin; ++i) {
        text[i] = i < title.size() && i + 1 < end - begin ? title[i] : '\0';
    }
}

}  // namespace detach_detail

/// Runs `body`, which does not return, in a process that is forked from this one and not its child:
/// nobody here waits for its end or is told of it. It has all signals blocked. Returns its pid.
template <class Body>
[[nodiscard]] int fork_orphan(Body body) {
    const BlockSignals from_its_first_moment;
    auto [reading, writing] = pipe();
    const int between = fork();
    if (between == 0) {
        int pid = ::fork();
        if (pid == 0) body();
        if (pid < 0) pid = -errno;
        write_at_once(writing.get(), {reinterpret_cast<const char*>(&pid), sizeof pid});
        exit_at_once(0);
    }
    writing.reset();
    int pid = -EAGAIN;  // unless somebody has killed the one between
    const int from = reading.get();
    retry_on_signal([&] { return ::read(from, &pid, sizeof pid); });
    retry_on_signal([&] { return ::waitpid(between, nullptr, 0); });
    if (pid < 0) throw_error(-pid, "fork");
    return pid;
}

/// In a forked process: leaves its session and its folder, goes by another name, and closes all
/// descriptors but stderr and `keep`.
inline void detach_from_parent(int keep, const char* name, std::string_view title) noexcept {
    ::setsid();
    ::prctl(PR_SET_PDEATHSIG, 0);
    ::prctl(PR_SET_NAME, name);
    detach_detail::overwrite_command_line(title);
    [[maybe_unused]] const int gone = ::chdir("/");
    const auto close_from = [](int first, int last) {
        if (first > last) return;
#if defined(SYS_close_range)
        if (::syscall(SYS_close_range, first, last, 0) == 0) return;
#endif
        const long most = std::min<long>(last, ::sysconf(_SC_OPEN_MAX));
        for (int fd = first; fd <= most; ++fd) ::close(fd);
    };
    close_from(0, STDERR_FILENO - 1);
    close_from(STDERR_FILENO + 1, keep - 1);
    close_from(keep + 1, INT_MAX);
}

/// Gives back what a forked process has of its parent's memory and will never look at: each page is
/// a copy as soon as the parent changes its own. What is small stays, for the dynamic linker has
/// its records among it; so do the stack and the thread's own variables.
inline void shed_memory() noexcept {
#if !MULTIPROCESSING_SHADOW_MEMORY
    constexpr std::size_t worth_it = std::size_t{1} << 20;
    static char ours = 0;  // where the program has its variables
    const char here = 0;   // where its stack is
    const std::array<std::uintptr_t, 3> needed{reinterpret_cast<std::uintptr_t>(&ours),
                                               reinterpret_cast<std::uintptr_t>(&here),
                                               reinterpret_cast<std::uintptr_t>(&errno)};
    detach_detail::Lines lines("/proc/self/maps");
    // "7f00-7f10 rw-p 00000000 00:00 0    [heap]"
    for (std::string_view line; lines.next(line);) {
        const std::uintptr_t begin = detach_detail::number(line, 16);
        line.remove_prefix(1);
        const std::uintptr_t end = detach_detail::number(line, 16);
        if (line.size() < 6) continue;
        const bool writable = line[2] == 'w';
        const bool shared = line[4] == 's';
        const bool special = line.find("[stack") != std::string_view::npos ||
                             line.find("[v") != std::string_view::npos;
        const bool file = line.find('/') != std::string_view::npos;
        const bool is_needed = std::any_of(needed.begin(), needed.end(), [&](std::uintptr_t place) {
            return place >= begin && place < end;
        });
        if (is_needed || special) continue;
        if (shared) {
            bound<&::munmap>(reinterpret_cast<void*>(begin), end - begin);
        } else if (writable && !file && end - begin >= worth_it) {
            bound<&::madvise>(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
        }
    }
#endif
}

}  // namespace multiprocessing::os
