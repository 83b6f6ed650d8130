// SPDX-License-Identifier: BSL-1.0
#include "support/catch.hpp"

#include <multiprocessing/os/fd.hpp>
#include <multiprocessing/os/fork.hpp>
#include <multiprocessing/os/memfd.hpp>
#include <multiprocessing/os/process.hpp>

#include <algorithm>

#include <sys/wait.h>
#include <unistd.h>

namespace os = multiprocessing::os;

TEST_CASE("no descriptor of ours takes a standard stream's number", "[os][fd]") {
    const int pid = os::fork();
    if (pid == 0) {
        for (int fd = 0; fd <= STDERR_FILENO; ++fd) ::close(fd);
        const auto [reading, writing] = os::pipe();
        const auto [first, second] = os::socket_pair();
        const os::EventFd event;
        const os::Fd memory = os::memory_file("empty", {});
        const os::Fd process = os::open_pidfd(::getpid());
        const int lowest = std::min({reading.get(), writing.get(), first.get(), second.get(),
                                     event.get(), memory.get(), process.get()});
        ::_exit(lowest > STDERR_FILENO ? 0 : 1);
    }
    int status = -1;
    ::waitpid(pid, &status, 0);
    CHECK(status == 0);
}
