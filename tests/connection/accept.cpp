// SPDX-License-Identifier: BSL-1.0
//
// Who waits in accept, and what ends that: connections, timeouts, signals, and the listener's end, with
// several threads and processes at it.
#include <multiprocessing/connection.hpp>

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/process.hpp>
#include <multiprocessing/synchronize.hpp>

#include "connection/helpers.hpp"
#include "runtime/helpers.hpp"
#include "shm/helpers.hpp"
#include "support/catch.hpp"
#include "support/outcome.hpp"
#include "support/sanitized.hpp"

#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <fstream>
#include <future>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <pthread.h>
#include <sys/resource.h>
#include <unistd.h>

namespace mp = multiprocessing;
using namespace std::chrono_literals;
using namespace std::string_literals;
using Catch::Matchers::ContainsSubstring;
using mp::connection::Address;
using mp::connection::Client;
using mp::connection::Listener;
using support::ended;
using support::error_of;
using support::eventually;
using support::in_thread;
using support::in_time;
using support::RawClient;

namespace {

const std::optional<mp::bytes> no_key;
const std::optional<mp::bytes> some_key = support::a_key;

mp::Connection connect(const Listener& listener, const std::optional<mp::bytes>& key = no_key) {
    return Client(listener.address(), {.authkey = key, .timeout = in_time});
}

/// A thread that waits in accept, and what becomes of it.
class Waiter {
public:
    explicit Waiter(const Listener& listener)
        : outcome_(in_thread([this, listener] {
              id_ = mp::os::this_thread_id();
              return error_of([&] { static_cast<void>(listener.accept(in_time)); });
          })) {}

    /// Whether it has gone to sleep.
    [[nodiscard]] bool waits() const {
        return eventually([&] {
            std::ifstream file("/proc/self/task/" + std::to_string(id_) + "/stat");
            std::string text;
            std::getline(file, text);
            const auto end = text.rfind(") ");
            return end != std::string::npos && text.at(end + 2) == 'S';
        });
    }
    [[nodiscard]] int outcome() { return outcome_.get(); }

private:
    std::atomic<int> id_{0};
    std::future<int> outcome_;
};

/// Serves until told to stop; how many it has served.
int serve(const Listener& listener) {
    for (int served = 0;; ++served) {
        const mp::Connection connection = listener.accept(in_time);
        const int number = connection.recv<int>();
        if (number < 0) return served;
        connection.send(std::pair(number, ::getpid()));
    }
}

std::pair<int, int> ask(const Listener& listener, int number) {
    const mp::Connection connection = connect(listener, some_key);
    connection.send(number);
    if (number < 0) return {};
    if (!connection.poll(in_time)) throw std::runtime_error("no answer");
    return connection.recv<std::pair<int, int>>();
}

// Fills the queue of a listener that accepts nothing, until a client finds no room.
int fill(const Listener& listener, std::vector<mp::Connection>& connections) {
    for (int i = 0; i < 100; ++i) {
        try {
            connections.push_back(Client(listener.address(), {.timeout = 0.05}));
        } catch (const mp::TimeoutError& error) {
            CHECK_THAT(error.what(), ContainsSubstring(listener.address().str()));
            return i;
        }
    }
    return -1;
}

}  // namespace

TEST_CASE("a listener that is closed accepts nothing", "[connection][listener]") {
    for (const auto& key : {no_key, some_key}) {
        const auto before = support::open_descriptors();
        const Listener listener({.authkey = key});
        const auto copy = listener;
        CHECK_FALSE(listener.closed());
        listener.close();
        CHECK(support::open_descriptors() == before);
        CHECK(listener.closed());
        CHECK(copy.closed());
        CHECK(error_of([&] { static_cast<void>(listener.accept()); }) == EBADF);
        CHECK(error_of([&] { static_cast<void>(copy.accept(0)); }) == EBADF);
        CHECK(error_of([&] { static_cast<void>(listener.fileno()); }) == EBADF);
        CHECK_THROWS_WITH(listener.accept(), ContainsSubstring("closed"));
        CHECK_THROWS_AS(mp::connection::wait({listener}, 0), std::system_error);
        listener.close();
        copy.close();
        CHECK(error_of([&] { connect(listener); }) == ECONNREFUSED);
        CHECK_FALSE(listener.last_accepted());
    }
}

TEST_CASE("close wakes those that wait in accept", "[connection][listener]") {
    for (const auto& key : {no_key, some_key}) {
        for (const std::size_t threads : {1u, 2u, 5u}) {
            const auto before = support::open_descriptors();
            const Listener listener({.authkey = key});
            std::vector<std::unique_ptr<Waiter>> waiters;
            for (std::size_t i = 0; i < threads; ++i) {
                waiters.push_back(std::make_unique<Waiter>(listener));
            }
            for (const auto& waiter : waiters) CHECK(waiter->waits());
            listener.close();
            for (const auto& waiter : waiters) CHECK(waiter->outcome() == EBADF);
            CHECK(support::open_descriptors() == before);
            // And the address is free again.
            CHECK(Listener(listener.address()).address() == listener.address());
        }
    }
}

TEST_CASE("accept gives up at its timeout", "[connection][listener]") {
    for (const auto& key : {no_key, some_key}) {
        const Listener listener({.authkey = key});
        CHECK_THROWS_AS(listener.accept(0), mp::TimeoutError);
        CHECK_THROWS_AS(listener.accept(-1), mp::TimeoutError);
        const auto start = std::chrono::steady_clock::now();
        CHECK_THROWS_AS(listener.accept(50ms), mp::TimeoutError);
        CHECK(std::chrono::steady_clock::now() - start >= 50ms);
        CHECK_THROWS_WITH(listener.accept(0), ContainsSubstring(listener.address().str()));
    }
    const Listener listener;
    const auto there = connect(listener);
    there.send(1);
    CHECK(listener.accept(0).recv<int>() == 1);  // what is there already
    CHECK_THROWS_AS(listener.accept(0), mp::TimeoutError);
}

TEST_CASE("what a client has sent before it left is there", "[connection][listener]") {
    const Listener listener;
    connect(listener).send("farewell");
    CHECK(listener.accept(in_time).recv<std::string>() == "farewell");
}

TEST_CASE("of several threads that accept one gets a connection", "[connection][listener]") {
    constexpr int threads = 4, clients = 40;
    for (const auto& key : {no_key, some_key}) {
        const Listener listener({.backlog = 8, .authkey = key});
        std::mutex mutex;
        std::multiset<int> got;
        std::vector<std::future<void>> all;
        for (int t = 0; t < threads; ++t) {
            all.push_back(in_thread([&] {
                for (int i = 0; i < clients / threads; ++i) {
                    const auto connection = listener.accept(in_time);
                    const int number = connection.recv<int>();
                    connection.send(-number);
                    const std::scoped_lock lock(mutex);
                    got.insert(number);
                }
            }));
        }
        for (int t = 0; t < threads; ++t) {
            all.push_back(in_thread([&, t] {
                for (int i = t; i < clients; i += threads) {
                    const auto connection = connect(listener, key);
                    connection.send(i);
                    if (connection.recv<int>() != -i) throw std::runtime_error("another's answer");
                }
            }));
        }
        for (auto& each : all) each.get();
        CHECK(got.size() == clients);
        CHECK(std::set(got.begin(), got.end()).size() == clients);
    }
}

TEST_CASE("a forked child accepts as its parent does", "[connection][listener][fork]") {
    const Listener listener({.backlog = 8, .authkey = some_key});
    const mp::Process child([listener] { mp::exit(serve(listener)); });
    child.start();
    const auto by_child = ask(listener, 1);
    CHECK(by_child == std::pair(1, child.pid().value()));
    // Both at once, from here on.
    auto served = in_thread([&] { return serve(listener); });
    std::vector<std::future<std::pair<int, int>>> answers;
    for (int i = 0; i < 20; ++i) {
        answers.push_back(in_thread([&, i] { return ask(listener, i); }));
    }
    int by_us = 0;
    for (int i = 0; i < 20; ++i) {
        const auto [number, pid] = answers[static_cast<std::size_t>(i)].get();
        CHECK(number == i);
        CHECK((pid == ::getpid() || pid == child.pid()));
        by_us += pid == ::getpid() ? 1 : 0;
    }
    for (int i = 0; i < 2; ++i) ask(listener, -1);
    CHECK(served.get() == by_us);
    CHECK(ended(child) == 20 - by_us + 1);
}

TEST_CASE("who closes the listener in one process disturbs no other", "[connection][listener][fork]") {
    for (const auto& key : {no_key, some_key}) {
        const Listener listener({.authkey = key});
        Waiter waiter(listener);
        CHECK(waiter.waits());
        // A child that had others wait for it, too.
        const mp::Process child([listener] {
            std::vector<std::unique_ptr<Waiter>> waiters;
            for (int i = 0; i < 2; ++i) waiters.push_back(std::make_unique<Waiter>(listener));
            for (const auto& each : waiters) {
                if (!each->waits()) mp::exit(1);
            }
            listener.close();
            for (const auto& each : waiters) {
                if (each->outcome() != EBADF) mp::exit(2);
            }
        });
        CHECK(support::run(child) == 0);
        CHECK(support::run(mp::Process([listener] { listener.close(); })) == 0);
        const auto there = connect(listener, key);
        CHECK(waiter.outcome() == 0);
        // And the other way round.
        const mp::Event closed;
        const mp::Process goes_on([=] {
            if (!closed.wait(in_time)) mp::exit(1);
            listener.accept(in_time).send("still here");
        });
        goes_on.start();
        listener.close();
        closed.set();
        CHECK(connect(listener, key).recv<std::string>() == "still here");
        CHECK(ended(goes_on) == 0);
    }
}

TEST_CASE("a forked child keeps nobody whom its parent sends away", "[connection][listener][fork]") {
    const Listener listener({.authkey = some_key});
    const RawClient stranger(listener.address());
    CHECK_THROWS_AS(listener.accept(0), mp::TimeoutError);  // lets him in
    const auto [ours, theirs] = mp::Pipe();
    const mp::Process child([listener, theirs = theirs] {
        theirs.send("forked");
        static_cast<void>(theirs.recv<int>());
        // It has a listener all the same.
        if (serve(listener) != 1) mp::exit(1);
    });
    child.start();
    CHECK(ours.poll(in_time));
    CHECK(ours.recv<std::string>() == "forked");
    listener.close();
    CHECK(stranger.receive().starts_with("#CHALLENGE#"));
    CHECK(stranger.at_end());
    ours.send(1);
    CHECK(ask(listener, 5) == std::pair(5, child.pid().value()));
    ask(listener, -1);
    CHECK(ended(child) == 0);
}

TEST_CASE("signals do not interrupt accept", "[connection][listener]") {
    static std::atomic<int> handled = 0;
    struct sigaction action {};
    action.sa_handler = [](int) { ++handled; };
    struct sigaction before {};
    ::sigaction(SIGUSR1, &action, &before);
    const Listener listener({.authkey = some_key});
    const pthread_t waiting = ::pthread_self();
    auto disturber = in_thread([&] {
        const auto disturb = [&] {
            for (int n = handled, i = 0; i < 20; ++i, ++n) {
                ::pthread_kill(waiting, SIGUSR1);
                while (handled == n) std::this_thread::yield();
            }
        };
        disturb();
        const auto connection = connect(listener, some_key);
        disturb();
    });
    CHECK_NOTHROW(listener.accept(in_time));
    CHECK_THROWS_AS(listener.accept(20ms), mp::TimeoutError);
    disturber.get();
    ::sigaction(SIGUSR1, &before, nullptr);
}

TEST_CASE("signals do not interrupt connecting", "[connection][listener]") {
    static std::atomic<int> handled = 0;
    struct sigaction action {};
    action.sa_handler = [](int) { ++handled; };
    struct sigaction before {};
    ::sigaction(SIGUSR1, &action, &before);
    for (const Address& address : {Listener().address(), Address("127.0.0.1", 0)}) {
        const Listener listener(address, {.backlog = 0, .authkey = some_key});
        std::vector<mp::Connection> queue;
        REQUIRE(fill(listener, queue) > 0);
        const pthread_t waiting = ::pthread_self();
        auto disturber = in_thread([&] {
            for (int n = handled, i = 0; i < 20; ++i, ++n) {
                ::pthread_kill(waiting, SIGUSR1);
                while (handled == n) std::this_thread::yield();
            }
            queue.clear();
            return listener.accept(in_time);
        });
        connect(listener, some_key).send(1);
        CHECK(disturber.get().recv<int>() == 1);
    }
    ::sigaction(SIGUSR1, &before, nullptr);
}

TEST_CASE("a client gives up where there is no room", "[connection][listener]") {
    for (const Address& address : {Listener().address(), Address("127.0.0.1", 0)}) {
        const Listener listener(address, {.backlog = 0});
        std::vector<mp::Connection> connections;
        CHECK(fill(listener, connections) > 0);
        // With room again, others come in.
        connections.clear();
        auto other = in_thread([&] { connect(listener).send("in"); });
        std::string text;
        while (text.empty()) {
            try {
                text = listener.accept(in_time).recv<std::string>();
            } catch (const mp::EOFError&) {  // one of those that have left
            }
        }
        CHECK(text == "in");
        other.get();
    }
}

TEST_CASE("a client with a key gives up when nobody accepts", "[connection][listener]") {
    for (const Address& address : {Listener().address(), Address("127.0.0.1", 0)}) {
        const Listener listener(address, {.backlog = 8, .authkey = some_key});
        const auto start = std::chrono::steady_clock::now();
        CHECK_THROWS_AS(Client(listener.address(), {.authkey = some_key, .timeout = 50ms}),
                        mp::TimeoutError);
        CHECK(std::chrono::steady_clock::now() - start >= 50ms);
        CHECK_THROWS_WITH(Client(listener.address(), {.authkey = some_key, .timeout = 0}),
                          ContainsSubstring(listener.address().str()));
        CHECK_NOTHROW(Client(listener.address(), {.timeout = 0}));  // needs nobody to accept
        // What they left behind is in nobody's way.
        auto other = in_thread([&] { return connect(listener, some_key); });
        CHECK_NOTHROW(listener.accept(in_time));
        CHECK_NOTHROW(other.get());
    }
}

TEST_CASE("wait takes a listener among other things", "[connection][listener][wait][fork]") {
    using mp::connection::wait;
    using mp::connection::Waitable;
    using Waitables = std::vector<Waitable>;
    const Listener listener;
    const Listener other({.authkey = some_key});
    const auto [ours, theirs] = mp::Pipe();
    const mp::Process process([theirs = theirs] { static_cast<void>(theirs.recv<int>()); });
    process.start();
    const Waitables all{listener, other, ours, process.sentinel()};
    CHECK(wait(all, 0).empty());
    const auto there = connect(listener);
    CHECK(wait(all, in_time) == Waitables{listener});
    static_cast<void>(listener.accept(0));
    CHECK(wait(all, 0).empty());
    theirs.send(1);
    CHECK(wait(all, in_time) == Waitables{ours});
    CHECK(ours.recv<int>() == 1);
    ours.send(2);
    CHECK(wait(all, in_time) == Waitables{process.sentinel()});
    CHECK(ended(process) == 0);
    CHECK(wait(std::vector{listener, other}, 0).empty());
}

TEST_CASE("one thread serves all with wait, and no stranger holds it up",
          "[connection][listener][wait]") {
    using mp::connection::wait;
    const Listener listener({.backlog = 16, .authkey = some_key});
    const RawClient silent(listener.address());
    const RawClient other(listener.address());
    auto client = in_thread([&] { return ask(listener, 3); });
    std::vector<mp::connection::Waitable> all{listener};
    std::optional<mp::Connection> accepted;
    int rounds = 0;
    for (int served = 0; served == 0; ++rounds) {
        const auto ready = wait(all, in_time);
        REQUIRE_FALSE(ready.empty());
        for (const auto& one : ready) {
            if (one == listener) {
                try {
                    accepted = listener.accept(0);
                    all.emplace_back(*accepted);
                } catch (const mp::TimeoutError&) {}
            } else {
                const int number = accepted->recv<int>();
                accepted->send(std::pair(number, 7));
                ++served;
            }
        }
    }
    CHECK(client.get() == std::pair(3, 7));
    CHECK(rounds < 20);                  // it is woken for something, each time
    CHECK(wait({listener}, 0).empty());  // the silent ones are inside, and nothing to wake up for
    CHECK(silent.receive().starts_with("#CHALLENGE#"));
    silent.send("rubbish");
    CHECK(wait({listener}, in_time).size() == 1);
    CHECK_THROWS_AS(listener.accept(0), mp::AuthenticationError);
}

#if !defined(TEST_IS_SANITIZED)
TEST_CASE("accept without a descriptor to spare is EMFILE, and the client waits",
          "[connection][listener]") {
    for (const auto& key : {no_key, some_key}) {
        const Listener listener({.authkey = key});
        auto client = in_thread([&, key = key] { return connect(listener, key); });
        CHECK(mp::connection::wait({listener}, in_time).size() == 1);
        ::rlimit limit{};
        REQUIRE(::getrlimit(RLIMIT_NOFILE, &limit) == 0);
        const auto next = static_cast<::rlim_t>(mp::os::duplicate(listener.fileno()).get());
        const ::rlimit none{next, limit.rlim_max};
        REQUIRE(::setrlimit(RLIMIT_NOFILE, &none) == 0);
        const int error = error_of([&] { static_cast<void>(listener.accept(in_time)); });
        REQUIRE(::setrlimit(RLIMIT_NOFILE, &limit) == 0);
        CHECK(error == EMFILE);
        CHECK_NOTHROW(listener.accept(in_time));
        CHECK_NOTHROW(client.get());
    }
}

TEST_CASE("a listener that finds no descriptor leaves no file", "[connection][listener]") {
    const support::SocketFolder folder;
    ::rlimit limit{};
    REQUIRE(::getrlimit(RLIMIT_NOFILE, &limit) == 0);
    for (::rlim_t spare = 0; spare < 3; ++spare) {
        const auto next = static_cast<::rlim_t>(mp::os::duplicate(STDERR_FILENO).get());
        const ::rlimit few{next + spare, limit.rlim_max};
        REQUIRE(::setrlimit(RLIMIT_NOFILE, &few) == 0);
        const int error = error_of([&] { Listener(folder / "socket"); });
        REQUIRE(::setrlimit(RLIMIT_NOFILE, &limit) == 0);
        CHECK(error == EMFILE);
        CHECK(std::filesystem::is_empty(folder.path()));
    }
}
#endif
