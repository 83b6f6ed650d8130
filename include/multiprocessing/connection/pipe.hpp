// SPDX-License-Identifier: BSL-1.0
//
// `mp::Connection` and `mp::Pipe`: messages between two processes. Answers Python's
// `multiprocessing.connection.Connection` and `Pipe`.
#pragma once

#include <multiprocessing/bytes.hpp>
#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/os/fd.hpp>
#include <multiprocessing/os/memory.hpp>
#include <multiprocessing/os/poll.hpp>
#include <multiprocessing/os/socket.hpp>
#include <multiprocessing/pickle/buffer.hpp>
#include <multiprocessing/pickle/handle.hpp>
#include <multiprocessing/pickle/message.hpp>
#include <multiprocessing/runtime/channel.hpp>
#include <multiprocessing/runtime/object_message.hpp>
#include <multiprocessing/timeout.hpp>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <ranges>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace multiprocessing {

namespace python {
class object;  // <multiprocessing/python.hpp>
}
namespace managers {
class Line;
}

/// What bytes can be read from: contiguous elements that are nothing but their bytes. C arrays of
/// char are literals, and string_view's.
template <class R>
concept ByteSource = std::ranges::contiguous_range<R> && std::ranges::sized_range<R> &&
    std::is_trivially_copyable_v<std::ranges::range_value_t<R>> &&
    !std::is_array_v<std::remove_cvref_t<R>>;

/// One end of a connection: a handle, whose copies are the same end. What is sent at one end is
/// received at the other, message by message, in order.
///
///     auto [a, b] = mp::Pipe();
///     a.send(std::vector{1, 2, 3});
///     auto v = b.recv<std::vector<int>>();
///
/// *Python*: `multiprocessing.connection.Connection`. Wrong use (closed, or the wrong way) is
/// std::system_error with EBADF and Python's words.
/// *Process safety*: messages stay whole whatever threads of one process call; several processes
/// that use the same end at the same time need a lock among them.
/// *Fork and spawn*: forked children share it; to a spawned one, or through a Connection, it travels
/// as a descriptor. Every process that has a copy keeps the end open: close what you do not use, or
/// the other end sees no EOFError.
/// *If a peer dies*, between messages or within one, `recv` throws EOFError and `send` throws
/// std::system_error with EPIPE.
class Connection {
public:
    /// A closed one, to be assigned to.
    Connection() noexcept = default;
    /// Takes over a stream socket. Throws ValueError when it is none at all (-1) or the end of a Pipe,
    /// which travels as a Connection alone, and when it is to be neither readable nor writable.
    explicit Connection(os::Fd socket, bool readable = true, bool writable = true);

    /// Pickles the object and sends it as one message. Whatever fails before the first byte (a
    /// PicklingError) leaves the connection as it was.
    /// *Blocks* while the peer's buffer is full.
    template <class T>
    void send(const T& object) const;
    /// The next message, which must hold a T. Throws UnpicklingError when it does not (the message
    /// is consumed), EOFError when there is none and will be none.
    /// *Blocks* until it is there.
    template <class T>
    T recv() const;

    /// Sends what a Python process gets from its `recv()`, and receives what that one has sent by its
    /// `send()`: `mp::python::dumps` and `loads` with `send_bytes` and `recv_bytes`. For these
    /// include <multiprocessing/python.hpp>.
    template <class T>
    void send_python(const T& object) const;
    template <class T = python::object>
    T recv_python() const;

    /// Sends `buffer[offset, offset + size)` as one message, in bytes; without `size`, up to the
    /// end. Throws ValueError when that is not inside the buffer. An empty message is a message.
    void send_bytes(std::span<const std::byte> buffer, std::ptrdiff_t offset = 0,
                    std::optional<std::ptrdiff_t> size = std::nullopt) const;
    void send_bytes(std::string_view text, std::ptrdiff_t offset = 0,
                    std::optional<std::ptrdiff_t> size = std::nullopt) const {
        send_bytes(std::as_bytes(std::span(text.data(), text.size())), offset, size);
    }
    /// The same for any contiguous elements; `offset` and `size` count bytes here too.
    template <ByteSource R>
    void send_bytes(const R& elements, std::ptrdiff_t offset = 0,
                    std::optional<std::ptrdiff_t> size = std::nullopt) const {
        send_bytes(
            std::as_bytes(std::span(std::ranges::data(elements), std::ranges::size(elements))),
            offset, size);
    }
    /// The next message as bytes. One longer than `maxlength` throws std::system_error (EMSGSIZE)
    /// and ends all receiving from here: the end can still be written to, or is closed if it
    /// cannot.
    bytes recv_bytes(std::optional<std::ptrdiff_t> maxlength = std::nullopt) const;
    /// Receives the next message into `buffer` from byte `offset` on, and returns its length. The
    /// rest of the buffer is untouched. Throws BufferTooShort, which holds the message.
    std::size_t recv_bytes_into(std::span<std::byte> buffer, std::ptrdiff_t offset = 0) const;
    template <ByteSource R>
        requires(!std::is_const_v<std::remove_reference_t<std::ranges::range_reference_t<R&>>>)
    std::size_t recv_bytes_into(R& elements, std::ptrdiff_t offset = 0) const {
        return recv_bytes_into(std::as_writable_bytes(std::span(std::ranges::data(elements),
                                                                std::ranges::size(elements))),
                               offset);
    }

    /// Whether there is something to receive, an EOFError included, before the timeout: by default
    /// right now.
    [[nodiscard]] bool poll(Timeout timeout = 0) const;
    /// The descriptor, for poll(2); nobody else may read or write there.
    [[nodiscard]] int fileno() const { return channel().descriptor()->get(); }
    /// Closes this end in this process. Harmless when done twice.
    void close() const {
        if (channel_) channel_->close();
    }
    [[nodiscard]] bool closed() const { return !channel_ || channel_->closed(); }
    [[nodiscard]] bool readable() const noexcept { return channel_ && channel_->readable(); }
    [[nodiscard]] bool writable() const noexcept { return channel_ && channel_->writable(); }

    /// The same end in the same process?
    friend bool operator==(const Connection&, const Connection&) noexcept = default;

private:
    friend std::pair<Connection, Connection> Pipe(bool duplex);
    friend struct pickle::Codec<Connection>;
    friend class managers::Line;
    Connection(os::Fd socket, bool readable, bool writable, runtime::PipeRef pipe)
        : channel_(std::make_shared<runtime::Channel>(std::move(socket), readable, writable,
                                                      std::move(pipe))) {}

    [[nodiscard]] runtime::Channel& channel() const {
        if (!channel_) runtime::throw_bad_descriptor("handle is closed");
        return *channel_;
    }

    std::shared_ptr<runtime::Channel> channel_;
};

/// Two connected ends. Both can send and receive if `duplex`, else the first receives and the
/// second sends. *Python*: `Pipe(duplex=True)`.
/// *Fork*: the child has both ends, too. Who is to see EOFError when the other side closes must not
/// have that side itself: give the child both, and have each process close what is not its own.
[[nodiscard]] std::pair<Connection, Connection> Pipe(bool duplex = true);

// -------------------------------------------------------------------------------------------------

inline Connection::Connection(os::Fd socket, bool readable, bool writable) {
    if (!socket) throw ValueError("invalid handle: the socket is none, its number negative");
    if (!readable && !writable) {
        throw ValueError("at least one of `readable` and `writable` must be true");
    }
    if (os::is_message_socket(socket.get())) {
        throw ValueError("a Connection is made of a stream socket, and this one keeps messages whole, as "
                         "those of a Pipe do: send the Connection itself, not its descriptor");
    }
    channel_ = std::make_shared<runtime::Channel>(std::move(socket), readable, writable);
}

template <class T>
void Connection::send(const T& object) const {
    using Message = pickle::travel_decay_t<T>;
    static_assert(
        pickle::Picklable<Message>,
        "this type cannot be sent: give it a `serialize` as Boost.Serialization asks for");
    static_cast<void>(channel().for_writing());
    if constexpr (pickle::has_exact_size<Message> && std::same_as<Message, T>) {
        const std::size_t size = *pickle::exact_size(object);
        if (channel().is_long(size)) {
            runtime::send_long_object(channel(), object, size);
            return;
        }
    }
    const bool local = channel().local();
    pickle::Cargo cargo(local, "a Connection over a network", local);
    pickle::Scratch scratch;
    pickle::dump<Message>(object, *scratch, &cargo);
    runtime::send_object(channel(), *scratch, cargo);
}

template <class T>
T Connection::recv() const {
    static_assert(pickle::Picklable<T>,
                  "this type cannot be received: give it a `serialize` as Boost.Serialization asks "
                  "for");
    pickle::Scratch scratch;
    runtime::ReceivedObject message(channel(), *scratch);
    return pickle::load<T>(message.body(), &message.cargo());
}

inline void Connection::send_bytes(std::span<const std::byte> buffer, std::ptrdiff_t offset,
                                   std::optional<std::ptrdiff_t> size) const {
    const auto length = std::ssize(buffer);
    static_cast<void>(channel().for_writing());
    if (offset < 0) throw ValueError("offset is negative: " + std::to_string(offset));
    if (offset > length) {
        throw ValueError("buffer length < offset: " + std::to_string(length) + " < " +
                         std::to_string(offset));
    }
    if (size && *size < 0) throw ValueError("size is negative: " + std::to_string(*size));
    if (size && *size > length - offset) {
        throw ValueError("buffer length < offset + size: " + std::to_string(length) + " < " +
                         std::to_string(offset) + " + " + std::to_string(*size));
    }
    const auto part = buffer.subspan(static_cast<std::size_t>(offset),
                                     static_cast<std::size_t>(size.value_or(length - offset)));
    ::iovec parts[] = {{}, {const_cast<std::byte*>(part.data()), part.size()}};
    channel().send(parts);
}

inline bytes Connection::recv_bytes(std::optional<std::ptrdiff_t> maxlength) const {
    if (maxlength && *maxlength < 0) {
        throw ValueError("negative maxlength: " + std::to_string(*maxlength));
    }
    const auto check = [&](std::uint64_t length) {
        if (!maxlength || length <= static_cast<std::uint64_t>(*maxlength)) return;
        channel().stop_reading();
        throw std::system_error(EMSGSIZE, std::system_category(),
                                "bad message length: " + std::to_string(length) +
                                    " bytes, where recv_bytes was to take at most " +
                                    std::to_string(*maxlength) +
                                    "; nothing more can be received here");
    };
    bytes message;
    if (channel().pipe()) {
        pickle::Scratch scratch;
        const auto received = channel().receive_whole(*scratch, check);
        message.reserve(received.bytes.size());
        os::before_filling(message.data(), received.bytes.size());
        message.assign(received.bytes.begin(), received.bytes.end());
    } else {
        channel().receive(check, runtime::growing(message));
    }
    return message;
}

inline std::size_t Connection::recv_bytes_into(std::span<std::byte> buffer,
                                               std::ptrdiff_t offset) const {
    static_cast<void>(channel().for_reading());
    if (offset < 0) throw ValueError("offset is negative: " + std::to_string(offset));
    if (offset > std::ssize(buffer)) {
        throw ValueError("buffer length < offset: " + std::to_string(buffer.size()) + " < " +
                         std::to_string(offset));
    }
    const auto place = buffer.subspan(static_cast<std::size_t>(offset));
    std::uint64_t length = 0;
    bytes refused;
    const auto note = [&](std::uint64_t announced) { length = announced; };
    if (channel().pipe()) {
        pickle::Scratch scratch;
        const auto received = channel().receive_whole(*scratch, note);
        if (length > place.size()) {
            refused = bytes(received.bytes);
        } else if (length != 0) {
            std::memcpy(place.data(), received.bytes.data(), received.bytes.size());
        }
    } else {
        auto grow = runtime::growing(refused);
        channel().receive(note, [&](std::size_t missing) {
            return length <= place.size() ? place.first(missing) : grow(missing);
        });
    }
    if (length > place.size()) {
        throw BufferTooShort("the message has " + std::to_string(length) +
                                 " bytes, the buffer room for " + std::to_string(place.size()) +
                                 ": BufferTooShort::message() holds it whole",
                             std::move(refused));
    }
    return static_cast<std::size_t>(length);
}

inline bool Connection::poll(Timeout timeout) const {
    const auto socket = channel().for_reading();
    os::PollEntry entry{socket->get(), os::poll_in, 0};
    const bool ready = os::poll({&entry, 1}, timeout) != 0;
    if ((entry.revents & os::poll_invalid) != 0) {
        runtime::throw_bad_descriptor("poll: the descriptor is closed, or was never open");
    }
    return ready;
}

inline std::pair<Connection, Connection> Pipe(bool duplex) {
    // Sockets for both kinds: descriptors cannot travel through a pipe.
    auto [first, second] = os::socket_pair(os::SocketKind::messages);
    if (!duplex) {
        os::shutdown_writing(first.get());
        os::shutdown_reading(second.get());
    }
    const auto shared = runtime::PipeRef::make(0);
    return {Connection(std::move(first), true, duplex, shared),
            Connection(std::move(second), duplex, true, shared)};
}

/// Travels as a descriptor and, if it is a pipe's, with what its ends share; keeps its direction.
template <>
struct pickle::Codec<Connection> {
    static constexpr bool picklable = true;
    static void save(OArchive& archive, const Connection& connection) {
        const int descriptor = connection.fileno();
        const runtime::PipeRef& pipe = connection.channel().pipe();
        archive.put(static_cast<std::uint32_t>(archive.cargo().add_descriptor(descriptor)));
        archive.put(static_cast<std::uint8_t>((connection.readable() ? readable : 0) |
                                              (connection.writable() ? writable : 0) |
                                              (pipe ? is_pipe : 0)));
        if (pipe) save_ref(archive, pipe);
    }
    static void load(IArchive& archive, Connection& connection) {
        const auto index = archive.get<std::uint32_t>();
        const auto flags = archive.get<std::uint8_t>();
        if (flags > (readable | writable | is_pipe)) {
            throw UnpicklingError("the bytes hold no Connection");
        }
        os::Fd socket = archive.cargo().take_descriptor(index);
        runtime::PipeRef pipe;
        if ((flags & is_pipe) != 0) {
            pipe = runtime::PipeRef(load_ref(archive, sizeof(shm::PipeState)));
        }
        connection = (flags & (readable | writable)) == 0
                         ? Connection()
                         : Connection(std::move(socket), (flags & readable) != 0,
                                      (flags & writable) != 0, std::move(pipe));
    }

private:
    static constexpr unsigned readable = 1;
    static constexpr unsigned writable = 2;
    static constexpr unsigned is_pipe = 4;
};

}  // namespace multiprocessing
