// SPDX-License-Identifier: BSL-1.0
//
// Each case but the last breaks one rule of the guard: what the program says about it is compared
// in CMakeLists.txt.
#include <support/catch.hpp>

#include <csignal>
#include <cstdio>
#include <string>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

TEST_CASE("open descriptor") {
    int ends[2];
    REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
}

TEST_CASE("unjoined child") {
    const pid_t child = ::fork();
    if (child == 0) ::_exit(0);
    siginfo_t info{};
    REQUIRE(::waitid(P_PID, static_cast<id_t>(child), &info, WEXITED | WNOWAIT) == 0);
}

TEST_CASE("running child") {
    const pid_t child = ::fork();
    if (child == 0) {
        ::pause();
        ::_exit(0);
    }
    REQUIRE(child > 0);
}

TEST_CASE("name in shared memory") {
    // The guard only says so: it is this process that must remove it.
    static std::string name;
    name = "/mp-guard-test-" + std::to_string(::getpid());
    const int fd = ::shm_open(name.c_str(), O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
    REQUIRE(fd >= 0);
    ::close(fd);
    REQUIRE(std::atexit([] { ::shm_unlink(name.c_str()); }) == 0);
}

TEST_CASE("hang") {
    for (;;) ::pause();
}

TEST_CASE("escaped child") {
    const pid_t child = ::fork();
    if (child == 0) return;
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    REQUIRE(WIFEXITED(status));
    REQUIRE(WEXITSTATUS(status) == 99);
}

TEST_CASE("nothing left") {
    int ends[2];
    REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
    const pid_t child = ::fork();
    if (child == 0) {
        // Ended by the signal, not by a handler of Catch2's.
        ::raise(SIGTERM);
        ::_exit(0);
    }
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    REQUIRE(WIFSIGNALED(status));
    REQUIRE(WTERMSIG(status) == SIGTERM);
    ::close(ends[0]);
    ::close(ends[1]);
}
