// SPDX-License-Identifier: BSL-1.0

#include <multiprocessing/connection.hpp>

#include <multiprocessing/context.hpp>
#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/process.hpp>
#include <multiprocessing/queues.hpp>

#include "runtime/helpers.hpp"
#include "shm/helpers.hpp"
#include "support/catch.hpp"
#include "support/outcome.hpp"
#include "support/sanitized.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <map>
#include <numeric>
#include <optional>
#include <set>
#include <string>
#include <system_error>
#include <thread>
#include <tuple>
#include <vector>

#include <pthread.h>
#include <sys/resource.h>
#include <unistd.h>

namespace mp = multiprocessing;
using namespace std::chrono_literals;
using namespace std::string_literals;
using Catch::Matchers::ContainsSubstring;
using support::ended;
using support::error_of;
using support::run;

namespace {

template <class F>
double seconds(F call) {
    const auto start = std::chrono::steady_clock::now();
    call();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// A Connection whose other end speaks bytes.
std::pair<mp::Connection, mp::os::Fd> raw_peer() {
    auto [ours, theirs] = mp::os::socket_pair();
    return {mp::Connection(std::move(ours)), std::move(theirs)};
}

void write_raw(const mp::os::Fd& fd, const mp::bytes& bytes) {
    REQUIRE(::write(fd.get(), bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size()));
}

mp::bytes read_raw(const mp::os::Fd& fd, std::size_t size) {
    mp::bytes bytes(size);
    REQUIRE(::read(fd.get(), bytes.data(), size) == static_cast<ssize_t>(size));
    return bytes;
}

struct Parcel {
    std::string label;
    std::vector<mp::Connection> connections;
    template <class Archive>
    void serialize(Archive& archive, unsigned) {
        archive& label& connections;
    }
};

}  // namespace

TEST_CASE("objects arrive as they were sent, in order", "[connection]") {
    auto [a, b] = mp::Pipe();
    a.send(1);
    a.send("literal");
    a.send(std::vector<std::string>{"x", "y"});
    a.send(std::map<int, double>{{1, 0.5}});
    a.send(std::optional<int>());
    CHECK(b.recv<int>() == 1);
    CHECK(b.recv<std::string>() == "literal");
    CHECK(b.recv<std::vector<std::string>>() == std::vector<std::string>{"x", "y"});
    CHECK(b.recv<std::map<int, double>>() == std::map<int, double>{{1, 0.5}});
    CHECK(b.recv<std::optional<int>>() == std::nullopt);
    b.send(std::tuple(1, 'c'));  // and the other way
    CHECK(a.recv<std::tuple<int, char>>() == std::tuple(1, 'c'));
}

TEST_CASE("a message of another type is an error that names both", "[connection]") {
    auto [a, b] = mp::Pipe();
    a.send(1);
    CHECK_THROWS_WITH(b.recv<std::string>(),
                      ContainsSubstring("std::string") && ContainsSubstring("int"));
    a.send_bytes("no object");
    CHECK_THROWS_AS(b.recv<int>(), mp::UnpicklingError);
    a.send_bytes("");
    CHECK_THROWS_AS(b.recv<int>(), mp::UnpicklingError);
    CHECK_FALSE(b.poll());  // they were consumed
    a.send(2);
    CHECK(b.recv<int>() == 2);
}

TEST_CASE("a one-way pipe goes one way", "[connection]") {
    auto [reader, writer] = mp::Pipe(false);
    CHECK(reader.readable());
    CHECK_FALSE(reader.writable());
    CHECK_FALSE(writer.readable());
    CHECK(writer.writable());
    writer.send(1);
    CHECK(reader.recv<int>() == 1);
    writer.send_bytes("bytes");
    CHECK(reader.recv_bytes().str() == "bytes");
    CHECK_THROWS_WITH(reader.send(1), ContainsSubstring("connection is read-only"));
    CHECK(error_of([&, r = reader] { r.send_bytes("x"); }) == EBADF);
    CHECK_THROWS_WITH(writer.recv<int>(), ContainsSubstring("connection is write-only"));
    CHECK_THROWS_WITH(writer.recv_bytes(), ContainsSubstring("connection is write-only"));
    CHECK_THROWS_WITH(writer.poll(), ContainsSubstring("connection is write-only"));
    CHECK_THROWS_AS(mp::Connection(mp::os::socket_pair().first, false, false), mp::ValueError);
    CHECK_THROWS_AS(mp::Connection(mp::os::duplicate(mp::Pipe().first.fileno())), mp::ValueError);
}

TEST_CASE("a descriptor that is none is an error", "[connection]") {
    for (const int number : {-1, -5}) {
        CHECK_THROWS_AS(mp::Connection(mp::os::Fd(number)), mp::ValueError);
    }
    auto [ours, theirs] = mp::os::socket_pair();
    const mp::Connection robbed(std::move(ours));
    ::close(robbed.fileno());
    CHECK(error_of([&] { robbed.send(1); }) == EBADF);
    CHECK(error_of([&] { static_cast<void>(robbed.recv<int>()); }) == EBADF);
    CHECK(error_of([&] { static_cast<void>(robbed.poll()); }) == EBADF);
    CHECK(error_of([&] { static_cast<void>(robbed.poll(std::nullopt)); }) == EBADF);
}

TEST_CASE("send_bytes sends a part of a buffer", "[connection]") {
    auto [a, b] = mp::Pipe();
    const std::string text = "abcdefghijklmnopqrstuvwxyz";
    const auto sent = [a = a, b = b](const auto&... arguments) {
        a.send_bytes(arguments...);
        return b.recv_bytes().str();
    };
    CHECK(sent(text) == text);
    CHECK(sent(text, 5) == text.substr(5));
    CHECK(sent(text, 7, 8) == text.substr(7, 8));
    CHECK(sent(text, 26) == "");
    CHECK(sent(text, 26, 0) == "");
    CHECK(sent("") == "");
    CHECK(sent("a\0b") == "a");  // a literal is a string_view's
    CHECK(sent(mp::bytes("a\0b")) == std::string("a\0b", 3));
    CHECK(sent(std::as_bytes(std::span(text)), 1, 2) == "bc");
    for (const auto& wrong : {std::pair(27, 0), {22, 5}, {26, 1}, {-1, 1}, {4, -1}}) {
        CHECK_THROWS_AS(a.send_bytes(text, wrong.first, wrong.second), mp::ValueError);
    }
    CHECK_THROWS_AS(a.send_bytes(text, 27), mp::ValueError);
    CHECK_FALSE(b.poll());
}

TEST_CASE("the size of a message counts bytes, whatever the elements", "[connection]") {
    auto [a, b] = mp::Pipe();
    std::vector<std::uint16_t> wide(10);
    std::iota(wide.begin(), wide.end(), std::uint16_t{0x100});
    a.send_bytes(wide, 4, 6);
    std::array<std::uint16_t, 5> received{};
    CHECK(b.recv_bytes_into(received, 2) == 6);
    CHECK(received == std::array<std::uint16_t, 5>{0, 0x102, 0x103, 0x104, 0});
    a.send_bytes(wide);
    CHECK(b.recv_bytes().size() == 20);
}

TEST_CASE("recv_bytes_into fills a buffer and leaves the rest", "[connection]") {
    auto [a, b] = mp::Pipe();
    std::string buffer(10, '.');
    a.send_bytes("latin");
    CHECK(b.recv_bytes_into(buffer) == 5);
    CHECK(buffer == "latin.....");
    a.send_bytes("12345");
    CHECK(b.recv_bytes_into(buffer, 5) == 5);
    CHECK(buffer == "latin12345");
    a.send_bytes("");
    CHECK(b.recv_bytes_into(buffer, 10) == 0);
    CHECK_THROWS_AS(b.recv_bytes_into(buffer, -1), mp::ValueError);
    CHECK_THROWS_AS(b.recv_bytes_into(buffer, 11), mp::ValueError);

    const std::string longer = "this buffer is too small for this";
    a.send_bytes(longer);
    try {
        b.recv_bytes_into(buffer);
        FAIL("it cannot have fitted");
    } catch (const mp::BufferTooShort& error) {
        CHECK(error.message().str() == longer);
    }
    CHECK(buffer == "latin12345");
    a.send_bytes("next");
    CHECK(b.recv_bytes_into(buffer) == 4);
}

TEST_CASE("a message that is too long ends receiving", "[connection]") {
    {
        auto [a, b] = mp::Pipe();
        a.send_bytes("ten bytes!");
        CHECK(b.recv_bytes(10).size() == 10);
        a.send_bytes("");
        CHECK(b.recv_bytes(0).empty());
        CHECK_THROWS_AS(b.recv_bytes(-1), mp::ValueError);
        a.send_bytes("ten bytes!");
        CHECK_THROWS_WITH(b.recv_bytes(3), ContainsSubstring("bad message length"));
        CHECK_FALSE(b.readable());
        CHECK_FALSE(b.closed());
        CHECK_THROWS_WITH(b.recv_bytes(), ContainsSubstring("connection is write-only"));
        b.send(1);
        CHECK(a.recv<int>() == 1);
    }
    auto [reader, writer] = mp::Pipe(false);
    writer.send_bytes("ten bytes!");
    CHECK(error_of([r = reader] { static_cast<void>(r.recv_bytes(3)); }) == EMSGSIZE);
    CHECK(reader.closed());
}

TEST_CASE("poll says whether there is something to receive", "[connection]") {
    auto [a, b] = mp::Pipe();
    CHECK_FALSE(b.poll());
    CHECK_FALSE(b.poll(0));
    CHECK_FALSE(b.poll(-1));
    CHECK(seconds([&, b = b] { CHECK_FALSE(b.poll(0.05)); }) >= 0.05);
    CHECK_FALSE(b.poll(5ms));
    a.send_bytes("");  // an empty message is one
    CHECK(b.poll());
    CHECK(b.poll(-1));
    CHECK(b.poll(std::nullopt));
    a.send_bytes("x");
    CHECK(b.recv_bytes().empty());  // and does not merge with the next
    CHECK(b.poll());
    CHECK(b.recv_bytes().str() == "x");
    CHECK_FALSE(b.poll());
    a.close();
    CHECK(b.poll());  // the end counts
    CHECK_THROWS_AS(b.recv<int>(), mp::EOFError);
    CHECK(b.poll(std::nullopt));
}

TEST_CASE("close", "[connection]") {
    auto [a, b] = mp::Pipe();
    CHECK_FALSE(a.closed());
    CHECK(a.fileno() > 2);
    const auto copy = a;
    CHECK(copy == a);
    CHECK_FALSE(a == b);
    const auto before = support::open_descriptors();
    copy.close();
    CHECK(support::open_descriptors() == before - 1);
    CHECK(a.closed());
    a.close();
    for (const auto& closed : {a, mp::Connection()}) {
        CHECK(closed.closed());
        CHECK_THROWS_WITH(closed.send(1), ContainsSubstring("handle is closed"));
        CHECK_THROWS_WITH(closed.recv<int>(), ContainsSubstring("handle is closed"));
        CHECK_THROWS_WITH(closed.send_bytes("x"), ContainsSubstring("handle is closed"));
        CHECK_THROWS_WITH(closed.recv_bytes(), ContainsSubstring("handle is closed"));
        CHECK_THROWS_WITH(closed.poll(), ContainsSubstring("handle is closed"));
        CHECK_THROWS_WITH(closed.fileno(), ContainsSubstring("handle is closed"));
        CHECK(error_of([&] { static_cast<void>(closed.fileno()); }) == EBADF);
    }
    mp::Connection().close();
}

TEST_CASE("the bytes on the wire are CPython's", "[connection]") {
    auto [connection, peer] = raw_peer();
    connection.send_bytes("hello");
    CHECK(read_raw(peer, 9) == mp::bytes("\0\0\0\5hello"));
    connection.send_bytes("");
    CHECK(read_raw(peer, 4) == mp::bytes("\0\0\0\0"));
    write_raw(peer, "\0\0\0\2ab");
    CHECK(connection.recv_bytes().str() == "ab");
    write_raw(peer, "\xff\xff\xff\xff\0\0\0\0\0\0\0\3xyz");
    CHECK(connection.recv_bytes().str() == "xyz");

    const auto header = [](std::uint64_t length) {
        const mp::runtime::FrameHeader made(length);
        return mp::bytes(std::span(made.bytes).first(made.size));
    };
    CHECK(header(0x7fffffff) == mp::bytes("\x7f\xff\xff\xff"));
    CHECK(header(0x80000000) == mp::bytes("\xff\xff\xff\xff\0\0\0\0\x80\0\0\0"));
}

TEST_CASE("nonsense for a length is an error, not memory", "[connection]") {
    for (const mp::bytes& nonsense : {mp::bytes("\x80\0\0\0"), mp::bytes("\xff\xff\xff\xfe"),
                                      mp::bytes("\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\0")}) {
        auto [connection, peer] = raw_peer();
        write_raw(peer, nonsense);
        CHECK_THROWS_WITH(connection.recv_bytes(), ContainsSubstring("bad message length"));
    }
    auto [connection, peer] = raw_peer();
    write_raw(peer, "\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xffsome");
    peer.reset();
    CHECK_THROWS_AS(connection.recv_bytes(), mp::EOFError);
}

TEST_CASE("large messages", "[connection][fork][spawn]") {
    const auto ctx = mp::get_context(GENERATE(from_range(mp::get_all_start_methods())));
    auto [a, b] = mp::Pipe();
    const auto p = ctx.Process(
        [](const mp::Connection& c) {
            c.send_bytes(c.recv_bytes());
            auto numbers = c.recv<std::vector<std::uint32_t>>();
            for (auto& n : numbers) ++n;
            c.send(numbers);
        },
        b);
    p.start();
    const std::string text(16 << 20, 'x');
    a.send_bytes(text);
    CHECK(a.recv_bytes().str() == text);
    std::vector<std::uint32_t> numbers((16 << 20) / 4 + 1);
    std::iota(numbers.begin(), numbers.end(), 0u);
    a.send(numbers);
    std::iota(numbers.begin(), numbers.end(), 1u);
    CHECK(a.recv<std::vector<std::uint32_t>>() == numbers);
    CHECK(ended(p) == 0);
}

TEST_CASE("a peer that is gone is EOFError to the reader", "[connection][fork]") {
    auto [a, b] = mp::Pipe();
    a.send(1);
    a.close();
    CHECK(b.recv<int>() == 1);  // what it has sent is still there
    CHECK_THROWS_AS(b.recv<int>(), mp::EOFError);
    CHECK_THROWS_AS(b.recv_bytes(), mp::EOFError);
    std::array<std::byte, 4> buffer{};
    CHECK_THROWS_AS(b.recv_bytes_into(buffer), mp::EOFError);

    auto [c, d] = mp::Pipe();
    d.send("never read");
    c.close();  // resets the connection
    CHECK_THROWS_AS(d.recv<int>(), mp::EOFError);
}

TEST_CASE("a peer that dies within a message is EOFError too", "[connection][fork]") {
    auto [a, b] = mp::Pipe();
    mp::Process p([b = b] {
        [[maybe_unused]] const auto n = ::write(b.fileno(), "\0\0\1\0only so much", 16);
        std::raise(SIGKILL);
    });
    p.start();
    b.close();
    CHECK_THROWS_AS(a.recv_bytes(), mp::EOFError);
    CHECK(ended(p) == -SIGKILL);

    auto [connection, peer] = raw_peer();
    write_raw(peer, "\0\0");
    peer.reset();
    CHECK_THROWS_AS(connection.recv<int>(), mp::EOFError);
}

TEST_CASE("a peer that is gone is EPIPE to the writer, never a signal", "[connection][fork]") {
    mp::Process p([] {
        std::signal(SIGPIPE, SIG_DFL);
        for (const bool duplex : {true, false}) {
            auto [a, b] = mp::Pipe(duplex);
            b.send(1);  // unread: the end is a reset
            a.close();
            for (int i = 0; i < 2; ++i) {
                if (error_of([b = b] { b.send(std::string(100000, 'x')); }) != EPIPE) mp::exit(1);
                if (error_of([b = b] { b.send_bytes("x"); }) != EPIPE) mp::exit(2);
            }
        }
    });
    CHECK(run(p) == 0);
}

TEST_CASE("messages stay whole when many threads send and receive", "[connection]") {
    auto [a, b] = mp::Pipe();
    constexpr int threads = 4, each = 50;
    // Up to 400 KB, more than the kernel takes in one go.
    const auto size_of = [](int n) { return static_cast<std::size_t>(n * 3701 % 100'000 + 1); };
    std::vector<std::thread> all;
    std::atomic<int> wrong = 0;
    std::atomic<std::int64_t> sum = 0;
    for (int t = 0; t < threads; ++t) {
        all.emplace_back([t, size_of, a = a] {
            for (int i = t * each; i < (t + 1) * each; ++i) a.send(std::vector<int>(size_of(i), i));
        });
        all.emplace_back([&, b = b] {
            for (int i = 0; i < each; ++i) {
                const auto v = b.recv<std::vector<int>>();
                if (v.size() != size_of(v[0])) ++wrong;
                if (std::adjacent_find(v.begin(), v.end(), std::not_equal_to<>()) != v.end())
                    ++wrong;
                sum += v[0];
            }
        });
    }
    for (auto& thread : all) thread.join();
    CHECK(wrong == 0);
    CHECK(sum == std::int64_t{threads * each} * (threads * each - 1) / 2);
}

TEST_CASE("signals interrupt no wait", "[connection]") {
    static std::atomic<int> handled = 0;
    struct sigaction action {};
    action.sa_handler = [](int) { ++handled; };
    struct sigaction before {};
    ::sigaction(SIGUSR1, &action, &before);
    auto [a, b] = mp::Pipe();
    const pthread_t waiting = ::pthread_self();
    std::atomic<int> stage = 0;
    std::thread disturber([&, a = a] {
        const auto disturb = [&](int of) {
            stage.wait(of);
            for (int n = handled, i = 0; i < 5; ++i, ++n) {
                ::pthread_kill(waiting, SIGUSR1);
                while (handled == n) std::this_thread::yield();
            }
        };
        disturb(0);
        a.send("text");
        disturb(1);
        a.send("text");
        disturb(2);
    });
    stage = 1;
    stage.notify_one();
    CHECK(b.recv<std::string>() == "text");
    stage = 2;
    stage.notify_one();
    CHECK(b.poll(std::nullopt));
    CHECK(b.recv<std::string>() == "text");
    stage = 3;
    stage.notify_one();
    CHECK(seconds([b = b] { CHECK_FALSE(b.poll(0.1)); }) >= 0.1);
    disturber.join();
    ::sigaction(SIGUSR1, &before, nullptr);
}

TEST_CASE("a connection travels in a message and keeps its direction",
          "[connection][fork][spawn]") {
    const auto ctx = mp::get_context(GENERATE(from_range(mp::get_all_start_methods())));
    auto [a, b] = mp::Pipe();
    const auto p = ctx.Process(
        [](const mp::Connection& c) {
            const auto writer = c.recv<mp::Connection>();
            if (writer.readable() || !writer.writable()) mp::exit(1);
            writer.send("through what was sent");
            writer.close();
            const auto parcel = c.recv<Parcel>();
            for (const auto& duplex : parcel.connections) {
                if (!duplex.readable() || !duplex.writable()) mp::exit(2);
                duplex.send(parcel.label + duplex.recv<std::string>());
            }
        },
        b);
    p.start();
    auto [reader, writer] = mp::Pipe(false);
    a.send(writer);
    writer.close();
    CHECK(reader.recv<std::string>() == "through what was sent");
    CHECK_THROWS_AS(reader.recv<int>(), mp::EOFError);
    Parcel parcel{"label ", {}};
    std::vector<mp::Connection> ours;
    for (int i = 0; i < 20; ++i) {
        auto [mine, yours] = mp::Pipe();
        ours.push_back(mine);
        parcel.connections.push_back(yours);
    }
    a.send(parcel);
    for (const auto& mine : ours) mine.send("x");
    for (const auto& mine : ours) CHECK(mine.recv<std::string>() == "label x");
    CHECK(ended(p) == 0);
}

TEST_CASE("a connection is an argument of a process", "[connection][fork][spawn]") {
    const auto ctx = mp::get_context(GENERATE(from_range(mp::get_all_start_methods())));
    auto [reader, writer] = mp::Pipe(false);
    const auto p = ctx.Process(
        [](const std::vector<mp::Connection>& list) {
            list.at(0).send(list.at(0).readable() ? "both ways" : "one way");
        },
        std::vector{writer});
    CHECK(run(p) == 0);
    writer.close();
    CHECK(reader.recv<std::string>() == "one way");
    CHECK_THROWS_AS(reader.recv<int>(), mp::EOFError);  // no copy was left in this process
}

TEST_CASE("descriptors that were sent leak nowhere", "[connection]") {
    auto [a, b] = mp::Pipe();
    const auto before = support::open_descriptors();
    {
        auto [c, d] = mp::Pipe();
        a.send(c);
        CHECK_THROWS_AS(b.recv<int>(), mp::UnpicklingError);  // received, and closed
        a.send(c);
        CHECK(b.recv_bytes().size() > 0);  // not asked for
        c.close();
        CHECK_THROWS_AS(d.recv<int>(), mp::EOFError);
        CHECK_THROWS_WITH(a.send(c), ContainsSubstring("handle is closed"));
        Parcel too_many{"", std::vector<mp::Connection>(254, d)};
        CHECK_THROWS_AS(a.send(too_many), mp::PicklingError);
        CHECK_FALSE(b.poll());
        too_many.connections.pop_back();
        a.send(too_many);
        CHECK(b.recv<Parcel>().connections.size() == 253);
    }
    CHECK(support::open_descriptors() == before);
}

TEST_CASE("what nobody receives ends with the pipe", "[connection]") {
    const support::NoLeak leak;
    {
        auto [a, b] = mp::Pipe();
        const mp::Queue<int> queue;
        a.send(std::string(100'000, 'x'));
        a.send(queue);
        a.send(std::pair(mp::Queue<int>(), std::string(20'000, 'y')));
        b.send_bytes(std::string(100'000, 'z'));
        CHECK(b.recv<std::string>() == std::string(100'000, 'x'));
        CHECK(b.recv<mp::Queue<int>>() == queue);
    }
    CHECK(leak.leaked() == 0);
    {
        auto [a, b] = mp::Pipe();
        b.close();
        CHECK(error_of([&a = a] { a.send(std::string(100'000, 'x')); }) == EPIPE);
        CHECK(error_of([&a = a] { a.send(mp::Queue<int>()); }) == EPIPE);
    }
    CHECK(leak.leaked() == 0);
}

TEST_CASE("messages of every size arrive, as objects and as bytes", "[connection]") {
    const support::NoLeak leak;
    {
        auto [a, b] = mp::Pipe();
        for (const std::size_t size : {0u, 1u, 4u, 28u, 16'380u, 16'384u, 16'385u, 65'536u, 300'000u}) {
            const std::string text(size, static_cast<char>('a' + size % 26));
            a.send(text);
            CHECK(b.recv<std::string>() == text);
            b.send_bytes(text);
            CHECK(a.recv_bytes().str() == text);
            a.send(std::vector<std::string>{text, "and more"});
            CHECK(b.recv<std::vector<std::string>>() == std::vector<std::string>{text, "and more"});
            a.send_bytes(text);
            std::string buffer(size + 3, '-');
            CHECK(b.recv_bytes_into(buffer, 2) == size);
            CHECK(buffer == "--" + text + "-");
            a.send_bytes(text);
            CHECK_THROWS_AS(b.recv<std::string>(), mp::UnpicklingError);
            a.send(text);
            CHECK_THROWS_AS(b.recv<int>(), mp::UnpicklingError);
        }
    }
    CHECK(leak.leaked() == 0);
}

TEST_CASE("a message that others write in pieces is put together", "[connection]") {
    auto [a, b] = mp::Pipe();
    for (const std::string& piece : {"\0\0"s, "\0\6ab"s, "c"s, "def"s}) {
        REQUIRE(::write(a.fileno(), piece.data(), piece.size()) == std::ssize(piece));
    }
    CHECK(b.recv_bytes().str() == "abcdef");
    const auto too_much = "\0\0\0\1ab"s;
    REQUIRE(::write(a.fileno(), too_much.data(), too_much.size()) == std::ssize(too_much));
    CHECK_THROWS_WITH(b.recv_bytes(), ContainsSubstring("bad message length"));
    a.send(1);
    CHECK(b.recv<int>() == 1);
}

TEST_CASE("of very long messages one at a time is waiting, whoever is slow", "[connection][fork]") {
    constexpr std::size_t size = std::size_t{1} << 20;
    auto [a, b] = mp::Pipe();
    const mp::Process sender([a = a, b = b] {
        b.close();
        for (int i = 0; i < 20; ++i) a.send_bytes(std::string(size, static_cast<char>('a' + i)));
    });
    sender.start();
    a.close();
    const auto before = support::allocated();
    for (int i = 0; i < 20; ++i) {
        CHECK(b.recv_bytes().str() == std::string(size, static_cast<char>('a' + i)));
        CHECK(support::allocated() < before + 4 * size);
    }
    CHECK_THROWS_AS(b.recv_bytes(), mp::EOFError);
    CHECK(ended(sender) == 0);

    // Who waits for the receiver's sake sees it go.
    auto [c, d] = mp::Pipe();
    const mp::Process receiver([c = c, d = d] {
        c.close();
        static_cast<void>(d.poll(30));
        std::raise(SIGKILL);
    });
    receiver.start();
    d.close();
    CHECK(error_of([&c = c] {
              for (int i = 0; i < 20; ++i) c.send_bytes(std::string(size, 'x'));
          }) == EPIPE);
    CHECK(ended(receiver) == -SIGKILL);
}

TEST_CASE("who waits to send a long message is told of short ones that are received", "[connection]") {
    auto [ours, theirs] = mp::os::socket_pair(mp::os::SocketKind::messages);
    const auto pipe = mp::runtime::PipeRef::make(0);
    mp::runtime::Channel sender(std::move(ours), true, true, pipe);
    mp::runtime::Channel receiver(std::move(theirs), true, true, pipe);
    ::iovec parts[2] = {};
    sender.send(parts);
    std::atomic<bool> announced{false};
    std::atomic<bool> told{false};
    std::thread waiter([&] {
        const auto received = [&] { return mp::os::unreceived(sender.descriptor()->get()) == 0; };
        // Its nap is longer than this test would wait.
        pipe->received.sleep_until(received, [&] { announced = true; }, mp::os::Deadline::never(), [] {},
                                   {10min, 10min});
        told = true;
    });
    CHECK(support::eventually([&] { return announced.load(); }));
    mp::pickle::Buffer buffer;
    static_cast<void>(receiver.receive_whole(buffer, [](std::uint64_t) {}));
    CHECK(support::eventually([&] { return told.load(); }));
    pipe->received.notify_all();
    waiter.join();
}

TEST_CASE("what its sender was killed in goes with its descriptors", "[connection]") {
    auto [a, b] = mp::Pipe();
    auto [c, d] = mp::Pipe();
    auto [e, f] = mp::Pipe();
    // A long message as its sender leaves it that was killed before the last step, and swept up after.
    struct {
        std::array<unsigned char, 8> mark{0xff, 0xff, 0xff, 0xfe, 'l', 'o', 'n', 'g'};
        std::uint64_t size = 100;
        mp::shm::Ticket gone{.offset = 1 << 20, .serial = ~std::uint64_t{0}};
    } frame;
    ::iovec part{&frame, sizeof frame};
    const int descriptor = c.fileno();
    const auto before = support::open_descriptors();
    mp::os::send_all(a.fileno(), {&part, 1}, {&descriptor, 1});
    a.send(e);
    const auto received = b.recv<mp::Connection>();
    received.send(1);
    CHECK(f.poll(30));
    CHECK_FALSE(d.poll());
    CHECK(support::open_descriptors() == before + 1);
}

// UBSan's look at a vptr opens descriptors itself, and finds fault where it cannot.
#if !defined(TEST_IS_SANITIZED)
TEST_CASE("a descriptor that finds no room is EMFILE, and the connection goes on", "[connection]") {
    auto [a, b] = mp::Pipe();
    auto [stream, other] = mp::os::socket_pair();
    const mp::Connection from(std::move(stream));
    const mp::Connection to(std::move(other));
    ::rlimit limit{};
    REQUIRE(::getrlimit(RLIMIT_NOFILE, &limit) == 0);
    for (const auto& [here, there] : {std::pair(a, b), std::pair(from, to)}) {
        here.send(a);
        here.send(1);
        const auto next = static_cast<rlim_t>(mp::os::duplicate(a.fileno()).get());
        const ::rlimit none{next, limit.rlim_max};
        REQUIRE(::setrlimit(RLIMIT_NOFILE, &none) == 0);
        const int error = error_of([&there = there] { static_cast<void>(there.recv<mp::Connection>()); });
        REQUIRE(::setrlimit(RLIMIT_NOFILE, &limit) == 0);
        CHECK(error == EMFILE);
        CHECK(there.recv<int>() == 1);
    }
}
#endif

TEST_CASE("what cannot be sent leaves the connection as it was", "[connection]") {
    struct Refuses {
        int n = 0;
        void serialize(mp::pickle::OArchive& archive, unsigned) {
            archive << n;
            throw mp::PicklingError("not today");
        }
        void serialize(mp::pickle::IArchive&, unsigned) {}
    };
    auto [a, b] = mp::Pipe();
    CHECK_THROWS_AS(a.send(Refuses()), mp::PicklingError);
    CHECK_FALSE(b.poll());
    a.send(1);
    CHECK(b.recv<int>() == 1);
    mp::pickle::Buffer buffer;
    CHECK_THROWS_AS(mp::pickle::dump(a, buffer), mp::PicklingError);
}

TEST_CASE("wait returns the objects that are ready", "[connection][wait]") {
    using mp::connection::wait;
    auto [a, b] = mp::Pipe();
    auto [c, d] = mp::Pipe();
    auto [reading, writing] = mp::os::pipe();
    CHECK(wait({a, c, reading.get()}, 0).empty());
    CHECK(wait({a, c}, -1).empty());
    b.send(1);
    auto ready = wait({a, c, reading.get()});
    REQUIRE(ready.size() == 1);
    CHECK(ready[0] == a);
    CHECK_FALSE(ready[0] == b);
    CHECK_FALSE(ready[0] == a.fileno());
    CHECK(ready[0].connection() == a);
    write_raw(writing, "x");
    d.close();
    ready = wait({a, c, reading.get()}, 30);
    REQUIRE(ready.size() == 3);
    CHECK(ready[1] == c);  // its end counts
    CHECK(ready[2] == reading.get());
    CHECK(ready[2].connection() == std::nullopt);

    const std::vector list{c, a};
    CHECK(wait(list) == std::vector<mp::connection::Waitable>{c, a});
    const std::set<int> descriptors{reading.get()};
    CHECK(wait(descriptors, 1s).size() == 1);
    CHECK(wait(std::vector<mp::connection::Waitable>{a, reading.get()}).size() == 2);
}

TEST_CASE("wait with a timeout", "[connection][wait]") {
    using mp::connection::wait;
    auto [a, b] = mp::Pipe();
    CHECK(seconds([a = a] { CHECK(wait({a}, 0.05).empty()); }) >= 0.05);
    CHECK(seconds([] { CHECK(wait({}, 0.05).empty()); }) >= 0.05);  // it just waits
    CHECK(seconds([] { CHECK(wait(std::vector<int>(), 50ms).empty()); }) >= 0.05);
    a.send(1);
    CHECK(wait({b}, std::nullopt).size() == 1);
}

TEST_CASE("wait takes sentinels", "[connection][wait][fork][spawn]") {
    const auto ctx = mp::get_context(GENERATE(from_range(mp::get_all_start_methods())));
    auto [a, b] = mp::Pipe();
    const auto p =
        ctx.Process([](const mp::Connection& x) { static_cast<void>(x.recv<int>()); }, b);
    p.start();
    CHECK(mp::connection::wait({p.sentinel(), a}, 0).empty());
    a.send(1);
    const auto ready = mp::connection::wait({p.sentinel(), a});
    REQUIRE(ready.size() == 1);
    CHECK(ready[0] == p.sentinel());
    CHECK(ended(p) == 0);
}

TEST_CASE("wait for a writing end is for the reader's end", "[connection][wait]") {
    auto [reader, writer] = mp::Pipe(false);
    CHECK(mp::connection::wait({writer}, 0).empty());
    reader.close();
    CHECK(mp::connection::wait({writer}, 30).size() == 1);
}

TEST_CASE("wait refuses what is closed", "[connection][wait]") {
    auto [a, b] = mp::Pipe();
    const mp::connection::Waitable closed_later(a);
    a.close();
    CHECK_THROWS_WITH(mp::connection::wait({a}, 0), ContainsSubstring("handle is closed"));
    CHECK_THROWS_AS(mp::connection::wait({b, 1'000'000}, 0), std::system_error);
    CHECK(closed_later == a);
}

TEST_CASE("many producers on many pipes, one that waits", "[connection][wait][fork]") {
    std::vector<mp::Connection> readers;
    std::vector<mp::Process> processes;
    for (int i = 0; i < 4; ++i) {
        auto [reader, writer] = mp::Pipe(false);
        mp::Process p(
            [](const mp::Connection& w, int first) {
                for (int n = first; n < first + 10; ++n) w.send(n);
            },
            writer, i * 10);
        p.start();
        processes.push_back(p);
        readers.push_back(reader);
    }
    std::set<int> seen;
    while (!readers.empty()) {
        for (const auto& ready : mp::connection::wait(readers)) {
            const mp::Connection reader = ready.connection().value();
            try {
                seen.insert(reader.recv<int>());
            } catch (const mp::EOFError&) {
                std::erase(readers, reader);
            }
        }
    }
    CHECK(seen.size() == 40);
    for (const auto& p : processes) CHECK(ended(p) == 0);
}
