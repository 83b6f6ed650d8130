// SPDX-License-Identifier: BSL-1.0
#include <multiprocessing/shared_memory.hpp>

#include <multiprocessing/pool.hpp>
#include <multiprocessing/process.hpp>
#include <multiprocessing/queues.hpp>

#include "runtime/helpers.hpp"
#include "shm/helpers.hpp"
#include "support/catch.hpp"
#include "support/outcome.hpp"
#include "support/sanitized.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <limits>
#include <list>
#include <optional>
#include <span>
#include <sstream>
#include <string>
#include <system_error>
#include <type_traits>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

namespace mp = multiprocessing;
using Catch::Matchers::ContainsSubstring;
using mp::shared_memory::ShareableItem;
using mp::shared_memory::ShareableList;
using mp::shared_memory::SharedMemory;
using mp::shared_memory::View;
using support::error_of;
using support::text_of;

namespace {

/// Memory that is unlinked at the end of its scope.
struct Block : SharedMemory {
    explicit Block(mp::shared_memory::ByteCount size)
        : SharedMemory({.create = true, .size = size}) {}
    ~Block() { unlink(); }
};

struct List : ShareableList {
    using ShareableList::ShareableList;
    ~List() { shm().unlink(); }
};

std::size_t open_descriptors() {
    std::size_t count = 0;
    for (int fd = 0; fd < 256; ++fd) count += ::fcntl(fd, F_GETFD) != -1 ? 1 : 0;
    return count;
}

}  // namespace

TEST_CASE("shared memory is zeros, of exactly the size asked for, and takes no descriptor",
          "[shared_memory]") {
    const std::size_t descriptors = open_descriptors();
    const Block memory(10'001);
    CHECK(memory.size() == 10'001);
    CHECK(memory.buf().size() == 10'001);
    CHECK(std::all_of(memory.buf().begin(), memory.buf().end(),
                      [](std::byte b) { return b == std::byte{0}; }));
    CHECK(memory.name().starts_with("psm_"));
    CHECK(SharedMemory(memory.name()).size() == 10'001);
    CHECK(open_descriptors() == descriptors);
}

TEST_CASE("as<T>() is as many T as there is room for", "[shared_memory]") {
    struct Three {
        char bytes[3];
    };
    const Block memory(100);
    CHECK(memory.as<double>().size() == 12);
    CHECK(memory.as<Three>().size() == 33);
    std::span<int> numbers = memory.as<int>();
    numbers[24] = 7;
    CHECK(memory.as<int>().back() == 7);
    CHECK(SharedMemory(memory.name()).as<int>()[24] == 7);
}

TEST_CASE("a view keeps the memory, whatever becomes of the handle", "[shared_memory]") {
    View<int> view;
    {
        const Block memory(4096);
        memory.as<int>()[1] = 5;
        view = memory.as<int>();
        const std::vector<View<int>> more(3, view);
        memory.close();
        view[0] = 1;
    }
    CHECK(view[0] + view[1] == 6);
    CHECK(view.size() == 1024);
}

TEST_CASE("closed shared memory says so, in every copy of the handle", "[shared_memory]") {
    const Block memory(10);
    const SharedMemory copy = memory;
    CHECK(copy == memory);
    copy.close();
    copy.close();
    CHECK_THROWS_AS(memory.buf(), mp::ValueError);
    CHECK_THROWS_WITH(memory.as<int>(),
                      ContainsSubstring(memory.name()) && ContainsSubstring("closed"));
    CHECK(memory.size() == 10);
    const SharedMemory other(memory.name());  // another object of the same memory
    CHECK_FALSE(other == memory);
    CHECK(other.buf().size() == 10);
}

TEST_CASE("a handle that was moved from is still one", "[shared_memory]") {
    SharedMemory memory({.create = true, .size = 10});
    const SharedMemory taken = std::move(memory);
    CHECK(memory.buf().size() == 10);
    ShareableList list({1, 2});
    const ShareableList also = std::move(list);
    CHECK(list.size() == 2);
    also.shm().unlink();
    taken.unlink();
}

TEST_CASE("what cannot be made is refused, and nothing is left of it", "[shared_memory]") {
    SharedMemory({.create = true, .size = 1}).unlink();  // the tracker is there to stay
    const auto before = support::allocated();
    CHECK_THROWS_WITH(SharedMemory({.create = true, .size = -1}), ContainsSubstring("-1"));
    CHECK_THROWS_AS(SharedMemory({.name = "any", .size = -1}), mp::ValueError);
    CHECK_THROWS_AS(SharedMemory(std::nullopt), mp::ValueError);
    CHECK(error_of([] { SharedMemory({.name = "a/b", .create = true, .size = 1}); }) == EINVAL);
    CHECK(error_of([] { SharedMemory({.name = "", .create = true, .size = 1}); }) == EINVAL);
    CHECK(error_of([] { SharedMemory(std::string("nobody/")); }) == EINVAL);
    CHECK_THROWS_AS(SharedMemory({.create = true, .size = std::uint64_t{1} << 50}), std::bad_alloc);
    CHECK_THROWS(SharedMemory({.create = true, .size = std::numeric_limits<std::uint64_t>::max()}));
    CHECK(support::allocated() == before);
}

TEST_CASE("an existing name is not touched by who would make it", "[shared_memory]") {
    const Block memory(100);
    memory.buf()[0] = std::byte{3};
    try {
        SharedMemory({.name = memory.name(), .create = true, .size = 7});
        FAIL("made a second time");
    } catch (const std::system_error& error) {
        CHECK(error.code() == std::errc::file_exists);
        CHECK_THAT(error.what(), ContainsSubstring(memory.name()));
    }
    CHECK(SharedMemory(memory.name()).size() == 100);
    CHECK(SharedMemory(memory.name()).buf()[0] == std::byte{3});
}

TEST_CASE("memory that somebody has named and not sized yet is refused", "[shared_memory]") {
    const std::string name = "mp_empty_" + std::to_string(::getpid());
    const int fd = ::open(("/dev/shm/" + name).c_str(), O_CREAT | O_EXCL | O_RDWR, 0600);
    REQUIRE(fd >= 0);
    CHECK_THROWS_AS(SharedMemory(name), mp::ValueError);
    ::close(fd);
    ::unlink(("/dev/shm/" + name).c_str());
}

#if !defined(TEST_IS_SANITIZED)
TEST_CASE("a limit on the size of files is an exception, not a signal", "[shared_memory]") {
    const mp::Process limited([] {
        const ::rlimit limit{std::uint64_t{1} << 30, std::uint64_t{1} << 30};
        ::setrlimit(RLIMIT_FSIZE, &limit);
        mp::exit(error_of([] { SharedMemory({.create = true, .size = std::uint64_t{2} << 30}); }));
    });
    CHECK(support::run(limited) == EFBIG);
}
#endif

TEST_CASE("shared memory goes to a pool's tasks and through queues, by its name",
          "[shared_memory][pool]") {
    const Block memory(4096);
    const mp::Pool pool(2);
    const auto store = [](int i, const SharedMemory& there) {
        there.as<int>()[static_cast<std::size_t>(i)] = i;
    };
    std::vector<std::tuple<int, SharedMemory>> tasks;
    for (int i = 0; i < 20; ++i) tasks.emplace_back(i, memory);
    pool.starmap(store, tasks);
    for (std::size_t i = 0; i < 20; ++i) CHECK(memory.as<int>()[i] == static_cast<int>(i));

    const mp::Queue<SharedMemory> queue;
    queue.put(memory);
    const SharedMemory got = queue.get();
    CHECK(got.name() == memory.name());
    CHECK(got.as<int>()[19] == 19);
}

// ShareableItem -----------------------------------------------------------------------------------

TEST_CASE("an item is what it was made from", "[shared_memory][shareable_list]") {
    CHECK(ShareableItem(mp::None).is_none());
    CHECK(ShareableItem().is_none());
    CHECK(ShareableItem(7).get<int>() == 7);
    CHECK(ShareableItem(7u).get<std::int64_t>() == 7);
    CHECK(ShareableItem(true).get<bool>());
    CHECK(ShareableItem(2.5f).get<double>() == 2.5);
    CHECK(ShareableItem("text").get<std::string>() == "text");
    CHECK(ShareableItem(std::string_view("text")).get<std::string>() == "text");
    CHECK(ShareableItem(mp::bytes("raw")).get<mp::bytes>() == mp::bytes("raw"));
    // A bool is an int in Python, and any number can be a float.
    CHECK(ShareableItem(true).get<int>() == 1);
    CHECK(ShareableItem(3).get<double>() == 3.0);
    STATIC_REQUIRE_FALSE(std::is_constructible_v<ShareableItem, char>);
    STATIC_REQUIRE_FALSE(std::is_constructible_v<ShareableItem, std::nullptr_t>);
    STATIC_REQUIRE_FALSE(std::is_constructible_v<ShareableItem, int*>);
    STATIC_REQUIRE_FALSE(
        std::is_assignable_v<ShareableItem, int>);  // list[0] = 1 would change nothing
}

TEST_CASE("an item of another type is a ValueError that names both",
          "[shared_memory][shareable_list]") {
    CHECK_THROWS_WITH(ShareableItem("x").get<int>(), ContainsSubstring("'x'") &&
                                                         ContainsSubstring("str") &&
                                                         ContainsSubstring("an integer"));
    CHECK_THROWS_AS(ShareableItem(1).get<bool>(), mp::ValueError);
    CHECK_THROWS_AS(ShareableItem(1.0).get<int>(), mp::ValueError);
    CHECK_THROWS_AS(ShareableItem("x").get<mp::bytes>(), mp::ValueError);
    CHECK_THROWS_AS(ShareableItem(mp::None).get<double>(), mp::ValueError);
    CHECK_THROWS_AS(ShareableItem(300).get<std::uint8_t>(), mp::ValueError);
    CHECK_THROWS_AS(ShareableItem(-1).get<unsigned>(), mp::ValueError);
    CHECK_THROWS_AS(ShareableItem(-1).get<std::uint64_t>(), mp::ValueError);
    CHECK_THROWS_AS(ShareableItem(std::numeric_limits<std::uint64_t>::max()), mp::ValueError);
    CHECK(ShareableItem(std::numeric_limits<std::int64_t>::min()).get<std::int64_t>() ==
          std::numeric_limits<std::int64_t>::min());
}

TEST_CASE("items are equal as Python's are", "[shared_memory][shareable_list]") {
    CHECK(ShareableItem(1) == true);
    CHECK(ShareableItem(1) == 1.0);
    CHECK(ShareableItem(0.0) == false);
    CHECK_FALSE(ShareableItem(1) == "1");
    CHECK_FALSE(ShareableItem("a") == mp::bytes("a"));
    CHECK_FALSE(ShareableItem(mp::None) == 0);
    // 2^53 + 1 is no double.
    CHECK_FALSE(ShareableItem((std::int64_t{1} << 53) + 1) == 0x1p53);
    CHECK_FALSE(ShareableItem(std::numeric_limits<std::int64_t>::max()) == 0x1p63);
    CHECK_FALSE(ShareableItem(std::numeric_limits<double>::quiet_NaN()) ==
                std::numeric_limits<double>::quiet_NaN());
}

TEST_CASE("items are written as Python writes them", "[shared_memory][shareable_list]") {
    const std::pair<ShareableItem, const char*> cases[] = {
        {mp::None, "None"},
        {true, "True"},
        {-7, "-7"},
        {1.0, "1.0"},
        {0.1, "0.1"},
        {-273.154, "-273.154"},
        {1e16, "1e+16"},
        {1e-5, "1e-05"},
        {123456789012345.0, "123456789012345.0"},
        {std::numeric_limits<double>::infinity(), "inf"},
        {-std::numeric_limits<double>::infinity(), "-inf"},
        {std::numeric_limits<double>::quiet_NaN(), "nan"},
        {"it's", "\"it's\""},
        {"'\"\\\n\t\x01", "'\\'\"\\\\\\n\\t\\x01'"},
        {"n\u00e4h", "'n\u00e4h'"},
        {mp::bytes("\xff"
                   "a"),
         "b'\\xffa'"},
    };
    for (const auto& [item, text] : cases) CHECK(text_of(item) == text);
}

// ShareableList -----------------------------------------------------------------------------------

TEST_CASE("a list is made from any range of items", "[shared_memory][shareable_list]") {
    const std::vector<std::string> words{"one", "two"};
    const std::list<double> numbers{1.5, 2.5};
    const List from_words(words);
    const List from_numbers(numbers);
    const List from_items(std::vector<ShareableItem>{1, "x"});
    const List from_bools(std::vector<bool>{true, false});
    CHECK(from_words[1] == "two");
    CHECK(from_numbers.get<double>(0) == 1.5);
    CHECK(from_items.size() == 2);
    CHECK(from_bools.format() == "xxxxxxx?xxxxxxx?");
    CHECK(std::vector<ShareableItem>(from_items.begin(), from_items.end()) ==
          std::vector<ShareableItem>{1, "x"});
    CHECK(std::ranges::find(from_words, ShareableItem("two")) - from_words.begin() == 1);
    STATIC_REQUIRE(std::ranges::random_access_range<ShareableList>);
}

TEST_CASE("NULs at the end of text are not kept, as in Python", "[shared_memory][shareable_list]") {
    const List list({mp::bytes(std::string("ab\0\0", 4)), std::string("x\0", 2), "", mp::bytes()});
    CHECK(list[0] == mp::bytes("ab"));
    CHECK(list[1] == "x");
    CHECK(list[2] == "");
    CHECK(list[3] == mp::bytes());
}

TEST_CASE("an item takes any type that fits its room, and its neighbours stay",
          "[shared_memory][shareable_list]") {
    const List list({1, "12345678", 2});  // of 8, 16 and 8 bytes
    CHECK(list.format() == "q16sq");
    const std::array<ShareableItem, 7> values{mp::None,         true, -1, 1e300, "1234567812345678",
                                              mp::bytes("raw"), 7};
    for (const ShareableItem& value : values) {
        list.set(1, value);
        CHECK(list[1] == value);
        CHECK(list[0] == 1);
        CHECK(list[2] == 2);
    }
    CHECK_THROWS_AS(list.set(1, std::string(17, 'x')), mp::ValueError);
    CHECK(list[1] == 7);
    list.set(0, "12345678");
    CHECK(list[0] == "12345678");
    CHECK_THROWS_AS(list.set(0, "123456789"), mp::ValueError);
    CHECK(list[0] == "12345678");
}

TEST_CASE("text of many bytes a character has the room it needs",
          "[shared_memory][shareable_list]") {
    std::string text;
    for (int i = 0; i < 7; ++i) text += "\u20ac";  // 21 bytes, of which Python keeps 8
    const List list({text, 5});
    CHECK(list[0] == text);
    CHECK(list[1] == 5);
}

TEST_CASE("indices out of range are std::out_of_range that says so",
          "[shared_memory][shareable_list]") {
    const List list({1, 2, 3});
    CHECK(list[-3] == 1);
    CHECK_THROWS_AS(list[-4], std::out_of_range);
    CHECK_THROWS_AS(list.get<int>(3), std::out_of_range);
    CHECK_THROWS_WITH(list.set(3, 1),
                      ContainsSubstring("index 3") && ContainsSubstring("a list of 3"));
}

TEST_CASE("an item too long for Python's format is refused", "[shared_memory][shareable_list]") {
    CHECK_THROWS_AS(ShareableList({std::string(10'000'000, 'x')}), mp::ValueError);
    const List list({std::string(9'999'991, 'x')});
    CHECK(list.format() == "9999992s");
}

TEST_CASE("memory that holds no list is refused, whatever is in it",
          "[shared_memory][shareable_list]") {
    const auto refused = [](std::span<const std::int64_t> words, std::size_t size) {
        const Block memory(size);
        std::copy_n(std::as_bytes(words).data(), std::min(size, words.size_bytes()),
                    memory.buf().data());
        try {
            const ShareableList list({.name = memory.name()});
        } catch (const mp::ValueError& error) {
            return std::string(error.what()).find("holds no ShareableList") != std::string::npos;
        }
        return false;
    };
    const std::int64_t most = std::numeric_limits<std::int64_t>::max();
    const auto with = [&](std::initializer_list<std::int64_t> words, std::size_t size) {
        return refused(std::span(words.begin(), words.size()), size);
    };
    CHECK(with({}, 1));
    CHECK(with({1}, 8));
    CHECK(with({-1, 0, 0, 0}, 64));
    CHECK(with({most, 0, 0, 0}, 64));
    CHECK(with({1, 0, most}, 64));
    CHECK(with({1, 0, -8}, 64));
    CHECK(with({1, 8, 16}, 64));
    CHECK(with({1, 0, 0}, 64));
    CHECK(with({1, 0, 8}, 24 + 8 + 8));  // no room for the byte of the kind
    CHECK_FALSE(with({1, 0, 8}, 24 + 8 + 8 + 1));
}

TEST_CASE("an item with a format that there is not is a ValueError, not a crash",
          "[shared_memory][shareable_list]") {
    const List list({1});
    const View<char> memory = list.shm().as<char>();
    for (const char* format : {"", "s", "9s", "-1s", "99999999", "x", "qq", "8"}) {
        std::memset(&memory[32], 0, 8);
        std::memcpy(&memory[32], format, std::strlen(format));
        CHECK_THROWS_AS(list[0], mp::ValueError);
    }
    CHECK(list.size() == 1);
}

TEST_CASE("a handle of a list whose memory is closed says so", "[shared_memory][shareable_list]") {
    const List list({1});
    list.shm().close();
    CHECK_THROWS_AS(list[0], mp::ValueError);
    CHECK_THROWS_AS(list.set(0, 2), mp::ValueError);
    CHECK(list.size() == 1);
}
