// SPDX-License-Identifier: BSL-1.0
//
// CPython's test of util.ForkAwareThreadLock.
#include <multiprocessing/os/fork.hpp>

#include "conformance/helpers.hpp"
#include "support/catch.hpp"

#include <cstdint>
#include <string>

namespace mp = multiprocessing;
using namespace support;

namespace {

constexpr int generations = 5;

constinit mp::os::ForkAwareMutex mutex;

// Each generation starts the next with the mutex held. The last one says how often forks have been
// noticed on the way to it.
void descend(int generation, const mp::Connection& out, const std::string& method) {
    EXPECT(mutex.try_lock());
    if (generation > 1) {
        Children children(method);
        children.start(descend, generation - 1, out, method);
        EXPECT(children.join());
    } else {
        out.send(mp::os::fork_epoch());
    }
    mutex.unlock();
}

}  // namespace

// In CPython every generation once registered its parent's locks again, for the next to renew
// twice.
TEST_CASE("TestForkAwareThreadLock.test_lock", "[process][conformance]") {
    EVERY_START_METHOD;
    const auto [reader, writer] = mp::Pipe(false);
    const std::uint32_t here = mp::os::fork_epoch();
    Children children(method);
    mutex.lock();
    children.start(descend, generations, writer, method);
    mutex.unlock();
    CHECK(receive<std::uint32_t>(reader) <= here + generations);
    CHECK(children.join());
}
