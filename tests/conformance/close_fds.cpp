// SPDX-License-Identifier: BSL-1.0
//
// CPython's test of what a child that is not forked inherits.
#include <multiprocessing/process.hpp>

#include "conformance/helpers.hpp"
#include "support/catch.hpp"

#include <cerrno>

#include <fcntl.h>

namespace mp = multiprocessing;
using namespace support;

TEST_CASE("TestCloseFds.test_closefd", "[process][conformance]") {
    EVERY_START_METHOD;
    const auto [reader, writer] = mp::Pipe();
    const auto [socket, other] = mp::os::socket_pair();
    // As high as no descriptor of the child's own, and not close-on-exec.
    const mp::os::Fd high(::fcntl(socket.get(), F_DUPFD, 50));
    REQUIRE(high.get() >= 50);
    Children children(method);
    children.start([](const mp::Connection& out,
                      int descriptor) { out.send(::fcntl(descriptor, F_GETFD) < 0 ? errno : 0); },
                   writer, high.get());
    CHECK(receive<int>(reader) == (method == "fork" ? 0 : EBADF));
    CHECK(children.join());
}
