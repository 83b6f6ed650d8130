// SPDX-License-Identifier: BSL-1.0
//
// CPython's tests of a Connection: messages, bytes, descriptors, and handles that are none.
#include <multiprocessing/connection.hpp>

#include <multiprocessing/os/fd.hpp>
#include <multiprocessing/reduction.hpp>

#include "conformance/helpers.hpp"
#include "support/catch.hpp"

#include <array>
#include <concepts>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <tuple>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

namespace mp = multiprocessing;
using namespace support;
using Catch::Matchers::ContainsSubstring;

namespace {

constexpr int low_numbers = 256;

void echo_messages(const mp::Connection& connection) {
    for (;;) {
        const mp::bytes message = connection.recv_bytes();
        if (message.empty()) break;
        connection.send_bytes(message);
    }
    connection.close();
}

bool is_open(int descriptor) { return ::fcntl(descriptor, F_GETFD) != -1; }

void write_to_received(const mp::Connection& connection, const std::string& text, int taken) {
    for (int number = 0; number < taken; ++number) {
        if (!is_open(number)) EXPECT(::dup2(connection.fileno(), number) == number);
    }
    const mp::os::Fd file = mp::reduction::recv_handle(connection);
    EXPECT(file.get() >= taken);
    EXPECT(::write(file.get(), text.data(), text.size()) == std::ssize(text));
}

mp::os::Fd empty_file() { return mp::os::Fd(::memfd_create("conformance", MFD_CLOEXEC)); }

std::string text_in(const mp::os::Fd& file) {
    std::string text(100, '\0');
    const auto size = ::pread(file.get(), text.data(), text.size(), 0);
    text.resize(size < 0 ? 0 : static_cast<std::size_t>(size));
    return text;
}

}  // namespace

TEST_CASE("_TestConnection.test_connection", "[connection][conformance]") {
    EVERY_START_METHOD;
    const auto [ours, theirs] = mp::Pipe();
    Children children(method);
    children.start(mp::ProcessOptions{.daemon = true}, echo_messages, theirs);

    using None = std::optional<int>;
    const std::tuple<int, double, None> sequence(1, 2.25, std::nullopt);
    const std::string text = "hello world";
    std::string long_text;
    for (int i = 0; i < 10; ++i) long_text += text;
    const std::array array{0, 1, 2, 3};

    [[maybe_unused]] const std::same_as<int> auto number = ours.fileno();
    ours.send(sequence);
    CHECK(ours.recv<std::tuple<int, double, None>>() == sequence);
    ours.send_bytes(text);
    CHECK(ours.recv_bytes().str() == text);
    {
        std::array<int, 10> buffer{};
        ours.send_bytes(array);
        CHECK(ours.recv_bytes_into(buffer) == sizeof array);
        CHECK(buffer == std::array{0, 1, 2, 3, 0, 0, 0, 0, 0, 0});
    }
    {
        std::array<int, 10> buffer{};
        ours.send_bytes(array);
        CHECK(ours.recv_bytes_into(buffer, 3 * sizeof(int)) == sizeof array);
        CHECK(buffer == std::array{0, 0, 0, 0, 1, 2, 3, 0, 0, 0});
    }
    {
        std::string buffer(40, ' ');
        ours.send_bytes(long_text);
        try {
            const auto size = ours.recv_bytes_into(buffer);
            FAIL("expected BufferTooShort, got " << size);
        } catch (const mp::BufferTooShort& error) {
            CHECK(error.message().str() == long_text);
        }
    }

    CHECK(elapsed([&, c = ours] { CHECK_FALSE(c.poll()); }) < no_time);
    CHECK(elapsed([&, c = ours] { CHECK_FALSE(c.poll(-1)); }) < no_time);
    CHECK(elapsed([&, c = ours] { CHECK_FALSE(c.poll(timeout1)); }) >= timeout1);
    ours.send(None());
    CHECK(elapsed([&, c = ours] { CHECK(c.poll(patient)); }) < no_time);
    CHECK(elapsed([&, c = ours] { CHECK(c.poll(timeout1)); }) < no_time);
    CHECK(ours.recv<None>() == None());

    const std::string really_big(16 * 1024 * 1024, 'X');
    ours.send_bytes(really_big);
    CHECK(ours.recv_bytes().str() == really_big);

    ours.send_bytes("");
    theirs.close();
    CHECK(ours.readable());
    CHECK(ours.writable());
    CHECK_THROWS_AS(ours.recv<int>(), mp::EOFError);
    CHECK_THROWS_AS(ours.recv_bytes(), mp::EOFError);
    CHECK(children.join());
}

TEST_CASE("_TestConnection.test_duplex_false", "[connection][conformance]") {
    const auto [reader, writer] = mp::Pipe(false);
    writer.send(1);
    CHECK(reader.recv<int>() == 1);
    CHECK(reader.readable());
    CHECK_FALSE(reader.writable());
    CHECK_FALSE(writer.readable());
    CHECK(writer.writable());
    CHECK_THROWS_AS(reader.send(2), std::system_error);
    CHECK_THROWS_AS(writer.recv<int>(), std::system_error);
    CHECK_THROWS_AS(writer.poll(), std::system_error);
}

TEST_CASE("_TestConnection.test_spawn_close", "[connection][conformance]") {
    EVERY_START_METHOD;
    const auto [ours, theirs] = mp::Pipe();
    Children children(method);
    children.start(mp::ProcessOptions{.daemon = true}, echo_messages, theirs);
    theirs.close();  // maybe before the child has it
    ours.send_bytes("hello");
    CHECK(ours.recv_bytes().str() == "hello");
    ours.send_bytes("");
    ours.close();
    CHECK(children.join());
}

TEST_CASE("_TestConnection.test_sendbytes", "[connection][conformance]") {
    const std::string_view text = "abcdefghijklmnopqrstuvwxyz";
    const auto [a, b] = mp::Pipe();
    a.send_bytes(text);
    CHECK(b.recv_bytes().str() == text);
    a.send_bytes(text, 5);
    CHECK(b.recv_bytes().str() == text.substr(5));
    a.send_bytes(text, 7, 8);
    CHECK(b.recv_bytes().str() == text.substr(7, 8));
    a.send_bytes(text, 26);
    CHECK(b.recv_bytes().empty());
    a.send_bytes(text, 26, 0);
    CHECK(b.recv_bytes().empty());
    CHECK_THROWS_AS(a.send_bytes(text, 27), mp::ValueError);
    CHECK_THROWS_AS(a.send_bytes(text, 22, 5), mp::ValueError);
    CHECK_THROWS_AS(a.send_bytes(text, 26, 1), mp::ValueError);
    CHECK_THROWS_AS(a.send_bytes(text, -1), mp::ValueError);
    CHECK_THROWS_AS(a.send_bytes(text, 4, -1), mp::ValueError);
}

TEST_CASE("_TestConnection.test_fd_transfer", "[connection][conformance]") {
    EVERY_START_METHOD;
    const auto [ours, theirs] = mp::Pipe(true);
    Children children(method);
    const auto p =
        children.start(mp::ProcessOptions{.daemon = true}, write_to_received, theirs, "foo", 0);
    const mp::os::Fd file = empty_file();
    mp::reduction::send_handle(ours, file.get(), p.pid());
    CHECK(children.join());
    CHECK(text_in(file) == "foo");
}

TEST_CASE("_TestConnection.test_large_fd_transfer", "[connection][conformance]") {
    EVERY_START_METHOD;
    ::rlimit limit{};
    REQUIRE(::getrlimit(RLIMIT_NOFILE, &limit) == 0);
    if (limit.rlim_cur <= low_numbers + 1) SKIP("the limit of open descriptors is too low");
    const auto [ours, theirs] = mp::Pipe(true);
    Children children(method);
    const auto p = children.start(mp::ProcessOptions{.daemon = true}, write_to_received, theirs,
                                  "bar", low_numbers);
    const mp::os::Fd file = empty_file();
    mp::os::Fd high(::fcntl(file.get(), F_DUPFD_CLOEXEC, low_numbers));
    CHECK(high.get() >= low_numbers);
    mp::reduction::send_handle(ours, high.get(), p.pid());
    high.reset();
    CHECK(children.join());
    CHECK(text_in(file) == "bar");
}

TEST_CASE("_TestConnection.test_missing_fd_transfer", "[connection][conformance]") {
    EVERY_START_METHOD;
    const auto [ours, theirs] = mp::Pipe(true);
    Children children(method);
    children.start(
        mp::ProcessOptions{.daemon = true},
        [](const mp::Connection& c) { EXPECT(::write(c.fileno(), "\0", 1) == 1); }, theirs);
    CHECK_THROWS_WITH(mp::reduction::recv_handle(ours), ContainsSubstring("0 descriptors"));
    CHECK(children.join());
}

TEST_CASE("_TestConnection.test_context", "[connection][conformance]") {
    std::array<int, 2> numbers{};
    {
        const auto [a, b] = mp::Pipe();
        a.send(1729);
        CHECK(b.recv<int>() == 1729);
        CHECK_FALSE(a.closed());
        CHECK_FALSE(b.closed());
        numbers = {a.fileno(), b.fileno()};
    }
    CHECK_FALSE(is_open(numbers[0]));
    CHECK_FALSE(is_open(numbers[1]));

    // Where a handle outlives the block, `with` is close().
    const auto [a, b] = mp::Pipe();
    mp::Connection(a).close();
    mp::Connection(b).close();
    CHECK(a.closed());
    CHECK(b.closed());
    CHECK_THROWS_AS(a.recv<int>(), std::system_error);
    CHECK_THROWS_AS(b.recv<int>(), std::system_error);
}

TEST_CASE("_TestConnection.test_wait_empty", "[connection][conformance]") {
    const auto wait_for_nothing = [] { return mp::connection::wait({}, timeout1); };
    CHECK(elapsed([&] { CHECK(wait_for_nothing().empty()); }) >= timeout1);
}

TEST_CASE("TestInvalidHandle.test_invalid_handles", "[connection][conformance]") {
    {
        const mp::Connection connection(mp::os::Fd(44977608));
        CHECK_THROWS_AS(connection.poll(), std::system_error);
        CHECK_THROWS_AS(connection.recv<int>(), std::system_error);
    }
    CHECK_THROWS_AS(mp::Connection(mp::os::Fd(-1)), mp::ValueError);
}
