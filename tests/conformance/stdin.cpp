// SPDX-License-Identifier: BSL-1.0
//
// CPython's tests of processes in processes, of which stdin has been taken away already.
#include <multiprocessing/process.hpp>

#include <multiprocessing/pool.hpp>
#include <multiprocessing/queues.hpp>

#include "conformance/helpers.hpp"
#include "runtime/helpers.hpp"
#include "support/catch.hpp"

#include <string>
#include <vector>

#include <unistd.h>

namespace mp = multiprocessing;
using namespace support;

namespace {

void try_to_get(const mp::Queue<int>& queue) {
    try {
        static_cast<void>(queue.get(false));
    } catch (const mp::Empty&) {}
}

// Without a stdin, its number is the next descriptor's, which children must not take for theirs.
void queue_in_process(const std::string& method, bool close_stdin) {
    if (close_stdin) ::close(STDIN_FILENO);
    const mp::Queue<int> queue;
    const auto p = mp::get_context(method).Process({.daemon = true}, try_to_get, queue);
    EXPECT(run(p) == 0);
}

void pool_in_process(const std::string& method, bool close_stdin) {
    if (close_stdin) ::close(STDIN_FILENO);
    const auto pool = mp::get_context(method).Pool(4);
    const auto squares = pool.map([](int x) { return x * x; }, {1, 2, 3, 4, 5, 6, 7});
    EXPECT((squares == std::vector{1, 4, 9, 16, 25, 36, 49}));
    pool.close();
    pool.join();
}

}  // namespace

TEST_CASE("TestStdinBadfiledescriptor.test_queue_in_process", "[process][conformance]") {
    EVERY_START_METHOD;
    const bool close_stdin = GENERATE(false, true);
    CHECK(run(mp::get_context(method).Process(queue_in_process, method, close_stdin)) == 0);
}

TEST_CASE("TestStdinBadfiledescriptor.test_pool_in_process", "[process][conformance]") {
    EVERY_START_METHOD;
    const bool close_stdin = GENERATE(false, true);
    CHECK(run(mp::get_context(method).Process(pool_in_process, method, close_stdin)) == 0);
}
