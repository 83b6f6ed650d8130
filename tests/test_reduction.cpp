// SPDX-License-Identifier: BSL-1.0
#include <multiprocessing/reduction.hpp>

#include <multiprocessing/connection.hpp>
#include <multiprocessing/context.hpp>
#include <multiprocessing/os/fd.hpp>
#include <multiprocessing/pickle.hpp>
#include <multiprocessing/process.hpp>

#include "runtime/helpers.hpp"
#include "support/catch.hpp"
#include "support/sanitized.hpp"

#include <array>
#include <cerrno>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <tuple>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

namespace mp = multiprocessing;
namespace reduction = multiprocessing::reduction;
using Catch::Matchers::ContainsSubstring;

namespace {

std::string read_from(int descriptor) {
    char text[32];
    const auto size = ::read(descriptor, text, sizeof text);
    return size < 0 ? "error" : std::string(text, static_cast<std::size_t>(size));
}

bool write_to(int descriptor, std::string_view text) {
    return ::write(descriptor, text.data(), text.size()) == std::ssize(text);
}

// The code of what recv_handle throws; 0 when that is no std::system_error, or when nothing is.
[[maybe_unused]] int code_of_receiving(const mp::Connection& connection) {
    try {
        static_cast<void>(reduction::recv_handle(connection));
    } catch (const std::system_error& error) {
        return error.code().value();
    } catch (const std::runtime_error&) {
        return 0;
    }
    return 0;
}

// While it lives, this process can open no descriptor that it has not had.
class NoMoreDescriptors {
public:
    NoMoreDescriptors() {
        ::getrlimit(RLIMIT_NOFILE, &before_);
        ::rlimit limit = before_;
        limit.rlim_cur = static_cast<::rlim_t>(mp::os::duplicate(STDERR_FILENO).get());
        ::setrlimit(RLIMIT_NOFILE, &limit);
    }
    NoMoreDescriptors(const NoMoreDescriptors&) = delete;
    NoMoreDescriptors& operator=(const NoMoreDescriptors&) = delete;
    ~NoMoreDescriptors() { ::setrlimit(RLIMIT_NOFILE, &before_); }

private:
    ::rlimit before_{};
};

}  // namespace

TEST_CASE("a descriptor goes through a connection", "[reduction]") {
    const auto [a, b] = mp::Pipe();
    auto [reading, writing] = mp::os::pipe();
    a.send(1);
    reduction::send_handle(a, writing.get());
    a.send(2);
    CHECK(b.recv<int>() == 1);
    mp::os::Fd received = reduction::recv_handle(b);
    CHECK(b.recv<int>() == 2);
    CHECK(received.get() != writing.get());
    CHECK((::fcntl(received.get(), F_GETFD) & FD_CLOEXEC) != 0);
    writing.reset();
    REQUIRE(write_to(received.get(), "through the copy"));
    CHECK(read_from(reading.get()) == "through the copy");
    received.reset();
    CHECK(read_from(reading.get()) == "");  // there is no other copy
}

TEST_CASE("the way of a descriptor is CPython's", "[reduction]") {
    auto [ours, peer] = mp::os::socket_pair();
    const mp::Connection connection(std::move(ours));
    auto [reading, writing] = mp::os::pipe();
    reduction::send_handle(connection, writing.get());
    std::array<std::byte, 10> bytes{};
    mp::os::ReceivedDescriptors descriptors;
    CHECK(mp::os::receive_some(peer.get(), bytes, &descriptors) == 1);
    CHECK(bytes[0] == std::byte{1});
    CHECK(descriptors.all.size() == 1);
}

TEST_CASE("what is no descriptor is not received as one", "[reduction]") {
    auto [ours, peer] = mp::os::socket_pair();
    const mp::Connection connection(std::move(ours));
    for (const std::string_view byte : {std::string_view("\0", 1), std::string_view("\1")}) {
        REQUIRE(write_to(peer.get(), byte));
        CHECK_THROWS_WITH(reduction::recv_handle(connection),
                          ContainsSubstring("bears 0 descriptors"));
    }
    const auto before = support::open_descriptors();
    std::byte two{2};
    ::iovec part{&two, 1};
    mp::os::send_all(peer.get(), {&part, 1}, std::array{STDOUT_FILENO, STDERR_FILENO});
    CHECK_THROWS_WITH(reduction::recv_handle(connection), ContainsSubstring("bears 2 descriptors"));
    CHECK(support::open_descriptors() == before);
    peer.reset();
    CHECK_THROWS_AS(reduction::recv_handle(connection), mp::EOFError);
}

TEST_CASE("a descriptor is sent over what can take it", "[reduction]") {
    auto [reader, writer] = mp::Pipe(false);
    CHECK_THROWS_WITH(reduction::send_handle(reader, 0), ContainsSubstring("read-only"));
    CHECK_THROWS_WITH(reduction::recv_handle(writer), ContainsSubstring("write-only"));
    CHECK_THROWS_AS(reduction::send_handle(writer, -1), std::system_error);
    CHECK_FALSE(reader.poll());
    reader.close();
    CHECK_THROWS_WITH(reduction::recv_handle(reader), ContainsSubstring("handle is closed"));
    CHECK_THROWS_AS(reduction::send_handle(writer, 0), std::system_error);  // EPIPE
    const mp::Connection network(mp::os::Fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)));
    CHECK_THROWS_AS(reduction::send_handle(network, 0), mp::ValueError);
    CHECK_THROWS_AS(network.send(reduction::DupFd(0)), mp::PicklingError);
    CHECK_THROWS_AS(mp::pickle::dumps(reduction::DupFd(0)), mp::PicklingError);
}

// UBSan's look at a vptr opens descriptors itself, and finds fault where it cannot.
#if !defined(TEST_IS_SANITIZED)
TEST_CASE("a lack of descriptors is said", "[reduction]") {
    const auto [a, b] = mp::Pipe();
    reduction::send_handle(a, STDERR_FILENO);
    reduction::send_handle(a, STDERR_FILENO);
    {
        const NoMoreDescriptors limit;
        CHECK(code_of_receiving(b) == EMFILE);
        CHECK_THROWS_AS(reduction::DupFd(STDERR_FILENO), std::system_error);
    }
    CHECK(reduction::recv_handle(b).get() > STDERR_FILENO);
}
#endif

TEST_CASE("a DupFd has a descriptor of its own", "[reduction]") {
    CHECK_THROWS_AS(reduction::DupFd().get(), std::system_error);
    CHECK_THROWS_AS(reduction::DupFd(-1), std::system_error);
    const auto before = support::open_descriptors();
    {
        const reduction::DupFd fd(STDERR_FILENO);
        const auto copy = fd;
        CHECK(support::open_descriptors() == before + 1);
        CHECK(fd.get() != STDERR_FILENO);
        CHECK(copy.get() == fd.get());
        CHECK(copy.detach().get() > STDERR_FILENO);
        CHECK_THROWS_AS(fd.get(), std::system_error);
        CHECK_THROWS_AS(fd.detach(), std::system_error);
        const auto [a, b] = mp::Pipe();
        CHECK_THROWS_AS(a.send(fd), std::system_error);
        CHECK_FALSE(b.poll());
    }
    CHECK(support::open_descriptors() == before);
}

TEST_CASE("a DupFd travels in messages and with a process", "[reduction][fork][spawn]") {
    const auto ctx = mp::get_context(GENERATE(from_range(mp::get_all_start_methods())));
    const auto [a, b] = mp::Pipe();
    auto [reading, writing] = mp::os::pipe();
    const auto p = ctx.Process(
        [](const mp::Connection& connection, const reduction::DupFd& argument) {
            if (!write_to(argument.get(), "an argument")) mp::exit(1);
            connection.send("written");
            const auto [label, list] =
                connection.recv<std::tuple<std::string, std::vector<reduction::DupFd>>>();
            for (const auto& fd : list) {
                const mp::os::Fd file = fd.detach();
                if (!write_to(file.get(), label)) mp::exit(2);
            }
        },
        b, reduction::DupFd(writing.get()));
    p.start();
    CHECK(a.recv<std::string>() == "written");
    CHECK(read_from(reading.get()) == "an argument");
    const std::vector<reduction::DupFd> three(3, reduction::DupFd(std::move(writing)));
    a.send(std::tuple(std::string("text "), three));
    CHECK(support::ended(p) == 0);
    CHECK(read_from(reading.get()) == "text text text ");
    // The other handles are of the same descriptor: with it the last end is gone.
    static_cast<void>(three[0].detach());
    CHECK(read_from(reading.get()) == "");
}
