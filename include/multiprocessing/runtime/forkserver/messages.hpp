// SPDX-License-Identifier: BSL-1.0
//
// What is said between a process and its fork server, and between the process and the child that
// the server forks for it. Answers the protocol of Python's `forkserver`.
//
//   process -> server   ForkRequest, with one end of a channel that is made for this child alone
//   process -> child    over the channel: its descriptors, the file with its Preparation first
//   child -> process    over the channel: ForkReport `started`, with its pidfd
//   server -> process   over the channel: ForkReport `ended`, or `failed`, or `refused`
//
// All sockets are of whole messages and have no name, so nobody but these two can reach the server.
// The channel's end of file means: the server is gone, and no child has got as far as to report.
// (Who waits for it watches the server too: another thread's fork may keep the channel open.)
#pragma once

#include <multiprocessing/os/clock.hpp>
#include <multiprocessing/os/fd.hpp>
#include <multiprocessing/os/poll.hpp>
#include <multiprocessing/os/socket.hpp>
#include <multiprocessing/shm/processes.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <system_error>
#include <vector>

namespace multiprocessing::runtime::forkserver {

/// Shared by a server and the process whose it is; whoever does not know it is refused.
using Key = std::array<std::byte, 32>;

struct ForkRequest {
    Key key;
    shm::HolderId child;  // its place in the arena
};

struct ForkReport {
    enum class Kind : std::int32_t { started, ended, failed, refused };
    Kind kind;
    std::int32_t pid;
    std::int32_t value;  // ended: the exit code; failed: the errno of fork
};

/// Sends one message; false when the other side is gone.
template <class Message>
bool send_message(int socket, const Message& message, std::span<const int> descriptors = {}) {
    ::iovec part{const_cast<Message*>(&message), sizeof message};
    try {
        os::send_all(socket, {&part, 1}, descriptors);
    } catch (const std::system_error& error) {
        if (error.code() == std::errc::broken_pipe) return false;
        throw;
    }
    return true;
}

/// The next message; nothing when the other side is gone.
template <class Message>
[[nodiscard]] std::optional<Message> receive_message(int socket,
                                                     std::vector<os::Fd>* descriptors = nullptr) {
    Message message{};
    const auto bytes = std::as_writable_bytes(std::span(&message, 1));
    if (os::receive_some(socket, bytes, descriptors) != sizeof message) return std::nullopt;
    return message;
}

/// Which of its standard streams a child is sent.
struct Streams {
    bool out = false;
    bool err = false;
};

/// Sends a child its descriptors, as many messages as that takes.
inline void send_descriptors(int channel, Streams streams, std::span<const int> descriptors) {
    do {
        const auto batch = descriptors.first(std::min(descriptors.size(), os::most_descriptors));
        if (!send_message(channel, streams, batch)) return;  // the report will tell
        descriptors = descriptors.subspan(batch.size());
    } while (!descriptors.empty());
}

}  // namespace multiprocessing::runtime::forkserver
