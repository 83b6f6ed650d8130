// SPDX-License-Identifier: BSL-1.0
//
// Connections with Python at the other end: who listens and who connects, with a key and without,
// by every kind of address, and messages of all sizes.
#include <multiprocessing/connection.hpp>

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/python.hpp>

#include "connection/helpers.hpp"
#include "interop/python.hpp"
#include "support/catch.hpp"

#include <cstddef>
#include <future>
#include <map>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

namespace mp = multiprocessing;
using namespace std::string_literals;
using mp::connection::Address;
using mp::connection::Client;
using mp::connection::Listener;
using support::in_thread;
using support::in_time;
using support::SocketFolder;

namespace {

using Key = std::optional<mp::bytes>;

// argv: an address, a key in hexadecimal figures or "-" for none, and more.
const std::string both_ends = R"(
import inspect, signal, sys
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Listener

signal.alarm(40)

def address_of(text):
    if text[0] == '@':
        return '\0' + text[1:]
    if text[0] == '/':
        return text
    host, port = text.rsplit(':', 1)
    return host.strip('[]'), int(port)

def text_of(address):
    if isinstance(address, tuple):
        return '%s:%d' % address[:2]
    if isinstance(address, bytes):
        address = address.decode()
    return address.replace('\0', '@')

address = address_of(sys.argv[1])
key = None if sys.argv[2] == '-' else bytes.fromhex(sys.argv[2])
sizes = 0, 1, 16383, 16384, 16385, 65536, 5 << 20

def content(size, salt):
    return bytes((i * salt) & 255 for i in range(256)) * (size // 256) + b'x' * (size % 256)

def exchange(connection):
    for size in sizes:
        message = connection.recv_bytes()
        assert message == content(size, 3), size
        connection.send_bytes(content(size, 5))
)";
const std::vector<std::size_t> sizes{0, 1, 16383, 16384, 16385, 65536, std::size_t{5} << 20};

std::string content(std::size_t size, unsigned salt) {
    std::string text;
    text.reserve(size);
    for (std::size_t i = 0; i < size / 256 * 256; ++i) {
        text += static_cast<char>(i % 256 * salt);
    }
    return text.append(size % 256, 'x');
}

void exchange(const mp::Connection& connection) {
    for (const std::size_t size : sizes) {
        connection.send_bytes(content(size, 3));
        CHECK((connection.recv_bytes().str() == content(size, 5)));
    }
}

std::string hexadecimal(const Key& key) {
    if (!key) return "-";
    std::string text;
    for (const std::byte byte : *key) {
        constexpr auto figures = "0123456789abcdef";
        text += figures[std::to_integer<unsigned>(byte) >> 4];
        text += figures[std::to_integer<unsigned>(byte) & 15];
    }
    return text;
}

std::future<support::Ran> start(const std::string& python, const std::string& script,
                                const Address& address, const Key& key, const std::string& more = "") {
    return in_thread([=] {
        return support::run_program(
            {python, "-c", both_ends + script, address.str(), hexadecimal(key), more});
    });
}

void check_ended_well(std::future<support::Ran> running, const std::string& out = "") {
    const support::Ran ran = running.get();
    INFO(ran.err);
    CHECK(ran.exitcode == 0);
    CHECK(ran.err.empty());
    CHECK(ran.out == out);
}

/// A listener in Python, which says where it is to one of ours.
struct PythonListener {
    std::future<support::Ran> running;
    Address address;
    bool has_key = false;  // to Python before 3.13 an empty key is none

    PythonListener(const std::string& python, const std::string& script, const Address& at,
                   const Key& key) {
        const Listener ready;
        running = start(python, opening + script, at, key, ready.address().str());
        const mp::Connection connection = ready.accept(in_time);
        const std::string where = connection.recv_bytes().str();
        const auto colon = where.rfind(':');
        address = where.starts_with('@') ? Address('\0' + where.substr(1))
                  : where.starts_with('/')
                      ? Address(where)
                      : Address(where.substr(0, colon), std::stoi(where.substr(colon + 1)));
        has_key = connection.recv_bytes().str() == "key";
    }

    static inline const std::string opening = R"(
listener = Listener(address, authkey=key)
with Client(address_of(sys.argv[3])) as ready:
    ready.send_bytes(text_of(listener.address).encode())
    ignored = key == b'' and 'is not None' not in inspect.getsource(Listener.accept)
    ready.send_bytes(b'' if key is None or ignored else b'key')
)";
};

std::vector<Address> all_kinds(const SocketFolder& folder) {
    return {folder / "socket", "\0mp-interop-"s + std::to_string(::getpid()), {"127.0.0.1", 0}};
}

const std::vector<Key> keys{std::nullopt, mp::bytes("a key"), mp::bytes(""), mp::bytes("NUL \0 within"),
                            mp::bytes(std::string(200, 'k'))};

}  // namespace

TEST_CASE("Python connects to a Listener", "[interop][connection][listener]") {
    EVERY_PYTHON;
    const SocketFolder folder;
    for (const Address& address : all_kinds(folder)) {
        for (const Key& key : keys) {
            const Listener listener(address, {.authkey = key});
            auto client = start(python, "with Client(address, authkey=key) as c: exchange(c)",
                                listener.address(), key);
            const mp::Connection connection = listener.accept(in_time);
            exchange(connection);
            CHECK_THROWS_AS(connection.recv_bytes(), mp::EOFError);
            check_ended_well(std::move(client));
        }
    }
}

TEST_CASE("a Client connects to Python's Listener", "[interop][connection][listener]") {
    EVERY_PYTHON;
    const SocketFolder folder;
    for (const Address& address : all_kinds(folder)) {
        for (const Key& key : keys) {
            PythonListener listener(python, R"(
with listener.accept() as connection:
    exchange(connection)
    try:
        connection.recv_bytes()
    except EOFError:
        print('end')
listener.close()
)",
                                    address, key);
            {
                const mp::Connection connection =
                    Client(listener.address,
                           {.authkey = listener.has_key ? key : std::nullopt, .timeout = in_time});
                exchange(connection);
            }
            check_ended_well(std::move(listener.running), "end\n");
        }
    }
}

TEST_CASE("Python with another key is refused by a Listener", "[interop][connection][listener]") {
    EVERY_PYTHON;
    const Listener listener({.backlog = 4, .authkey = "a key"});
    const std::string script = R"(
try:
    Client(address, authkey=key)
except AuthenticationError:
    print('refused')
)";
    for (const Key& key : {Key("another key"), Key("")}) {
        auto client = start(python, script, listener.address(), key);
        CHECK_THROWS_AS(listener.accept(in_time), mp::AuthenticationError);
        check_ended_well(std::move(client), "refused\n");
    }
    // Without a key it has a connection, until it says something.
    auto client = start(python, R"(
with Client(address) as connection:
    connection.send_bytes(b'hello')
    print(connection.recv_bytes()[:11] == b'#CHALLENGE#', connection.recv_bytes())
    try:
        connection.recv_bytes()
    except EOFError:
        print('end')
)",
                        listener.address(), std::nullopt);
    CHECK_THROWS_AS(listener.accept(in_time), mp::AuthenticationError);
    check_ended_well(std::move(client), "True b'#FAILURE#'\nend\n");
    auto friendly = start(python, "with Client(address, authkey=key) as c: exchange(c)",
                          listener.address(), Key("a key"));
    exchange(listener.accept(in_time));
    check_ended_well(std::move(friendly));
}

TEST_CASE("a Client with another key is refused by Python's Listener",
          "[interop][connection][listener]") {
    EVERY_PYTHON;
    PythonListener listener(python, R"(
for i in range(2):
    try:
        listener.accept()
    except AuthenticationError:
        print('refused')
with listener.accept() as connection:
    exchange(connection)
)",
                            Address("127.0.0.1", 0), Key("a key"));
    for (const mp::bytes& wrong : {mp::bytes("another key"), mp::bytes("")}) {
        CHECK_THROWS_AS(Client(listener.address, {.authkey = wrong, .timeout = in_time}),
                        mp::AuthenticationError);
    }
    exchange(Client(listener.address, {.authkey = "a key", .timeout = in_time}));
    check_ended_well(std::move(listener.running), "refused\nrefused\n");
}

TEST_CASE("halves of the handshake with Python", "[interop][connection][listener]") {
    EVERY_PYTHON;
    const mp::bytes key("a key");
    const Listener listener;
    auto client = start(python, R"(
from multiprocessing.connection import answer_challenge, deliver_challenge
with Client(address) as connection:
    for digest in 'md5', 'sha256', 'sha384', 'sha3_256', 'sha3_384':
        answer_challenge(connection, key)
        if sys.version_info >= (3, 12):
            deliver_challenge(connection, key, digest)
        else:
            deliver_challenge(connection, key)
)",
                        listener.address(), key);
    const mp::Connection connection = listener.accept(in_time);
    for (const auto digest : {"sha384", "md5", "sha3_256", "sha3_384", "sha256"}) {
        CHECK_NOTHROW(mp::connection::deliver_challenge(connection, key, digest));
        CHECK_NOTHROW(mp::connection::answer_challenge(connection, key));
    }
    check_ended_well(std::move(client));
}

TEST_CASE("objects go to Python's recv() and come from its send()", "[interop][connection][listener]") {
    EVERY_PYTHON;
    using Numbers = std::map<std::string, std::vector<double>>;
    const Listener listener({.authkey = "a key"});
    auto client = start(python, R"(
with Client(address, authkey=key) as connection:
    received = connection.recv()
    assert received == {'x': [1.0, 2.5], 'y': []}, received
    connection.send((received, 'text', b'bytes'))
    assert connection.recv() == 'goodbye'
)",
                        listener.address(), Key("a key"));
    const mp::Connection connection = listener.accept(in_time);
    const Numbers numbers{{"x", {1, 2.5}}, {"y", {}}};
    connection.send_python(numbers);
    using Reply = std::tuple<Numbers, std::string, mp::bytes>;
    CHECK((connection.recv_python<Reply>() == Reply(numbers, "text", "bytes")));
    connection.send_python("goodbye");
    check_ended_well(std::move(client));
}
