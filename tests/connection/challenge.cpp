// SPDX-License-Identifier: BSL-1.0
//
// The handshake without sockets: what is answered to what, by whom, and to nobody else.
#include <multiprocessing/runtime/challenge.hpp>

#include <multiprocessing/connection.hpp>
#include <multiprocessing/exceptions.hpp>

#include "connection/helpers.hpp"
#include "support/catch.hpp"
#include "support/outcome.hpp"

#include <cerrno>
#include <cstddef>
#include <numeric>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace mp = multiprocessing;
using namespace std::string_literals;
using Catch::Matchers::ContainsSubstring;
using mp::connection::answer_challenge;
using mp::connection::deliver_challenge;
using mp::runtime::Handshake;
using support::a_key;
using support::another_key;
using support::error_of;
using support::in_thread;
using support::proof;

namespace {

const std::vector<std::string> digest_names{"md5", "sha256", "sha384", "sha3_256", "sha3_384"};

std::string take(Handshake& handshake, std::string_view message) {
    return handshake.receive(std::as_bytes(std::span(message)));
}

std::string hex(std::string_view bytes) {
    std::string text;
    for (const char byte : bytes) {
        constexpr std::string_view digits = "0123456789abcdef";
        text += digits[static_cast<unsigned char>(byte) >> 4];
        text += digits[static_cast<unsigned char>(byte) & 15];
    }
    return text;
}

std::string counting(std::size_t size) {
    std::string text(size, '\0');
    std::iota(text.begin(), text.end(), '\0');
    return text;
}

/// What each says to the other in turn, the listener first.
std::vector<std::string> conversation(Handshake& listener, Handshake& client) {
    std::vector<std::string> said{listener.start()};
    CHECK(client.start().empty());
    for (bool to_client = true; !said.back().empty(); to_client = !to_client) {
        said.push_back(take(to_client ? client : listener, said.back()));
    }
    said.pop_back();
    return said;
}

/// Everything that a message can be taken for and is not: with a bit or a byte more or less, or another.
std::vector<std::string> distorted(const std::string& message) {
    std::vector<std::string> all;
    for (std::size_t i = 0; i < message.size(); ++i) {
        for (const char bit : {'\x01', '\x20', '\x80'}) {
            std::string other = message;
            other[i] = static_cast<char>(other[i] ^ bit);
            all.push_back(other);
        }
        all.push_back(message.substr(0, i));
        all.push_back(message.substr(i + 1));
    }
    all.push_back(message + '\0');
    all.push_back(message + message);
    all.push_back("\0"s + message);
    for (const auto text : {mp::runtime::challenge::welcome, mp::runtime::challenge::failure,
                            mp::runtime::challenge::prefix}) {
        all.emplace_back(text);
    }
    std::erase(all, message);
    return all;
}

}  // namespace

TEST_CASE("two that have the same key are done after six messages, which are CPython's",
          "[connection][listener]") {
    for (const mp::bytes& same :
         {a_key, mp::bytes(""), mp::bytes("with\0NUL\0"), mp::bytes(std::string(5000, 'k'))}) {
        Handshake listener(Handshake::Side::listener, same);
        Handshake client(Handshake::Side::client, same);
        CHECK_FALSE(listener.done());
        CHECK_FALSE(client.done());
        const auto said = conversation(listener, client);
        REQUIRE(said.size() == 6);
        CHECK(said[0].starts_with("#CHALLENGE#{sha256}"));
        CHECK(said[0].size() == 11 + 8 + 40);
        CHECK(said[1].starts_with("{sha256}"));
        CHECK(said[1].size() == 8 + 32);
        CHECK(said[2] == "#WELCOME#");
        CHECK(said[3].starts_with("#CHALLENGE#{sha256}"));
        CHECK(said[3] != said[0]);
        CHECK(said[4].starts_with("{sha256}"));
        CHECK(said[5] == "#WELCOME#");
        CHECK(listener.done());
        CHECK(client.done());
        CHECK(listener.farewell().empty());
        CHECK(client.farewell().empty());
        CHECK_THROWS_AS(take(listener, said[1]), mp::AuthenticationError);
    }
}

TEST_CASE("responses are those that Python computes", "[connection][listener]") {
    const mp::bytes with_nul("key\0more");
    const std::vector<std::string> expected{
        "1eacf2dd0b4d3b289a247f89c9fe2f4f",
        "fd8d184742003f2c62e1d1c2032a4b4c808ddbb36d0996bc9797b619a15fb5ce",
        "ee56aa2f13760171dac80fcf36e223097656f697a0e47a19ac2e542b246492417ae16858a1d3e32c022a914c940a80"
        "65",
        "4b44db14dab49d14ac1f3bf3063cdce213434e15a640ef7008d8f4193a103a1d",
        "a0999cc82b414eda9a7d5272e5eb568d4ea2be26698c9f836374fe688e8b0fc8ba4cc6e53b3a412b03f6c530193669"
        "66"};
    const std::vector<std::string> of_empty_key{"53a69d30c85951fa", "d18b190a737f779d",
                                                "4461db5c418fcd53", "eb7f7cc26247f616",
                                                "62e742de5626d25b"};
    for (std::size_t i = 0; i < digest_names.size(); ++i) {
        const std::string name = "{" + digest_names[i] + "}";
        const std::string message = name + counting(40);
        const std::string response = mp::runtime::create_response(with_nul, message);
        CHECK(response.substr(0, name.size()) == name);
        CHECK(hex(response.substr(name.size())) == expected[i]);
        CHECK_NOTHROW(mp::runtime::verify_response(with_nul, message, response));
        const std::string by_nobody = mp::runtime::create_response(mp::bytes(), message);
        CHECK(hex(by_nobody.substr(name.size())).starts_with(of_empty_key[i]));
        CHECK_THROWS_AS(mp::runtime::verify_response(with_nul, message, by_nobody),
                        mp::AuthenticationError);
    }
    // Python before 3.12.
    CHECK(hex(mp::runtime::create_response(with_nul, counting(20))) ==
          "438c55a0d1823228ce409790f49c2f7e");
}

TEST_CASE("a response names the digest that it is of", "[connection][listener]") {
    const std::string message = mp::runtime::make_challenge("sha256");
    const auto verify = [&](const std::string& response) {
        mp::runtime::verify_response(a_key, message, response);
    };
    const auto mac = [&](std::string_view name) {
        return mp::os::hmac(*mp::os::find_digest(name), a_key.span(), message).value();
    };
    for (const std::string& name : digest_names) {
        CHECK_NOTHROW(verify("{" + name + "}" + mac(name)));  // as Python has it, of any that it knows
        for (const std::string& other : digest_names) {
            if (other != name)
                CHECK_THROWS_AS(verify("{" + name + "}" + mac(other)), mp::AuthenticationError);
        }
    }
    CHECK_NOTHROW(verify(mac("md5")));  // without a name, from Python before 3.12
    CHECK_THROWS_AS(verify(mac("sha256")), mp::AuthenticationError);
    CHECK_THROWS_WITH(verify("{sha256}" + mac("sha256").substr(1)),
                      ContainsSubstring("length 32, got 31"));
    for (const std::string& wrong :
         {"{sha1}"s, "{sha512}"s, "{}"s, "{sha256"s, "sha256}"s, "{SHA256}"s, ""s}) {
        CHECK_THROWS_AS(verify(wrong + mac("sha256")), mp::AuthenticationError);
        CHECK_THROWS_AS(verify(wrong), mp::AuthenticationError);
    }
}

TEST_CASE("one that has another key is refused, and refuses", "[connection][listener]") {
    Handshake listener(Handshake::Side::listener, a_key);
    Handshake client(Handshake::Side::client, another_key);
    const std::string question = listener.start();
    static_cast<void>(client.start());
    const std::string wrong = take(client, question);
    CHECK_THROWS_WITH(take(listener, wrong), ContainsSubstring("authkey"));
    CHECK(listener.farewell() == "#FAILURE#");
    CHECK_FALSE(listener.done());
    CHECK_THROWS_WITH(take(client, listener.farewell()), ContainsSubstring("authkey"));
    CHECK(client.farewell().empty());
    CHECK_FALSE(client.done());
    // There is no second attempt at the same question.
    CHECK_THROWS_AS(take(listener, proof(a_key, question)), mp::AuthenticationError);
    CHECK_FALSE(listener.done());
    // A client finds out one that only plays the listener, and welcomes all.
    Handshake other(Handshake::Side::client, a_key);
    static_cast<void>(other.start());
    static_cast<void>(take(other, question));
    const std::string asked = take(other, "#WELCOME#");
    CHECK_THROWS_AS(take(other, proof(another_key, asked)), mp::AuthenticationError);
    CHECK(other.farewell() == "#FAILURE#");
}

TEST_CASE("a message that is another than it should be ends the handshake", "[connection][listener]") {
    // At each step of either side the right message in all wrong ways.
    for (std::size_t step = 0; step < 5; ++step) {
        const bool to_client = step % 2 == 0;
        for (std::size_t which = 0;; ++which) {
            Handshake listener(Handshake::Side::listener, a_key);
            Handshake client(Handshake::Side::client, a_key);
            std::string message = listener.start();
            static_cast<void>(client.start());
            for (std::size_t i = 0; i < step; ++i)
                message = take(i % 2 == 0 ? client : listener, message);
            Handshake& receiver = to_client ? client : listener;
            const auto wrong = distorted(message);
            if (which == wrong.size()) break;
            std::string reply;
            try {
                reply = take(receiver, wrong[which]);
            } catch (const mp::AuthenticationError&) {
                CHECK_FALSE(receiver.done());
                CHECK_THROWS_AS(take(receiver, message), mp::AuthenticationError);  // too late
                continue;
            }
            // A question may be a question still, but then what is answered is no answer to the first.
            CHECK((step == 0 || step == 3));
            CHECK_FALSE(receiver.done());
            Handshake& asker = to_client ? listener : client;
            CHECK_THROWS_AS(take(asker, reply), mp::AuthenticationError);
        }
    }
}

TEST_CASE("before it has its proof a listener answers nothing", "[connection][listener]") {
    Handshake first(Handshake::Side::listener, a_key);
    Handshake second(Handshake::Side::listener, a_key);
    const std::string question = first.start();
    static_cast<void>(second.start());
    // Reflected, to itself or to another of the same key.
    CHECK_THROWS_AS(take(second, question), mp::AuthenticationError);
    CHECK_THROWS_AS(take(first, question), mp::AuthenticationError);
    CHECK(first.farewell() == "#FAILURE#");
    // Without a start there is nothing to be received.
    Handshake idle(Handshake::Side::listener, a_key);
    CHECK_FALSE(idle.done());
    CHECK_THROWS_AS(take(idle, proof(a_key, question)), mp::AuthenticationError);
}

TEST_CASE("an answer to another question is none", "[connection][listener]") {
    Handshake listener(Handshake::Side::listener, a_key);
    Handshake client(Handshake::Side::client, a_key);
    const auto recorded = conversation(listener, client);
    Handshake again(Handshake::Side::listener, a_key);
    CHECK(again.start() != recorded[0]);
    CHECK_THROWS_AS(take(again, recorded[1]), mp::AuthenticationError);
    Handshake client_again(Handshake::Side::client, a_key);
    static_cast<void>(client_again.start());
    CHECK(take(client_again, recorded[0]) == recorded[1]);  // it is the same question
    static_cast<void>(take(client_again, recorded[2]));
    CHECK_THROWS_AS(take(client_again, recorded[4]), mp::AuthenticationError);
}

TEST_CASE("each half of the handshake by itself, with every digest", "[connection][listener]") {
    for (const std::string& name : digest_names) {
        const auto [a, b] = mp::Pipe();
        auto asker = in_thread([&, a = a] { deliver_challenge(a, a_key, name); });
        CHECK_NOTHROW(answer_challenge(b, a_key));
        CHECK_NOTHROW(asker.get());
        CHECK_FALSE(a.poll());
        CHECK_FALSE(b.poll());
    }
    {
        const auto [a, b] = mp::Pipe();
        auto asker = in_thread([&, a = a] { deliver_challenge(a, a_key); });
        CHECK_THROWS_AS(answer_challenge(b, another_key), mp::AuthenticationError);
        CHECK_THROWS_AS(asker.get(), mp::AuthenticationError);
        a.send(1);  // the connection has come through it
        CHECK(b.recv<int>() == 1);
    }
    const auto [a, b] = mp::Pipe();
    CHECK_THROWS_AS(deliver_challenge(a, a_key, "sha1"), mp::ValueError);
    CHECK_THROWS_AS(deliver_challenge(a, a_key, ""), mp::ValueError);
    CHECK_FALSE(b.poll());
}

TEST_CASE("what answers a challenge by itself is not what it says", "[connection][listener]") {
    const auto [a, b] = mp::Pipe();
    for (const std::string& question :
         {"something bogus"s, ""s, "#CHALLENGE#"s, "#CHALLENGE#"s + std::string(16, 'x'),
          "#CHALLENGE#"s + std::string(19, 'x'), "#CHALLENGE#{md5}too short"s,
          "#CHALLENGE#{sha1}"s + std::string(40, 'x'), "#CHALLENGE#"s + std::string(40, 'x'),
          "#challenge#{sha256}"s + std::string(40, 'x'), "#WELCOME#"s}) {
        a.send_bytes(question);
        CHECK_THROWS_AS(answer_challenge(b, a_key), mp::AuthenticationError);
        CHECK_FALSE(a.poll());
    }
    for (const std::string& verdict : {"#FAILURE#"s, ""s, "#WELCOME"s, "#WELCOME##"s}) {
        a.send_bytes("#CHALLENGE#{sha256}"s + std::string(40, 'x'));
        a.send_bytes(verdict);
        CHECK_THROWS_AS(answer_challenge(b, a_key), mp::AuthenticationError);
        static_cast<void>(a.recv_bytes());
    }
    for (const std::string& response :
         {"something bogus"s, ""s, std::string(16, 'x'), std::string(20, 'x'),
          "{sha256}"s + std::string(32, 'x'), std::string(256, 'x')}) {
        a.send_bytes(response);
        CHECK_THROWS_AS(deliver_challenge(b, a_key), mp::AuthenticationError);
        CHECK(a.recv_bytes().str().starts_with("#CHALLENGE#"));
        CHECK(a.recv_bytes().str() == "#FAILURE#");
    }
    a.send_bytes(std::string(257, 'x'));
    CHECK(error_of([&, b = b] { deliver_challenge(b, a_key); }) == EMSGSIZE);
    // Who has left after a wrong answer is wrong above all. With this key it takes a while to find out.
    const auto [c, d] = mp::Pipe();
    auto leaver = in_thread([c = c] {
        static_cast<void>(c.recv_bytes());
        c.send_bytes("{sha256}"s + std::string(32, 'x'));
        c.close();
    });
    CHECK_THROWS_AS(deliver_challenge(d, std::string(32 << 20, 'k')), mp::AuthenticationError);
    leaver.get();
}
