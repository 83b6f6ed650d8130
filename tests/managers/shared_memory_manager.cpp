// SPDX-License-Identifier: BSL-1.0
#include <multiprocessing/managers/shared_memory_manager.hpp>

#include <multiprocessing/context.hpp>
#include <multiprocessing/pool.hpp>
#include <multiprocessing/process.hpp>
#include <multiprocessing/runtime/resource_tracker.hpp>

#include "runtime/helpers.hpp"
#include "shm/helpers.hpp"
#include "support/catch.hpp"
#include "support/outcome.hpp"

#include <csignal>
#include <filesystem>
#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

namespace mp = multiprocessing;
using Catch::Matchers::ContainsSubstring;
using mp::managers::SharedMemoryManager;
using mp::shared_memory::ShareableList;
using mp::shared_memory::SharedMemory;
using support::error_of;

namespace {

bool exists(const std::string& name) { return std::filesystem::exists("/dev/shm/" + name); }

}  // namespace

TEST_CASE("a manager's memory goes with its shutdown, whoever has made it",
          "[managers][shared_memory]") {
    const std::string method = GENERATE(from_range(mp::get_all_start_methods()));
    const SharedMemoryManager manager({.ctx = mp::get_context(method)});
    manager.start();
    const SharedMemory mine = manager.SharedMemory(100);
    const mp::Queue<std::string> names;
    const auto child = mp::get_context(method).Process(
        [](const SharedMemoryManager& same, const mp::Queue<std::string>& tell) {
            tell.put(same.SharedMemory(100).name());
            tell.put(same.ShareableList({1, "two"}).shm().name());
        },
        manager, names);
    CHECK(support::run(child) == 0);
    const std::string theirs = names.get(20);
    const std::string list = names.get(20);
    CHECK(exists(mine.name()));
    CHECK(exists(theirs));  // though its maker has ended
    CHECK(ShareableList({.name = list})[1] == "two");
    manager.shutdown();
    for (const std::string& name : {mine.name(), theirs, list}) CHECK_FALSE(exists(name));
    CHECK(manager.process()->exitcode() == 0);
    CHECK(mine.size() == 100);  // what is mapped stays
    mine.buf()[0] = std::byte{1};
}

TEST_CASE("the last handle in the process that started it shuts a manager down", "[managers]") {
    std::string name;
    std::optional<mp::Process> server;
    {
        const SharedMemoryManager manager;
        manager.start();
        const SharedMemoryManager copy = manager;
        name = copy.SharedMemory(1).name();
        server = manager.process();
        const mp::Process child([copy] { static_cast<void>(copy.SharedMemory(1)); });
        CHECK(support::run(child) == 0);  // whose handles are not the last
        CHECK(exists(name));
    }
    CHECK_FALSE(exists(name));
    CHECK_FALSE(server->is_alive());
}

TEST_CASE("a manager is started once, used in between, and shut down as often as one likes",
          "[managers]") {
    const SharedMemoryManager manager;
    CHECK_THROWS_AS(manager.SharedMemory(1), mp::ValueError);
    CHECK_THROWS_AS(manager.ShareableList({1}), mp::ValueError);
    CHECK_THROWS_AS(manager.shutdown(), mp::AssertionError);
    CHECK_FALSE(manager.process());
    manager.start();
    CHECK_THROWS_AS(manager.start(), mp::ProcessError);
    CHECK_THROWS_AS(manager.SharedMemory(0), mp::ValueError);
    CHECK_THROWS_AS(manager.SharedMemory(-1), mp::ValueError);
    manager.shutdown();
    manager.shutdown();
    manager.join(20);
    CHECK(error_of([&] { static_cast<void>(manager.SharedMemory(1)); }) == ECONNREFUSED);
    CHECK_THROWS_AS(manager.start(), mp::ProcessError);
}

TEST_CASE("a manager whose initializer throws is not started", "[managers]") {
    const SharedMemoryManager manager;
    mp::runtime::ensure_resource_tracker();  // which has stderr for as long as it lives
    support::Capture errors(STDERR_FILENO);
    CHECK_THROWS_WITH(manager.start([] { throw std::runtime_error("not today"); }),
                      ContainsSubstring("exit code 1"));
    CHECK_THAT(errors.text(), ContainsSubstring("not today"));
    CHECK_THROWS_AS(manager.SharedMemory(1), mp::ValueError);
    const mp::Event ran;
    manager.start([ran] { ran.set(); });
    CHECK(ran.is_set());
    manager.shutdown();
}

TEST_CASE("what a manager has made goes when the process that started it is killed",
          "[managers][shared_memory][crash]") {
    const mp::Queue<std::string> names;
    const mp::Process owner([names] {
        const SharedMemoryManager manager;
        manager.start();
        names.put(manager.SharedMemory(100).name());
        names.put(std::to_string(*manager.process()->pid()));
        support::wait_for_signal();
    });
    owner.start();
    const std::string name = names.get(20);
    const int server = std::stoi(names.get(20));
    CHECK(exists(name));
    owner.kill();
    CHECK(support::ended(owner) == -SIGKILL);
    CHECK(support::eventually([&] { return !exists(name); }));
    CHECK(support::eventually([&] {
        const auto state = mp::os::process_state(server);
        return !state || state->ended;
    }));
}

TEST_CASE("a manager whose server is killed unlinks by itself",
          "[managers][shared_memory][crash]") {
    const SharedMemoryManager manager;
    manager.start();
    const std::string name = manager.SharedMemory(100).name();
    manager.process()->kill();
    manager.process()->join(20);
    const std::string later = manager.SharedMemory(100).name();
    manager.shutdown();
    CHECK_FALSE(exists(name));
    CHECK_FALSE(exists(later));
}

TEST_CASE("a pool's tasks make memory for a manager", "[managers][shared_memory][pool]") {
    const SharedMemoryManager manager;
    manager.start();
    const mp::Pool pool(2);
    const auto make = [](const SharedMemoryManager& same, int i) {
        const SharedMemory memory = same.SharedMemory(64);
        memory.as<int>()[0] = i;
        return memory;
    };
    std::vector<std::tuple<SharedMemoryManager, int>> tasks;
    for (int i = 0; i < 10; ++i) tasks.emplace_back(manager, i);
    const auto made = pool.starmap(make, tasks);
    for (int i = 0; i < 10; ++i) CHECK(made[static_cast<std::size_t>(i)].as<int>()[0] == i);
    manager.shutdown();
    CHECK_FALSE(exists(made[3].name()));
}
