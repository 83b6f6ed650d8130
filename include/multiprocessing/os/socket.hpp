// SPDX-License-Identifier: BSL-1.0
//
// Sockets, streams and such of messages: whole buffers go out, descriptors ride along, and a peer that
// is gone is an error, never a signal.
#pragma once

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/os/clock.hpp>
#include <multiprocessing/os/error.hpp>
#include <multiprocessing/os/fd.hpp>
#include <multiprocessing/os/poll.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>
#include <iterator>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>

namespace multiprocessing::os {

/// The most descriptors that Linux sends at once (SCM_MAX_FD).
inline constexpr std::size_t most_descriptors = 253;

/// Whether descriptors can be sent over the socket.
[[nodiscard]] inline bool is_local_socket(int fd) noexcept {
    int domain = 0;
    ::socklen_t size = sizeof domain;
    return ::getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0 && domain == AF_UNIX;
}

/// Whether what is sent over it stays in messages: no stream.
[[nodiscard]] inline bool is_message_socket(int fd) noexcept {
    int type = 0;
    ::socklen_t size = sizeof type;
    return ::getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0 &&
           type == static_cast<int>(SocketKind::messages);
}

/// Ends one direction of the connection that the socket is an end of.
inline void shutdown_reading(int fd) noexcept { ::shutdown(fd, SHUT_RD); }
inline void shutdown_writing(int fd) noexcept { ::shutdown(fd, SHUT_WR); }
/// Ends both: what has been sent is still there to be received, and then the end; the peer can send
/// no more.
inline void shutdown_connection(int fd) noexcept { ::shutdown(fd, SHUT_RDWR); }

/// Sends all of `parts`, which it uses up, with `descriptors` on the first byte; false when the peer
/// is gone. Throws TimeoutError when the peer has not taken it all at the deadline, and
/// std::system_error for all other causes.
[[nodiscard]] bool try_send_all(int fd, std::span<::iovec> parts,
                                std::span<const int> descriptors = {},
                                Deadline deadline = Deadline::never());
/// The same, but throws std::system_error, EPIPE, when the peer is gone.
void send_all(int fd, std::span<::iovec> parts, std::span<const int> descriptors = {},
              Deadline deadline = Deadline::never());

/// Sends all of a short message without waiting; false where there is no room for it, or nobody to take
/// it.
[[nodiscard]] bool try_send_now(int fd, std::span<const std::byte> message) noexcept;

/// How many bytes of what was sent the peer has not received yet, as the kernel counts their memory.
[[nodiscard]] std::size_t unreceived(int fd);

/// The descriptors that came with what was received.
struct ReceivedDescriptors {
    std::vector<Fd> all;
    bool lost = false;  // there were more, but this process has no room for them

    /// Throws std::system_error, EMFILE, if some were lost.
    void check() const {
        if (lost) throw_error(EMFILE, "recvmsg", "a message with descriptors, which are lost");
    }
};

/// Receives at least one byte and at most `to.size()`; 0 at the end, however the peer ended. If
/// `descriptors` is given, those that came are added to it; else they are closed.
[[nodiscard]] std::size_t receive_some(int fd, std::span<std::byte> to,
                                       ReceivedDescriptors* descriptors = nullptr);
/// The same without waiting: nothing if there is nothing yet.
[[nodiscard]] std::optional<std::size_t> try_receive_some(
    int fd, std::span<std::byte> to, ReceivedDescriptors* descriptors = nullptr);

// ---------------------------------------------------------------------------------------------------

inline constexpr std::size_t control_size = CMSG_SPACE(sizeof(int) * most_descriptors);

inline bool try_send_all(int fd, std::span<::iovec> parts, std::span<const int> descriptors,
                         Deadline deadline) {
    alignas(::cmsghdr) std::array<std::byte, control_size> control;
    ::msghdr message{};
    if (!descriptors.empty()) {
        message.msg_control = control.data();
        message.msg_controllen = CMSG_SPACE(sizeof(int) * descriptors.size());
        std::memset(control.data(), 0, message.msg_controllen);
        ::cmsghdr* const header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof(int) * descriptors.size());
        std::memcpy(CMSG_DATA(header), descriptors.data(), descriptors.size_bytes());
    }
    const int flags = MSG_NOSIGNAL | (deadline.is_never() ? 0 : MSG_DONTWAIT);
    while (!parts.empty()) {
        message.msg_iov = parts.data();
        message.msg_iovlen = parts.size();
        const auto sent = retry_on_signal([&] { return ::sendmsg(fd, &message, flags); });
        if (sent < 0) {
            if (errno == EAGAIN || errno == EWOULDBLOCK) {  // or somebody has made it non-blocking
                if (poll(fd, poll_out, deadline)) continue;
                throw TimeoutError("the peer of the connection has not taken what was sent in time");
            }
            // A peer that ended with messages unread resets; to the sender it is just gone.
            if (errno == EPIPE || errno == ECONNRESET) return false;
            throw_errno("sendmsg", "a connection");
        }
        message.msg_control = nullptr;
        message.msg_controllen = 0;
        auto rest = static_cast<std::size_t>(sent);
        while (!parts.empty() && rest >= parts.front().iov_len) {
            rest -= parts.front().iov_len;
            parts = parts.subspan(1);
        }
        if (rest != 0) {
            parts.front().iov_base = static_cast<std::byte*>(parts.front().iov_base) + rest;
            parts.front().iov_len -= rest;
        }
    }
    return true;
}

inline void send_all(int fd, std::span<::iovec> parts, std::span<const int> descriptors,
                     Deadline deadline) {
    if (!try_send_all(fd, parts, descriptors, deadline)) {
        throw_error(EPIPE, "sendmsg", "a connection");
    }
}

inline bool try_send_now(int fd, std::span<const std::byte> message) noexcept {
    const auto sent = retry_on_signal(
        [&] { return ::send(fd, message.data(), message.size(), MSG_NOSIGNAL | MSG_DONTWAIT); });
    return sent == std::ssize(message);
}

inline std::size_t unreceived(int fd) {
    int bytes = 0;
    if (::ioctl(fd, SIOCOUTQ, &bytes) != 0) throw_errno("ioctl", "a connection");
    return static_cast<std::size_t>(bytes);
}

inline void take_descriptors(::msghdr& message, ReceivedDescriptors& descriptors) {
    for (::cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr;
         header = CMSG_NXTHDR(&message, header)) {
        if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
        const std::size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (std::size_t i = 0; i < count; ++i) {
            int number = -1;
            std::memcpy(&number, CMSG_DATA(header) + i * sizeof number, sizeof number);
            descriptors.all.emplace_back(number);
        }
    }
    // There is room for as many as can be sent, so it is the table that had none.
    if ((message.msg_flags & MSG_CTRUNC) != 0) descriptors.lost = true;
}

/// recvmsg(2), with nothing for EAGAIN.
inline std::optional<std::size_t> receive_message(int fd, std::span<std::byte> to,
                                                  ReceivedDescriptors* descriptors, int flags) {
    alignas(::cmsghdr) std::array<std::byte, control_size> control;
    ::iovec part{to.data(), to.size()};
    for (bool reset = false;;) {
        ::msghdr message{};
        message.msg_iov = &part;
        message.msg_iovlen = 1;
        if (descriptors != nullptr) {
            message.msg_control = control.data();
            message.msg_controllen = control.size();
        }
        const auto got =
            retry_on_signal([&] { return ::recvmsg(fd, &message, MSG_CMSG_CLOEXEC | flags); });
        if (got >= 0) {
            if (descriptors != nullptr) take_descriptors(message, *descriptors);
            return static_cast<std::size_t>(got);
        }
        if (errno == EAGAIN || errno == EWOULDBLOCK) return std::nullopt;
        // The peer ended with messages unread. That comes once, and where messages stay whole it
        // comes before those that the peer has sent.
        if (errno != ECONNRESET) throw_errno("recvmsg", "a connection");
        if (std::exchange(reset, true)) return 0;
    }
}

inline std::optional<std::size_t> try_receive_some(int fd, std::span<std::byte> to,
                                                   ReceivedDescriptors* descriptors) {
    return receive_message(fd, to, descriptors, MSG_DONTWAIT);
}

inline std::size_t receive_some(int fd, std::span<std::byte> to, ReceivedDescriptors* descriptors) {
    for (;;) {
        if (const auto got = receive_message(fd, to, descriptors, 0)) return *got;
        poll(fd, poll_in, Deadline::never());  // somebody has made it non-blocking
    }
}

}  // namespace multiprocessing::os
