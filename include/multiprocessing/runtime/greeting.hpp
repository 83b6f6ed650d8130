// SPDX-License-Identifier: BSL-1.0
//
// A handshake over a socket that takes a step whenever there is something to read: whoever waits for many
// at once never waits for one of them alone.
#pragma once

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/os/clock.hpp>
#include <multiprocessing/os/fd.hpp>
#include <multiprocessing/os/poll.hpp>
#include <multiprocessing/os/socket.hpp>
#include <multiprocessing/runtime/challenge.hpp>
#include <multiprocessing/runtime/channel.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>

namespace multiprocessing::runtime {

/// A connection on which a handshake is under way. Nothing is read beyond it.
class Greeting {
public:
    /// Sends what comes first.
    Greeting(os::Fd socket, Handshake::Side side, const bytes& key)
        : socket_(std::move(socket)), handshake_(side, key) {
        send(handshake_.start());
    }

    /// Goes on as far as it can without waiting; whether that is the end. Throws AuthenticationError
    /// for a wrong key and for what is no handshake, EOFError when the other has closed the connection.
    [[nodiscard]] bool advance();

    [[nodiscard]] int fileno() const noexcept { return socket_.get(); }
    /// The socket, for what it was connected for.
    [[nodiscard]] os::Fd take() noexcept { return std::move(socket_); }

private:
    /// Returns false if the other has left, or takes nothing.
    [[nodiscard]] bool try_send(std::string_view message);
    void send(std::string_view message) {
        if (!message.empty() && !try_send(message)) throw_end();
    }
    /// Reads until there are `size` bytes of the message; false if they are not all there yet.
    [[nodiscard]] bool fill(std::size_t size);

    os::Fd socket_;
    Handshake handshake_;
    std::array<std::byte, 4 + longest_handshake_message> message_{};
    std::size_t have_ = 0;
};

/// Greets the listener that a socket is connected to. Throws as advance() does, and TimeoutError.
/// *Blocks* until that has been done, which is when somebody accepts the connection.
[[nodiscard]] os::Fd greet_listener(os::Fd socket, const bytes& key, os::Deadline deadline,
                                    std::string_view name);

// ---------------------------------------------------------------------------------------------------

inline bool Greeting::advance() {
    while (!handshake_.done()) {
        if (!fill(4)) return false;
        const auto length = big_endian<std::uint32_t>(std::span(message_).first<4>());
        if (length > longest_handshake_message) {
            throw AuthenticationError("bad message length: what comes over the connection is no "
                                      "handshake of multiprocessing's");
        }
        if (!fill(4 + length)) return false;
        have_ = 0;
        try {
            send(handshake_.receive(std::span(message_).subspan(4, length)));
        } catch (const AuthenticationError&) {
            // That he is wrong counts for more than that he has left.
            const std::string_view farewell = handshake_.farewell();
            if (!farewell.empty()) static_cast<void>(try_send(farewell));
            throw;
        }
    }
    return true;
}

inline os::Fd greet_listener(os::Fd socket, const bytes& key, os::Deadline deadline,
                             std::string_view name) {
    Greeting greeting(std::move(socket), Handshake::Side::client, key);
    try {
        while (!greeting.advance()) {
            if (!os::poll(greeting.fileno(), os::poll_in, deadline)) {
                throw TimeoutError("the listener at " + std::string(name) +
                                   " has not finished the handshake in time: one without "
                                   "an authkey never does");
            }
        }
    } catch (const EOFError&) {
        throw EOFError("the listener at " + std::string(name) +
                       " has closed the connection before the handshake was done");
    }
    return greeting.take();
}

inline bool Greeting::try_send(std::string_view message) {
    const FrameHeader header(message.size());
    std::string frame(reinterpret_cast<const char*>(header.bytes.data()), header.size);
    frame += message;
    // A fresh socket has room for all that a handshake sends, unless the other takes nothing.
    return os::try_send_now(socket_.get(), std::as_bytes(std::span(frame)));
}

inline bool Greeting::fill(std::size_t size) {
    while (have_ < size) {
        const auto got =
            os::try_receive_some(socket_.get(), std::span(message_).subspan(have_, size - have_));
        if (!got) return false;
        if (*got == 0) throw_end();
        have_ += *got;
    }
    return true;
}

}  // namespace multiprocessing::runtime
