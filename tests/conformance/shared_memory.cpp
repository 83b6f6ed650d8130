// SPDX-License-Identifier: BSL-1.0
//
// CPython's _TestSharedMemory and TestSharedMemoryNames. Those of its cases that are about another
// program's end are tests/programs/leaked_names.cpp.
#include <multiprocessing/managers.hpp>
#include <multiprocessing/pickle.hpp>
#include <multiprocessing/shared_memory.hpp>
#include <multiprocessing/shm/named_segment.hpp>

#include "conformance/helpers.hpp"
#include "support/catch.hpp"
#include "support/outcome.hpp"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <optional>
#include <ranges>
#include <sstream>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include <unistd.h>

namespace mp = multiprocessing;
using namespace support;
using Catch::Matchers::ContainsSubstring;
using mp::managers::SharedMemoryManager;
using mp::shared_memory::ShareableItem;
using mp::shared_memory::ShareableList;
using mp::shared_memory::SharedMemory;

namespace {

/// Unlinked at the end of its scope, if it has not been before.
struct Unlinked {
    SharedMemory memory;
    ~Unlinked() {
        try {
            memory.unlink();
        } catch (const std::system_error&) {}
    }
};

std::string new_name(const std::string& prefix) { return prefix + std::to_string(::getpid()); }

void write_to(const SharedMemory& memory, std::string_view text) {
    std::copy(text.begin(), text.end(), memory.as<char>().begin());
}
std::string read_from(const SharedMemory& memory, std::size_t size) {
    const auto text = memory.as<char>();
    return {text.begin(), text.begin() + static_cast<std::ptrdiff_t>(size)};
}

std::vector<ShareableItem> items_of(const ShareableList& list) {
    return {list.begin(), list.end()};
}

}  // namespace

TEST_CASE("_TestSharedMemory.test_shared_memory_name_with_embedded_null",
          "[shared_memory][conformance]") {
    const std::string name = new_name("test01_null");
    const Unlinked made{SharedMemory({.name = name, .create = true, .size = 512})};
    CHECK_THROWS_AS(SharedMemory({.name = name + std::string("\0a", 2), .size = 512}),
                    mp::ValueError);
    // No handle can have such a name to unlink; the layer below takes none either.
    CHECK(error_of([&] { mp::shm::NamedSegment::unlink(name + std::string("\0a", 2)); }) == EINVAL);
    CHECK_NOTHROW(SharedMemory(name));
}

TEST_CASE("_TestSharedMemory.test_shared_memory_basics", "[shared_memory][conformance]") {
    const std::string name = new_name("test01_tsmb");
    const Unlinked made{SharedMemory({.name = name, .create = true, .size = 512})};
    const SharedMemory& memory = made.memory;
    CHECK(memory.name() == name);
    CHECK(memory.size() == 512);
    CHECK(memory.buf().size() == 512);
    CHECK_THAT(text_of(memory), ContainsSubstring(name) && ContainsSubstring("512"));

    memory.buf()[0] = std::byte{42};
    CHECK(memory.buf()[0] == std::byte{42});

    const SharedMemory also(name);
    CHECK(also.buf()[0] == std::byte{42});
    also.close();

    const SharedMemory same({.name = name, .size = 20 * memory.size()});
    CHECK(same.size() == 512);
    same.close();

    CHECK_THROWS_AS(SharedMemory({.create = true, .size = -2}), mp::ValueError);
    CHECK_THROWS_AS(SharedMemory({.create = false}), mp::ValueError);

    const SharedMemory one({.name = new_name("test01_dblunlink"), .create = true, .size = 5000});
    CHECK(one.size() >= 5000);
    const SharedMemory two(one.name());
    two.unlink();
    two.close();
    one.close();
    CHECK(error_of([&] { one.unlink(); }) == ENOENT);

    CHECK(error_of([&] { SharedMemory({.name = name, .create = true, .size = 512}); }) == EEXIST);
    CHECK(error_of([&] { SharedMemory(new_name("test01_notthere")); }) == ENOENT);
    memory.close();
}

TEST_CASE("_TestSharedMemory.test_shared_memory_recreate", "[shared_memory][conformance]") {
    // Names that are made up are 32 bits at random: of so many, two would be the same now and then
    // if it were not tried again. That one is refused is seen below.
    const std::string name = new_name("test03_fn");
    mp::shm::NamedSegment first(1);
    mp::shm::NamedSegment second(1);
    REQUIRE(first.give_name(name, {.tree = true}));
    const Unlinked made{SharedMemory(name)};
    CHECK_FALSE(second.give_name(name, {.tree = true}));
    const Unlinked other{SharedMemory(new_name("test04_fn"), true, 1)};
    CHECK_FALSE(second.give_name(other.memory.name(), {.tree = true}));
    // It is still nobody's, and can have another.
    REQUIRE(second.give_name(new_name("test05_fn"), {.tree = true}));
    CHECK_NOTHROW(mp::shm::NamedSegment::unlink(new_name("test05_fn")));
}

TEST_CASE("_TestSharedMemory.test_invalid_shared_memory_creation", "[shared_memory][conformance]") {
    CHECK_THROWS_AS(SharedMemory({.create = true, .size = -1}), mp::ValueError);
    CHECK_THROWS_AS(SharedMemory({.create = true, .size = 0}), mp::ValueError);
    CHECK_THROWS_AS(SharedMemory({.create = true}), mp::ValueError);
}

TEST_CASE("_TestSharedMemory.test_shared_memory_pickle_unpickle", "[shared_memory][conformance]") {
    const Unlinked made{SharedMemory({.create = true, .size = 512})};
    write_to(made.memory, "pickle");
    const auto same = mp::pickle::loads<SharedMemory>(mp::pickle::dumps(made.memory));
    CHECK(same.name() == made.memory.name());
    CHECK(read_from(same, 6) == "pickle");
    write_to(made.memory, "newval");
    CHECK(read_from(same, 6) == "newval");
    write_to(same, "oldval");
    CHECK(read_from(made.memory, 6) == "oldval");
}

TEST_CASE("_TestSharedMemory.test_shared_memory_pickle_unpickle_dead_object",
          "[shared_memory][conformance]") {
    const SharedMemory memory({.create = true, .size = 512});
    const mp::bytes pickled = mp::pickle::dumps(memory);
    memory.close();
    memory.unlink();
    CHECK(error_of([&] { static_cast<void>(mp::pickle::loads<SharedMemory>(pickled)); }) == ENOENT);
}

TEST_CASE("_TestSharedMemory.test_shared_memory_across_processes", "[shared_memory][conformance]") {
    EVERY_START_METHOD;
    const Unlinked made{SharedMemory({.create = true, .size = 512})};
    Children children(method);
    children.start(
        [](const std::string& name) {
            const SharedMemory memory(name);
            write_to(memory, "howdy");
            memory.close();
        },
        made.memory.name());
    CHECK(children.join());
    CHECK(read_from(made.memory, 5) == "howdy");
    children.start(
        [](const SharedMemory& memory) {
            write_to(memory, "HELLO");
            memory.close();
        },
        made.memory);
    CHECK(children.join());
    CHECK(read_from(made.memory, 5) == "HELLO");
    made.memory.close();
}

TEST_CASE("_TestSharedMemory.test_shared_memory_SharedMemoryServer_ignores_sigint",
          "[shared_memory][conformance]") {
    EVERY_START_METHOD;
    const SharedMemoryManager manager({.ctx = mp::get_context(method)});
    manager.start();
    const ShareableList before = manager.ShareableList(std::views::iota(0, 10));
    manager.process()->interrupt();
    const ShareableList after = manager.ShareableList(std::views::iota(0, 10));
    CHECK(manager.process()->is_alive());
    CHECK_THROWS_AS(manager.start(), mp::ProcessError);
    manager.shutdown();
    CHECK(manager.process()->exitcode() == 0);
}

TEST_CASE("_TestSharedMemory.test_shared_memory_SharedMemoryManager_reuses_resource_tracker",
          "[shared_memory][conformance]") {
    EVERY_START_METHOD;
    const SharedMemoryManager manager({.ctx = mp::get_context(method)});
    manager.start();
    const auto before = mp::runtime::resource_tracker_pid();
    CHECK(before);
    const ShareableList list = manager.ShareableList(std::views::iota(0, 10));
    CHECK(mp::runtime::resource_tracker_pid() == before);
    manager.shutdown();
    CHECK(mp::runtime::resource_tracker_pid() == before);
    CHECK(error_of([&] { list.shm().unlink(); }) == ENOENT);
}

TEST_CASE("_TestSharedMemory.test_shared_memory_SharedMemoryManager_basics",
          "[shared_memory][conformance]") {
    EVERY_START_METHOD;
    const SharedMemoryManager manager({.ctx = mp::get_context(method)});
    CHECK_THROWS_AS(manager.SharedMemory(9), mp::ValueError);
    manager.start();
    std::vector<ShareableList> lists;
    std::vector<SharedMemory> memories;
    for (int i = 5; i < 10; ++i) lists.push_back(manager.ShareableList(std::views::iota(0, i)));
    for (int i = 32; i < 128; i += 16) memories.push_back(manager.SharedMemory(i));
    CHECK(ShareableList({.name = lists[0].shm().name()}).size() == 5);
    CHECK(SharedMemory(memories[0].name()).buf().size() >= 32);
    const std::string held = memories[0].name();
    manager.shutdown();
    CHECK(error_of([&] { SharedMemory{held}; }) == ENOENT);

    std::string name;
    {
        const SharedMemoryManager other({.ctx = mp::get_context(method)});
        other.start();
        name = other.ShareableList({"h", "o", "w", "d", "y"}).shm().name();
        static_cast<void>(other.SharedMemory(128));
        CHECK_NOTHROW(ShareableList({.name = name}));
    }
    CHECK(error_of([&] { ShareableList({.name = name}); }) == ENOENT);
}

TEST_CASE("_TestSharedMemory.test_shared_memory_ShareableList_basics",
          "[shared_memory][conformance]") {
    const ShareableList list({"howdy", mp::bytes("HoWdY"), -273.154, 100, mp::None, true, 42});
    const Unlinked made{list.shm()};
    CHECK_THAT(text_of(list),
               ContainsSubstring(list.shm().name()) &&
                   ContainsSubstring("['howdy', b'HoWdY', -273.154, 100, None, True, 42]"));
    CHECK_THROWS_AS(list[7], std::out_of_range);
    CHECK_THROWS_AS(list.set(7, 2), std::out_of_range);

    const std::string format = list.format();
    list.set(0, "howdy");
    CHECK(list.format() == format);
    CHECK(list.format() == "8s8sdqxxxxxx?xxxxxxxx?q");
    CHECK(list.size() == 7);
    CHECK_THROWS_AS(list.index("100"), mp::ValueError);
    CHECK(list.index(100) == 3);
    CHECK(list[0] == "howdy");
    CHECK(list[-2] == true);
    CHECK(items_of(list) == std::vector<ShareableItem>{"howdy", mp::bytes("HoWdY"), -273.154, 100,
                                                       mp::None, true, 42});

    list.set(3, 42);
    CHECK(list[3] == 42);
    list.set(4, "some");
    CHECK(list[4] == "some");
    CHECK(list.format() == "8s8sdq8sxxxxxxx?q");
    CHECK_THROWS_WITH(list.set(4, "far too many"), ContainsSubstring("exceeds available storage"));
    CHECK(list[4] == "some");
    list.set(0, "encod\u00e9s");  // 8 bytes
    CHECK(list[0] == "encod\u00e9s");
    CHECK(list[1] == mp::bytes("HoWdY"));
    CHECK_THROWS_WITH(list.set(0, "encod\u00e9es"), ContainsSubstring("exceeds available storage"));
    CHECK(list[1] == mp::bytes("HoWdY"));
    CHECK_THROWS_AS(list.set(1, mp::bytes("123456789")), mp::ValueError);
    CHECK(list[1] == mp::bytes("HoWdY"));

    CHECK(list.count(42) == 2);
    CHECK(list.count(mp::bytes("HoWdY")) == 1);
    CHECK(list.count(mp::bytes("adios")) == 0);

    const ShareableList copy(list, {.name = new_name("test03_duplicate")});
    {
        const Unlinked too{copy.shm()};
        CHECK(copy.shm().name() == new_name("test03_duplicate"));
        CHECK(items_of(copy) == items_of(list));
        CHECK(copy.format() == list.format());
        copy.set(-1, 77);
        CHECK(copy[-1] == 77);
        CHECK(list[-1] != 77);
    }
    const ShareableList tethered({.name = list.shm().name()});
    tethered.set(-1, 880);
    CHECK(list[-1] == 880);
    tethered.shm().close();
    list.shm().close();

    const ShareableList empty;
    const Unlinked gone{empty.shm()};
    CHECK(empty.size() == 0);
    CHECK(empty.format().empty());
    CHECK(empty.count("any") == 0);
    CHECK_THROWS_AS(empty.index(mp::None), mp::ValueError);
}

TEST_CASE("_TestSharedMemory.test_shared_memory_ShareableList_pickling",
          "[shared_memory][conformance]") {
    const ShareableList list(std::views::iota(0, 10));
    const Unlinked made{list.shm()};
    const mp::bytes pickled = mp::pickle::dumps(list);
    const auto same = mp::pickle::loads<ShareableList>(pickled);
    CHECK(same[-1] == 9);
    same.set(4, "changed");
    CHECK(list[4] == "changed");
    list.set(3, "newvalue");
    CHECK(same[3] == "newvalue");
    const ShareableList larger(std::views::iota(0, 400));
    const Unlinked too{larger.shm()};
    CHECK(mp::pickle::dumps(larger).size() == pickled.size());
}

TEST_CASE("_TestSharedMemory.test_shared_memory_ShareableList_pickling_dead_object",
          "[shared_memory][conformance]") {
    const ShareableList list(std::views::iota(0, 10));
    const mp::bytes pickled = mp::pickle::dumps(list);
    list.shm().close();
    list.shm().unlink();
    CHECK(error_of([&] { static_cast<void>(mp::pickle::loads<ShareableList>(pickled)); }) ==
          ENOENT);
}

TEST_CASE(
    "TestSharedMemoryNames.test_that_shared_memory_name_with_colons_has_no_resource_tracker_errors",
    "[shared_memory][conformance]") {
    const std::string name =
        GENERATE("a:b:c", "s\tn\nl", "\x01\x7f", "\"quoted\" 'name'", "n\u00e4me");
    const Unlinked made{SharedMemory({.name = new_name(name), .create = true, .size = 10})};
    CHECK(SharedMemory(new_name(name)).size() == 10);
    CHECK(made.memory.name() == new_name(name));
    made.memory.unlink();
    CHECK(error_of([&] { SharedMemory{new_name(name)}; }) == ENOENT);
}
