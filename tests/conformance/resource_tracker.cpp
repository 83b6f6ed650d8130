// SPDX-License-Identifier: BSL-1.0
//
// CPython's TestResourceTracker, as far as it is about a tracker at work; what it does at the end
// of its tree is tests/programs/leaked_names.cpp. Here it has no pipe that a process could hold or
// write to, and is nobody's child, so several of CPython's cases say that nothing comes of either.
#include <multiprocessing/runtime/resource_tracker.hpp>
#include <multiprocessing/shared_memory.hpp>
#include <multiprocessing/util.hpp>

#include "conformance/helpers.hpp"
#include "support/catch.hpp"
#include "support/logging.hpp"

#include <atomic>
#include <cerrno>
#include <csignal>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

namespace mp = multiprocessing;
using namespace support;
using mp::runtime::ensure_resource_tracker;
using mp::runtime::resource_tracker_pid;
using mp::shared_memory::SharedMemory;

namespace {

/// Sends the tracker a signal. Whether another is there when one is needed; and what is said of it.
std::vector<std::string> warnings_after(int signal, bool& another) {
    const RestoreLog restore;
    std::vector<std::string> warnings;
    mp::get_logger().set_level(mp::log_level::warning);
    mp::get_logger().set_sink(
        [&](const mp::LogRecord& record) { warnings.push_back(record.message); });
    ensure_resource_tracker();
    warnings.clear();
    const int before = *resource_tracker_pid();
    ::kill(before, signal);
    if (signal == SIGKILL) CHECK(eventually([] { return !resource_tracker_pid(); }));
    const SharedMemory memory({.create = true, .size = 1});
    another = resource_tracker_pid() != before;
    memory.unlink();
    return warnings;
}

/// Forked by the program itself; the exit code of `f` in it.
template <class F>
int in_raw_child(F f) {
    const int pid = ::fork();
    if (pid == 0) ::_exit(f());
    int status = 0;
    ::waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

}  // namespace

TEST_CASE("TestResourceTracker.test_resource_tracker_sigint", "[resource_tracker][conformance]") {
    bool another = false;
    CHECK(warnings_after(SIGINT, another).empty());
    CHECK_FALSE(another);
}

TEST_CASE("TestResourceTracker.test_resource_tracker_sigterm", "[resource_tracker][conformance]") {
    bool another = false;
    CHECK(warnings_after(SIGTERM, another).empty());
    CHECK_FALSE(another);
}

TEST_CASE("TestResourceTracker.test_resource_tracker_sigkill", "[resource_tracker][conformance]") {
    bool another = false;
    const auto warnings = warnings_after(SIGKILL, another);
    CHECK(another);
    REQUIRE(warnings.size() == 1);
    CHECK_THAT(warnings[0],
               Catch::Matchers::ContainsSubstring("resource_tracker: process died unexpectedly"));
}

TEST_CASE("TestResourceTracker.test_resource_tracker_reused", "[resource_tracker][conformance]") {
    EVERY_START_METHOD;
    ensure_resource_tracker();
    Children children(method);
    children.start(
        [](int tracker) {
            ensure_resource_tracker();
            EXPECT(resource_tracker_pid() == tracker);
        },
        *resource_tracker_pid());
    CHECK(children.join());
}

TEST_CASE("TestResourceTracker.test_too_long_name_resource", "[resource_tracker][conformance]") {
    try {
        static_cast<void>(SharedMemory({.name = std::string(512, 'a'), .create = true, .size = 1}));
        FAIL("a name of 512 bytes");
    } catch (const std::system_error& error) {
        CHECK(error.code().value() == ENAMETOOLONG);
    }
}

TEST_CASE("TestResourceTracker.test_resource_tracker_blocked_signals",
          "[resource_tracker][conformance]") {
    if (const auto tracker = resource_tracker_pid()) {
        ::kill(*tracker, SIGKILL);
        REQUIRE(eventually([] { return !resource_tracker_pid(); }));
    }
    sigset_t blocked;
    sigset_t before;
    sigset_t after;
    ::sigemptyset(&blocked);
    ::sigaddset(&blocked, SIGINT);
    ::sigaddset(&blocked, SIGUSR1);
    ::pthread_sigmask(SIG_SETMASK, &blocked, &before);
    ensure_resource_tracker();
    ::pthread_sigmask(SIG_SETMASK, &before, &after);
    CHECK(resource_tracker_pid());
    for (const int signal : {SIGINT, SIGUSR1}) CHECK(::sigismember(&after, signal) == 1);
    CHECK(::sigismember(&after, SIGTERM) == 0);
}

TEST_CASE("TestResourceTracker.test_resource_tracker_mp_fork_reuse_and_prompt_reap",
          "[resource_tracker][conformance]") {
    ensure_resource_tracker();
    const auto before = resource_tracker_pid();
    Children children("fork");
    children.start([] {
        const SharedMemory memory({.create = true, .size = 1});
        memory.unlink();
    });
    CHECK(children.join());
    CHECK(resource_tracker_pid() == before);
    CHECK(::waitpid(-1, nullptr, WNOHANG) ==
          -1);  // there is nobody whom this process would have to reap
    CHECK(errno == ECHILD);
}

TEST_CASE("TestResourceTracker.test_resource_tracker_raw_fork_prompt_reap",
          "[resource_tracker][conformance]") {
    ensure_resource_tracker();
    const auto before = resource_tracker_pid();
    CHECK(in_raw_child([&] {
              const SharedMemory memory({.create = true, .size = 1});
              memory.unlink();
              return resource_tracker_pid() == before ? 0 : 1;
          }) == 0);
    CHECK(resource_tracker_pid() == before);
}

TEST_CASE("TestResourceTracker.test_resource_tracker_lock_reinit_after_fork",
          "[resource_tracker][conformance]") {
    // Children are forked while another thread makes, tracks and unlinks.
    std::atomic<bool> enough{false};
    std::thread other([&] {
        while (!enough) SharedMemory({.create = true, .size = 1}).unlink();
    });
    for (int i = 0; i < 20; ++i) {
        CHECK(in_raw_child([] {
                  ::alarm(20);
                  SharedMemory({.create = true, .size = 1}).unlink();
                  return 0;
              }) == 0);
    }
    enough = true;
    other.join();
}
