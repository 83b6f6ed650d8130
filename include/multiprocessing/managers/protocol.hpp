// SPDX-License-Identifier: BSL-1.0
//
// What clients and servers of managers say to each other: one request, one reply, on connections that
// each have a thread of the server's own. The bytes are an archive's; handles of shared objects and
// descriptors travel beside them where the connection is a local one. Answers the messages of Python's
// `multiprocessing.managers`, which are pickled tuples.
#pragma once

#include <multiprocessing/connection/pipe.hpp>
#include <multiprocessing/os/clock.hpp>
#include <multiprocessing/os/fork.hpp>
#include <multiprocessing/os/random.hpp>
#include <multiprocessing/os/socket.hpp>
#include <multiprocessing/pickle/buffer.hpp>
#include <multiprocessing/pickle/cargo.hpp>
#include <multiprocessing/runtime/channel.hpp>
#include <multiprocessing/runtime/object_message.hpp>

#include <compare>
#include <cstdint>
#include <optional>
#include <utility>

namespace multiprocessing::managers {

/// What a request begins with. What follows is said where it is written, in link.hpp.
enum class Request : std::uint8_t {
    hello,    // who is calling
    call,     // an entry, with an object
    create,   // an entry that makes one
    find,     // an object that was registered under a name
    lend,     // another reference, for a message that is under way
    redeem,   // takes over one that was lent
    release,  // gives one up
    count,    // how many objects there are
    stop,
};

/// What a reply begins with.
enum class Reply : std::uint8_t { value, exception, no_entry };

inline constexpr std::uint32_t protocol_version = 1;

/// A process that uses a server. Its references end with the last of its connections.
struct SessionId {
    std::uint64_t high = 0;
    std::uint64_t low = 0;

    [[nodiscard]] static SessionId make() { return {os::random_number(), os::random_number()}; }
    [[nodiscard]] explicit operator bool() const noexcept { return (high | low) != 0; }
    friend auto operator<=>(const SessionId&, const SessionId&) = default;
};

/// One connection between a client and a server. Forked children do not have it.
class Line {
public:
    explicit Line(Connection connection)
        : connection_(std::move(connection)), not_for_children_(connection_.fileno()) {}

    [[nodiscard]] int fileno() const { return connection_.fileno(); }
    [[nodiscard]] bool is_local() const { return channel().local(); }
    // After a TimeoutError of either the line is of no use any more.
    void send(const pickle::Buffer& message, pickle::Cargo& cargo,
              os::Deadline deadline = os::Deadline::never()) const {
        runtime::send_object(channel(), message, cargo, deadline);
    }
    /// Throws EOFError when the other has gone. `buffer`, which is empty, holds the message.
    void receive(pickle::Buffer& buffer, std::optional<runtime::ReceivedObject>& message,
                 os::Deadline deadline = os::Deadline::never()) const {
        message.emplace(channel(), buffer, deadline);
    }
    /// Has a thread that waits for a message here see the end.
    void hang_up() const noexcept { os::shutdown_connection(connection_.fileno()); }

private:
    [[nodiscard]] runtime::Channel& channel() const { return connection_.channel(); }

    Connection connection_;
    os::NotForChildren not_for_children_;
};

}  // namespace multiprocessing::managers
