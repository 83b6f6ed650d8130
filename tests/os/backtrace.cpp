// SPDX-License-Identifier: BSL-1.0
#include "support/catch.hpp"

#include <multiprocessing/os/backtrace.hpp>
#include <multiprocessing/os/symbols.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <fstream>
#include <iostream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <link.h>
#include <sys/mman.h>
#include <unistd.h>

namespace os = multiprocessing::os;

// C linkage: what the linker calls them is what they are called here.
extern "C" {
[[noreturn, gnu::noinline]] void backtrace_test_thrower(int depth) {
    if (depth == 0) throw depth;
    backtrace_test_thrower(depth - 1);
}
[[gnu::noinline]] void backtrace_test_rethrower() {
    try {
        backtrace_test_thrower(0);
    } catch (int) {
        throw;
    }
}
[[gnu::noinline]] void backtrace_test_later(const std::exception_ptr* thrown) {
    std::rethrow_exception(*thrown);
}
}

namespace {

/// Of what `run` throws, unless it is a std::logic_error.
template <class Run>
[[gnu::noinline]] os::Backtrace backtrace_of(Run run) {
    try {
        os::watch_throws(run);
    } catch (const std::logic_error&) {
    } catch (const os::ThrowWatch&) {
        FAIL("nothing is a ThrowWatch");
    } catch (...) {}
    return os::last_watched_throw();
}

/// One for each call, so that the compiler cannot make a loop of them.
struct Nested {
    static inline int destroyed = 0;
    ~Nested() { ++destroyed; }
    [[gnu::noinline]] static void call(int depth) {
        const Nested here;
        if (depth == 0) throw depth;
        call(depth - 1);
    }
};

[[gnu::noinline]] void watch_without_catching() {
    try {
        os::watch_throws([] { Nested::call(0); });
    } catch (const os::ThrowWatch&) {}
}

std::vector<std::string> functions(const os::Backtrace& trace) {
    os::Symbols symbols;
    std::vector<std::string> names;
    for (std::size_t i = 0; i < trace.size; ++i) {
        std::string name = symbols.find(trace.calls[i]).function;
        // Without .cold, where g++ puts what throws.
        name.erase(std::find(name.begin(), name.end(), '.'), name.end());
        names.push_back(std::move(name));
    }
    return names;
}

std::uintptr_t address_of(auto* function) { return reinterpret_cast<std::uintptr_t>(function); }

/// Whether the file, a copy of this program more or less, has a function's name.
bool names_something(const std::string& path) {
    os::Symbols symbols;
    os::Symbol symbol;
    symbol.offset = symbols.find(address_of(&backtrace_test_thrower)).offset;
    os::SymbolTable(path.c_str()).find(symbol);
    return symbol.function == "backtrace_test_thrower";
}

std::ptrdiff_t count(const std::vector<std::string>& names, const std::string& name) {
    return std::count(names.begin(), names.end(), name);
}

}  // namespace

TEST_CASE("an exception tells who threw it, while its stack is there", "[os][backtrace]") {
    struct Guard {
        bool& destroyed;
        ~Guard() { destroyed = true; }
    };
    bool destroyed = false;
    const auto names = functions(backtrace_of([&] {
        const Guard guard{destroyed};
        backtrace_test_thrower(3);
    }));
    CHECK(destroyed);
    const auto thrower = std::find(names.begin(), names.end(), "backtrace_test_thrower");
    REQUIRE(thrower != names.begin());
    REQUIRE(thrower != names.end());
    CHECK(*(thrower - 1) == "__cxa_throw");
    // Of the four calls the compiler may have made fewer; below is the guard's, and no case's.
    CHECK(names.size() - static_cast<std::size_t>(thrower - names.begin()) <= 7);
    for (const auto& name : names) CHECK(name.find("backtrace_of") == std::string::npos);
}

TEST_CASE("an exception that does not come to the watch is not written down", "[os][backtrace]") {
    static_cast<void>(backtrace_of([] { backtrace_test_thrower(0); }));
    REQUIRE(os::last_watched_throw().size > 0);
    CHECK(backtrace_of([] {}).size == 0);
    static_cast<void>(backtrace_of([] { backtrace_test_thrower(0); }));
    CHECK(backtrace_of([] {
              try {
                  backtrace_test_thrower(0);
              } catch (int) {}
          }).size == 0);
    CHECK(backtrace_of([] { throw std::logic_error("expected"); }).size == 0);
}

TEST_CASE("who throws again is who threw", "[os][backtrace]") {
    const auto again = functions(backtrace_of(backtrace_test_rethrower));
    CHECK(count(again, "__cxa_rethrow") == 1);
    CHECK(count(again, "backtrace_test_rethrower") == 1);
    CHECK(count(again, "backtrace_test_thrower") == 0);
    const auto thrown = std::make_exception_ptr(1);
    const auto later = functions(backtrace_of([&] { backtrace_test_later(&thrown); }));
    CHECK(count(later, "backtrace_test_later") == 1);
}

TEST_CASE("an exception may be caught further out than its watch", "[os][backtrace]") {
    CHECK_THROWS_AS(watch_without_catching(), int);
    const auto names = functions(os::last_watched_throw());
    CHECK(count(names, "__cxa_throw") == 1);
    CHECK(count(names, "_Unwind_Resume") == 0);
}

TEST_CASE("the outer frames of a deep stack are left out", "[os][backtrace]") {
    Nested::destroyed = 0;
    const os::Backtrace deep = backtrace_of([] { Nested::call(200); });
    CHECK(Nested::destroyed == 201);
    CHECK(deep.cut);
    CHECK(deep.size == deep.calls.size());
    CHECK_FALSE(backtrace_of([] { Nested::call(0); }).cut);
}

TEST_CASE("code has a name and a place in a file", "[os][symbols]") {
    os::Symbols symbols;
    const auto own = symbols.find(address_of(&backtrace_test_thrower) + 1);
    CHECK(own.function == "backtrace_test_thrower");
    CHECK(own.distance == 1);
    char program[4096];
    const auto length = ::readlink("/proc/self/exe", program, sizeof program);
    CHECK(own.module == std::string(program, static_cast<std::size_t>(length)));
    // The dynamic symbols of a library, whether it is stripped or not: a virtual function's, whose
    // address is not that of a stub in this program.
    const auto* const virtual_functions =
        *reinterpret_cast<const std::uintptr_t* const*>(std::cout.rdbuf());
    const auto other = symbols.find(virtual_functions[0]);
    CHECK(other.module.find("libstdc++") != std::string::npos);
    CHECK(other.function.find("filebuf") != std::string::npos);
}

TEST_CASE("what has no name has none", "[os][symbols]") {
    os::Symbols symbols;
    CHECK(symbols.find(0).module.empty());
    CHECK(symbols.find(0).function.empty());
    static int data = 0;
    CHECK(symbols.find(reinterpret_cast<std::uintptr_t>(&data)).function.empty());

    CHECK_FALSE(names_something("/no/such/file"));
    CHECK_FALSE(names_something("/dev/null"));
    CHECK_FALSE(names_something("/proc/self/maps"));
}

TEST_CASE("a symbol table may lack anything", "[os][symbols]") {
    std::ifstream file("/proc/self/exe", std::ios::binary);
    const std::string whole(std::istreambuf_iterator<char>(file), {});
    const auto names_something_as = [](const std::string& content) {
        const os::Fd copy(::memfd_create("symbols", MFD_CLOEXEC));
        REQUIRE(::write(copy.get(), content.data(), content.size()) ==
                static_cast<ssize_t>(content.size()));
        return names_something("/proc/self/fd/" + std::to_string(copy.get()));
    };
    CHECK(names_something_as(whole));
    for (const std::size_t length : {std::size_t{3}, sizeof(ElfW(Ehdr)), whole.size() / 2})
        CHECK_FALSE(names_something_as(whole.substr(0, length)));

    ElfW(Ehdr) header;
    std::memcpy(&header, whole.data(), sizeof header);
    const auto with_section = [&](unsigned type, auto change) {
        std::string content = whole;
        for (unsigned i = 0; i < header.e_shnum; ++i) {
            char* const place = content.data() + header.e_shoff + i * sizeof(ElfW(Shdr));
            ElfW(Shdr) section;
            std::memcpy(&section, place, sizeof section);
            if (section.sh_type == type) change(section);
            std::memcpy(place, &section, sizeof section);
        }
        return content;
    };
    const std::string stripped =
        with_section(SHT_SYMTAB, [](ElfW(Shdr) & section) { section.sh_type = SHT_NULL; });
    CHECK_FALSE(names_something_as(stripped));
    const auto broken = [&](auto change) {
        return names_something_as(with_section(SHT_SYMTAB, change));
    };
    CHECK_FALSE(broken([](ElfW(Shdr) & section) { section.sh_size = ~std::uint64_t{0}; }));
    CHECK_FALSE(broken([](ElfW(Shdr) & section) { section.sh_offset = ~std::uint64_t{0} - 8; }));
    CHECK_FALSE(broken([](ElfW(Shdr) & section) { section.sh_link = ~0u; }));
    CHECK_FALSE(broken([](ElfW(Shdr) & section) { section.sh_link = 0; }));
    CHECK_FALSE(names_something_as(
        with_section(SHT_STRTAB, [](ElfW(Shdr) & section) { section.sh_size = 1; })));
}
