// SPDX-License-Identifier: BSL-1.0
//
// Where a Listener listens, and what it leaves behind: nothing.
#include <multiprocessing/connection.hpp>

#include <multiprocessing/context.hpp>
#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/process.hpp>

#include "connection/helpers.hpp"
#include "runtime/helpers.hpp"
#include "shm/helpers.hpp"
#include "support/catch.hpp"
#include "support/outcome.hpp"

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

namespace mp = multiprocessing;
namespace fs = std::filesystem;
using namespace std::string_literals;
using Catch::Matchers::ContainsSubstring;
using mp::connection::Address;
using mp::connection::Client;
using mp::connection::Listener;
using support::error_of;
using support::in_time;
using support::SocketFolder;

namespace {

// That each end hears the other.
void check_passes(const Listener& listener, const Address& address) {
    const mp::Connection there = Client(address, {.timeout = in_time});
    const mp::Connection here = listener.accept(in_time);
    there.send("to the listener");
    CHECK(here.recv<std::string>() == "to the listener");
    here.send(std::vector{1, 2});
    CHECK(there.recv<std::vector<int>>() == std::vector{1, 2});
    there.close();
    CHECK_THROWS_AS(here.recv<int>(), mp::EOFError);
}
void check_passes(const Listener& listener) { check_passes(listener, listener.address()); }

int connecting_to(const Address& address) {
    return error_of([&] { static_cast<void>(Client(address, {.timeout = in_time})); });
}

bool is_socket(const std::string& path) { return fs::is_socket(fs::symlink_status(path)); }

/// For as long as it lives files are made with it.
class Umask {
public:
    explicit Umask(::mode_t mask) : before_(::umask(mask)) {}
    Umask(const Umask&) = delete;
    Umask& operator=(const Umask&) = delete;
    ~Umask() { ::umask(before_); }

private:
    ::mode_t before_;
};

}  // namespace

TEST_CASE("a listener without an address has one of its own", "[connection][listener]") {
    const Listener listener;
    const Listener other;
    const std::string name = listener.address().path();
    CHECK(listener.address().family() == AF_UNIX);
    CHECK(name.starts_with('\0'));
    CHECK(name.size() > 20);
    CHECK(name != other.address().path());
    check_passes(listener);
    check_passes(other);
    const Listener by_family({.family = "AF_UNIX"});
    CHECK(by_family.address().path().starts_with('\0'));
    check_passes(by_family);
}

TEST_CASE("a default address is closed to other users", "[connection][listener][fork]") {
    if (::geteuid() != 0) SKIP("only root can be somebody else");
    const Listener listener;
    const Listener everybodys(Address("\0mp-test-everybody-"s + std::to_string(::getpid())));
    const mp::Process stranger([listener, everybodys] {
        if (::setresuid(65534, 65534, 65534) != 0) mp::exit(2);
        const mp::Connection closed = Client(listener.address(), {.timeout = in_time});
        if (!closed.poll(in_time)) mp::exit(3);
        try {
            static_cast<void>(closed.recv<int>());
            mp::exit(4);
        } catch (const mp::EOFError&) {}
        if (Client(everybodys.address()).recv<int>() != 1) mp::exit(5);
    });
    stranger.start();
    // He comes in nowhere, and is passed over.
    CHECK(mp::connection::wait({listener}, in_time).size() == 1);
    CHECK_THROWS_AS(listener.accept(0), mp::TimeoutError);
    CHECK_FALSE(listener.last_accepted());
    everybodys.accept(in_time).send(1);
    CHECK(support::ended(stranger) == 0);
    check_passes(listener);
}

TEST_CASE("a path has a socket's file for as long as somebody listens", "[connection][listener]") {
    const SocketFolder folder;
    const std::string path = folder / "socket";
    {
        const Listener listener(path);
        CHECK(is_socket(path));
        CHECK(listener.address() == path);
        check_passes(listener);
        listener.close();
        CHECK_FALSE(fs::exists(path));
        CHECK(listener.closed());
        CHECK(listener.address() == path);
        CHECK(connecting_to(path) == ENOENT);
    }
    std::optional<Listener> last;
    {
        const Listener listener(path);
        last = listener;
        CHECK(*last == listener);
    }
    CHECK(is_socket(path));
    check_passes(*last);
    last.reset();
    CHECK_FALSE(fs::exists(path));
}

TEST_CASE("a socket's file is nobody else's, whatever the umask", "[connection][listener]") {
    const SocketFolder folder;
    for (const ::mode_t mask : {0u, 022u, 077u}) {
        const Umask set(mask);
        const std::string path = folder / std::to_string(mask);
        const Listener listener(path);
        struct ::stat is {};
        REQUIRE(::stat(path.c_str(), &is) == 0);
        CHECK((is.st_mode & 07777) == 0600);
        check_passes(listener);
    }
}

TEST_CASE("a socket's file goes though the working folder is another by then",
          "[connection][listener]") {
    const SocketFolder folder;
    fs::create_directory(folder.path() / "elsewhere");
    const support::WorkingFolder here(folder.path());
    std::optional<Listener> listener(std::in_place, "relative");
    CHECK(listener->address() == "relative");
    CHECK(is_socket(folder / "relative"));
    check_passes(*listener);
    const support::WorkingFolder there("elsewhere");
    std::ofstream("relative") << "somebody else's";
    listener.reset();
    CHECK_FALSE(fs::exists(folder / "relative"));
    CHECK(fs::exists(folder / "elsewhere/relative"));
}

TEST_CASE("what has taken the place of a socket's file stays", "[connection][listener]") {
    const SocketFolder folder;
    const std::string path = folder / "socket";
    std::optional<Listener> before(std::in_place, path);
    fs::remove(path);
    const Listener after(path);  // as servers do that are started anew
    before.reset();
    CHECK(is_socket(path));
    check_passes(after);
    fs::remove(path);
    std::ofstream(path) << "a file";
    after.close();
    CHECK(fs::exists(path));
}

TEST_CASE("a socket's file goes at the end of the process that keeps the listener",
          "[connection][listener][fork][spawn]") {
    const auto ctx = mp::get_context(GENERATE(from_range(mp::get_all_start_methods())));
    const SocketFolder folder;
    const std::string path = folder / "socket";
    const auto [ours, theirs] = mp::Pipe();
    const auto p = ctx.Process(
        [](const std::string& name, const mp::Connection& connection) {
            fs::current_path(fs::path(name).parent_path());
            static std::optional<Listener> kept;
            kept.emplace("socket");
            fs::current_path("/");
            connection.send(is_socket(name));
        },
        path, theirs);
    p.start();
    CHECK(ours.poll(in_time));
    CHECK(ours.recv<bool>());
    CHECK(support::ended(p) == 0);
    CHECK_FALSE(fs::exists(path));
}

TEST_CASE("a forked child leaves a socket's file to its parent", "[connection][listener][fork]") {
    const SocketFolder folder;
    const std::string path = folder / "socket";
    std::optional<Listener> listener(std::in_place, path);
    CHECK(support::run(mp::Process([listener] { listener->close(); })) == 0);
    CHECK(support::run(mp::Process([listener]() mutable { listener.reset(); })) == 0);
    CHECK(support::run(mp::Process([] { mp::exit(0); })) == 0);
    support::Child raw([&] { listener->close(); });  // by somebody else's fork
    CHECK(raw.wait() == 0);
    CHECK(is_socket(path));
    check_passes(*listener);
    listener.reset();
    CHECK_FALSE(fs::exists(path));
}

TEST_CASE("a path that somebody has is EADDRINUSE", "[connection][listener]") {
    const SocketFolder folder;
    const std::string path = folder / "socket";
    const Listener listener(path);
    CHECK(error_of([&] { Listener{path}; }) == EADDRINUSE);
    CHECK_THROWS_WITH(Listener(path), ContainsSubstring(path) && ContainsSubstring("remove it"));
    CHECK(is_socket(path));  // the other's, still
    check_passes(listener);
    CHECK(error_of([&] { Listener{listener.address(), {.family = "AF_UNIX"}}; }) == EADDRINUSE);

    std::ofstream(folder / "file") << "text";
    CHECK(error_of([&] { Listener(folder / "file"); }) == EADDRINUSE);
    CHECK(fs::exists(folder / "file"));

    const Listener nameless;
    CHECK(error_of([&] { Listener{nameless.address()}; }) == EADDRINUSE);
    CHECK_THROWS_WITH(Listener{nameless.address()}, !ContainsSubstring("remove it"));
    const Listener port(Address("127.0.0.1", 0));
    CHECK(error_of([&] { Listener{port.address()}; }) == EADDRINUSE);
}

TEST_CASE("an address is free again when its listener is closed", "[connection][listener]") {
    const SocketFolder folder;
    for (const Address& address : {Address(folder / "socket"), Listener().address(),
                                   Listener(Address("127.0.0.1", 0)).address()}) {
        for (int i = 0; i < 3; ++i) {
            const Listener listener(address);
            const mp::Connection there = Client(address, {.timeout = in_time});
            const mp::Connection here = listener.accept(in_time);
            here.close();  // who is first to close a TCP connection has it for a while yet
            CHECK_THROWS_AS(there.recv<int>(), mp::EOFError);
        }
    }
}

TEST_CASE("a path may be as long as it likes", "[connection][listener][fork]") {
    const SocketFolder folder;
    fs::path deep = folder.path();
    for (int i = 0; i < 4; ++i) deep /= std::string(60, static_cast<char>('a' + i));
    fs::create_directories(deep);
    const std::string path = (deep / "socket").string();
    REQUIRE(path.size() > 240);
    const auto before = support::open_descriptors();
    {
        const Listener listener(path);
        CHECK(is_socket(path));
        check_passes(listener);
        CHECK(error_of([&] { Listener{path}; }) == EADDRINUSE);
        CHECK(support::run(mp::Process([path] { Client(path); })) == 0);
        static_cast<void>(listener.accept(in_time));
    }
    CHECK_FALSE(fs::exists(path));
    {
        const support::WorkingFolder here(folder.path());
        const std::string relative = fs::relative(path, folder.path()).string();
        REQUIRE(relative.size() > 108);
        const Listener listener(relative);
        CHECK(is_socket(path));
        check_passes(listener);
        check_passes(listener, path);
    }
    CHECK_FALSE(fs::exists(path));
    CHECK(connecting_to(path) == ENOENT);
    CHECK(support::open_descriptors() == before);

    // At the limit: with its NUL such a path does not fit.
    const fs::path limit = folder.path() / std::string(108 - folder.path().string().size() - 1, 'x');
    REQUIRE(limit.string().size() == 108);
    check_passes(Listener(limit.string()), limit.string());
    // In the process's own folder.
    const support::WorkingFolder here(deep);
    const Listener short_name("socket");
    check_passes(short_name, path);
}

TEST_CASE("a name that is too long in itself is a ValueError", "[connection][listener]") {
    const SocketFolder folder;
    const std::string path = folder / std::string(200, 'x');
    CHECK_THROWS_AS(Listener(path), mp::ValueError);
    CHECK_THROWS_WITH(Client(path), ContainsSubstring("too long"));
    CHECK_THROWS_AS(Listener(std::string(200, 'x')), mp::ValueError);
    const std::string abstract = "\0"s + std::string(107, 'x');
    check_passes(Listener(abstract), abstract);
    CHECK_THROWS_AS(Listener(abstract + "x"), mp::ValueError);
    CHECK(error_of([&] { Listener(folder / ("none/"s + std::string(90, 'x'))); }) == ENOENT);
    CHECK(fs::is_empty(folder.path()));
}

TEST_CASE("what is no address of a listener is a ValueError", "[connection][listener]") {
    CHECK_THROWS_AS(Listener(""), mp::ValueError);
    CHECK_THROWS_AS(Listener(Address()), mp::ValueError);
    CHECK_THROWS_AS(Client(Address()), mp::ValueError);
    CHECK_THROWS_AS(Listener("/tmp/a\0b"s), mp::ValueError);
    CHECK_THROWS_AS(Client("/tmp/a\0b"s), mp::ValueError);
    CHECK_THROWS_AS(Listener({.backlog = -1}), mp::ValueError);
    CHECK_THROWS_AS(Listener("/tmp/socket", {.family = "AF_INET"}), mp::ValueError);
    CHECK_THROWS_WITH(Listener(Address("localhost", 0), {.family = AF_UNIX}),
                      ContainsSubstring("localhost") && ContainsSubstring("AF_UNIX"));
    CHECK_THROWS_AS(Listener(Address("::1", 0), {.family = "AF_INET"}), mp::ValueError);
    CHECK_THROWS_AS(Client("/tmp/socket", {.family = AF_INET6}), mp::ValueError);
    CHECK_THROWS_AS(Client(Address("::1", 80), {.family = AF_UNIX}), mp::ValueError);
}

TEST_CASE("where nobody listens", "[connection][listener]") {
    const SocketFolder folder;
    CHECK(connecting_to(folder / "socket") == ENOENT);
    CHECK(connecting_to("\0mp-test-nobody") == ECONNREFUSED);
    CHECK_THROWS_WITH(Client("\0mp-test-nobody"), ContainsSubstring("@mp-test-nobody"));
    const Address port = Listener(Address("127.0.0.1", 0)).address();
    CHECK(connecting_to(port) == ECONNREFUSED);
    CHECK_THROWS_WITH(Client(port), ContainsSubstring(port.str()));
    const Address unknown("no such host.invalid", 80);
    CHECK(connecting_to(unknown) != 0);
    CHECK_THROWS_WITH(Client(unknown), ContainsSubstring("no such host.invalid"));
    CHECK(error_of([&] { Listener{unknown}; }) != 0);
    // The file of a listener that was killed.
    const std::string path = folder / "left";
    {
        const Listener listener(path);
        fs::rename(path, folder / "moved");
    }
    CHECK(connecting_to(folder / "moved") == ECONNREFUSED);
}

TEST_CASE("AF_INET", "[connection][listener]") {
    const Listener listener(Address("127.0.0.1", 0));
    CHECK(listener.address().family() == AF_INET);
    CHECK(listener.address().host() == "127.0.0.1");
    CHECK(listener.address().port() != 0);
    CHECK_FALSE(listener.last_accepted());
    check_passes(listener);
    const auto from = listener.last_accepted().value();
    CHECK(from.host() == "127.0.0.1");
    CHECK(from.port() != 0);
    CHECK(from.port() != listener.address().port());
    check_passes(listener, {"localhost", listener.address().port()});
    CHECK(listener.last_accepted() != from);

    const Listener by_family({.family = "AF_INET"});
    CHECK(by_family.address().host() == "127.0.0.1");
    check_passes(by_family);
    const Listener by_name({"localhost", 0});
    CHECK(by_name.address().host() == "127.0.0.1");
    check_passes(by_name);
    const Listener everywhere(Address("", 0));
    CHECK(everywhere.address().host() == "0.0.0.0");
    check_passes(everywhere);
    check_passes(everywhere, {"", everywhere.address().port()});
    check_passes(everywhere, {"127.0.0.1", everywhere.address().port()});
    check_passes(Listener({"127.0.0.1", 0}, {.family = "AF_INET", .backlog = 5}));
}

TEST_CASE("AF_INET6", "[connection][listener]") {
    if (!support::has_family("AF_INET6")) SKIP("this machine has no IPv6");
    const Listener listener(Address("::1", 0));
    CHECK(listener.address().family() == AF_INET6);
    CHECK(listener.address().host() == "::1");
    check_passes(listener);
    CHECK(listener.last_accepted().value().host() == "::1");
    const Listener by_family({.family = AF_INET6});
    CHECK(by_family.address().family() == "AF_INET6");
    check_passes(by_family);
    const Listener everywhere({"", 0}, {.family = AF_INET6});
    CHECK(everywhere.address().host() == "::");
    check_passes(everywhere, {"::1", everywhere.address().port()});
    // The address of a link names the link.
    const std::string name = "fe80::1%lo";
    CHECK(mp::os::resolve(name, 1, AF_INET6, false).at(0).host() == name);
}

TEST_CASE("a listener is an argument of a forked process alone",
          "[connection][listener][fork][spawn]") {
    const Listener listener({.authkey = "k"});
    const auto answer = [](const Listener& inherited) { inherited.accept(in_time).send(1); };
    const auto forked = mp::get_context("fork").Process(answer, listener);
    forked.start();
    CHECK(Client(listener.address(), {.authkey = "k", .timeout = in_time}).recv<int>() == 1);
    CHECK(support::ended(forked) == 0);
    CHECK_THROWS_AS(mp::get_context("spawn").Process(answer, listener).start(), mp::PicklingError);
    Listener copied = listener;
    const Listener moved = std::move(copied);
    CHECK(moved == copied);  // a handle is never empty
}

TEST_CASE("where a connection comes from", "[connection][listener]") {
    const Listener listener;
    CHECK_FALSE(listener.last_accepted());
    check_passes(listener);
    CHECK(listener.last_accepted() == Address());  // such a socket has no address
    const auto copy = listener;
    CHECK(copy.last_accepted() == Address());
}

TEST_CASE("no descriptor of a listener gets into the way of the standard streams",
          "[connection][listener]") {
    support::Child child([] {
        ::close(STDIN_FILENO);
        ::close(STDOUT_FILENO);
        const Listener listener({.authkey = "k"});
        auto client = support::in_thread([&] { return Client(listener.address(), {.authkey = "k"}); });
        const auto here = listener.accept(in_time);
        const auto there = client.get();
        return listener.fileno() > 2 && here.fileno() > 2 && there.fileno() > 2;
    });
    CHECK(child.wait() == 0);
}
