// SPDX-License-Identifier: BSL-1.0
//
// What is said between a process and its fork server, and between the process and the child that
// the server forks for it. Answers the protocol of Python's `forkserver`.
//
//   process -> server   ForkRequest, with one end of a channel that is made for this child alone
//   process -> child    over the channel: a parcel with its Preparation and its descriptors
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
#include <cstring>
#include <optional>
#include <span>
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

/// A part of a message; it is not written to.
[[nodiscard]] inline ::iovec part_of(std::span<const std::byte> bytes) {
    return {const_cast<std::byte*>(bytes.data()), bytes.size()};
}

/// Sends one message; false when the other side is gone.
template <class Message>
bool send_message(int socket, const Message& message, std::span<const int> descriptors = {}) {
    ::iovec part = part_of(std::as_bytes(std::span(&message, 1)));
    return os::try_send_all(socket, {&part, 1}, descriptors);
}

/// The next message; nothing when the other side is gone.
template <class Message>
[[nodiscard]] std::optional<Message> receive_message(int socket,
                                                     os::ReceivedDescriptors* descriptors = nullptr) {
    Message message{};
    const auto bytes = std::as_writable_bytes(std::span(&message, 1));
    if (os::receive_some(socket, bytes, descriptors) != sizeof message) return std::nullopt;
    return message;
}

/// Waits until a report is there to be received, or none will come; false at the deadline. The
/// channel's end alone would not tell of the server's, which `server` is the sentinel of: a child
/// that another thread has forked meanwhile may have the other side open too.
[[nodiscard]] inline bool await_report(int channel, int server, os::Deadline deadline) {
    std::array<os::PollEntry, 2> entries{{{channel, os::poll_in, 0}, {server, os::poll_in, 0}}};
    if (!os::poll(entries, deadline)) return false;
    // A child that has not reported by now cannot any more, and so leaves.
    if (entries[0].revents == 0) os::shutdown_connection(channel);
    return true;
}

/// What a process sends the child that it has asked for begins with this. In the same message comes
/// the Preparation, pickled; if it is too long for that it is a file, the first of the descriptors.
struct ParcelHead {
    bool told_by_file = false;
    bool out = false;  // whether standard output is among the descriptors,
    bool err = false;  // and standard error
};
inline constexpr std::size_t most_told = 2000;  // bytes in a message

/// Sends it, in as many messages as the descriptors need. Nothing comes of it when the child is
/// gone: its report will tell.
inline void send_parcel(int channel, const ParcelHead& head, std::span<const std::byte> told,
                        std::span<const int> descriptors) {
    do {
        const auto batch = descriptors.first(std::min(descriptors.size(), os::most_descriptors));
        std::array<::iovec, 2> parts{part_of(std::as_bytes(std::span(&head, 1))), part_of(told)};
        if (!os::try_send_all(channel, parts, batch)) return;
        told = {};
        descriptors = descriptors.subspan(batch.size());
    } while (!descriptors.empty());
}

/// A parcel as it arrives, message by message. The first has what is told; those that follow have
/// nothing but more descriptors.
class ReceivedParcel {
public:
    /// The next message; false when who should have sent it is gone. Adds its descriptors.
    [[nodiscard]] bool receive(int channel, os::ReceivedDescriptors& descriptors) {
        size_ = os::receive_some(channel, bytes_, &descriptors);
        descriptors.check();
        return size_ >= sizeof(ParcelHead);
    }
    [[nodiscard]] ParcelHead head() const {
        ParcelHead head;
        std::memcpy(&head, bytes_.data(), sizeof head);
        return head;
    }
    [[nodiscard]] std::span<const std::byte> told() const {
        return std::span(bytes_).first(size_).subspan(sizeof(ParcelHead));
    }

private:
    std::size_t size_ = 0;
    std::array<std::byte, sizeof(ParcelHead) + most_told> bytes_;
};

}  // namespace multiprocessing::runtime::forkserver
