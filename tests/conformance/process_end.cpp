// SPDX-License-Identifier: BSL-1.0
//
// CPython's tests of Process, the second half: how a process ends, and what may be done then.
#include <multiprocessing/process.hpp>

#include <multiprocessing/queues.hpp>
#include <multiprocessing/synchronize.hpp>

#include "conformance/helpers.hpp"
#include "runtime/helpers.hpp"
#include "support/catch.hpp"

#include <concepts>
#include <csignal>
#include <functional>
#include <iostream>
#include <optional>
#include <ostream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <unistd.h>

namespace mp = multiprocessing;
using namespace support;

namespace {

void run_until_signal(const mp::Event& running) {
    running.set();
    wait_for_signal();
}

int interrupted = -1;

// A handler cannot unwind the target as Python's KeyboardInterrupt does: it tells the target.
void run_until_interrupt(const mp::Event& running) {
    const auto [reading, writing] = mp::os::pipe();
    interrupted = writing.get();
    std::signal(SIGINT,
                [](int) { [[maybe_unused]] const auto written = ::write(interrupted, "", 1); });
    running.set();
    if (mp::os::poll(reading.get(), mp::os::poll_in, mp::Timeout(patient))) mp::exit(1);
}

void run_without_handler(const mp::Event& running) {
    std::signal(SIGINT, SIG_DFL);
    run_until_signal(running);
}

int end_by(void (mp::Process::*how)() const, const std::string& method,
           void (*target)(const mp::Event&) = run_until_signal) {
    const mp::Event running;
    const auto p = mp::get_context(method).Process({.daemon = true}, target, running);
    p.start();
    CHECK(p.is_alive());
    CHECK(is_active(p));
    CHECK(p.exitcode() == std::nullopt);
    CHECK(elapsed([&] { p.join(0); }) < no_time);
    CHECK(p.is_alive());
    CHECK(elapsed([&] { p.join(-1); }) < no_time);
    CHECK(p.is_alive());
    CHECK(running.wait(patient));
    std::invoke(how, p);
    p.join(patient);
    CHECK_FALSE(p.is_alive());
    CHECK_FALSE(is_active(p));
    return ended(p);
}

void start_two_threads(const mp::Event& event) {
    const mp::Event over;
    std::thread([=] {
        over.wait(patient);  // nobody sets it
        event.clear();
    }).detach();
    const mp::Event leaving;
    const std::jthread joined([=] {
        leaving.wait(patient);
        event.set();
    });
    leaving.set();
}

enum class Break { close, fill, remove };

std::ostream& stream_of(int descriptor) {
    return descriptor == STDOUT_FILENO ? std::cout : std::cerr;
}

void break_stream(int descriptor, Break how) {
    if (how == Break::close) {
        ::close(descriptor);
    } else if (how == Break::fill) {
        const mp::os::Fd full(::open("/dev/full", O_WRONLY | O_CLOEXEC));
        ::dup2(full.get(), descriptor);
    } else {
        stream_of(descriptor).rdbuf(nullptr);
    }
}

void write_and_set(const mp::Event& event, int descriptor) {
    stream_of(descriptor) << '\n';
    event.set();
}

void break_and_set(const mp::Event& event, int descriptor, Break how) {
    break_stream(descriptor, how);
    write_and_set(event, descriptor);
}

}  // namespace

TEST_CASE("_TestProcess.test_interrupt", "[process][conformance]") {
    EVERY_START_METHOD;
    CHECK(end_by(&mp::Process::interrupt, method, run_until_interrupt) == 1);
}

TEST_CASE("_TestProcess.test_interrupt_no_handler", "[process][conformance]") {
    EVERY_START_METHOD;
    CHECK(end_by(&mp::Process::interrupt, method, run_without_handler) == -SIGINT);
}

TEST_CASE("_TestProcess.test_terminate", "[process][conformance]") {
    EVERY_START_METHOD;
    CHECK(end_by(&mp::Process::terminate, method) == -SIGTERM);
}

TEST_CASE("_TestProcess.test_kill", "[process][conformance]") {
    EVERY_START_METHOD;
    CHECK(end_by(&mp::Process::kill, method) == -SIGKILL);
}

TEST_CASE("_TestProcess.test_active_children", "[process][conformance]") {
    EVERY_START_METHOD;
    CHECK(mp::active_children() == std::vector<mp::Process>{});
    const mp::Event event;
    const auto p = mp::get_context(method).Process(
        {.daemon = true}, [](const mp::Event& e) { e.wait(patient); }, event);
    CHECK_FALSE(is_active(p));
    p.start();
    CHECK(is_active(p));
    event.set();
    CHECK(ended(p) == 0);
    CHECK_FALSE(is_active(p));
}

TEST_CASE("_TestProcess.test_many_processes", "[process][conformance]") {
    EVERY_START_METHOD;
    const auto ctx = mp::get_context(method);
    const auto start_many = [&](const auto& target) {
        std::vector<mp::Process> processes;
        for (int i = 0; i < (method == "spawn" ? 5 : 100); ++i) {
            processes.push_back(ctx.Process(target));
            processes.back().start();
        }
        return processes;
    };
    // So many that those who start and reap them are overwhelmed with events.
    for (const auto& p : start_many([] {})) CHECK(ended(p) == 0);
    const auto waiting = start_many([] { wait_for_signal(); });
    for (const auto& p : waiting) p.terminate();
    for (const auto& p : waiting) CHECK(ended(p) == -SIGTERM);
}

TEST_CASE("_TestProcess.test_sentinel", "[process][conformance]") {
    EVERY_START_METHOD;
    const mp::Event event;
    const auto p =
        mp::get_context(method).Process([](const mp::Event& e) { e.wait(patient); }, event);
    CHECK_THROWS_AS(p.sentinel(), mp::ValueError);
    p.start();
    const std::same_as<int> auto sentinel = p.sentinel();
    CHECK(mp::connection::wait({sentinel}, 0).empty());
    event.set();
    CHECK(ended(p) == 0);
    CHECK_FALSE(mp::connection::wait({sentinel}, 1).empty());
}

TEST_CASE("_TestProcess.test_close", "[process][conformance]") {
    EVERY_START_METHOD;
    const mp::Queue<int> queue;
    const auto p = mp::get_context(method).Process(
        {.daemon = true}, [](const mp::Queue<int>& q) { mp::exit(q.get(patient)); }, queue);
    p.start();
    CHECK(p.is_alive());
    CHECK_THROWS_AS(p.close(), mp::ValueError);
    queue.put(0);
    CHECK(ended(p) == 0);
    CHECK_FALSE(p.is_alive());
    const auto open_before = open_descriptors();
    p.close();
    CHECK(open_descriptors() < open_before);
    CHECK_THROWS_AS(p.is_alive(), mp::ValueError);
    CHECK_THROWS_AS(p.join(), mp::ValueError);
    CHECK_THROWS_AS(p.terminate(), mp::ValueError);
    p.close();
}

TEST_CASE("_TestProcess.test_wait_for_threads", "[process][conformance]") {
    EVERY_START_METHOD;
    const mp::Event event;
    CHECK(run(mp::get_context(method).Process(start_two_threads, event)) == 0);
    CHECK(event.is_set());
}

TEST_CASE("_TestProcess.test_error_on_stdio_flush_1", "[process][conformance]") {
    EVERY_START_METHOD;
    const int descriptor = GENERATE(STDOUT_FILENO, STDERR_FILENO);
    const Break how = GENERATE(Break::close, Break::fill, Break::remove);
    const mp::Event event;
    // The parent is a process of its own, for what it breaks stays broken.
    const auto parent = mp::get_context("fork").Process([=] {
        break_stream(descriptor, how);
        mp::exit(run(mp::get_context(method).Process(write_and_set, event, descriptor)));
    });
    CHECK(run(parent) == 0);
    CHECK(event.is_set());
}

TEST_CASE("_TestProcess.test_error_on_stdio_flush_2", "[process][conformance]") {
    EVERY_START_METHOD;
    const int descriptor = GENERATE(STDOUT_FILENO, STDERR_FILENO);
    const Break how = GENERATE(Break::close, Break::fill, Break::remove);
    const mp::Event event;
    CHECK(run(mp::get_context(method).Process(break_and_set, event, descriptor, how)) == 0);
    CHECK(event.is_set());
}
