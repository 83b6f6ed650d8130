// SPDX-License-Identifier: BSL-1.0

#include <multiprocessing/runtime/exit.hpp>

#include "runtime/helpers.hpp"
#include "support/catch.hpp"

#include <csignal>
#include <cstddef>
#include <cstdlib>
#include <stdexcept>
#include <string>

#include <pthread.h>
#include <unistd.h>

namespace mp = multiprocessing;
using support::run;

namespace {

std::string order_of_exit(void (*leave)()) {
    auto [reader, writer] = mp::Pipe(false);
    mp::Process p([leave, w = writer] {
        const auto say = [w](const char* what) { return [w, what] { w.send(what); }; };
        mp::runtime::register_exit(say("a"), 0);
        mp::runtime::register_exit(say("b"), 10);
        mp::runtime::register_exit(say("c"), 0);
        const auto taken_back = mp::runtime::register_exit(say("d"), 5);
        if (!mp::runtime::unregister_exit(taken_back)) mp::exit(1);
        if (mp::runtime::unregister_exit(taken_back)) mp::exit(2);
        mp::runtime::register_exit([] { throw std::runtime_error("one that fails"); }, 7);
        mp::runtime::register_exit([say] { mp::runtime::register_exit(say("e")); }, -1);
        leave();
    });
    support::Capture errors(STDERR_FILENO);
    CHECK(run(p) == 0);
    CHECK_THAT(errors.text(),
               Catch::Matchers::ContainsSubstring("std::runtime_error: one that fails"));
    std::string order;
    writer.close();
    while (reader.poll()) {
        try {
            order += reader.recv<std::string>();
        } catch (const mp::EOFError&) {
            break;
        }
    }
    return order;
}

}  // namespace

TEST_CASE("exit functions run by priority, the last first, whatever the way out", "[exit][fork]") {
    CHECK(order_of_exit([] {}) == "bcae");
    CHECK(order_of_exit([] { mp::exit(); }) == "bcae");
    CHECK(order_of_exit([] { std::exit(0); }) == "bcae");
}

TEST_CASE("no backtrace is taken of what is no error", "[exit][fork]") {
    const auto calls_written_down = [](void (*leave)()) {
        auto [reader, writer] = mp::Pipe(false);
        support::Capture errors(STDERR_FILENO);
        run(mp::Process([leave, w = writer] {
            mp::runtime::register_exit([w] { w.send(mp::os::last_watched_throw().size); });
            leave();
        }));
        return reader.recv<std::size_t>();
    };
    CHECK(calls_written_down([] { mp::exit(3); }) == 0);
    CHECK(calls_written_down([] { ::pthread_exit(nullptr); }) == 0);
    CHECK(calls_written_down([] { throw 3; }) > 0);
}

TEST_CASE("a child does not run its parent's exit functions", "[exit][fork]") {
    auto [reader, writer] = mp::Pipe(false);
    const auto id = mp::runtime::register_exit([w = writer] { w.send("parent"); });
    CHECK(run(mp::Process([] {})) == 0);
    CHECK(run(mp::Process([] { std::exit(0); })) == 0);
    CHECK_FALSE(reader.poll());
    CHECK(mp::runtime::unregister_exit(id));
}

TEST_CASE("daemons are asked to end before they are killed", "[exit][fork][spawn]") {
    const auto method = GENERATE(from_range(mp::get_all_start_methods()));
    auto [reader, writer] = mp::Pipe(false);
    const mp::Process parent(
        [](const std::string& start_method, const mp::Connection& out) {
            auto [ready, tell] = mp::Pipe(false);
            const mp::Process daemon = mp::get_context(start_method).Process(
                {.daemon = true},
                [](const mp::Connection& to, const mp::Connection& started) {
                    static int descriptor;
                    descriptor = to.fileno();
                    std::signal(SIGTERM, [](int) {
                        const auto written = ::write(descriptor, "asked", 5);
                        ::_exit(written == 5 ? 0 : 1);
                    });
                    support::report_and_wait(started);
                },
                out, tell);
            daemon.start();
            static_cast<void>(ready.recv<int>());
        },
        method, writer);
    CHECK(run(parent) == 0);
    writer.close();
    char asked[8] = {};
    CHECK(::read(reader.fileno(), asked, sizeof asked) == 5);
    CHECK(std::string(asked) == "asked");
}
