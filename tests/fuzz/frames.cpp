// SPDX-License-Identifier: BSL-1.0
//
// Bytes that a Connection receives from somebody who means no good: a stream of them from a network, or
// packets at the end of a pipe. Whatever they are, a call returns what was sent or throws what it says
// that it throws.
//
// The first byte chooses what the bytes arrive at, each of the next 8 what is asked for.
#include <multiprocessing/connection.hpp>

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/os/socket.hpp>
#include <multiprocessing/queues.hpp>
#include <multiprocessing/reduction.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

namespace mp = multiprocessing;

namespace {

using Bytes = std::span<const std::byte>;

void must(bool condition) {
    if (!condition) std::abort();
}

void receive(const mp::Connection& connection, unsigned what) {
    switch (what % 10) {
    case 0:
        static_cast<void>(connection.recv_bytes());
        break;
    case 1:
        must(connection.recv_bytes(what).size() <= what);
        break;
    case 2: {
        std::array<std::byte, 64> buffer{};
        std::fill(buffer.begin(), buffer.end(), std::byte{0xaa});
        const std::size_t offset = what % 64;
        try {
            const std::size_t size =
                connection.recv_bytes_into(buffer, static_cast<std::ptrdiff_t>(offset));
            must(size <= 64 - offset);
            must(std::all_of(buffer.begin() + static_cast<std::ptrdiff_t>(offset + size), buffer.end(),
                             [](std::byte byte) { return byte == std::byte{0xaa}; }));
        } catch (const mp::BufferTooShort& error) {
            must(error.message().size() > 64 - offset);
        }
        break;
    }
    case 3:
        static_cast<void>(connection.recv<std::string>());
        break;
    case 4:
        static_cast<void>(connection.recv<std::vector<int>>());
        break;
    case 5:
        static_cast<void>(connection.recv<std::map<std::string, std::optional<double>>>());
        break;
    case 6:
        static_cast<void>(connection.recv<mp::Queue<int>>());
        break;
    case 7:
        static_cast<void>(connection.recv<std::vector<mp::Connection>>());
        break;
    case 8:
        static_cast<void>(connection.recv<mp::reduction::DupFd>());
        break;
    default:
        static_cast<void>(mp::reduction::recv_handle(connection));
        break;
    }
}

/// Receives one after the other until nothing is left.
void receive_all(const mp::Connection& connection, Bytes wishes) {
    for (std::size_t i = 0; i < 100; ++i) {
        try {
            receive(connection,
                    wishes.empty() ? 0 : std::to_integer<unsigned>(wishes[i % wishes.size()]));
        } catch (const mp::EOFError&) {
            return;
        } catch (const mp::UnpicklingError&) {
        } catch (const std::system_error& error) {
            // A length that is none, or longer than was asked for; or the end of receiving after one.
            must(error.code().value() == EMSGSIZE || error.code().value() == EBADF);
            if (!connection.readable()) return;
        } catch (const std::runtime_error&) {  // recv_handle's
        }
    }
}

void from_a_stream(Bytes bytes, Bytes wishes) {
    auto [ours, theirs] = mp::os::socket_pair();
    must(mp::os::try_send_now(theirs.get(), bytes));
    theirs.reset();
    receive_all(mp::Connection(std::move(ours)), wishes);
}

/// Packets, of which each begins with its length; but one's ticket for shared memory names nothing: who
/// has a pipe's other end is of the family, and may write there.
void from_a_pipe(Bytes bytes, Bytes wishes) {
    auto [ours, theirs] = mp::Pipe();
    const int socket = theirs.fileno();
    for (int packets = 0; !bytes.empty() && packets < 50; ++packets) {
        const auto size =
            std::min<std::size_t>(std::to_integer<std::size_t>(bytes[0]), bytes.size() - 1);
        std::vector<std::byte> packet(bytes.begin() + 1,
                                      bytes.begin() + 1 + static_cast<std::ptrdiff_t>(size));
        bytes = bytes.subspan(1 + size);
        if (packet.size() == 32) std::memset(packet.data() + 24, 0xff, 8);
        if (!packet.empty() && !mp::os::try_send_now(socket, packet)) break;
    }
    theirs.close();
    receive_all(ours, wishes);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    constexpr std::size_t head = 9;
    if (size < head) return 0;
    const Bytes bytes = std::as_bytes(std::span(data, size));
    const auto to = (data[0] & 1) == 0 ? from_a_stream : from_a_pipe;
    to(bytes.subspan(head), bytes.subspan(1, head - 1));
    return 0;
}
