// SPDX-License-Identifier: BSL-1.0
//
// Descriptors on their way to other processes: alone through a Connection, or within what is sent.
// Answers Python's `multiprocessing.reduction`.
#pragma once

#include <multiprocessing/connection.hpp>
#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/os/error.hpp>
#include <multiprocessing/os/fd.hpp>
#include <multiprocessing/os/socket.hpp>
#include <multiprocessing/pickle/message.hpp>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace multiprocessing::reduction {

/// Sends a copy of a descriptor: a byte between the messages, which `recv_handle` at the other end
/// is to meet. *Python*: the same bytes, so that a Python process may be at the other end;
/// `destination_pid` matters to Windows alone. To send it among other things, see DupFd.
///
/// *Throws*: ValueError for a connection over a network.
/// *Process safety*: unlike a message it does not keep clear of what other threads send.
void send_handle(const Connection& connection, int handle,
                 std::optional<int> destination_pid = std::nullopt);

/// The descriptor that `send_handle` has sent, which is the receiver's own.
///
/// *Throws*: EOFError when the other end is closed, std::runtime_error when what came bears no
/// descriptor, std::system_error (EMFILE) when there was no room for it.
/// *Blocks* until something is there.
[[nodiscard]] os::Fd recv_handle(const Connection& connection);

/// A copy of a descriptor that can be sent through a Connection or be an argument of a process:
/// how a socket or a file travels. A handle: its copies hold the same one.
///
///     c.send(mp::reduction::DupFd(socket));
///     const mp::os::Fd socket = d.recv<mp::reduction::DupFd>().detach();
class DupFd {
public:
    /// Holds none, to be assigned to.
    DupFd() noexcept = default;
    /// Copies it, or takes it over.
    explicit DupFd(int fd) : fd_(std::make_shared<os::Fd>(os::duplicate(fd))) {}
    explicit DupFd(os::Fd fd) : fd_(std::make_shared<os::Fd>(std::move(fd))) {}

    /// Takes the descriptor out, once: then there is none here to be sent. Throws
    /// std::system_error (EBADF) when there is none.
    [[nodiscard]] os::Fd detach() const {
        static_cast<void>(get());
        return std::move(*fd_);
    }
    /// The descriptor, which stays here.
    [[nodiscard]] int get() const {
        if (!fd_ || !*fd_) os::throw_error(EBADF, "DupFd", "it holds no descriptor");
        return fd_->get();
    }

private:
    std::shared_ptr<os::Fd> fd_;
};

// -------------------------------------------------------------------------------------------------

// What CPython sends with descriptors: how many they are.
inline constexpr std::byte one_handle{1};

inline void send_handle(const Connection& connection, int handle, std::optional<int>) {
    const int socket = connection.fileno();
    if (!connection.writable()) os::throw_error(EBADF, "send_handle", "connection is read-only");
    // Over a network the kernel would send the byte alone.
    if (!os::is_local_socket(socket)) {
        throw ValueError("send_handle: a descriptor cannot go through a Connection over a network");
    }
    std::array text{one_handle};
    std::array parts{::iovec{text.data(), text.size()}};
    os::send_all(socket, parts, {&handle, 1});
}

inline os::Fd recv_handle(const Connection& connection) {
    const int socket = connection.fileno();
    if (!connection.readable()) os::throw_error(EBADF, "recv_handle", "connection is write-only");
    std::array text{std::byte{}};
    os::ReceivedDescriptors handles;
    if (os::receive_some(socket, text, &handles) == 0) {
        throw EOFError("recv_handle: the other end of the connection is closed");
    }
    handles.check();
    if (handles.all.size() != 1 || text[0] != one_handle) {
        throw std::runtime_error("recv_handle: what came over the connection bears " +
                                 std::to_string(handles.all.size()) +
                                 " descriptors and is nothing that send_handle has sent");
    }
    return std::move(handles.all.front());
}

}  // namespace multiprocessing::reduction

namespace multiprocessing {

/// Travels beside the bytes.
template <>
struct pickle::Codec<reduction::DupFd> {
    static constexpr bool picklable = true;
    static void save(OArchive& archive, const reduction::DupFd& fd) {
        archive.put(static_cast<std::uint32_t>(archive.cargo().add_descriptor(fd.get())));
    }
    static void load(IArchive& archive, reduction::DupFd& fd) {
        fd = reduction::DupFd(archive.cargo().take_descriptor(archive.get<std::uint32_t>()));
    }
};

}  // namespace multiprocessing
