// SPDX-License-Identifier: BSL-1.0
//
// The handshake with somebody who does not know the key, or knows it and does not keep to the protocol:
// nobody gets through who has not once answered the question rightly.
//
// The first byte chooses the side. Then follow messages, each after a byte that says how it is made: of
// what follows, or what an honest peer would say, or that with a difference.
#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/os/fd.hpp>
#include <multiprocessing/os/socket.hpp>
#include <multiprocessing/runtime/challenge.hpp>
#include <multiprocessing/runtime/greeting.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>

namespace mp = multiprocessing;
using mp::runtime::Handshake;

namespace {

const mp::bytes key("the key");

void must(bool condition) {
    if (!condition) std::abort();
}

/// The rest of the input, taken piece by piece.
class Input {
public:
    explicit Input(std::string_view text) : text_(text) {}
    [[nodiscard]] bool empty() const { return text_.empty(); }
    unsigned byte() {
        if (text_.empty()) return 0;
        const auto byte = static_cast<unsigned char>(text_.front());
        text_.remove_prefix(1);
        return byte;
    }
    std::string_view piece(std::size_t size) {
        const auto piece = text_.substr(0, size);
        text_.remove_prefix(piece.size());
        return piece;
    }

private:
    std::string_view text_;
};

/// Says what an honest peer would say to the last message; nothing where that has nothing to say.
class Honest {
public:
    explicit Honest(Handshake::Side side) : handshake_(side, key) { said_ = handshake_.start(); }
    void hear(std::string_view message) {
        try {
            said_ = handshake_.receive(std::as_bytes(std::span(message)));
        } catch (const mp::AuthenticationError&) {
            said_.clear();
        }
    }
    [[nodiscard]] const std::string& said() const { return said_; }
    [[nodiscard]] bool done() const { return handshake_.done(); }

private:
    Handshake handshake_;
    std::string said_;
};

std::string next_message(Input& input, const std::string& honest) {
    switch (input.byte() % 4) {
    case 0:
        return honest;
    case 1: {
        std::string message = honest;
        if (!message.empty()) {
            message[input.byte() % message.size()] ^= static_cast<char>(input.byte() | 1);
        }
        return message;
    }
    case 2:
        return honest.substr(0, input.byte());
    default:
        return std::string(input.piece(input.byte()));
    }
}

/// The machine by itself.
void play(Handshake::Side side, Input input) {
    Handshake ours(side, key);
    Honest theirs(side == Handshake::Side::listener ? Handshake::Side::client
                                                    : Handshake::Side::listener);
    std::string said = ours.start();
    bool proved = false;
    if (!said.empty()) theirs.hear(said);
    for (int i = 0; i < 10; ++i) {
        const std::string message = next_message(input, theirs.said());
        const bool is_proof = message == theirs.said() && message.starts_with("{sha256}");
        try {
            said = ours.receive(std::as_bytes(std::span(message)));
        } catch (const mp::AuthenticationError&) {
            must(!ours.done());
            const auto farewell = ours.farewell();
            must(farewell.empty() || farewell == "#FAILURE#");
            said = farewell;
        }
        proved = proved || is_proof;
        must(!ours.done() || proved);
        if (!said.empty()) theirs.hear(said);
    }
}

/// The same over a socket, in pieces of any size.
void play_over_socket(Handshake::Side side, Input input) {
    auto [near, far] = mp::os::socket_pair();
    std::optional<mp::runtime::Greeting> greeting(std::in_place, std::move(near), side, key);
    Honest theirs(side == Handshake::Side::listener ? Handshake::Side::client
                                                    : Handshake::Side::listener);
    const auto hear = [&, &socket = far] {
        std::array<std::byte, 2048> buffer;
        const auto got = mp::os::try_receive_some(socket.get(), buffer);
        if (!got || *got < 4) return;
        // One message at a time is all that is said before it is answered.
        theirs.hear(mp::runtime::challenge::text(std::span(buffer).first(*got).subspan(4)));
    };
    hear();
    bool proved = false;
    try {
        for (int i = 0; i < 20 && !input.empty(); ++i) {
            const std::string message = next_message(input, theirs.said());
            std::string frame;
            if (input.byte() % 4 != 0) {
                const mp::runtime::FrameHeader header(message.size());
                frame.assign(reinterpret_cast<const char*>(header.bytes.data()), header.size);
            }
            frame += message;
            proved = proved || (message == theirs.said() && message.starts_with("{sha256}"));
            for (std::string_view rest = frame; !rest.empty();) {
                const auto part = rest.substr(0, 1 + input.byte());
                rest.remove_prefix(part.size());
                if (!mp::os::try_send_now(far.get(), std::as_bytes(std::span(part)))) return;
                if (greeting->advance()) {
                    must(proved);
                    return;
                }
                hear();
            }
        }
        far.reset();
        must(!greeting->advance());
    } catch (const mp::AuthenticationError&) {
    } catch (const mp::EOFError&) {}
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size == 0) return 0;
    const Input input(std::string_view(reinterpret_cast<const char*>(data), size).substr(1));
    const auto side = (data[0] & 1) == 0 ? Handshake::Side::listener : Handshake::Side::client;
    ((data[0] & 2) == 0 ? play : play_over_socket)(side, input);
    return 0;
}
