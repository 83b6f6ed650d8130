// SPDX-License-Identifier: BSL-1.0
//
// Managers over a network, objects that are registered, and clients that are other programs.
#include <multiprocessing/managers.hpp>

#include <multiprocessing/connection.hpp>
#include <multiprocessing/queues.hpp>

#include "interop/python.hpp"
#include "managers/helpers.hpp"
#include "managers/remote_program.hpp"
#include "runtime/helpers.hpp"
#include "support/catch.hpp"
#include "support/outcome.hpp"

#include <atomic>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

namespace mp = multiprocessing;
using Catch::Matchers::ContainsSubstring;
using managed::Counter;
using mp::connection::Address;
using mp::managers::BaseManager;
using mp::managers::Proxy;
using mp::managers::SyncManager;
using support::error_of;

namespace {

const mp::bytes key("the key of these tests");

/// A server of this process, in a thread.
class Serving {
public:
    explicit Serving(const BaseManager& manager)
        : server_(manager.get_server()), thread_([this] { server_.serve_forever(); }) {}
    Serving(const Serving&) = delete;
    Serving& operator=(const Serving&) = delete;
    ~Serving() {
        server_.stop();
        thread_.join();
    }
    [[nodiscard]] const Address& address() const { return server_.address(); }

private:
    mp::managers::Server server_;
    std::thread thread_;
};

BaseManager connected(const Address& address) {
    const BaseManager client({.address = address, .authkey = key});
    client.connect();
    return client;
}

}  // namespace

TEST_CASE("a manager over a network is one like others", "[managers][remote]") {
    const SyncManager manager({.address = Address("127.0.0.1", 0), .authkey = key});
    manager.start();
    CHECK(manager.address().port() != 0);
    const auto d = manager.dict<std::string, int>({{"a", 1}});
    const SyncManager client({.address = manager.address(), .authkey = key});
    client.connect();
    CHECK_FALSE(client.process());
    const auto l = client.list<int>({1, 2});
    l.append(d["a"]);
    CHECK(l.size() == 3);
    CHECK(manager.number_of_objects() == 2);
    const mp::Process child([l, address = manager.address()] {
        l.append(4);
        connected(address).create<Counter>().call<&Counter::add>(1);
    });
    CHECK(support::run(child) == 0);
    CHECK(l[-1] == 4);
    const auto outer = client.list<mp::managers::ListProxy<int>>({l});
    CHECK(outer[0]->size() == 4);
    client.shutdown();  // from afar
    manager.join(20);
    CHECK_FALSE(manager.process()->is_alive());
}

TEST_CASE("who does not know the key of a manager gets nowhere", "[managers][remote]") {
    const SyncManager manager({.address = Address("127.0.0.1", 0), .authkey = key});
    manager.start();
    const SyncManager stranger({.address = manager.address(), .authkey = "another"});
    CHECK_THROWS_AS(stranger.connect(), mp::AuthenticationError);
    CHECK_THROWS_AS((stranger.dict<int, int>()), mp::ValueError);
    // The process's own key is not that of this manager.
    const SyncManager other({.address = manager.address()});
    CHECK_THROWS_AS(other.connect(), mp::AuthenticationError);
    CHECK(connected(manager.address()).number_of_objects() == 0);
}

TEST_CASE("rubbish from one who knows the key costs his connection alone", "[managers][remote]") {
    const SyncManager manager({.authkey = key});
    manager.start();
    const auto list = manager.list<int>({1});
    const auto hello = [&](const mp::bytes& bytes) {
        const auto raw = mp::connection::Client(manager.address(), {.authkey = key});
        raw.send_bytes(bytes);
        try {
            static_cast<void>(raw.recv_bytes(1 << 16));
            raw.send_bytes(bytes);
            static_cast<void>(raw.recv_bytes(1 << 16));
        } catch (const mp::EOFError&) {
        } catch (const std::system_error&) {
        }
    };
    hello("");
    hello("rubbish that is no request of anybody's");
    hello(std::string(100000, '\xff'));
    hello(std::string(40, '\0'));
    std::string greeting(1, '\0');  // a hello of version 1, and then what is none
    greeting += std::string("\1\0\0\0", 4) + std::string(32, 'x') + std::string(4, '\0');
    hello(greeting);
    CHECK(list.size() == 1);
}

TEST_CASE("what cannot leave the machine is not sent to another", "[managers][remote]") {
    const SyncManager manager({.address = Address("127.0.0.1", 0), .authkey = key});
    manager.start();
    const auto ends = manager.list<mp::Connection>();
    const auto [ours, theirs] = mp::Pipe();
    CHECK_THROWS_AS(ends.append(theirs), mp::PicklingError);
    CHECK(ends.empty());
    // A proxy goes over a network without the key: who reads it must know it.
    mp::connection::Listener listener(Address("127.0.0.1", 0));
    const auto there = mp::connection::Client(listener.address());
    const mp::Connection here = listener.accept();
    const auto list = manager.list<int>({1});
    there.send(list);
    const std::string on_the_wire = here.recv_bytes().str();
    CHECK(on_the_wire.find("the key of these tests") == std::string::npos);
    there.send(list);
    CHECK(here.recv<mp::managers::ListProxy<int>>().size() == 1);  // this process does
}

TEST_CASE("registered objects are made once, in the server, and shared by all", "[managers][remote]") {
    const std::string method = GENERATE(from_range(mp::get_all_start_methods()));
    const BaseManager manager({.authkey = key, .ctx = mp::get_context(method)});
    const mp::Value<int> made(0);
    manager.register_object("counter", mp::partial(
                                           [](const mp::Value<int>& count) {
                                               count.fetch_add(1);
                                               return Counter(5);
                                           },
                                           made));
    manager.register_object("dict", [] { return std::map<std::string, int>{{"a", 1}}; });
    manager.register_object("list", [] { return std::vector{1, 2, 3}; });
    manager.register_object("set", [] { return std::set{1}; });
    manager.register_object("queue", [] { return mp::Queue<int>(1); });
    manager.register_object("joinable", [] { return mp::JoinableQueue<int>(); });
    manager.register_object("failing", []() -> Counter { throw mp::Empty("not to be had"); });
    CHECK_THROWS_AS(manager.register_object("list", [] { return 1; }), mp::ValueError);
    CHECK_THROWS_AS(manager.object<Counter>("counter"), mp::ValueError);  // not started
    manager.start();
    CHECK_THROWS_AS(manager.register_object("late", [] { return 1; }), mp::AssertionError);
    const BaseManager client = connected(manager.address());
    CHECK(made.load() == 0);
    CHECK(manager.object<Counter>("counter").call<&Counter::add>(1) == 6);
    CHECK(client.object<Counter>("counter").call<&Counter::add>(1) == 7);
    CHECK(made.load() == 1);
    CHECK(client.object<std::map<std::string, int>>("dict")["a"] == 1);
    client.object<std::vector<int>>("list").append(4);
    CHECK(manager.object<std::vector<int>>("list").size() == 4);
    CHECK(client.object<std::set<int>>("set").contains(1));
    const auto queue = client.object<mp::Queue<int>>("queue");
    queue.put(1);
    CHECK(queue.full());
    CHECK_FALSE(queue.try_put(2));
    client.object<mp::JoinableQueue<int>>("joinable").put(1);
    CHECK(manager.object<mp::JoinableQueue<int>>("joinable").get() == 1);
    CHECK_THROWS_AS(client.object<Counter>("list"), mp::ValueError);
    CHECK_THROWS_WITH(client.object<Counter>("none"), ContainsSubstring("counter"));
    CHECK_THROWS_AS(client.object<Counter>("none"), mp::KeyError);
    CHECK_THROWS_AS(client.object<Counter>("failing"), mp::Empty);
    CHECK_THROWS_AS(client.object<Counter>("failing"), mp::Empty);
}

TEST_CASE("locks and events are registered as what they are", "[managers][remote]") {
    const BaseManager manager({.authkey = key});
    manager.register_object("lock", [] { return mp::Lock(); });
    manager.register_object("rlock", [] { return mp::RLock(); });
    manager.register_object("semaphore", [] { return mp::Semaphore(2); });
    manager.register_object("bounded", [] { return mp::BoundedSemaphore(3); });
    manager.register_object("event", [] { return mp::Event(); });
    manager.start();
    const BaseManager client = connected(manager.address());
    const auto lock = manager.object<mp::Lock>("lock");
    const auto rlock = manager.object<mp::RLock>("rlock");
    const auto semaphore = manager.object<mp::Semaphore>("semaphore");
    const std::scoped_lock all(lock, rlock, semaphore);
    CHECK_FALSE(client.object<mp::Lock>("lock").acquire(0));
    CHECK(rlock.acquire(0));
    rlock.release();
    CHECK(client.object<mp::Semaphore>("semaphore").get_value() == 1);
    const auto bounded = client.object<mp::BoundedSemaphore>("bounded");
    CHECK(bounded.get_value() == 3);
    CHECK_THROWS_AS(bounded.release(), mp::ValueError);
    client.object<mp::Event>("event").set();
    CHECK(manager.object<mp::Event>("event").wait(20));
    CHECK_THROWS_AS(client.object<mp::Event>("lock"), mp::ValueError);
}

TEST_CASE("a server in this process shares objects with its clients", "[managers][remote]") {
    const BaseManager manager({.address = Address("127.0.0.1", 0), .authkey = key});
    const auto counter = std::make_shared<Counter>(1);
    const mp::Queue<int> queue;
    manager.register_object("counter", [counter] { return counter; });
    manager.register_object("queue", [queue] { return queue; });
    const Serving serving(manager);
    const mp::Process child([address = serving.address()] {
        const BaseManager client = connected(address);
        client.object<Counter>("counter").call<&Counter::add>(1);
        client.object<mp::Queue<int>>("queue").put(7);
    });
    CHECK(support::run(child) == 0);
    CHECK(counter->total == 2);
    CHECK(queue.get(20) == 7);
    CHECK(connected(serving.address()).object<Counter>("counter").call<&Counter::total>() == 2);
}

TEST_CASE("a client ends a server that serves for ever", "[managers][remote]") {
    const BaseManager manager({.authkey = key});
    manager.register_object("counter", [] { return Counter(); });
    const auto server = manager.get_server();
    std::thread serving([&] { server.serve_forever(); });
    const BaseManager client = connected(server.address());
    const auto counter = client.object<Counter>("counter");
    CHECK(counter.call<&Counter::add>(1) == 1);
    client.shutdown();
    serving.join();
    const int error = error_of([&] { counter.call<&Counter::add>(1); });
    CHECK((error == ECONNRESET || error == ECONNREFUSED));
}

TEST_CASE("another program that was built from the same source is a client", "[managers][remote]") {
    const BaseManager manager({.address = Address("127.0.0.1", 0), .authkey = key});
    manager.register_object("shared", [] { return remote::Shared(); });
    manager.register_object("words", [] { return std::map<std::string, int>(); });
    manager.register_object("lock", [] { return mp::Lock(); });
    mp::managers::expose<remote::Shared, &remote::Shared::join>();
    manager.start();
    const auto ran = support::run_program(
        {REMOTE_CLIENT, std::to_string(manager.address().port()), key.str()});
    INFO(ran.err);
    CHECK(ran.exitcode == 0);
    CHECK(ran.out == "joined: ab\nab\ncd\n"
                     "mp::managers::expose<remote::Shared, &remote::Shared::unnamed>()\n"
                     "mp::managers::expose<remote::Shared, &remote::Shared::unnamed>()\n"
                     "mp::managers::expose_creation<remote::Shared>()\n");
    CHECK(manager.object<std::map<std::string, int>>("words").copy() ==
          std::map<std::string, int>{{"from afar", 3}});
    CHECK_FALSE(manager.object<mp::Lock>("lock").abandoned());
}
