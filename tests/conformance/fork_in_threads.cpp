// SPDX-License-Identifier: BSL-1.0
#include <multiprocessing/util.hpp>

#include "conformance/helpers.hpp"
#include "runtime/helpers.hpp"
#include "support/catch.hpp"

#include <latch>
#include <string>
#include <thread>

#include <unistd.h>

namespace mp = multiprocessing;
using namespace support;

namespace {

void fork_in_threads() {
    mp::log_to_stderr(mp::log_level::warning);
    std::latch enough(1);
    std::thread thread([&] { enough.wait(); });
    for (int i = 0; i < 2; ++i) {
        const mp::Process child = mp::get_context("fork").Process([] {});
        child.start();
        child.join(patient);
    }
    enough.count_down();
    thread.join();
}

}  // namespace

TEST_CASE("ForkInThreads.test_fork", "[process][conformance]") {
    EVERY_START_METHOD;
    const mp::Process child =
        mp::get_context(method).Process({.name = "threaded"}, fork_in_threads);
    const std::string errors = errors_of(child);
    CHECK(child.exitcode() == 0);
    // In Python too it is said once: a warning is, of a place in the program.
    CHECK(errors == "[WARNING/threaded] This process (pid=" + std::to_string(child.pid().value()) +
                        ") is multi-threaded, use of fork() may lead to deadlocks in the child.\n");
}
