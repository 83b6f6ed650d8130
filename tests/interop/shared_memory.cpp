// SPDX-License-Identifier: BSL-1.0
//
// SharedMemory and ShareableList with Python: what either makes the other opens, and it is the same
// bytes.
#include <multiprocessing/shared_memory.hpp>

#include "interop/python.hpp"
#include "support/catch.hpp"
#include "support/outcome.hpp"

#include <cerrno>
#include <limits>
#include <sstream>
#include <string>
#include <system_error>
#include <vector>

#include <unistd.h>

namespace mp = multiprocessing;
using mp::shared_memory::ShareableItem;
using mp::shared_memory::ShareableList;
using mp::shared_memory::SharedMemory;
using support::text_of;

namespace {

// Before 3.13 a Python process that attaches has its tracker unlink what it attached to.
const std::string prelude = R"(
import sys
from multiprocessing import resource_tracker, shared_memory
from multiprocessing.shared_memory import SharedMemory, ShareableList

def keep(memory):
    resource_tracker.unregister(memory._name, 'shared_memory')
    return memory

def attach(name):
    return keep(SharedMemory(name))

def attach_list(name):
    result = ShareableList(name=name)
    keep(result.shm)
    return result

name = sys.argv[1]
)";

support::Ran run(const std::string& python, const std::string& script, const std::string& name) {
    const auto ran = support::run_program({python, "-c", prelude + script, name});
    INFO(ran.err);
    CHECK(ran.exitcode == 0);
    CHECK(ran.err.empty());
    return ran;
}

std::string new_name() { return "mp_interop_" + std::to_string(::getpid()); }

std::vector<ShareableItem> all_kinds() {
    return {"howdy",
            mp::bytes("HoWdY"),
            -273.154,
            100,
            mp::None,
            true,
            false,
            "",
            mp::bytes(),
            "12345678",
            std::numeric_limits<std::int64_t>::min(),
            std::numeric_limits<std::int64_t>::max(),
            std::numeric_limits<double>::infinity(),
            "na\u00efve",
            mp::bytes(std::string("a\0b\xff", 4)),
            std::string(1000, 'x'),
            "it's"};
}
const char* const all_kinds_in_python =
    "['howdy', b'HoWdY', -273.154, 100, None, True, False, '', b'', '12345678', -2**63, 2**63 - 1, "
    "float('inf'), 'na\\u00efve', b'a\\0b\\xff', 'x' * 1000, \"it's\"]";

/// Unlinked at the end of its scope.
struct Unlinked {
    SharedMemory memory;
    ~Unlinked() { memory.unlink(); }
};

std::string bytes_of(const SharedMemory& memory) {
    const auto text = memory.as<char>();
    return {text.begin(), text.end()};
}

}  // namespace

TEST_CASE("Python opens shared memory that was made here", "[interop][shared_memory]") {
    EVERY_PYTHON;
    const Unlinked made{SharedMemory({.create = true, .size = 10'001})};
    made.memory.as<int>()[1] = 42;
    const auto ran = run(python, R"(
memory = attach(name)
print(memory.size, memory.buf[4], memory.name == name)
memory.buf[0:6] = b'python'
memory.close()
)",
                         made.memory.name());
    CHECK(ran.out == "10001 42 True\n");
    CHECK(bytes_of(made.memory).substr(0, 6) == "python");
    CHECK_NOTHROW(SharedMemory(made.memory.name()));  // it is there after Python's end
}

TEST_CASE("what Python makes is opened here", "[interop][shared_memory]") {
    EVERY_PYTHON;
    const std::string name = new_name();
    run(python, R"(
memory = keep(SharedMemory(name, create=True, size=777))
memory.buf[0:5] = b'hello'
)",
        name);
    const Unlinked memory{SharedMemory(name)};
    CHECK(memory.memory.size() == 777);
    CHECK(bytes_of(memory.memory).substr(0, 5) == "hello");
    CHECK_THROWS_AS(SharedMemory({.name = name, .create = true, .size = 1}), std::system_error);
}

TEST_CASE("Python sees that a name is taken, and that it is gone", "[interop][shared_memory]") {
    EVERY_PYTHON;
    const SharedMemory memory({.create = true, .size = 1});
    const std::string script = R"(
try:
    SharedMemory(name, create=True, size=1)
except FileExistsError:
    print('exists')
try:
    SharedMemory(name + 'x')
except FileNotFoundError:
    print('not found')
memory = SharedMemory(name)
memory.unlink()
)";
    CHECK(run(python, script, memory.name()).out == "exists\nnot found\n");
    CHECK_THROWS_AS(memory.unlink(), std::system_error);
}

// Python 3.8 lays lists out in another way, and no later one reads them either.
TEST_CASE("Python reads a ShareableList that was made here", "[interop][shareable_list]") {
    EVERY_PYTHON_SINCE(9);
    const ShareableList list(all_kinds(), {.name = new_name()});
    const Unlinked made{list.shm()};
    const auto ran = run(python,
                         std::string("same = attach_list(name)\n"
                                     "print(list(same) == ") +
                             all_kinds_in_python +
                             ", len(same), [type(each).__name__ for each in same])\n"
                             "print(same.format)\n",
                         list.shm().name());
    std::ostringstream expected;
    expected << "True " << list.size() << " [";
    const char* separator = "";
    for (const ShareableItem& item : list) {
        expected << std::exchange(separator, ", ") << '\'' << item.type_name() << '\'';
    }
    expected << "]\n" << list.format() << '\n';
    CHECK(ran.out == expected.str());
}

TEST_CASE("a ShareableList that Python made is read here", "[interop][shareable_list]") {
    EVERY_PYTHON_SINCE(9);
    const std::string name = new_name();
    run(python, std::string("keep(ShareableList(") + all_kinds_in_python + ", name=name).shm)\n",
        name);
    const ShareableList list({.name = name});
    const Unlinked made{list.shm()};
    CHECK(std::vector<ShareableItem>(list.begin(), list.end()) == all_kinds());
}

TEST_CASE("both make the same bytes of the same list", "[interop][shareable_list]") {
    EVERY_PYTHON_SINCE(9);
    const std::string name = new_name();
    run(python, std::string("keep(ShareableList(") + all_kinds_in_python + ", name=name).shm)\n",
        name);
    const Unlinked theirs{SharedMemory(name)};
    const ShareableList list(all_kinds());
    const Unlinked ours{list.shm()};
    CHECK(bytes_of(ours.memory) == bytes_of(theirs.memory));

    const ShareableList none;
    const Unlinked nothing{none.shm()};
    run(python, "keep(ShareableList(name=name + 'e', sequence=[]).shm)\n", name);
    const Unlinked their_nothing{SharedMemory(name + "e")};
    CHECK(bytes_of(nothing.memory) == bytes_of(their_nothing.memory));
}

TEST_CASE("both change the same list to the same bytes", "[interop][shareable_list]") {
    EVERY_PYTHON_SINCE(9);
    const std::vector<ShareableItem> items{"1234567812345678", 1, 2.0, mp::bytes("12345678"),
                                           mp::None};
    const ShareableList ours(items);
    const Unlinked unlinked{ours.shm()};
    const ShareableList theirs(items);
    const Unlinked unlinked_too{theirs.shm()};
    // Each step of it is done by Python to one list, and here to the other.
    run(python, R"(
same = attach_list(name)
same[0] = 7; same[1] = 'text'; same[2] = b'raw'; same[3] = None; same[4] = True
same[0] = 'short'; same[0] = -1.5; same[-4] = False; same[3] = 'x'; same[2] = 2**40
)",
        theirs.shm().name());
    const std::vector<std::pair<int, ShareableItem>> steps{{0, 7},
                                                           {1, "text"},
                                                           {2, mp::bytes("raw")},
                                                           {3, mp::None},
                                                           {4, true},
                                                           {0, "short"},
                                                           {0, -1.5},
                                                           {-4, false},
                                                           {3, "x"},
                                                           {2, std::int64_t{1} << 40}};
    for (const auto& [index, value] : steps) ours.set(index, value);
    CHECK(bytes_of(ours.shm()) == bytes_of(theirs.shm()));
    const auto ran = run(python, "print(attach_list(name))\n", ours.shm().name());
    CHECK(ran.out == text_of(ours) + "\n");
}
