// SPDX-License-Identifier: BSL-1.0
//
// What a Connection is a handle to: a socket with messages framed as CPython frames them, a
// big-endian int for the length, and -1 and eight bytes where that is too small. Answers
// `connection.Connection._send_bytes` and `_recv_bytes`.
//
// The two ends of a pipe are sockets of messages that stay whole, so that a short one is one system
// call at each end, and long ones lie in shared memory while a ticket goes through the socket.
#pragma once

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/os/clock.hpp>
#include <multiprocessing/os/fork.hpp>
#include <multiprocessing/os/poll.hpp>
#include <multiprocessing/os/socket.hpp>
#include <multiprocessing/pickle/buffer.hpp>
#include <multiprocessing/pickle/cargo.hpp>
#include <multiprocessing/shm/pipe_state.hpp>
#include <multiprocessing/shm/ref.hpp>
#include <multiprocessing/shm/run.hpp>
#include <multiprocessing/shm/wait.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

namespace multiprocessing::runtime {

/// What the ends of a pipe share; empty for a connection that is no pipe.
using PipeRef = shm::Shared<shm::PipeState>;

/// One end of a connection. Messages go and come whole whatever threads call; a thread that waits
/// for a message does not keep others from sending.
class Channel {
public:
    using DescriptorPointer = std::shared_ptr<const os::Fd>;

    /// A stream socket; or an end of a pipe, whose socket is one of messages.
    Channel(os::Fd fd, bool readable, bool writable, PipeRef pipe = {})
        : fd_(std::make_shared<const os::Fd>(std::move(fd))), pipe_(std::move(pipe)),
          readable_(readable), writable_(writable), local_(os::is_local_socket(fd_->get())) {}

    [[nodiscard]] bool closed() const { return !peek(); }
    [[nodiscard]] bool readable() const noexcept { return readable_; }
    [[nodiscard]] bool writable() const noexcept { return writable_; }
    /// Whether descriptors can be sent over it.
    [[nodiscard]] bool local() const noexcept { return local_; }
    [[nodiscard]] const PipeRef& pipe() const noexcept { return pipe_; }
    void close() {
        const std::lock_guard lock(mutex_);
        fd_.reset();
    }
    /// The descriptor, which stays open while it is held. These throw std::system_error (EBADF)
    /// when the connection is closed or does not go that way.
    [[nodiscard]] DescriptorPointer descriptor() const;
    [[nodiscard]] DescriptorPointer for_reading() const;
    [[nodiscard]] DescriptorPointer for_writing() const;

    /// Whether a message of so many bytes goes through shared memory.
    [[nodiscard]] bool is_long(std::uint64_t size) const noexcept {
        return pipe_ && size > most_short;
    }
    /// Sends one message that consists of `parts`, of which the first is left free for the header. A
    /// stream's may be given up at a deadline by TimeoutError; then nothing more can be sent there.
    void send(std::span<::iovec> parts, std::span<const int> descriptors = {},
              os::Deadline deadline = os::Deadline::never());
    /// Sends one of `size` bytes through shared memory, for a pipe: write(std::byte*) puts them there.
    /// The tickets of `cargo`, if there is one, go with it.
    template <class Write>
    void send_long(std::uint64_t size, Write write, std::span<const int> descriptors = {},
                   pickle::Cargo* cargo = nullptr);

    /// Receives one message of a stream: `room(size)` is asked for memory piece by piece as the message
    /// comes, so that a length alone makes nobody allocate. It gets how much is missing, and returns a
    /// piece of at most that. `check(length)` sees the length first, and may throw.
    template <class Check, class Room>
    void receive(Check check, Room room, os::ReceivedDescriptors* descriptors = nullptr);

    /// Receives one message of a stream on which nothing follows until it has been answered: short ones
    /// with one system call. Added to the buffer; the result is its body. Throws TimeoutError when it is
    /// not there at the deadline; then nothing more can be received there.
    [[nodiscard]] std::span<const std::byte> receive_alone(pickle::Buffer& buffer,
                                                           os::ReceivedDescriptors& descriptors,
                                                           os::Deadline deadline);

    /// A message of a pipe: in a buffer of the caller's, or in shared memory.
    struct Received {
        std::span<const std::byte> bytes;
        shm::Run run;
    };
    template <class Check>
    [[nodiscard]] Received receive_whole(pickle::Buffer& buffer, Check check,
                                         os::ReceivedDescriptors* descriptors = nullptr);
    /// After a message that was refused the stream is of no use any more.
    void stop_reading();

private:
    /// What goes through the socket for a long message: it begins with what is no length.
    struct LongFrame {
        std::array<unsigned char, 8> mark{0xff, 0xff, 0xff, 0xfe, 'l', 'o', 'n', 'g'};
        std::uint64_t size;
        shm::Ticket run;
        [[nodiscard]] static bool is(std::span<const std::byte> packet) noexcept {
            return packet.size() == sizeof(LongFrame) &&
                   std::memcmp(packet.data(), LongFrame{}.mark.data(), 8) == 0;
        }
    };
    static constexpr std::uint64_t most_short = std::uint64_t{16} << 10;
    static constexpr std::size_t packet_room = std::size_t{64} << 10;
    // Of longer messages there is one at a time that nobody has received: two with the one that is
    // being read, and no more memory than that is taken.
    static constexpr std::uint64_t most_ahead = std::uint64_t{256} << 10;

    [[nodiscard]] DescriptorPointer peek() const {
        const std::lock_guard lock(mutex_);
        return fd_;
    }
    void await_receiver(int fd) const;
    /// Receives something, after some looks whether it is there.
    [[nodiscard]] static std::size_t receive_soon(int fd, std::span<std::byte> to,
                                                  os::ReceivedDescriptors* descriptors);
    /// Fills `to`; an end of the stream is EOFError. Looks for the rest as for the beginning: its sender
    /// is copying it at this moment.
    static void receive_all(int fd, std::span<std::byte> to, os::ReceivedDescriptors* descriptors);
    static std::uint64_t receive_length(int fd, os::ReceivedDescriptors* descriptors);
    /// Adds the next message of the socket to the buffer; at the end EOFError.
    static void receive_packet(int fd, pickle::Buffer& buffer, os::ReceivedDescriptors* descriptors);

    mutable os::ForkAwareMutex mutex_;  // guards fd_
    os::ForkAwareMutex sending_;
    os::ForkAwareMutex receiving_;
    DescriptorPointer fd_;
    const PipeRef pipe_;
    std::atomic<bool> readable_;
    const bool writable_;
    const bool local_;
};

/// The header of a message of `length` bytes.
struct FrameHeader {
    std::array<std::byte, 12> bytes;
    std::size_t size;

    explicit FrameHeader(std::uint64_t length) noexcept;
};

template <std::unsigned_integral Number>
[[nodiscard]] constexpr Number big_endian(
    std::span<const std::byte, sizeof(Number)> bytes) noexcept {
    Number number = 0;
    for (const std::byte byte : bytes) {
        number = static_cast<Number>(number << 8 | std::to_integer<Number>(byte));
    }
    return number;
}

[[noreturn]] inline void throw_bad_descriptor(const char* what) {
    throw std::system_error(EBADF, std::system_category(), what);
}
[[noreturn]] inline void throw_bad_length() {
    throw std::system_error(EMSGSIZE, std::system_category(),
                            "bad message length: what comes over the connection is no message");
}
[[noreturn]] inline void throw_end() {
    throw EOFError("the other end of the connection is closed, and all it sent has been received");
}

inline Channel::DescriptorPointer Channel::descriptor() const {
    auto fd = peek();
    if (!fd) throw_bad_descriptor("handle is closed");
    return fd;
}

inline Channel::DescriptorPointer Channel::for_reading() const {
    auto fd = descriptor();
    if (!readable_) throw_bad_descriptor("connection is write-only");
    return fd;
}

inline Channel::DescriptorPointer Channel::for_writing() const {
    auto fd = descriptor();
    if (!writable_) throw_bad_descriptor("connection is read-only");
    return fd;
}

inline FrameHeader::FrameHeader(std::uint64_t length) noexcept : bytes{}, size(0) {
    const auto put = [this](std::uint64_t number, int width) {
        for (int shift = 8 * (width - 1); shift >= 0; shift -= 8) {
            bytes[size++] = static_cast<std::byte>(number >> shift);
        }
    };
    if (length > 0x7fff'ffff) {
        put(0xffff'ffff, 4);  // -1
        put(length, 8);
    } else {
        put(length, 4);
    }
}

/// The length that a message begins with; how many bytes that took is taken off `bytes`. Nothing if
/// they are too few.
[[nodiscard]] inline std::optional<std::uint64_t> parse_length(std::span<const std::byte>& bytes) {
    if (bytes.size() < 4) return std::nullopt;
    const auto length = big_endian<std::uint32_t>(bytes.first<4>());
    if (length <= 0x7fff'ffff) {
        bytes = bytes.subspan(4);
        return length;
    }
    if (length != 0xffff'ffff) throw_bad_length();
    if (bytes.size() < 12) return std::nullopt;
    const auto large = big_endian<std::uint64_t>(bytes.subspan<4, 8>());
    if (large > std::numeric_limits<std::size_t>::max() / 2) throw_bad_length();
    bytes = bytes.subspan(12);
    return large;
}

// Sending.

inline void Channel::send(std::span<::iovec> parts, std::span<const int> descriptors,
                          os::Deadline deadline) {
    std::uint64_t length = 0;
    for (const ::iovec& part : parts.subspan(1)) length += part.iov_len;
    if (is_long(length)) {
        const auto write = [&](std::byte* to) {
            for (const ::iovec& part : parts.subspan(1)) {
                if (part.iov_len != 0) std::memcpy(to, part.iov_base, part.iov_len);
                to += part.iov_len;
            }
        };
        send_long(length, write, descriptors);
        return;
    }
    FrameHeader header(length);
    parts[0] = {header.bytes.data(), header.size};
    const auto fd = for_writing();
    const std::lock_guard lock(sending_);
    os::send_all(fd->get(), parts, descriptors, deadline);
}

template <class Write>
void Channel::send_long(std::uint64_t size, Write write, std::span<const int> descriptors,
                        pickle::Cargo* cargo) {
    const auto fd = for_writing();
    const std::lock_guard lock(sending_);
    if (size > most_ahead) await_receiver(fd->get());
    shm::Run run(size, cargo != nullptr ? cargo->tickets() : std::span<const shm::Ticket>());
    if (cargo != nullptr) cargo->ship_tickets();  // now it is the run that gives them up
    write(run.data());
    const shm::Ticket ticket = shm::Arena::instance().ticket(run.block());
    LongFrame frame{.size = size, .run = ticket};
    ::iovec part{&frame, sizeof frame};
    os::send_all(fd->get(), {&part, 1}, descriptors);
    // Its receiver may have it, and have freed it, by now.
    run.release();
    pipe_->entrust(ticket);
}

/// Waits until what was sent has been received, or never will be: then sending fails.
inline void Channel::await_receiver(int fd) const {
    const auto received = [fd] { return os::unreceived(fd) == 0; };
    pipe_->received.wait(received, os::Deadline::never());
}

// Receiving.

/// How often a receiver looks whether there is a message before it sleeps: a look is a system call.
using ReceivingSpin = shm::Spinning<64, 4, 8>;

inline std::size_t Channel::receive_soon(int fd, std::span<std::byte> to,
                                         os::ReceivedDescriptors* descriptors) {
    std::optional<std::size_t> got;
    auto look = [&] { return (got = os::try_receive_some(fd, to, descriptors)).has_value(); };
    return ReceivingSpin::until(look) ? *got : os::receive_some(fd, to, descriptors);
}

inline void Channel::receive_all(int fd, std::span<std::byte> to,
                                 os::ReceivedDescriptors* descriptors) {
    while (!to.empty()) {
        const std::size_t got = receive_soon(fd, to, descriptors);
        if (got == 0) throw_end();
        to = to.subspan(got);
    }
}

inline std::uint64_t Channel::receive_length(int fd, os::ReceivedDescriptors* descriptors) {
    std::array<std::byte, 12> header{};
    const std::span first = std::span(header).first(4);
    const std::size_t got = receive_soon(fd, first, descriptors);
    if (got == 0) throw_end();
    receive_all(fd, first.subspan(got), descriptors);
    std::span<const std::byte> bytes = std::span(header).first(4);
    if (const auto length = parse_length(bytes)) return *length;
    receive_all(fd, std::span(header).subspan(4), nullptr);
    bytes = header;
    return *parse_length(bytes);
}

template <class Check, class Room>
void Channel::receive(Check check, Room room, os::ReceivedDescriptors* descriptors) {
    const std::lock_guard lock(receiving_);
    const auto fd = for_reading();
    const std::uint64_t length = receive_length(fd->get(), descriptors);
    check(length);
    for (std::uint64_t missing = length; missing != 0;) {
        const std::span<std::byte> piece = room(static_cast<std::size_t>(missing));
        receive_all(fd->get(), piece, nullptr);
        missing -= piece.size();
    }
    if (descriptors != nullptr) descriptors->check();
}

inline std::span<const std::byte> Channel::receive_alone(pickle::Buffer& buffer,
                                                         os::ReceivedDescriptors& descriptors,
                                                         os::Deadline deadline) {
    const std::lock_guard lock(receiving_);
    const auto fd = for_reading();
    const std::size_t before = buffer.size();
    const auto read = [&](std::size_t most, os::ReceivedDescriptors* with) {
        if (!deadline.is_never() && !os::poll(fd->get(), os::poll_in, deadline)) {
            throw TimeoutError("a message has not come in time, or not all of it");
        }
        const std::span room(buffer.grow(most), most);
        const std::size_t got = receive_soon(fd->get(), room, with);
        buffer.truncate(buffer.size() - (most - got));
        if (got == 0) throw_end();
    };
    read(packet_room, &descriptors);
    for (;;) {
        std::span<const std::byte> bytes = buffer.span().subspan(before);
        const auto length = parse_length(bytes);
        if (length && bytes.size() > *length) throw_bad_length();
        if (length && bytes.size() == *length) {
            descriptors.check();
            return bytes;
        }
        // No more memory at once than has come already, so that a lie about the length costs the liar.
        const std::uint64_t missing = length ? *length - bytes.size() : 12 - bytes.size();
        read(static_cast<std::size_t>(
                 std::min<std::uint64_t>(missing, std::max(packet_room, buffer.size()))),
             nullptr);
    }
}

inline void Channel::receive_packet(int fd, pickle::Buffer& buffer,
                                    os::ReceivedDescriptors* descriptors) {
    const std::size_t before = buffer.size();
    const std::span room(buffer.grow(packet_room), packet_room);
    const std::size_t got = receive_soon(fd, room, descriptors);
    buffer.truncate(before + got);
    if (got == 0) throw_end();
    if (got == packet_room) throw_bad_length();  // there was more, which is lost: no message of ours
}

template <class Check>
Channel::Received Channel::receive_whole(pickle::Buffer& buffer, Check check,
                                         os::ReceivedDescriptors* descriptors) {
    const std::lock_guard lock(receiving_);
    const auto fd = for_reading();
    for (;;) {
        receive_packet(fd->get(), buffer, descriptors);
        pipe_->received.notify_all();
        std::span<const std::byte> bytes = buffer.span();
        if (LongFrame::is(bytes)) {
            LongFrame frame{};
            std::memcpy(&frame, bytes.data(), sizeof frame);
            shm::Run run = pipe_->take(frame.run);
            if (!run) {  // its sender was killed in the middle: it had never been sent
                buffer.clear();
                if (descriptors != nullptr) *descriptors = {};
                continue;
            }
            if (frame.size > run.block().size) throw_bad_length();
            check(frame.size);
            if (descriptors != nullptr) descriptors->check();
            const std::span<const std::byte> body(run.data(), frame.size);
            return {body, std::move(run)};
        }
        // By others than us a message may have been written in pieces.
        std::optional<std::uint64_t> length;
        while (!(length = parse_length(bytes))) {
            receive_packet(fd->get(), buffer, descriptors);
            bytes = buffer.span();
        }
        check(*length);
        const std::size_t header = buffer.size() - bytes.size();
        while (buffer.size() - header < *length) receive_packet(fd->get(), buffer, descriptors);
        if (buffer.size() - header != *length) throw_bad_length();
        if (descriptors != nullptr) descriptors->check();
        return {buffer.span().subspan(header), {}};
    }
}

inline void Channel::stop_reading() {
    if (writable_) {
        readable_ = false;
    } else {
        close();
    }
}

}  // namespace multiprocessing::runtime
