// SPDX-License-Identifier: BSL-1.0
#include <multiprocessing/os/named_memory.hpp>

#include "support/catch.hpp"
#include "support/outcome.hpp"

#include <cerrno>
#include <cstdint>
#include <string>
#include <system_error>

#include <sys/stat.h>
#include <unistd.h>

namespace os = multiprocessing::os;
using support::error_of;

namespace {

std::string name_of_this_test() { return "mp_named_" + std::to_string(::getpid()); }

}  // namespace

TEST_CASE("memory has a name from when it is given one to when that is taken away",
          "[os][named_memory]") {
    const std::string name = name_of_this_test();
    const os::Fd memory = os::unnamed_memory(5000);
    CHECK(os::size_of(memory) == 5000);
    CHECK(error_of([&] { static_cast<void>(os::open_named_memory(name)); }) == ENOENT);
    CHECK(os::give_name(memory, name));
    const os::Fd found = os::open_named_memory(name);
    CHECK(os::size_of(found) == 5000);
    CHECK(os::identity_of(found) == os::identity_of(memory));
    // A slash before it is no part of it, as for shm_open.
    CHECK(os::identity_of(os::open_named_memory("//" + name)) == os::identity_of(memory));
    CHECK_FALSE(os::give_name(os::unnamed_memory(1), name));
    CHECK(os::remove_name(name) == os::identity_of(memory));
    CHECK(error_of([&] { os::remove_name(name); }) == ENOENT);
}

TEST_CASE("memory with a name is its user's alone, and all there", "[os][named_memory]") {
    const os::Fd memory = os::unnamed_memory(1 << 20);
    struct ::stat status {};
    REQUIRE(::fstat(memory.get(), &status) == 0);
    CHECK((status.st_mode & 0777) == 0600);
    CHECK(status.st_blocks * 512 >= 1 << 20);  // or a write to it could end in SIGBUS
}

TEST_CASE("what can be no name is refused", "[os][named_memory]") {
    for (const std::string name : {"", "/", ".", "..", "a/b", "/a/b", "a/"}) {
        INFO(name);
        CHECK(error_of([&] { os::check_name(name); }) == EINVAL);
        CHECK(error_of([&] { static_cast<void>(os::open_named_memory(name)); }) == EINVAL);
        CHECK(error_of([&] { static_cast<void>(os::give_name(os::unnamed_memory(1), name)); }) ==
              EINVAL);
        CHECK(error_of([&] { os::remove_name(name); }) == EINVAL);
    }
    CHECK(error_of([] { os::check_name(std::string("a\0b", 3)); }) == EINVAL);
    CHECK(error_of([] { os::check_name(std::string(255, 'a')); }) == 0);
    CHECK(error_of([] { os::check_name(std::string(256, 'a')); }) == ENAMETOOLONG);
}

TEST_CASE("a name is taken from the file that is meant and from no other", "[os][named_memory]") {
    const std::string name = name_of_this_test();
    const os::Fd first = os::unnamed_memory(1);
    const os::Fd second = os::unnamed_memory(1);
    REQUIRE(os::give_name(first, name));
    CHECK(os::has_name(name.c_str(), os::identity_of(first)));
    CHECK_FALSE(os::has_name(name.c_str(), os::identity_of(second)));
    CHECK(os::remove_name_of(name.c_str(), os::identity_of(second)) == ENOENT);
    CHECK(os::has_name(name.c_str(), os::identity_of(first)));
    CHECK(os::remove_name_of(name.c_str(), os::identity_of(first)) == 0);
    CHECK(os::remove_name_of(name.c_str(), os::identity_of(first)) == ENOENT);
}

TEST_CASE("more memory than there is, is std::bad_alloc that says how much there is",
          "[os][named_memory]") {
    CHECK_THROWS_AS(os::unnamed_memory(std::uint64_t{1} << 50), std::bad_alloc);
    CHECK_THROWS_WITH(os::unnamed_memory(std::uint64_t{1} << 50),
                      Catch::Matchers::ContainsSubstring("1125899906842624 bytes") &&
                          Catch::Matchers::ContainsSubstring("are left in /dev/shm"));
    CHECK(error_of([] { static_cast<void>(os::unnamed_memory(std::uint64_t{1} << 63)); }) == EFBIG);
}
