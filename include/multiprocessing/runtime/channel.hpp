// SPDX-License-Identifier: BSL-1.0
//
// What a Connection is a handle to: a stream socket with messages framed as CPython frames them, a
// big-endian int for the length, and -1 and eight bytes where that is too small. Answers
// `connection.Connection._send_bytes` and `_recv_bytes`.
#pragma once

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/os/fork.hpp>
#include <multiprocessing/os/socket.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

namespace multiprocessing::runtime {

/// One end of a connection. Messages go and come whole whatever threads call; a thread that waits
/// for a message does not keep others from sending.
class Channel {
public:
    using DescriptorPointer = std::shared_ptr<const os::Fd>;

    Channel(os::Fd fd, bool readable, bool writable)
        : fd_(std::make_shared<const os::Fd>(std::move(fd))), readable_(readable),
          writable_(writable), local_(os::is_local_socket(fd_->get())) {}

    [[nodiscard]] bool closed() const { return !peek(); }
    [[nodiscard]] bool readable() const noexcept { return readable_; }
    [[nodiscard]] bool writable() const noexcept { return writable_; }
    /// Whether descriptors can be sent over it.
    [[nodiscard]] bool local() const noexcept { return local_; }
    void close() {
        const std::lock_guard lock(mutex_);
        fd_.reset();
    }
    /// The descriptor, which stays open while it is held. These throw std::system_error (EBADF)
    /// when the connection is closed or does not go that way.
    [[nodiscard]] DescriptorPointer descriptor() const;
    [[nodiscard]] DescriptorPointer for_reading() const;
    [[nodiscard]] DescriptorPointer for_writing() const;

    /// Sends one message that consists of `parts`, of which the first is left free for the header.
    void send(std::span<::iovec> parts, std::span<const int> descriptors = {});
    /// Receives one message: `room(size)` is asked for memory piece by piece as the message comes,
    /// so that a length alone makes nobody allocate. It gets how much is missing, and returns a
    /// piece of at most that. `check(length)` sees the length first, and may throw.
    template <class Check, class Room>
    void receive(Check check, Room room, std::vector<os::Fd>* descriptors = nullptr);
    /// After a message that was refused the stream is of no use any more.
    void stop_reading();

private:
    [[nodiscard]] DescriptorPointer peek() const {
        const std::lock_guard lock(mutex_);
        return fd_;
    }
    /// Fills `to`; an end of the stream is EOFError.
    static void receive_all(int fd, std::span<std::byte> to, std::vector<os::Fd>* descriptors);
    static std::uint64_t receive_length(int fd, std::vector<os::Fd>* descriptors);

    mutable os::ForkAwareMutex mutex_;  // guards fd_
    os::ForkAwareMutex sending_;
    os::ForkAwareMutex receiving_;
    DescriptorPointer fd_;
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

inline void Channel::send(std::span<::iovec> parts, std::span<const int> descriptors) {
    std::uint64_t length = 0;
    for (const ::iovec& part : parts.subspan(1)) length += part.iov_len;
    FrameHeader header(length);
    parts[0] = {header.bytes.data(), header.size};
    const auto fd = for_writing();
    const std::lock_guard lock(sending_);
    os::send_all(fd->get(), parts, descriptors);
}

inline void Channel::receive_all(int fd, std::span<std::byte> to,
                                 std::vector<os::Fd>* descriptors) {
    while (!to.empty()) {
        const std::size_t got = os::receive_some(fd, to, descriptors);
        if (got == 0) {
            throw EOFError("the other end of the connection is closed, and all it sent has been "
                           "received");
        }
        to = to.subspan(got);
    }
}

inline std::uint64_t Channel::receive_length(int fd, std::vector<os::Fd>* descriptors) {
    std::array<std::byte, 4> short_form{};
    receive_all(fd, short_form, descriptors);
    const auto length = big_endian<std::uint32_t>(short_form);
    if (length <= 0x7fff'ffff) return length;
    std::array<std::byte, 8> long_form{};
    if (length == 0xffff'ffff) receive_all(fd, long_form, nullptr);
    const auto large = big_endian<std::uint64_t>(long_form);
    if (length == 0xffff'ffff && large <= std::numeric_limits<std::size_t>::max() / 2) return large;
    throw std::system_error(EMSGSIZE, std::system_category(),
                            "bad message length: what comes over the connection is no message");
}

template <class Check, class Room>
void Channel::receive(Check check, Room room, std::vector<os::Fd>* descriptors) {
    const std::lock_guard lock(receiving_);
    const auto fd = for_reading();
    const std::uint64_t length = receive_length(fd->get(), descriptors);
    check(length);
    for (std::uint64_t missing = length; missing != 0;) {
        const std::span<std::byte> piece = room(static_cast<std::size_t>(missing));
        receive_all(fd->get(), piece, nullptr);
        missing -= piece.size();
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
