// SPDX-License-Identifier: BSL-1.0
//
// CPython's tests of connections and sockets that are sent.
#include <multiprocessing/connection.hpp>

#include <multiprocessing/os/fd.hpp>
#include <multiprocessing/reduction.hpp>

#include "conformance/helpers.hpp"
#include "support/catch.hpp"

#include <cctype>
#include <cstddef>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

namespace mp = multiprocessing;
using namespace support;

namespace {

std::string upper(std::string text) {
    for (char& letter : text) {
        letter = static_cast<char>(std::toupper(static_cast<unsigned char>(letter)));
    }
    return text;
}

// What CPython's test takes a Listener and a Client for: an address is the bytes of a sockaddr.
using RawAddress = std::string;
using Errand = std::optional<std::pair<RawAddress, std::string>>;

mp::os::Fd stream_socket(int family) {
    mp::os::Fd socket(::socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0));
    EXPECT(socket);
    return socket;
}

mp::os::Fd listening_socket(int family) {
    mp::os::Fd socket = stream_socket(family);
    ::sockaddr_storage address{};
    address.ss_family = static_cast<::sa_family_t>(family);
    if (family == AF_INET) {
        reinterpret_cast<::sockaddr_in&>(address).sin_addr.s_addr = ::htonl(INADDR_LOOPBACK);
    }
    // An AF_UNIX address that is nothing but the family: the kernel finds one without a file.
    const ::socklen_t size = family == AF_INET ? sizeof(::sockaddr_in) : sizeof address.ss_family;
    EXPECT(::bind(socket.get(), reinterpret_cast<const ::sockaddr*>(&address), size) == 0);
    EXPECT(::listen(socket.get(), 1) == 0);
    return socket;
}

RawAddress address_of(const mp::os::Fd& socket) {
    ::sockaddr_storage address{};
    ::socklen_t size = sizeof address;
    const auto place = reinterpret_cast<::sockaddr*>(&address);
    EXPECT(::getsockname(socket.get(), place, &size) == 0);
    return RawAddress(reinterpret_cast<const char*>(&address), size);
}

mp::os::Fd accepted(const mp::os::Fd& listener) {
    EXPECT(!mp::connection::wait({listener.get()}, patient).empty());
    mp::os::Fd socket(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
    EXPECT(socket);
    return socket;
}

mp::os::Fd connected(const RawAddress& raw) {
    ::sockaddr_storage address{};
    raw.copy(reinterpret_cast<char*>(&address), sizeof address);
    mp::os::Fd socket = stream_socket(address.ss_family);
    EXPECT(::connect(socket.get(), reinterpret_cast<const ::sockaddr*>(&address),
                     static_cast<::socklen_t>(raw.size())) == 0);
    return socket;
}

void listen_and_pass_on(const mp::Connection& connection, const std::vector<int>& families) {
    for (const int family : families) {
        const mp::os::Fd listener = listening_socket(family);
        connection.send(address_of(listener));
        const mp::Connection made(accepted(listener));
        connection.send(made);
        made.close();
    }
    mp::os::Fd listener = listening_socket(AF_INET);
    connection.send(address_of(listener));
    mp::os::Fd made = accepted(listener);
    connection.send(mp::reduction::DupFd(made.get()));
    made.reset();
    listener.reset();
    EXPECT(!connection.recv<std::optional<int>>());
}

void connect_and_send(const mp::Connection& connection) {
    while (const auto errand = connection.recv<Errand>()) {
        const mp::Connection client(connected(errand->first));
        client.send(upper(errand->second));
        client.close();
    }
    const auto errand = connection.recv<Errand>();
    const std::string text = upper(errand.value().second);
    const mp::os::Fd client = connected(errand->first);
    EXPECT(::send(client.get(), text.data(), text.size(), MSG_NOSIGNAL) == std::ssize(text));
    connection.close();
}

void use_both(const mp::Connection& connection) {
    const auto writer = connection.recv<mp::Connection>();
    EXPECT(writer.writable() && !writer.readable());
    writer.send("all is well");
    writer.close();
    const auto reader = connection.recv<mp::Connection>();
    EXPECT(reader.readable() && !reader.writable());
    const auto text = reader.recv<std::string>();
    connection.send(text + text);
    connection.close();
}

}  // namespace

TEST_CASE("_TestPicklingConnections.test_pickling", "[connection][conformance]") {
    EVERY_START_METHOD;
    const std::vector<int> families{AF_INET, AF_UNIX};
    const mp::ProcessOptions daemon{.daemon = true};
    Children children(method);
    const auto [listener, listener_end] = mp::Pipe();
    children.start(daemon, listen_and_pass_on, listener_end, families);
    listener_end.close();
    const auto [remote, remote_end] = mp::Pipe();
    children.start(daemon, connect_and_send, remote_end);
    remote_end.close();

    for (const int family : families) {
        const std::string text = "This connection uses family " + std::to_string(family);
        remote.send(Errand(std::in_place, receive<RawAddress>(listener), text));
        const auto connection = receive<mp::Connection>(listener);
        CHECK(receive<std::string>(connection) == upper(text));
    }
    remote.send(Errand());

    const std::string text = "This connection uses a normal socket";
    remote.send(Errand(std::in_place, receive<RawAddress>(listener), text));
    const mp::os::Fd socket = receive<mp::reduction::DupFd>(listener).detach();
    std::string got;
    for (;;) {
        REQUIRE_FALSE(mp::connection::wait({socket.get()}, patient).empty());
        char part[100];
        const auto size = ::recv(socket.get(), part, sizeof part, 0);
        REQUIRE(size >= 0);
        if (size == 0) break;
        got.append(part, static_cast<std::size_t>(size));
    }
    CHECK(got == upper(text));

    listener.send(std::optional<int>());
    remote.close();
    listener.close();
    CHECK(children.join());
}

TEST_CASE("_TestPicklingConnections.test_access", "[connection][conformance]") {
    EVERY_START_METHOD;
    const auto [ours, theirs] = mp::Pipe();
    Children children(method);
    children.start(mp::ProcessOptions{.daemon = true}, use_both, theirs);
    theirs.close();
    {
        const auto [reader, writer] = mp::Pipe(false);
        ours.send(writer);
        writer.close();
        CHECK(receive<std::string>(reader) == "all is well");
        reader.close();
    }
    {
        const auto [reader, writer] = mp::Pipe(false);
        ours.send(reader);
        reader.close();
        writer.send("foobar");
        writer.close();
        CHECK(receive<std::string>(ours) == "foobarfoobar");
    }
    CHECK(children.join());
}
