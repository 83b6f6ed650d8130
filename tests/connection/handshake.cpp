// SPDX-License-Identifier: BSL-1.0
//
// The handshake between a Listener and a Client, and with those who have no key: who lie, say nothing,
// leave, and come in crowds.
#include <multiprocessing/connection.hpp>
#include <multiprocessing/python.hpp>

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/process.hpp>
#include <multiprocessing/runtime/challenge.hpp>

#include "connection/helpers.hpp"
#include "runtime/helpers.hpp"
#include "shm/helpers.hpp"
#include "support/catch.hpp"
#include "support/outcome.hpp"
#include "support/sanitized.hpp"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <deque>
#include <fstream>
#include <future>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

namespace mp = multiprocessing;
using namespace std::chrono_literals;
using namespace std::string_literals;
using Catch::Matchers::ContainsSubstring;
using mp::connection::Address;
using mp::connection::Client;
using mp::connection::Listener;
using support::a_key;
using support::another_key;
using support::ended;
using support::in_thread;
using support::in_time;
using support::proof;
using support::RawClient;

namespace {

/// A client with the key, which is served.
std::future<int> client_of(const Listener& listener, const mp::bytes& with = a_key) {
    return in_thread([address = listener.address(), with] {
        const auto connection = Client(address, {.authkey = with, .timeout = in_time});
        connection.send(::getpid());
        return connection.recv<int>();
    });
}

void serve_one(const Listener& listener, std::future<int> client) {
    const auto connection = listener.accept(in_time);
    connection.send(connection.recv<int>() + 1);
    CHECK(client.get() == ::getpid() + 1);
}
void serve_one(const Listener& listener) { serve_one(listener, client_of(listener)); }

/// Goes on with those inside; nobody is to come through.
void hear(const Listener& listener) { CHECK_THROWS_AS(listener.accept(0), mp::TimeoutError); }

/// The same when somebody inside is to say something.
void hear_when_ready(const Listener& listener) {
    CHECK(mp::connection::wait({listener}, in_time).size() == 1);
    hear(listener);
}

std::size_t resident_kilobytes() {
    std::ifstream file("/proc/self/status");
    for (std::string word; file >> word;) {
        if (word == "VmRSS:") {
            std::size_t size = 0;
            file >> size;
            return size;
        }
    }
    return 0;
}

}  // namespace

TEST_CASE("with the same key both get through, whatever the key", "[connection][listener]") {
    for (const Address& address : {Listener().address(), Address("127.0.0.1", 0)}) {
        for (const mp::bytes& same :
             {mp::bytes(""), mp::bytes("k"), mp::bytes("\0"), mp::bytes("a\0b\0"),
              mp::bytes(std::string(64, 'k')), mp::bytes(std::string(65, 'k')),
              mp::bytes(std::string(1'000'000, 'k'))}) {
            const Listener listener(address, {.authkey = same});
            serve_one(listener, client_of(listener, same));
        }
    }
}

TEST_CASE("another key is an AuthenticationError on both sides, and the listener goes on",
          "[connection][listener]") {
    for (const Address& address : {Listener().address(), Address("127.0.0.1", 0)}) {
        const Listener listener(address, {.backlog = 4, .authkey = a_key});
        for (const mp::bytes& wrong :
             {another_key, mp::bytes(""), mp::bytes("a\0key"), mp::bytes("a ke")}) {
            auto client = client_of(listener, wrong);
            CHECK_THROWS_WITH(listener.accept(in_time), ContainsSubstring("authkey"));
            CHECK_THROWS_AS(client.get(), mp::AuthenticationError);
            serve_one(listener);
        }
        const Listener empty(Address("127.0.0.1", 0), {.authkey = ""});
        auto client = client_of(empty);
        CHECK_THROWS_AS(empty.accept(in_time), mp::AuthenticationError);
        CHECK_THROWS_AS(client.get(), mp::AuthenticationError);
    }
}

TEST_CASE("a key on the listener's side alone", "[connection][listener]") {
    const Listener listener({.backlog = 4, .authkey = a_key});
    // The client has a connection at once, over which it is asked for a proof: an object is none.
    const auto client = Client(listener.address());
    client.send("hello");
    CHECK_THROWS_AS(listener.accept(in_time), mp::AuthenticationError);
    CHECK(client.recv_bytes().str().starts_with("#CHALLENGE#"));
    CHECK(client.recv_bytes().str() == "#FAILURE#");
    CHECK_THROWS_AS(client.recv_bytes(), mp::EOFError);
    // One that says nothing is waited for, and others are not kept waiting.
    const auto silent = Client(listener.address());
    hear_when_ready(listener);
    serve_one(listener);
    CHECK_THROWS_AS(silent.recv<int>(), mp::UnpicklingError);
    const auto told = Client(listener.address());
    hear_when_ready(listener);
    CHECK_THROWS_WITH(told.recv<std::string>(), ContainsSubstring(".authkey"));
    const auto python = Client(listener.address());
    hear_when_ready(listener);
    CHECK_THROWS_WITH(python.recv_python<int>(), ContainsSubstring(".authkey"));
    listener.close();
    CHECK_THROWS_AS(silent.recv<int>(), mp::EOFError);
}

TEST_CASE("a key on the client's side alone", "[connection][listener]") {
    const Listener listener({.backlog = 4});
    // The listener has a connection, over which it is to ask for a proof, and does not.
    const auto start = std::chrono::steady_clock::now();
    auto impatient =
        in_thread([&] { return Client(listener.address(), {.authkey = a_key, .timeout = 50ms}); });
    const auto first = listener.accept(in_time);
    CHECK_THROWS_AS(impatient.get(), mp::TimeoutError);
    CHECK(std::chrono::steady_clock::now() - start >= 50ms);
    CHECK_THROWS_AS(first.recv<int>(), mp::EOFError);

    auto told = client_of(listener);
    listener.accept(in_time).send("hello");
    CHECK_THROWS_WITH(told.get(), ContainsSubstring("does not ask for an authkey"));

    auto left = client_of(listener);
    listener.accept(in_time).close();
    CHECK_THROWS_AS(left.get(), mp::EOFError);
    CHECK_THROWS_WITH(
        [&] {
            auto waits = client_of(listener);
            listener.accept(in_time).close();
            waits.get();
        }(),
        ContainsSubstring(listener.address().str()));
}

TEST_CASE("what is no handshake is refused, and the listener goes on", "[connection][listener]") {
    const auto before = support::open_descriptors();
    {
        const Listener listener({.backlog = 4, .authkey = a_key});
        for (const std::string& rubbish :
             {"GET / HTTP/1.1\r\n\r\n"s, "\x80\0\0\0"s, "\x7f\xff\xff\xff"s, "\xff\xff\xff\xff"s,
              "\xff\xff\xff\xff\x80\0\0\0\0\0\0\0"s, "\0\0\1\1"s + std::string(257, 'x'), "\0\0\0\0"s,
              "\0\0\0\x10"s + std::string(16, 'x'), "\0\0\0\x14"s + std::string(20, 'x'),
              "\0\0\0\x28{sha256}"s + std::string(32, 'x'), "\0\0\1\0"s + std::string(256, 'x')}) {
            const RawClient stranger(listener.address());
            stranger.write(rubbish);
            CHECK_THROWS_AS(listener.accept(in_time), mp::AuthenticationError);
            CHECK(stranger.receive().starts_with("#CHALLENGE#"));
            const std::string farewell = stranger.receive();
            CHECK((farewell.empty() || farewell == "#FAILURE#"));
            CHECK(stranger.at_end());
        }
        // He may have left by then: wrong he is all the same.
        RawClient leaver(listener.address());
        hear_when_ready(listener);
        static_cast<void>(leaver.receive());
        leaver.send("bogus");
        leaver.close();
        CHECK_THROWS_AS(listener.accept(in_time), mp::AuthenticationError);
        // But if he never came in, he has never been asked.
        RawClient passer_by(listener.address());
        passer_by.send("bogus");
        passer_by.close();
        serve_one(listener);
    }
    CHECK(support::open_descriptors() == before);
}

TEST_CASE("who leaves in the middle is not told of, wherever that is", "[connection][listener]") {
    for (const Address& address : {Listener().address(), Address("127.0.0.1", 0)}) {
        const Listener listener(address, {.backlog = 4, .authkey = a_key});
        for (int step = 0; step <= 4; ++step) {
            RawClient leaver(listener.address());
            if (step == 1) leaver.write("\0\0"s);
            if (step >= 2) {
                hear_when_ready(listener);
                const std::string question = leaver.receive();
                const std::string frame = RawClient::frame(proof(a_key, question));
                leaver.write(step == 2 ? frame.substr(0, 10) : frame);
                hear_when_ready(listener);
            }
            if (step >= 3) CHECK(leaver.receive() == "#WELCOME#");
            if (step == 4) {
                leaver.send(mp::runtime::ChallengeDelivery().question());
                hear_when_ready(listener);
                CHECK(leaver.receive().starts_with("{sha256}"));
            }
            leaver.close();
            serve_one(listener);
        }
    }
}

TEST_CASE("a handshake may come one byte at a time", "[connection][listener]") {
    const Listener listener({.authkey = a_key});
    const RawClient slow(listener.address());
    auto accepted = in_thread([&] { return listener.accept(in_time); });
    const auto dribble = [&](const std::string& message) {
        for (const char byte : RawClient::frame(message)) slow.write({&byte, 1});
    };
    dribble(proof(a_key, slow.receive()));
    CHECK(slow.receive() == "#WELCOME#");
    const mp::runtime::ChallengeDelivery delivery;
    dribble(delivery.question());
    const std::string proof = slow.receive();
    CHECK_NOTHROW(delivery.check(a_key, std::as_bytes(std::span(proof))));
    dribble("#WELCOME#");
    const auto connection = accepted.get();
    slow.write("\0\0\0\2hi"s);
    CHECK(connection.recv_bytes().str() == "hi");
}

TEST_CASE("what follows the handshake at once is not part of it", "[connection][listener]") {
    const Listener listener({.authkey = a_key});
    const RawClient client(listener.address());
    hear_when_ready(listener);
    client.send(proof(a_key, client.receive()));
    hear_when_ready(listener);
    CHECK(client.receive() == "#WELCOME#");
    client.write(RawClient::frame(mp::runtime::ChallengeDelivery().question()) +
                 RawClient::frame("#WELCOME#") + RawClient::frame("the first message"));
    const auto connection = listener.accept(in_time);
    CHECK(client.receive().starts_with("{sha256}"));
    CHECK(connection.recv_bytes().str() == "the first message");
    CHECK_FALSE(connection.poll());
}

TEST_CASE("a recorded answer opens nothing", "[connection][listener]") {
    const Listener listener({.backlog = 4, .authkey = a_key});
    std::string recorded;
    {
        const RawClient client(listener.address());
        hear_when_ready(listener);
        recorded = proof(a_key, client.receive());
        client.send(recorded);
        hear_when_ready(listener);
        CHECK(client.receive() == "#WELCOME#");  // it is the right one, there
    }
    const RawClient replayer(listener.address());
    hear_when_ready(listener);
    const std::string question = replayer.receive();
    replayer.send(recorded);
    CHECK_THROWS_AS(listener.accept(in_time), mp::AuthenticationError);
    CHECK(replayer.receive() == "#FAILURE#");
    CHECK(replayer.at_end());
}

TEST_CASE("a listener proves nothing to one who has not", "[connection][listener]") {
    const Listener listener({.backlog = 4, .authkey = a_key});
    // A stranger has one connection ask what he is asked on the other.
    const RawClient first(listener.address());
    hear_when_ready(listener);
    const RawClient second(listener.address());
    hear_when_ready(listener);
    const std::string question = first.receive();
    second.send(question);
    CHECK_THROWS_AS(listener.accept(in_time), mp::AuthenticationError);
    CHECK(second.receive().starts_with("#CHALLENGE#"));
    CHECK(second.receive() == "#FAILURE#");
    CHECK(second.at_end());
    first.send(question);
    CHECK_THROWS_AS(listener.accept(in_time), mp::AuthenticationError);
    CHECK(first.receive() == "#FAILURE#");
    CHECK(first.at_end());
}

TEST_CASE("a client of Python before 3.12 gets through with MD5", "[connection][listener]") {
    const Listener listener({.authkey = a_key});
    const RawClient old(listener.address());
    auto accepted = in_thread([&] { return listener.accept(in_time); });
    // The whole of what it is asked is the message to it, and what it answers names no digest.
    const std::string question = old.receive().substr(11);
    const auto md5 = [](std::string_view message) {
        return mp::os::hmac(*mp::os::find_digest("md5"), a_key.span(), message).value();
    };
    old.send(md5(question));
    CHECK(old.receive() == "#WELCOME#");
    const std::string own = "twenty random bytes.";
    old.send("#CHALLENGE#" + own);
    CHECK(old.receive() == md5(own));
    old.send("#WELCOME#");
    const auto connection = accepted.get();
    connection.send_bytes("hi");
    CHECK(old.receive() == "hi");
}

TEST_CASE("a listener of Python before 3.12 is got through to with MD5", "[connection][listener]") {
    const Listener listener;
    auto client =
        in_thread([&] { return Client(listener.address(), {.authkey = a_key, .timeout = in_time}); });
    const auto connection = listener.accept(in_time);
    const auto md5 = [](std::string_view message) {
        return mp::bytes(mp::os::hmac(*mp::os::find_digest("md5"), a_key.span(), message).value());
    };
    const std::string own = "twenty random bytes.";
    connection.send_bytes("#CHALLENGE#" + own);
    CHECK(connection.recv_bytes() == md5(own));
    connection.send_bytes("#WELCOME#");
    const std::string question = connection.recv_bytes().str().substr(11);
    connection.send_bytes(md5(question));
    CHECK(connection.recv_bytes().str() == "#WELCOME#");
    CHECK_NOTHROW(client.get());
}

TEST_CASE("a listener that is an impostor is found out", "[connection][listener]") {
    const Listener listener({.backlog = 4});
    const std::string question = "#CHALLENGE#{sha256}"s + std::string(40, 'x');
    const auto impostor = [&](auto&&... words) {
        auto client = client_of(listener);
        const auto connection = listener.accept(in_time);
        (connection.send_bytes(words), ...);
        static_cast<void>(connection.poll(in_time));
        try {
            client.get();
        } catch (const mp::AuthenticationError&) {
            return "AuthenticationError"s;
        } catch (const mp::EOFError&) {
            return "EOFError"s;
        }
        return "got through"s;
    };
    CHECK(impostor(question, "#FAILURE#"s) == "AuthenticationError");
    CHECK(impostor(question, "#WELCOME#"s, "bogus"s) == "AuthenticationError");
    CHECK(impostor(question, "#WELCOME#"s, question) == "AuthenticationError");
    CHECK(impostor("#WELCOME#"s) == "AuthenticationError");
    CHECK(impostor("#CHALLENGE#too short"s) == "AuthenticationError");
    CHECK(impostor("#CHALLENGE#{rot13}"s + std::string(40, 'x')) == "AuthenticationError");
    CHECK(impostor(std::string(257, 'x')) == "AuthenticationError");
    CHECK(impostor(std::string(100'000, 'x')) == "AuthenticationError");
}

TEST_CASE("those who say nothing hold up nobody, however many they are",
          "[connection][listener][fork]") {
    const Listener listener({.backlog = 16, .authkey = a_key});
    const auto [ours, theirs] = mp::Pipe();
    // Strangers who keep what they have, as many as a process may have, and go on.
    const mp::Process crowd([listener, theirs = theirs] {
        listener.close();
        ::rlimit limit{};
        ::getrlimit(RLIMIT_NOFILE, &limit);
        const auto most = static_cast<std::size_t>(std::min<::rlim_t>(10'000, limit.rlim_cur - 100));
        std::deque<mp::Connection> all;
        for (std::size_t count = 0; !theirs.poll(); ++count) {
            if (count == 500) theirs.send("many");
            if (all.size() == most) all.pop_front();
            try {
                all.push_back(Client(listener.address(), {.timeout = 0.1}));
            } catch (const mp::TimeoutError&) {}
        }
    });
    crowd.start();
    const auto before = support::open_descriptors();
    auto accepting = in_thread([&] {
        for (int i = 0; i < 20; ++i) {
            const auto connection = listener.accept(in_time);
            connection.send(connection.recv<int>() + 1);
        }
    });
    CHECK(ours.poll(in_time));
    const auto memory = resident_kilobytes();
    for (int i = 0; i < 20; ++i) CHECK(client_of(listener).get() == ::getpid() + 1);
    accepting.get();
    CHECK(support::open_descriptors() <=
          before + static_cast<std::ptrdiff_t>(mp::runtime::Reception::most_strangers));
#ifndef TEST_IS_SANITIZED  // which keeps for a while what was freed
    CHECK(resident_kilobytes() < memory + 4096);
#else
    static_cast<void>(memory);
#endif
    ours.send("enough");
    CHECK(ended(crowd) == 0);
    const auto inside = support::open_descriptors();
    listener.close();
    CHECK(support::open_descriptors() <= inside - 100);  // there were that many
}

TEST_CASE("a crowd that has the key gets through, all of it", "[connection][listener]") {
    const Listener listener({.backlog = 400, .authkey = a_key});
    constexpr std::size_t most = 300;  // more than there is room for inside
    std::vector<std::future<int>> clients;
    for (std::size_t i = 0; i < most; ++i) clients.push_back(client_of(listener));
    for (std::size_t i = 0; i < most; ++i) {
        const auto connection = listener.accept(in_time);
        connection.send(connection.recv<int>() + 1);
    }
    for (auto& client : clients) CHECK(client.get() == ::getpid() + 1);
}

#if !defined(TEST_IS_SANITIZED)
TEST_CASE("for want of a descriptor who says nothing has to leave", "[connection][listener]") {
    const Listener listener({.backlog = 8, .authkey = a_key});
    std::vector<RawClient> silent;
    for (int i = 0; i < 5; ++i) {
        silent.emplace_back(listener.address());
        hear_when_ready(listener);
    }
    auto client = client_of(listener);
    CHECK(mp::connection::wait({listener}, in_time).size() == 1);
    // None is left but those that strangers have, and one for the new connection.
    ::rlimit limit{};
    REQUIRE(::getrlimit(RLIMIT_NOFILE, &limit) == 0);
    const auto next = static_cast<::rlim_t>(mp::os::duplicate(listener.fileno()).get());
    const ::rlimit none{next, limit.rlim_max};
    REQUIRE(::setrlimit(RLIMIT_NOFILE, &none) == 0);
    std::optional<mp::Connection> connection;
    CHECK_NOTHROW(connection = listener.accept(in_time));
    REQUIRE(::setrlimit(RLIMIT_NOFILE, &limit) == 0);
    REQUIRE(connection);
    connection->send(connection->recv<int>() + 1);
    CHECK(client.get() == ::getpid() + 1);
    // The one who was there first is the one that is gone.
    CHECK(silent[0].receive().starts_with("#CHALLENGE#"));
    CHECK(silent[0].at_end());
    CHECK(silent[4].receive().starts_with("#CHALLENGE#"));
    CHECK_FALSE(mp::os::poll(silent[4].fileno(), mp::os::poll_in, mp::os::Deadline::passed()));
}
#endif
