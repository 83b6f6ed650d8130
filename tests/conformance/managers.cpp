// SPDX-License-Identifier: BSL-1.0
//
// CPython's tests of managers with classes and queues of a program's own, near and far.
#include <multiprocessing/managers.hpp>

#include "conformance/helpers.hpp"
#include "runtime/helpers.hpp"
#include "support/catch.hpp"

#include <csignal>
#include <optional>
#include <string>
#include <system_error>
#include <tuple>
#include <vector>

namespace mp = multiprocessing;
using namespace support;
using mp::connection::Address;
using mp::managers::BaseManager;

namespace {

class FooBar {
public:
    std::string f() { return "f()"; }
    void g() { throw mp::ValueError("g"); }
    // What is private cannot be called: that is known when the program is compiled.
    static std::string h(FooBar& self) { return self.h_(); }
    static std::vector<int> squares(FooBar&) {
        std::vector<int> all;
        for (int i = 0; i < 10; ++i) all.push_back(i * i);
        return all;
    }

private:
    std::string h_() { return "_h()"; }
};

void common(const BaseManager& manager) {
    const auto foo = manager.create<FooBar>();
    CHECK(foo.call<&FooBar::f>() == "f()");
    CHECK_THROWS_AS(foo.call<&FooBar::g>(), mp::ValueError);
    CHECK(foo.call<&FooBar::h>() == "_h()");
    CHECK(foo.call<&FooBar::squares>() == std::vector{0, 1, 4, 9, 16, 25, 36, 49, 64, 81});
}

bool ended_well(const BaseManager& manager) {
    const auto code = manager.process()->exitcode();
    return code == 0 || code == -SIGTERM;
}

using Values = std::tuple<std::string, std::optional<int>, bool, double, std::string, std::string,
                          mp::bytes>;
const Values values{"hello world",
                    std::nullopt,
                    true,
                    2.25,
                    "hall\xc3\xa5 v\xc3\xa4rlden",
                    "\xd0\xbf\xd1\x80\xd0\xb8\xd0\xb2\xd1\x96\xd1\x82",
                    mp::bytes("hall\xe5 v\xe4rlden")};

using RemoteQueue = mp::Queue<Values>;

void put_values(const Address& address, const mp::bytes& authkey) {
    const BaseManager manager({.address = address, .authkey = authkey});
    manager.connect();
    manager.object<RemoteQueue>("get_queue").put(values);
}

void put_hello(const Address& address, const mp::bytes& authkey) {
    const BaseManager manager({.address = address, .authkey = authkey});
    manager.connect();
    manager.object<mp::Queue<std::string>>("get_queue").put("hello world");
}

}  // namespace

TEST_CASE("_TestMyManager.test_mymanager", "[managers][conformance]") {
    EVERY_START_METHOD;
    const BaseManager manager({.ctx = mp::get_context(method), .shutdown_timeout = patient});
    manager.start();
    common(manager);
    manager.shutdown();
    CHECK(ended_well(manager));
}

TEST_CASE("_TestMyManager.test_mymanager_context", "[managers][conformance]") {
    EVERY_START_METHOD;
    std::optional<mp::Process> server;
    {
        const mp::managers::SyncManager manager = mp::get_context(method).Manager();
        common(manager);
        server = manager.process();
    }
    CHECK((server->exitcode() == 0 || server->exitcode() == -SIGTERM));
}

TEST_CASE("_TestMyManager.test_mymanager_context_prestarted", "[managers][conformance]") {
    EVERY_START_METHOD;
    std::optional<mp::Process> server;
    {
        const BaseManager manager({.ctx = mp::get_context(method), .shutdown_timeout = patient});
        manager.start();
        {
            const BaseManager copy = manager;
            common(copy);
        }
        CHECK(manager.process()->is_alive());
        server = manager.process();
    }
    CHECK(server->exitcode() == 0);
}

TEST_CASE("_TestRemoteManager.test_remote", "[managers][conformance]") {
    EVERY_START_METHOD;
    const mp::bytes authkey("an authkey that the children do not have by themselves");
    const BaseManager manager({.address = Address("127.0.0.1", 0),
                               .authkey = authkey,
                               .ctx = mp::get_context(method),
                               .shutdown_timeout = patient});
    manager.register_object("get_queue", [] { return RemoteQueue(); });
    manager.start();
    Children children(method);
    children.start(mp::ProcessOptions{.daemon = true}, put_values, manager.address(), authkey);

    const BaseManager again({.address = manager.address(), .authkey = authkey});
    again.connect();
    const auto queue = again.object<RemoteQueue>("get_queue");
    CHECK(queue.get(patient) == values);
    CHECK(children.join());
}

TEST_CASE("_TestManagerRestart.test_rapid_restart", "[managers][conformance]") {
    EVERY_START_METHOD;
    const mp::bytes authkey("restart");
    const auto make = [&](const Address& address) {
        const BaseManager manager({.address = address,
                                   .authkey = authkey,
                                   .ctx = mp::get_context(method),
                                   .shutdown_timeout = patient});
        manager.register_object("get_queue", [] { return mp::Queue<std::string>(); });
        return manager;
    };
    const BaseManager first = make(Address("127.0.0.1", 0));
    first.get_server().listener().close();  // Python's opens one as well
    first.start();
    const Address address = first.address();
    Children children(method);
    children.start(put_hello, address, authkey);
    CHECK(children.join());
    CHECK(first.object<mp::Queue<std::string>>("get_queue").get(patient) == "hello world");
    first.shutdown();

    const BaseManager second = make(address);
    second.start();
    CHECK(second.address() == address);
    CHECK(second.object<mp::Queue<std::string>>("get_queue").empty());
    second.shutdown();
}

TEST_CASE("TestInitializers.test_manager_initializer", "[managers][conformance]") {
    EVERY_START_METHOD;
    const auto manager = mp::Manager();
    const auto ns = manager.Namespace();
    ns.set("test", 0);
    const mp::managers::SyncManager other({.ctx = mp::get_context(method)});
    using Initializer = void (*)();
    CHECK_THROWS_AS(other.start(Initializer(nullptr)), mp::ValueError);
    other.start(
        [](const mp::managers::NamespaceProxy& shared) {
            shared.set("test", shared.get<int>("test") + 1);
        },
        ns);
    CHECK(ns.get<int>("test") == 1);
    other.shutdown();
    other.join();
}
