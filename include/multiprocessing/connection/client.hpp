// SPDX-License-Identifier: BSL-1.0
//
// `mp::connection::Client`: a connection to a Listener, in C++ or in Python; and the two halves of the
// handshake by themselves. Answers Python's `Client`, `deliver_challenge` and `answer_challenge`.
#pragma once

#include <multiprocessing/bytes.hpp>
#include <multiprocessing/connection/address.hpp>
#include <multiprocessing/connection/listener.hpp>
#include <multiprocessing/connection/pipe.hpp>
#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/os/listen.hpp>
#include <multiprocessing/runtime/challenge.hpp>
#include <multiprocessing/runtime/greeting.hpp>
#include <multiprocessing/timeout.hpp>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

namespace multiprocessing::connection {

/// The keyword arguments of `Client`.
struct ClientOptions {
    /// Left out: that of the address.
    std::optional<Family> family = std::nullopt;
    /// The listener's, if it has one.
    std::optional<bytes> authkey = std::nullopt;
    /// For connecting and the handshake together, which last until the listener accepts. Python has
    /// none.
    Timeout timeout = {};
};

/// Connects to the listener at an address. *Python*: `multiprocessing.connection.Client`.
///
///     auto c = mp::connection::Client(Address("127.0.0.1", 5000), {.authkey = "secret"});
///
/// *Throws* std::system_error when nobody listens there (ECONNREFUSED, ENOENT), AuthenticationError
/// when the keys differ, EOFError when the listener closes the connection before it has answered,
/// TimeoutError; ValueError for an address that is none.
/// *Blocks*, with a key, until the listener accepts; without one while too many others wait for that.
Connection Client(const Address& address, ClientOptions options = {});

/// Has the other end prove that it knows the key, which is to call `answer_challenge`. Throws
/// AuthenticationError when it cannot; ValueError for a digest other than "sha256", "sha384",
/// "sha3_256", "sha3_384" and "md5".
void deliver_challenge(const Connection& connection, const bytes& authkey,
                       std::string_view digest_name = "sha256");
/// Proves to the other end, which has called `deliver_challenge`, that one knows the key. Throws
/// AuthenticationError when it is not content, or asks for nothing.
void answer_challenge(const Connection& connection, const bytes& authkey);

// ---------------------------------------------------------------------------------------------------

[[nodiscard]] inline os::Fd connect_to_port(const Address& address, int family,
                                            os::Deadline deadline) {
    const std::string name = address.str();
    const auto all = os::resolve(address.host(), static_cast<std::uint16_t>(address.port()), family,
                                 false);
    // A host may have several addresses, of which the first that answers will do.
    for (std::size_t i = 0;; ++i) {
        try {
            os::Fd socket = os::connect_to(all[i], deadline, name);
            os::tune_network_socket(socket.get());
            return socket;
        } catch (const std::system_error&) {
            if (i + 1 == all.size()) throw;
        }
    }
}

inline Connection Client(const Address& address, ClientOptions options) {
    check_family(options.family, address);
    os::Deadline deadline(options.timeout);
    os::Fd socket;
    if (address == Address()) throw ValueError("Client: the address is empty");
    if (address.family() == Family(AF_UNIX)) {
        const os::UnixAddress where(address.path());
        socket = os::connect_to(where.address(), deadline, address.str());
    } else {
        socket = connect_to_port(address, options.family.value_or(address.family()).value(), deadline);
    }
    if (options.authkey) {
        socket = runtime::greet_listener(std::move(socket), *options.authkey, deadline, address.str());
    }
    return Connection(std::move(socket));
}

inline void deliver_challenge(const Connection& connection, const bytes& authkey,
                              std::string_view digest_name) {
    const runtime::ChallengeDelivery delivery(digest_name);
    connection.send_bytes(delivery.question());
    const bytes answer = connection.recv_bytes(runtime::longest_handshake_message);
    try {
        delivery.check(authkey, answer.span());
    } catch (const AuthenticationError&) {
        try {
            connection.send_bytes(runtime::challenge::failure);
        } catch (const std::system_error&) {  // he has left, which counts for less
        }
        throw;
    }
    connection.send_bytes(runtime::challenge::welcome);
}

inline void answer_challenge(const Connection& connection, const bytes& authkey) {
    const bytes question = connection.recv_bytes(runtime::longest_handshake_message);
    connection.send_bytes(runtime::answer_to(authkey, question.span()));
    runtime::check_welcome(connection.recv_bytes(runtime::longest_handshake_message).span());
}

}  // namespace multiprocessing::connection
