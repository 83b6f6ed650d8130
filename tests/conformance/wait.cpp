// SPDX-License-Identifier: BSL-1.0
//
// CPython's tests of connection.wait.
#include <multiprocessing/connection.hpp>

#include <multiprocessing/synchronize.hpp>

#include "conformance/helpers.hpp"
#include "runtime/helpers.hpp"
#include "support/catch.hpp"

#include <algorithm>
#include <concepts>
#include <csignal>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

namespace mp = multiprocessing;
using namespace support;
using mp::connection::wait;
using mp::connection::Waitable;
using Waitables = std::vector<Waitable>;

namespace {

constexpr int senders = 4;
constexpr int messages = 10;

// Where CPython's slow senders sleep, these wait until they are waited for.
void send_messages(const mp::Connection& out, const mp::Semaphore& pace) {
    for (int i = 0; i < messages; ++i) {
        EXPECT(pace.acquire(patient));
        out.send(std::pair(i, ::getpid()));
    }
    out.close();
}

::sockaddr_in local_address(std::uint16_t port) {
    ::sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = ::htonl(INADDR_LOOPBACK);
    address.sin_port = port;
    return address;
}

mp::os::Fd tcp_socket() { return mp::os::Fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)); }

void send_lines(std::uint16_t port, const mp::Semaphore& pace) {
    const mp::os::Fd socket = tcp_socket();
    const auto address = local_address(port);
    EXPECT(::connect(socket.get(), reinterpret_cast<const ::sockaddr*>(&address), sizeof address) ==
           0);
    for (int i = 0; i < messages; ++i) {
        EXPECT(pace.acquire(patient));
        const std::string line = std::to_string(i) + "\n";
        EXPECT(::send(socket.get(), line.data(), line.size(), MSG_NOSIGNAL) == std::ssize(line));
    }
}

// All senders may go on as they like; or one of them, once for each wait.
mp::Semaphore pace_of(bool slow) { return mp::Semaphore(slow ? 0 : senders * messages); }

void check_wait(const std::string& method, bool slow) {
    const mp::Semaphore pace = pace_of(slow);
    Children children(method);
    std::vector<mp::Connection> readers;
    std::vector<std::pair<int, int>> expected;
    for (int n = 0; n < senders; ++n) {
        const auto [reader, writer] = mp::Pipe(false);
        const auto child =
            children.start(mp::ProcessOptions{.daemon = true}, send_messages, writer, pace);
        writer.close();
        readers.push_back(reader);
        for (int i = 0; i < messages; ++i) expected.emplace_back(i, child.pid().value());
    }
    std::vector<std::pair<int, int>> got;
    while (!readers.empty()) {
        if (slow) pace.release();
        const auto ready = wait(readers, patient);
        REQUIRE_FALSE(ready.empty());
        for (const Waitable& one : ready) {
            const mp::Connection reader = one.connection().value();
            try {
                got.push_back(reader.recv<std::pair<int, int>>());
            } catch (const mp::EOFError&) {
                std::erase(readers, reader);
                reader.close();
            }
        }
    }
    std::sort(got.begin(), got.end());
    std::sort(expected.begin(), expected.end());
    CHECK(got == expected);
    CHECK(children.join());
}

void check_wait_socket(const std::string& method, bool slow) {
    mp::os::Fd listener = tcp_socket();
    auto address = local_address(0);
    ::socklen_t size = sizeof address;
    const auto any = reinterpret_cast<::sockaddr*>(&address);
    REQUIRE(::bind(listener.get(), any, size) == 0);
    REQUIRE(::listen(listener.get(), senders) == 0);
    REQUIRE(::getsockname(listener.get(), any, &size) == 0);

    const mp::Semaphore pace = pace_of(slow);
    Children children(method);
    for (int n = 0; n < senders; ++n) {
        children.start(mp::ProcessOptions{.daemon = true}, send_lines, address.sin_port, pace);
    }
    std::map<int, std::pair<mp::os::Fd, std::string>> readers;
    for (int n = 0; n < senders; ++n) {
        REQUIRE(wait({listener.get()}, patient).size() == 1);
        mp::os::Fd reader(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
        const int number = reader.get();
        readers.emplace(number, std::pair(std::move(reader), std::string()));
    }
    listener.reset();

    while (!readers.empty()) {
        if (slow) pace.release();
        std::vector<int> numbers;
        for (const auto& reader : readers) numbers.push_back(reader.first);
        const auto ready = wait(numbers, patient);
        REQUIRE_FALSE(ready.empty());
        for (const Waitable& one : ready) {
            std::string& text = readers.at(one.fileno()).second;
            char part[32];
            const auto got = ::recv(one.fileno(), part, sizeof part, 0);
            REQUIRE(got >= 0);
            text.append(part, static_cast<std::size_t>(got));
            if (got != 0) continue;
            CHECK(text == "0\n1\n2\n3\n4\n5\n6\n7\n8\n9\n");
            readers.erase(one.fileno());
        }
    }
    CHECK(children.join());
}

}  // namespace

TEST_CASE("TestWait.test_wait", "[connection][conformance]") {
    EVERY_START_METHOD;
    check_wait(method, false);
}

TEST_CASE("TestWait.test_wait_slow", "[connection][conformance]") {
    EVERY_START_METHOD;
    check_wait(method, true);
}

TEST_CASE("TestWait.test_wait_socket", "[connection][conformance]") {
    EVERY_START_METHOD;
    check_wait_socket(method, false);
}

TEST_CASE("TestWait.test_wait_socket_slow", "[connection][conformance]") {
    EVERY_START_METHOD;
    check_wait_socket(method, true);
}

TEST_CASE("TestWait.test_wait_timeout", "[connection][conformance]") {
    const auto [a, b] = mp::Pipe();
    const Waitables both{a, b};
    CHECK(elapsed([&] { CHECK(wait(both, timeout1).empty()); }) >= timeout1);
    b.send(0);
    CHECK(wait(both, patient) == Waitables{a});
}

TEST_CASE("TestWait.test_wait_integer", "[connection][conformance]") {
    EVERY_START_METHOD;
    const auto [a, b] = mp::Pipe();
    const mp::Semaphore runs(0);
    const mp::Event may_end;
    Children children(method);
    const auto p = children.start(
        [](const mp::Semaphore& s, const mp::Event& e) {
            s.release();
            e.wait(patient);
        },
        runs, may_end);
    const std::same_as<int> auto sentinel = p.sentinel();
    const Waitables all{a, sentinel, b};
    CHECK(runs.acquire(patient));
    CHECK(wait(all, timeout2).empty());
    may_end.set();
    CHECK(wait(all, patient) == Waitables{sentinel});
    a.send(0);
    CHECK(wait(all, patient) == Waitables{sentinel, b});
    b.send(0);
    CHECK(wait(all, patient) == all);
    p.terminate();
    CHECK(children.join());
}

TEST_CASE("TestWait.test_neg_timeout", "[connection][conformance]") {
    const auto [a, b] = mp::Pipe();
    CHECK(elapsed([&, a = a] { CHECK(wait({a}, -1).empty()); }) < no_time);
}
