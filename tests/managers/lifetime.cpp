// SPDX-License-Identifier: BSL-1.0
//
// A manager's beginning and end, and what is seen when a server or a client dies.
#include <multiprocessing/managers.hpp>

#include <multiprocessing/context.hpp>

#include "managers/helpers.hpp"
#include "runtime/helpers.hpp"
#include "shm/helpers.hpp"
#include "support/catch.hpp"
#include "support/outcome.hpp"

#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include <unistd.h>

namespace mp = multiprocessing;
using Catch::Matchers::ContainsSubstring;
using managed::Counter;
using mp::connection::Address;
using mp::managers::BaseManager;
using mp::managers::SyncManager;
using support::ended;
using support::error_of;
using support::eventually;

namespace {

bool is_gone(int error) { return error == ECONNRESET || error == ECONNREFUSED; }

/// Whether all of its threads are.
bool is_stopped(int pid) {
    const std::string tasks = "/proc/" + std::to_string(pid) + "/task";
    for (const auto& task : std::filesystem::directory_iterator(tasks)) {
        std::ifstream file(task.path() / "stat");
        std::string stat;
        std::getline(file, stat);
        if (stat.substr(stat.rfind(')') + 2, 1) != "T") return false;
    }
    return true;
}

struct Stubborn {
    using is_thread_safe = void;
    void hang() { support::wait_for_signal(); }
};

}  // namespace

TEST_CASE("a manager of objects is started once, and shut down as often as one likes",
          "[managers]") {
    const SyncManager manager;
    CHECK_THROWS_AS((manager.dict<int, int>()), mp::ValueError);
    CHECK_THROWS_AS(manager.shutdown(), mp::AssertionError);
    CHECK_FALSE(manager.process());
    manager.start();
    CHECK_THROWS_AS(manager.start(), mp::ProcessError);
    CHECK_THROWS_AS(manager.connect(), mp::ProcessError);
    CHECK(manager.process()->name() == "Manager");
    const auto l = manager.list<int>({1});
    const SyncManager copy = manager;
    CHECK(copy == manager);
    manager.shutdown();
    copy.shutdown();
    manager.join(20);
    CHECK(manager.process()->exitcode() == 0);
    CHECK(is_gone(error_of([&] { l.append(1); })));
    CHECK(is_gone(error_of([&] { static_cast<void>(manager.list<int>()); })));
    CHECK_THROWS_AS(manager.start(), mp::ProcessError);
}

TEST_CASE("the last handle of a manager shuts it down, and its proxies say so", "[managers]") {
    std::optional<mp::Process> server;
    std::optional<mp::managers::ListProxy<int>> list;
    {
        const auto manager = mp::Manager();
        const auto copy = manager;
        list = copy.list<int>({1});
        server = manager.process();
        const mp::Process child([copy] { copy.list<int>().append(1); });
        CHECK(support::run(child) == 0);  // whose handles are not the last
        CHECK(list->size() == 1);
    }
    CHECK_FALSE(server->is_alive());
    CHECK(server->exitcode() == 0);
    CHECK(is_gone(error_of([&] { list->append(2); })));
}

TEST_CASE("a manager that cannot be started says why", "[managers]") {
    const auto first = mp::Manager();
    const SyncManager second({.address = first.address()});
    CHECK(error_of([&] { second.start(); }) == EADDRINUSE);
    const SyncManager third;
    {
        support::Capture errors(STDERR_FILENO);
        CHECK_THROWS_AS(third.start([] { throw std::runtime_error("not today"); }),
                        mp::ProcessError);
        CHECK_THAT(errors.text(), ContainsSubstring("not today"));
    }
    third.start();  // and may be tried again
    const SyncManager nowhere;
    CHECK_THROWS_AS(nowhere.connect(), mp::ValueError);
    const SyncManager elsewhere({.address = Address("/nowhere/at/all")});
    CHECK(error_of([&] { elsewhere.connect(); }) == ENOENT);
}

TEST_CASE("a call of a server that is killed throws, one under way within a second",
          "[managers][crash]") {
    const auto manager = mp::Manager();
    const auto queue = manager.Queue<int>();
    const auto list = manager.list<int>();
    const mp::Event waits;
    std::thread waiting([&] {
        waits.set();
        CHECK(error_of([&] { static_cast<void>(queue.get()); }) == ECONNRESET);
    });
    REQUIRE(waits.wait(20));
    manager.process()->kill();
    waiting.join();
    CHECK(is_gone(error_of([&] { list.append(1); })));
    CHECK(is_gone(error_of([&] { static_cast<void>(manager.dict<int, int>()); })));
    manager.shutdown();
    CHECK(manager.process()->exitcode() == -SIGKILL);
}

TEST_CASE("the references of a client that is killed are dropped", "[managers][crash]") {
    const auto manager = mp::Manager();
    const mp::Event made;
    const mp::Process client([manager, made] {
        const auto list = manager.list<int>({1, 2, 3});
        const auto other = manager.dict<int, int>();
        made.set();
        support::wait_for_signal();
    });
    client.start();
    REQUIRE(made.wait(20));
    CHECK(manager.number_of_objects() == 2);
    client.kill();
    CHECK(ended(client) == -SIGKILL);
    CHECK(eventually([&] { return manager.number_of_objects() == 0; }));
}

TEST_CASE("a manager ends with the process that has started it, however that ends",
          "[managers][crash]") {
    const std::string method = GENERATE(from_range(mp::get_all_start_methods()));
    const mp::Queue<int> pids;
    const mp::Process owner([method, pids] {
        const auto manager = mp::get_context(method).Manager();
        pids.put(*manager.process()->pid());
        support::wait_for_signal();
    });
    owner.start();
    const int server = pids.get(20);
    owner.kill();
    CHECK(ended(owner) == -SIGKILL);
    CHECK(eventually([&] {
        const auto state = mp::os::process_state(server);
        return !state || state->ended;
    }));
}

TEST_CASE("a manager is shut down at the end of the program that did not do so", "[managers]") {
    const mp::Queue<int> pids;
    const mp::Process owner([pids] {
        static std::optional<SyncManager> kept;
        kept = mp::Manager();
        pids.put(*kept->process()->pid());
    });
    CHECK(support::run(owner) == 0);
    const auto state = mp::os::process_state(pids.get(20));
    CHECK((!state || state->ended));
}

TEST_CASE("a server whose object does not come back is ended by force", "[managers]") {
    const SyncManager manager({.shutdown_timeout = 0.2});
    manager.start();
    const auto object = manager.create<Stubborn>();
    std::thread waiting([&] {
        CHECK(is_gone(error_of([&] { object.call<&Stubborn::hang>(); })));
    });
    while (manager.number_of_objects() != 1) std::this_thread::yield();
    manager.shutdown();
    waiting.join();
    CHECK_FALSE(manager.process()->is_alive());
}

TEST_CASE("a server that takes no signal but the last is killed", "[managers]") {
    const SyncManager manager({.shutdown_timeout = 0.1});
    manager.start();
    ::kill(*manager.process()->pid(), SIGSTOP);
    manager.shutdown();
    CHECK(manager.process()->exitcode() == -SIGKILL);
}

TEST_CASE("a server that does not answer is a TimeoutError where a time was given", "[managers]") {
    const SyncManager manager({.shutdown_timeout = 0.2, .timeout = 0.2});
    manager.start();
    const auto list = manager.list<int>({1});
    const auto queue = manager.Queue<int>();
    CHECK_FALSE(queue.try_get(0.5));  // the call's own time does not count
    ::kill(*manager.process()->pid(), SIGSTOP);
    REQUIRE(eventually([&] { return is_stopped(*manager.process()->pid()); }));
    CHECK_THROWS_AS(list.append(2), mp::TimeoutError);
    CHECK_THROWS_AS(list.append(3), mp::TimeoutError);
    const std::vector<int> more(std::size_t{1} << 20);  // than a socket takes
    CHECK_THROWS_AS(list.extend(more), mp::TimeoutError);
    ::kill(*manager.process()->pid(), SIGCONT);
    CHECK(eventually([&] {
        try {
            return list.size() >= 1;
        } catch (const mp::TimeoutError&) {
            return false;
        }
    }));
    manager.shutdown();
}

TEST_CASE("half an answer is a TimeoutError where a time was given", "[managers]") {
    const mp::connection::Listener listener({.authkey = "key"});
    std::thread serving([&] {
        const mp::Connection line = listener.accept();
        static_cast<void>(line.recv_bytes());
        // That there is a value, the server's number, and no shared objects beside it.
        line.send_bytes(std::string(1 + 8 + 4, '\0'));
        static_cast<void>(line.recv_bytes());
        const std::string half("\0\0\0\x64only this", 13);  // of a hundred
        REQUIRE(::write(line.fileno(), half.data(), half.size()) == std::ssize(half));
        CHECK_THROWS_AS(line.recv_bytes(), mp::EOFError);
    });
    {
        const BaseManager manager(
            {.address = listener.address(), .authkey = "key", .timeout = 0.2});
        manager.connect();
        CHECK_THROWS_AS(manager.number_of_objects(), mp::TimeoutError);
    }
    serving.join();
}

TEST_CASE("SIGINT does not end a manager", "[managers]") {
    const auto manager = mp::Manager();
    const auto list = manager.list<int>();
    ::kill(*manager.process()->pid(), SIGINT);
    list.append(1);
    CHECK(list.size() == 1);
}

TEST_CASE("many managers leave the system as it was", "[managers]") {
    const auto run = [] {
        const auto manager = mp::Manager();
        const auto list = manager.list<int>({1});
        const mp::Process child([list] { list.append(2); });
        CHECK(support::run(child) == 0);
        CHECK(list.size() == 2);
    };
    run();
    const auto before = support::open_descriptors();
    for (int i = 0; i < 10; ++i) run();
    CHECK(support::open_descriptors() == before);
}

TEST_CASE("a manager's handle makes objects in other processes", "[managers]") {
    const std::string method = GENERATE(from_range(mp::get_all_start_methods()));
    const auto manager = mp::Manager();
    const mp::Queue<mp::managers::ListProxy<int>> made;
    const auto child = mp::get_context(method).Process(
        [](const SyncManager& same, const mp::Queue<mp::managers::ListProxy<int>>& tell) {
            const auto list = same.list<int>({1, 2});
            tell.put(list);
            if (same.process()) mp::exit(3);
        },
        manager, made);
    CHECK(support::run(child) == 0);
    CHECK(made.get(20).copy() == std::vector{1, 2});
}
