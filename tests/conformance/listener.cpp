// SPDX-License-Identifier: BSL-1.0
//
// CPython's tests of Listener and Client, and of the handshake between them.
#include <multiprocessing/connection.hpp>

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/process.hpp>
#include <multiprocessing/runtime/challenge.hpp>
#include <multiprocessing/sharedctypes.hpp>

#include "conformance/helpers.hpp"
#include "runtime/helpers.hpp"
#include "support/catch.hpp"

#include <csignal>
#include <future>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include <unistd.h>

namespace mp = multiprocessing;
using namespace support;
using mp::connection::Address;
using mp::connection::Client;
using mp::connection::Family;
using mp::connection::Listener;

namespace {

std::vector<Family> families() { return {"AF_INET", "AF_UNIX"}; }

void say_hello(const Address& address) {
    const mp::Connection connection = Client(address, {.timeout = patient});
    connection.send("hello");
    connection.close();
}

// A number goes through.
void check_number(const Listener& listener) {
    const mp::Connection client = Client(listener.address());
    const mp::Connection accepted = listener.accept(patient);
    client.send(1729);
    CHECK(accepted.recv<int>() == 1729);
}

void send_after_a_while(const mp::Connection& connection, const Address& address) {
    connection.send(123);
    connection.close();
    const mp::Connection client = Client(address, {.timeout = patient});
    client.send(456);
    client.close();
}

// Counts signals while it waits in accept.
void accept_and_welcome(const mp::Connection& connection, const mp::Value<int>& signals) {
    static const mp::Value<int>* counted = nullptr;
    counted = &signals;
    struct ::sigaction action {};
    action.sa_handler = [](int) { counted->fetch_add(1); };
    ::sigaction(SIGUSR1, &action, nullptr);
    const Listener listener;
    connection.send(listener.address());
    listener.accept(patient).send("welcome");
}

}  // namespace

TEST_CASE("_TestListener.test_multiple_bind", "[connection][conformance]") {
    for (const Family family : families()) {
        const Listener listener({.family = family});
        CHECK_THROWS_AS(Listener(listener.address(), {.family = family}), std::system_error);
    }
}

TEST_CASE("_TestListener.test_context", "[connection][conformance]") {
    const Listener listener;
    check_number(listener);
    listener.close();
    CHECK_THROWS_AS(listener.accept(), std::system_error);
}

TEST_CASE("_TestListener.test_empty_authkey", "[connection][conformance]") {
    const mp::bytes key("");
    const Listener listener({.authkey = key});
    auto client = std::async(std::launch::async, [&] {
        Client(listener.address(), {.authkey = key, .timeout = patient}).send(1729);
    });
    CHECK(listener.accept(patient).recv<int>() == 1729);
    client.get();
    listener.close();
    CHECK_THROWS_AS(listener.accept(), std::system_error);
}

TEST_CASE("_TestListener.test_abstract_socket", "[connection][conformance]") {
    const Listener listener(std::string(1, '\0') + "something" + std::to_string(::getpid()));
    check_number(listener);
    listener.close();
    CHECK_THROWS_AS(listener.accept(), std::system_error);
}

TEST_CASE("_TestListenerClient.test_listener_client", "[connection][conformance]") {
    EVERY_START_METHOD;
    for (const Family family : families()) {
        const Listener listener({.family = family});
        Children children(method);
        children.start(mp::ProcessOptions{.daemon = true}, say_hello, listener.address());
        const mp::Connection connection = listener.accept(patient);
        CHECK(receive<std::string>(connection) == "hello");
        CHECK(children.join());
    }
}

TEST_CASE("_TestListenerClient.test_issue14725", "[connection][conformance]") {
    EVERY_START_METHOD;
    const Listener listener;
    Children children(method);
    children.start(mp::ProcessOptions{.daemon = true}, say_hello, listener.address());
    CHECK(children.join());  // it has connected, written and left
    CHECK(receive<std::string>(listener.accept(patient)) == "hello");
}

TEST_CASE("_TestListenerClient.test_issue16955", "[connection][conformance]") {
    for (const Family family : families()) {
        const Listener listener({.family = family});
        const mp::Connection client = Client(listener.address());
        const mp::Connection accepted = listener.accept(patient);
        accepted.send_bytes("hello");
        CHECK(client.poll(patient));
    }
}

TEST_CASE("OtherTest.test_deliver_challenge_auth_failure", "[connection][conformance]") {
    const auto [ours, theirs] = mp::Pipe();
    theirs.send_bytes("something bogus");
    CHECK_THROWS_AS(mp::connection::deliver_challenge(ours, "abc"), mp::AuthenticationError);
}

TEST_CASE("OtherTest.test_answer_challenge_auth_failure", "[connection][conformance]") {
    const auto [ours, theirs] = mp::Pipe();
    theirs.send_bytes("#CHALLENGE#");
    theirs.send_bytes("something bogus");
    CHECK_THROWS_AS(mp::connection::answer_challenge(ours, "abc"), mp::AuthenticationError);
}

TEST_CASE("ChallengeResponseTest.test_challengeresponse", "[connection][conformance]") {
    const mp::bytes key("supadupasecretkey");
    for (const std::string prefix : {"", "{md5}", "{sha256}"}) {
        const std::string message = prefix + "is-twenty-bytes-long";
        const std::string response = mp::runtime::create_response(key, message);
        CHECK(response.starts_with(prefix));
        CHECK_NOTHROW(mp::runtime::verify_response(key, message, response));
    }
}

TEST_CASE("TestInvalidFamily.test_invalid_family", "[connection][conformance]") {
    CHECK_THROWS_AS(Listener(R"(\\.\test)"), mp::ValueError);
}

// The other way round than CPython's: not where it runs, but what is asked for makes it wrong.
TEST_CASE("TestInvalidFamily.test_invalid_family_win32", "[connection][conformance]") {
    CHECK_THROWS_AS(Listener("/var/test.pipe", {.family = "AF_INET"}), mp::ValueError);
    CHECK_THROWS_AS(Listener("/var/test.pipe", {.family = "AF_PIPE"}), mp::ValueError);
}

// There is no timeout here that all sockets have: a program may set none for others' sake.
TEST_CASE("TestTimeouts.test_timeout", "[connection][conformance]") {
    EVERY_START_METHOD;
    const auto [ours, theirs] = mp::Pipe();
    const Listener listener({.family = "AF_INET"});
    Children children(method);
    children.start(send_after_a_while, theirs, listener.address());
    theirs.close();
    CHECK(receive<int>(ours) == 123);
    CHECK(receive<int>(listener.accept(patient)) == 456);
    CHECK(children.join());
}

TEST_CASE("TestIgnoreEINTR.test_ignore_listener", "[connection][conformance]") {
    EVERY_START_METHOD;
    const auto [ours, theirs] = mp::Pipe();
    const mp::Value<int> signals(0);
    Children children(method);
    const auto p =
        children.start(mp::ProcessOptions{.daemon = true}, accept_and_welcome, theirs, signals);
    theirs.close();
    const auto address = receive<Address>(ours);
    for (int i = 0; i < 50; ++i) {
        const int before = signals.load();
        ::kill(p.pid().value(), SIGUSR1);
        CHECK(eventually([&] { return signals.load() > before; }));
    }
    CHECK(receive<std::string>(Client(address)) == "welcome");
    CHECK(children.join());
}
