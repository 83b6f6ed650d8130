// SPDX-License-Identifier: BSL-1.0
#include "support/catch.hpp"

#include <multiprocessing/os/socket.hpp>

#include <array>
#include <chrono>
#include <cstddef>
#include <span>
#include <string>
#include <system_error>
#include <vector>

namespace os = multiprocessing::os;

namespace {

bool send(const os::Fd& socket, std::string text, std::span<const int> descriptors = {}) {
    ::iovec part{text.data(), text.size()};
    return os::try_send_all(socket.get(), {&part, 1}, descriptors);
}

std::string receive(const os::Fd& socket, os::ReceivedDescriptors* descriptors = nullptr) {
    std::array<char, 100> text{};
    const auto size = os::receive_some(
        socket.get(), std::as_writable_bytes(std::span(text)), descriptors);
    return {text.data(), size};
}

}  // namespace

TEST_CASE("what a peer has sent arrives, whatever it left unread", "[os][socket]") {
    const auto kind = GENERATE(os::SocketKind::messages, os::SocketKind::stream);
    auto [ours, theirs] = os::socket_pair(kind);
    REQUIRE(send(ours, "never read"));
    REQUIRE(send(theirs, "the last"));
    theirs.reset();
    CHECK(receive(ours) == "the last");
    CHECK(receive(ours).empty());
    CHECK(receive(ours).empty());
}

TEST_CASE("a peer that is gone is told, not signalled", "[os][socket]") {
    const auto kind = GENERATE(os::SocketKind::messages, os::SocketKind::stream);
    auto [ours, theirs] = os::socket_pair(kind);
    theirs.reset();
    CHECK_FALSE(send(ours, "x"));
    char byte = 0;
    ::iovec part{&byte, 1};
    try {
        os::send_all(ours.get(), {&part, 1});
        FAIL_CHECK("it was sent");
    } catch (const std::system_error& error) {
        CHECK(error.code() == std::errc::broken_pipe);
    }
}

TEST_CASE("a peer that takes nothing is given up at a deadline", "[os][socket]") {
    const auto kind = GENERATE(os::SocketKind::messages, os::SocketKind::stream);
    auto [ours, theirs] = os::socket_pair(kind);
    std::vector<char> bytes(std::size_t{1} << 14);
    const auto fill = [&, socket = ours.get()] {
        for (;;) {
            ::iovec part{bytes.data(), bytes.size()};
            os::send_all(socket, {&part, 1}, {},
                         os::Deadline::after(std::chrono::milliseconds(10)));
        }
    };
    CHECK_THROWS_AS(fill(), multiprocessing::TimeoutError);
}

TEST_CASE("a connection that was shut down still has what was sent before", "[os][socket]") {
    auto [ours, theirs] = os::socket_pair(os::SocketKind::messages);
    REQUIRE(send(theirs, "before"));
    os::shutdown_connection(ours.get());
    CHECK_FALSE(send(theirs, "after"));
    CHECK(receive(ours) == "before");
    CHECK(receive(ours).empty());
}

TEST_CASE("as many descriptors as Linux allows ride on one message", "[os][socket]") {
    auto [ours, theirs] = os::socket_pair(os::SocketKind::messages);
    const std::vector<int> many(os::most_descriptors, ours.get());
    REQUIRE(send(ours, "all", many));
    os::ReceivedDescriptors received;
    CHECK(receive(theirs, &received) == "all");
    CHECK(received.all.size() == many.size());
    // Who does not ask for them does not keep them.
    REQUIRE(send(ours, "none", many));
    CHECK(receive(theirs) == "none");
}
