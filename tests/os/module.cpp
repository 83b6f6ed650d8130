// SPDX-License-Identifier: BSL-1.0
#include "support/catch.hpp"

#include <multiprocessing/os/module.hpp>

#include <cstdlib>
#include <string>

namespace os = multiprocessing::os;

namespace {
int somewhere() { return 1; }

const void* address_of(int (*function)()) { return reinterpret_cast<const void*>(function); }
}  // namespace

TEST_CASE("code is found by its module and its place there", "[os][module]") {
    const os::CodeAddress code = os::locate(address_of(&somewhere));
    CHECK(code.module != 0);
    CHECK(os::resolve(code) == address_of(&somewhere));
    CHECK(os::locate(reinterpret_cast<const void*>(&std::abort)) != code);
}

TEST_CASE("what is no code is nowhere", "[os][module]") {
    static int data = 0;
    CHECK(os::locate(&data) == os::CodeAddress{});
    CHECK(os::locate(nullptr) == os::CodeAddress{});
    CHECK(os::resolve({}) == nullptr);
    os::CodeAddress code = os::locate(address_of(&somewhere));
    code.offset += std::uint64_t{1} << 40;
    CHECK(os::resolve(code) == nullptr);
}

TEST_CASE("the build id is found among other notes", "[os][module]") {
    const auto note = [](std::uint32_t type, const std::string& name, const std::string& content) {
        const std::uint32_t header[] = {static_cast<std::uint32_t>(name.size()),
                                        static_cast<std::uint32_t>(content.size()), type};
        return std::string(reinterpret_cast<const char*>(header), sizeof header) + name + content;
    };
    const auto find = [](const std::string& notes) {
        return os::modules::build_id(reinterpret_cast<const std::byte*>(notes.data()),
                                     notes.size());
    };
    const std::string gnu("GNU\0", 4);
    const std::string other = note(1, gnu, "abcdefgh");
    const std::string id = note(NT_GNU_BUILD_ID, gnu, "01234567");
    CHECK(find(other) == 0);
    CHECK(find(other + id) == find(id));
    CHECK(find(id) != 0);
    CHECK(find(id.substr(0, id.size() - 1)) == 0);
    CHECK(find(note(NT_GNU_BUILD_ID, gnu, "01234568")) != find(id));
    // A module without one is known by its file.
    CHECK(os::modules::file_id("/proc/self/exe") == os::modules::file_id(""));
    CHECK(os::modules::file_id("/no/such/library") != 0);
}
