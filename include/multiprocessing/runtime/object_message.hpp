// SPDX-License-Identifier: BSL-1.0
//
// A pickled object as a message of a Channel: its bytes, then the tickets of the shared objects in
// it, if there are any the id of the arena that they are of, and their number; its descriptors beside.
// Through a pipe the tickets go beside, too. Answers Python's `resource_sharer` as well.
#pragma once

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/os/clock.hpp>
#include <multiprocessing/os/fd.hpp>
#include <multiprocessing/os/socket.hpp>
#include <multiprocessing/pickle/buffer.hpp>
#include <multiprocessing/pickle/cargo.hpp>
#include <multiprocessing/pickle/message.hpp>
#include <multiprocessing/runtime/challenge_words.hpp>
#include <multiprocessing/runtime/channel.hpp>
#include <multiprocessing/shm/ref.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace multiprocessing::runtime {

/// Throws UnpicklingError, with the way out, when a message that is no object is the first of a listener's
/// that wants to know a key.
inline void check_for_challenge(std::span<const std::byte> message) {
    if (!challenge::text(message).starts_with(challenge::prefix)) return;
    throw UnpicklingError("the message is not an object: the other end asks for the key that it was given. "
                          "Connect with the same, as in Client(address, {.authkey = key})");
}

inline constexpr std::size_t first_piece = std::size_t{1} << 20;

[[nodiscard]] inline std::size_t next_piece(std::size_t missing, std::size_t have) noexcept {
    return std::min(missing, std::max(have, first_piece));
}

/// For Channel::receive: appends to `sink`, which has `size()` and `grow(n)`; twice what is there
/// at a time, so that a lie about the length costs the liar as many bytes.
[[nodiscard]] inline auto growing(std::vector<std::byte>& sink) {
    return [&sink](std::size_t missing) {
        const std::size_t have = sink.size();
        sink.resize(have + next_piece(missing, have));
        return std::span(sink).subspan(have);
    };
}

[[nodiscard]] inline auto growing(pickle::Buffer& sink) {
    return [&sink](std::size_t missing) {
        const std::size_t size = next_piece(missing, sink.size());
        return std::span(sink.grow(size), size);
    };
}

/// Sends what has been pickled; then the cargo is the receiver's. The deadline is for a stream; see
/// Channel::send.
inline void send_object(Channel& channel, const pickle::Buffer& body, pickle::Cargo& cargo,
                        os::Deadline deadline = os::Deadline::never()) {
    if (cargo.descriptors().size() > os::most_descriptors) {
        throw PicklingError("one message can take " + std::to_string(os::most_descriptors) +
                            " Connections, this one has " +
                            std::to_string(cargo.descriptors().size()) +
                            ": send them in several messages");
    }
    const auto tickets = cargo.tickets();
    auto count = static_cast<std::uint32_t>(tickets.size());
    if (channel.pipe() && (count != 0 || channel.is_long(body.size() + sizeof count))) {
        // Tickets beside the message and not in it, so that they end with the pipe if nobody receives
        // them.
        const auto write = [&](std::byte* to) {
            body.copy_to(to);
            std::memset(to + body.size(), 0, sizeof count);
        };
        channel.send_long(body.size() + sizeof count, write, cargo.descriptors(), &cargo);
    } else {
        std::uint64_t arena = count == 0 ? 0 : shm::Arena::instance().header().id;
        ::iovec parts[] = {{},
                           {const_cast<std::byte*>(body.data()), body.size()},
                           {const_cast<shm::Ticket*>(tickets.data()), tickets.size_bytes()},
                           {&arena, count == 0 ? 0 : sizeof arena},
                           {&count, sizeof count}};
        channel.send(parts, cargo.descriptors(), deadline);
    }
    cargo.ship();
}

/// The same for an object whose pickled size is known: written straight to where it is received from.
template <class T>
void send_long_object(Channel& channel, const T& object, std::size_t size) {
    channel.send_long(size + sizeof(std::uint32_t), [&](std::byte* to) {
        pickle::dump_to(object, to);
        std::memset(to + size, 0, sizeof(std::uint32_t));
    });
}

/// The next message of a channel, taken apart.
class ReceivedObject {
public:
    /// `buffer`, which is empty, holds the bytes and must live as long. A message of a stream that is
    /// `alone_until` a deadline is followed by none before it has been answered, and TimeoutError is thrown
    /// at the deadline; see Channel::receive_alone.
    ReceivedObject(Channel& channel, pickle::Buffer& buffer,
                   std::optional<os::Deadline> alone_until = std::nullopt)
        : message_(receive(channel, buffer, descriptors_, alone_until)),
          tickets_(cut_tickets(message_.bytes)),
          cargo_(tickets_.empty() && message_.run ? message_.run.tickets() : std::span(tickets_),
                 std::move(descriptors_.all)) {}

    [[nodiscard]] std::span<const std::byte> body() const noexcept { return message_.bytes; }
    [[nodiscard]] pickle::Cargo& cargo() noexcept { return cargo_; }

private:
    static Channel::Received receive(Channel& channel, pickle::Buffer& buffer,
                                     os::ReceivedDescriptors& descriptors,
                                     std::optional<os::Deadline> alone_until) {
        const auto any = [](std::uint64_t) {};
        if (channel.pipe()) return channel.receive_whole(buffer, any, &descriptors);
        if (alone_until) return {channel.receive_alone(buffer, descriptors, *alone_until), {}};
        channel.receive(any, growing(buffer), &descriptors);
        return {buffer.span(), {}};
    }
    static std::vector<shm::Ticket> cut_tickets(std::span<const std::byte>& body);

    os::ReceivedDescriptors descriptors_;
    Channel::Received message_;
    std::vector<shm::Ticket> tickets_;
    pickle::Cargo cargo_;
};

inline std::vector<shm::Ticket> ReceivedObject::cut_tickets(std::span<const std::byte>& body) {
    std::uint32_t count = 0;
    const std::span<const std::byte> whole = body;
    const auto check = [whole](bool is_object) {
        if (is_object) return;
        check_for_challenge(whole);
        throw UnpicklingError("the message is not a pickled object: was it sent by send_bytes?");
    };
    const auto cut = [&](void* to, std::size_t size) {
        check(size <= body.size());
        if (size != 0) std::memcpy(to, body.last(size).data(), size);
        body = body.first(body.size() - size);
    };
    cut(&count, sizeof count);
    if (count == 0) return {};
    // Whoever does not know the id is a stranger to the memory that tickets are of, and must not have
    // its say about what is counted there.
    std::uint64_t arena = 0;
    cut(&arena, sizeof arena);
    if (arena != shm::Arena::instance().header().id) {
        check_for_challenge(whole);
        throw UnpicklingError("the message holds handles of queues, locks or other shared objects of "
                              "another program: they mean nothing outside of the processes that it "
                              "has started");
    }
    check(count <= body.size() / sizeof(shm::Ticket));
    std::vector<shm::Ticket> tickets(count);
    cut(tickets.data(), count * sizeof(shm::Ticket));
    return tickets;
}

}  // namespace multiprocessing::runtime
