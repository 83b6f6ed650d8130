// SPDX-License-Identifier: BSL-1.0
#include <multiprocessing/util.hpp>

#include "conformance/helpers.hpp"
#include "support/catch.hpp"

#include <filesystem>
#include <fstream>
#include <string>

#include <unistd.h>

namespace mp = multiprocessing;
using namespace support;

namespace {

void write_file_at_exit(const std::string& output_path) {
    mp::util::register_exit([output_path] { std::ofstream(output_path) << "deadbeef"; });
}

}  // namespace

TEST_CASE("_TestAtExit.test_atexit", "[at_exit][conformance]") {
    EVERY_START_METHOD;
    const std::filesystem::path output_path =
        std::filesystem::temp_directory_path() / ("at_exit-" + std::to_string(::getpid()));
    Children children(method);
    children.start(write_file_at_exit, output_path.string());
    CHECK(children.join());
    std::string text;
    std::ifstream(output_path) >> text;
    CHECK(text == "deadbeef");
    std::filesystem::remove(output_path);
}
