// SPDX-License-Identifier: BSL-1.0
//
// What CPython's tests say of the fork server and of what is executed for a child.

#include <multiprocessing/runtime/forkserver.hpp>

#include "conformance/helpers.hpp"
#include "runtime/helpers.hpp"
#include "support/catch.hpp"

#include <csignal>
#include <cstdio>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

namespace mp = multiprocessing;
namespace forkserver = mp::runtime::forkserver;
using support::ended;
using support::run;

namespace {

mp::Context context() { return mp::get_context("forkserver"); }

forkserver::Client& client() { return mp::runtime::this_process().fork_server; }

// Sends the server a signal, then starts a process that it is asked for.
void check_server(int signal, bool dies) {
    CHECK(support::run(context().Process([] {})) == 0);
    const auto server = client().process();
    const int pid = server->pid.value();
    ::kill(pid, signal);
    if (dies) {
        CHECK(mp::connection::wait({server->shared_sentinel()->get()}, support::patient).size() ==
              1);
    }
    const mp::Event started;
    const mp::Event go;
    const auto p = context().Process(
        [](const mp::Event& here, const mp::Event& end) {
            here.set();
            end.wait(support::patient);
        },
        started, go);
    p.start();
    CHECK(started.wait(support::patient));
    CHECK(p.is_alive());
    go.set();
    CHECK(ended(p) == 0);
    CHECK((client().process()->pid != pid) == dies);
}

// Asks for a child by hand; what comes back.
forkserver::ForkReport ask(const forkserver::Key& key) {
    auto [ours, theirs] = mp::os::socket_pair(mp::os::SocketKind::messages);
    const int their_end = theirs.get();
    CHECK(forkserver::send_message(client().control(), forkserver::ForkRequest{key, 0},
                                   {&their_end, 1}));
    theirs.reset();
    const auto report = forkserver::receive_message<forkserver::ForkReport>(ours.get());
    REQUIRE(report);
    return *report;
}

// Functions for a server that is yet to start; it ends with this.
class Preload {
public:
    explicit Preload(std::vector<mp::runtime::Action> functions) {
        client().stop();
        mp::set_forkserver_preload(std::move(functions));
    }
    ~Preload() {
        mp::set_forkserver_preload({});
        client().stop();
    }
    Preload(const Preload&) = delete;
    Preload& operator=(const Preload&) = delete;
};

const mp::Semaphore& preloaded_semaphore() {
    static constinit mp::os::Lazy<mp::Semaphore> semaphore;
    return semaphore.get([] { return new mp::Semaphore(2); });
}

}  // namespace

TEST_CASE("_TestProcess.test_set_executable", "[process][conformance]") {
    EVERY_START_METHOD;
    const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe");
    const auto check = [&](const auto& path) {
        const auto ctx = mp::get_context(method);
        ctx.set_executable(path);
        client().stop();
        CHECK(run(ctx.Process([] {})) == 0);
    };
    check(self);
    check(self.string());
    check(self.c_str());
    mp::set_executable("");
}

TEST_CASE("_TestProcess.test_forkserver_sigint", "[process][conformance]") {
    check_server(SIGINT, false);
}

TEST_CASE("_TestProcess.test_forkserver_sigkill", "[process][conformance]") {
    check_server(SIGKILL, true);
}

TEST_CASE("_TestProcess.test_forkserver_auth_is_enabled", "[process][conformance]") {
    CHECK(support::run(context().Process([] {})) == 0);
    // A stranger cannot even reach the socket: it has no name.
    sockaddr_un address{};
    socklen_t size = sizeof address;
    REQUIRE(::getsockname(client().control(), reinterpret_cast<sockaddr*>(&address), &size) == 0);
    CHECK(address.sun_family == AF_UNIX);
    CHECK(size == sizeof address.sun_family);
    // And who has it must know the key.
    CHECK(ask({}).kind == forkserver::ForkReport::Kind::refused);
}

TEST_CASE("_TestProcess.test_forkserver_without_auth_fails", "[process][conformance]") {
    CHECK(support::run(context().Process([] {})) == 0);
    forkserver::Key key{};
    key.back() = std::byte{1};
    const auto server = client().process();
    const auto report = ask(key);
    CHECK(report.kind == forkserver::ForkReport::Kind::refused);
    CHECK(report.pid == 0);
    CHECK(support::run(context().Process([] {})) == 0);
    CHECK(client().process() == server);
}

TEST_CASE("TestStartMethod.test_preload_resources", "[process][conformance]") {
    // What a server makes in shared memory is there for its children, and gone with them.
    const Preload preload({[] { preloaded_semaphore(); }});
    const auto take = [] {
        const bool both =
            preloaded_semaphore().acquire(false) && preloaded_semaphore().acquire(false);
        const bool more = preloaded_semaphore().acquire(false);
        preloaded_semaphore().release();
        preloaded_semaphore().release();
        mp::exit(both && !more ? 0 : 1);
    };
    CHECK(support::run(context().Process(take)) == 0);
    CHECK(support::run(context().Process(take)) == 0);
}

TEST_CASE("_TestSpawnedSysPath.test_std_streams_flushed_after_preload", "[process][conformance]") {
    support::Capture capture(STDOUT_FILENO);
    {
        const Preload preload({[] { std::printf("preloaded "); }});
        for (int i = 0; i < 2; ++i)
            CHECK(support::run(context().Process([] { std::printf("child "); })) == 0);
    }
    CHECK(capture.text() == "preloaded child child ");
}
