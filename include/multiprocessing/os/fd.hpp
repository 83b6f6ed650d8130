// SPDX-License-Identifier: BSL-1.0
//
// File descriptors that close themselves, and the kernel objects that are nothing but a descriptor:
// pipes, socket pairs, event counters. All are close-on-exec: a spawned child gets the ones it needs
// and no other.
#pragma once

#include <multiprocessing/os/bound.hpp>
#include <multiprocessing/os/error.hpp>

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

namespace multiprocessing::os {

/// Owns one descriptor; move-only; the destructor closes it.
class Fd {
public:
    Fd() noexcept = default;
    explicit Fd(int fd) noexcept : fd_(fd) {}
    Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
    Fd& operator=(Fd&& other) noexcept {
        if (this != &other) reset(other.release());
        return *this;
    }
    ~Fd() { reset(); }

    [[nodiscard]] int get() const noexcept { return fd_; }
    [[nodiscard]] explicit operator bool() const noexcept { return fd_ >= 0; }
    [[nodiscard]] int release() noexcept { return std::exchange(fd_, -1); }
    void reset(int fd = -1) noexcept {
        const int saved = errno;
        if (fd_ >= 0) ::close(fd_);
        errno = saved;
        fd_ = fd;
    }

private:
    int fd_ = -1;
};

/// Takes back what handed a descriptor over an exec.
inline void close_on_exec(int fd) noexcept { ::fcntl(fd, F_SETFD, FD_CLOEXEC); }

/// A copy of `fd`, close-on-exec, out of the way of the standard streams.
[[nodiscard]] inline Fd duplicate(int fd) {
    Fd copy(::fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1));
    if (!copy) throw_errno("fcntl(F_DUPFD_CLOEXEC)", "descriptor " + std::to_string(fd));
    return copy;
}

/// `fd`, moved above 2 if need be: where a program has closed a standard stream, its number would be
/// taken for that stream in every child.
[[nodiscard]] inline Fd clear_of_standard_streams(Fd fd) {
    if (!fd || fd.get() > STDERR_FILENO) return fd;
    return duplicate(fd.get());
}

/// pipe(2): the reading end and the writing end.
[[nodiscard]] inline std::pair<Fd, Fd> pipe() {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) throw_errno("pipe2");
    Fd reading(ends[0]);
    Fd writing(ends[1]);
    return {clear_of_standard_streams(std::move(reading)),
            clear_of_standard_streams(std::move(writing))};
}

/// A folder, opened to be gone to and for nothing else. Throws std::system_error that names it.
[[nodiscard]] inline Fd open_directory(const char* path) {
    Fd folder(::open(path, O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (!folder) throw_errno("open", path);
    return clear_of_standard_streams(std::move(folder));
}

/// Makes an open folder this process's working directory.
inline void change_directory(int folder) {
    if (bound<&::fchdir>(folder) != 0) throw_errno("fchdir", "descriptor " + std::to_string(folder));
}

/// Two connected AF_UNIX sockets, of a stream or of messages that stay whole.
enum class SocketKind { stream = SOCK_STREAM, messages = SOCK_SEQPACKET };
[[nodiscard]] inline std::pair<Fd, Fd> socket_pair(SocketKind kind = SocketKind::stream) {
    int ends[2];
    const int type = static_cast<int>(kind) | SOCK_CLOEXEC;
    if (::socketpair(AF_UNIX, type, 0, ends) != 0) throw_errno("socketpair");
    Fd first(ends[0]);
    Fd second(ends[1]);
    return {clear_of_standard_streams(std::move(first)),
            clear_of_standard_streams(std::move(second))};
}

/// A descriptor that is readable while its counter is not 0: the doorbell of one who sleeps in
/// poll(2).
class EventFd {
public:
    EventFd() {
        Fd fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
        if (!fd) throw_errno("eventfd");
        fd_ = clear_of_standard_streams(std::move(fd));
    }
    explicit EventFd(Fd fd) noexcept : fd_(std::move(fd)) {}

    [[nodiscard]] int get() const noexcept { return fd_.get(); }
    /// Makes it readable. A full counter is readable already, so nothing can go wrong.
    void ring() const noexcept { ring(fd_.get()); }
    static void ring(int fd) noexcept {
        const std::uint64_t one = 1;
        [[maybe_unused]] const auto written =
            retry_on_signal([&] { return ::write(fd, &one, sizeof one); });
    }
    /// Makes it unreadable again.
    void clear() const noexcept {
        std::uint64_t count;
        [[maybe_unused]] const auto read =
            retry_on_signal([&] { return ::read(fd_.get(), &count, sizeof count); });
    }

private:
    Fd fd_;
};

}  // namespace multiprocessing::os
