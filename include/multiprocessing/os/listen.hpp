// SPDX-License-Identifier: BSL-1.0
//
// Sockets that wait for connections, and such that are connected to them.
#pragma once

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/os/clock.hpp>
#include <multiprocessing/os/error.hpp>
#include <multiprocessing/os/fd.hpp>
#include <multiprocessing/os/poll.hpp>
#include <multiprocessing/os/socket_address.hpp>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

namespace multiprocessing::os {

/// A listening socket at an address; `name` is that for people. Of AF_UNIX nobody but this user can
/// connect to a path. Of the others the address may have been used a moment ago.
[[nodiscard]] Fd listen_at(const SocketAddress& address, int backlog, std::string_view name);

/// The file that a socket has at a path, for as long as that socket is there: nobody else's that has taken
/// its place since is removed.
class SocketFile {
public:
    explicit SocketFile(std::string path) : path_(std::move(path)) {}

    /// It has been made. Before that nothing is removed.
    void made() noexcept { there_ = ::lstat(path_.c_str(), &is_) == 0; }
    void remove() const noexcept;

private:
    std::string path_;
    bool there_ = false;
    struct ::stat is_ {};
};

/// A connection that was waiting, and where it comes from; nothing if none was, or if it is gone
/// already. Throws std::system_error (EMFILE, ENFILE) where there is no descriptor for it.
[[nodiscard]] std::optional<std::pair<Fd, SocketAddress>> try_accept(int listening);

/// A socket connected to an address. Throws TimeoutError at the deadline; one that has passed still
/// allows for what needs no waiting.
/// *Blocks* while the other side's queue of connections is full.
[[nodiscard]] Fd connect_to(const SocketAddress& address, Deadline deadline, std::string_view name);

/// Where a socket is bound.
[[nodiscard]] SocketAddress local_address(int fd);

/// Has a network's socket send what is short at once, and find out that the other host is gone even
/// when there is nothing to send: within half a minute.
void tune_network_socket(int fd) noexcept;

/// Whether the process that has connected to an AF_UNIX socket is one of this user's.
[[nodiscard]] bool is_of_this_user(int fd) noexcept;

// ---------------------------------------------------------------------------------------------------

[[nodiscard]] inline Fd stream_socket(int family) {
    Fd fd(::socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (!fd) throw_errno("socket");
    return clear_of_standard_streams(std::move(fd));
}

template <class T>
void set_option(int fd, int level, int name, const T& value) noexcept {
    ::setsockopt(fd, level, name, &value, sizeof value);
}

/// Of sending and connecting; 0 is none.
inline void set_timeout(int fd, std::chrono::microseconds timeout) noexcept {
    const auto seconds = std::chrono::floor<std::chrono::seconds>(timeout);
    set_option(fd, SOL_SOCKET, SO_SNDTIMEO, ::timeval{seconds.count(), (timeout - seconds).count()});
}

inline Fd listen_at(const SocketAddress& address, int backlog, std::string_view name) {
    Fd fd = stream_socket(address.family());
    if (address.family() == AF_UNIX) {
        // Before bind(2), which makes the file with this mode: at no moment is it others'.
        if (::fchmod(fd.get(), S_IRUSR | S_IWUSR) != 0) throw_errno("fchmod", name);
    } else {
        set_option(fd.get(), SOL_SOCKET, SO_REUSEADDR, 1);
    }
    if (::bind(fd.get(), address.get(), address.size()) != 0) {
        const int error = errno;
        std::string what(name);
        if (error == EADDRINUSE && address.is_file()) {
            what += ", a file: remove it if nobody listens there any more";
        }
        throw_error(error, "bind", what);
    }
    if (::listen(fd.get(), backlog) != 0) throw_errno("listen", name);
    // Who accepts has seen that somebody is waiting, but not that he still is.
    const int flags = ::fcntl(fd.get(), F_GETFL);
    if (flags < 0 || ::fcntl(fd.get(), F_SETFL, flags | O_NONBLOCK) != 0) throw_errno("fcntl", name);
    return fd;
}

inline std::optional<std::pair<Fd, SocketAddress>> try_accept(int listening) {
    SocketAddress peer;
    Fd fd;
    const bool accepted = peer.fill([&](::sockaddr* address, ::socklen_t* size) {
        fd = Fd(retry_on_signal([&] { return ::accept4(listening, address, size, SOCK_CLOEXEC); }));
        return fd.get();
    });
    if (accepted) return std::pair(clear_of_standard_streams(std::move(fd)), peer);
    switch (errno) {
    case EBADF:
    case EINVAL:
    case EMFILE:
    case ENFILE:
    case ENOBUFS:
    case ENOMEM:
    case ENOTSOCK:
    case EOPNOTSUPP: throw_errno("accept", "a listener");
    default: return std::nullopt;  // nobody, or somebody whom the network has lost since
    }
}

inline Fd connect_to(const SocketAddress& address, Deadline deadline, std::string_view name) {
    const auto timed_out = [&] {
        return TimeoutError("connecting to " + std::string(name) + " took too long");
    };
    const bool limited = !deadline.is_never();
    for (bool first = true;; first = false) {
        Fd fd = stream_socket(address.family());
        // A blocking connect with a limit: of AF_UNIX there is no other way to wait for room in the
        // other's queue.
        if (limited) {
            const auto left = std::chrono::ceil<std::chrono::microseconds>(deadline.remaining());
            if (left.count() == 0 && !first) throw timed_out();
            set_timeout(fd.get(), std::max(left, std::chrono::microseconds(1)));  // 0 would be never
        }
        const bool connected = ::connect(fd.get(), address.get(), address.size()) == 0;
        int error = connected ? 0 : errno;
        if (error == EINTR && address.family() != AF_UNIX) {
            // The network goes on with it; to ask again would be an error.
            if (!poll(fd.get(), poll_out, deadline)) throw timed_out();
            ::socklen_t size = sizeof error;
            ::getsockopt(fd.get(), SOL_SOCKET, SO_ERROR, &error, &size);
        }
        if (error == EINTR) continue;
        if (limited && (error == EAGAIN || error == EINPROGRESS)) throw timed_out();
        if (error != 0) throw_error(error, "connect", name);
        if (limited) set_timeout(fd.get(), std::chrono::microseconds(0));
        return fd;
    }
}

inline SocketAddress local_address(int fd) {
    SocketAddress local;
    const bool told = local.fill([&](::sockaddr* address, ::socklen_t* size) {
        return ::getsockname(fd, address, size);
    });
    if (!told) throw_errno("getsockname");
    return local;
}

inline void tune_network_socket(int fd) noexcept {
    set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, 10);
    set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, 5);
    set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, 4);
}

inline bool is_of_this_user(int fd) noexcept {
    ::ucred peer{};
    ::socklen_t size = sizeof peer;
    return ::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && peer.uid == ::geteuid();
}

inline void SocketFile::remove() const noexcept {
    struct ::stat now {};
    if (there_ && ::lstat(path_.c_str(), &now) == 0 && now.st_dev == is_.st_dev &&
        now.st_ino == is_.st_ino) {
        ::unlink(path_.c_str());
    }
}

}  // namespace multiprocessing::os
