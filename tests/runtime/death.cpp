// SPDX-License-Identifier: BSL-1.0
//
// What becomes of children when their parent dies.

#include "runtime/helpers.hpp"
#include "support/catch.hpp"

#include <csignal>
#include <string>
#include <thread>

namespace mp = multiprocessing;
using support::ended;
using support::report_and_wait;
using support::wait_for_signal;

namespace {

enum class Kind { daemon, die_with_parent, ordinary };

mp::Process child_of(const std::string& method, Kind kind, const mp::Connection& out) {
    return mp::get_context(method).Process(
        {.daemon = kind == Kind::daemon, .die_with_parent = kind == Kind::die_with_parent},
        report_and_wait, out);
}

// Waits for the end of a killed parent's child, which alone holds the writing end and does not end
// by itself.
void await_end_after_parent(const std::string& method, Kind kind, bool from_a_thread) {
    auto [reader, writer] = mp::Pipe(false);
    mp::Process parent([method, kind, from_a_thread, w = writer] {
        const auto start = [&] { child_of(method, kind, w).start(); };
        if (from_a_thread) {
            std::thread(start).join();
        } else {
            start();
        }
        w.close();
        wait_for_signal();
    });
    parent.start();
    writer.close();
    static_cast<void>(reader.recv<int>());
    CHECK_FALSE(reader.poll(0.05));  // it outlives the thread that started it
    parent.kill();
    CHECK(ended(parent) == -SIGKILL);
    REQUIRE(reader.poll(30));
    CHECK_THROWS_AS(reader.recv<int>(), mp::EOFError);
}

}  // namespace

TEST_CASE("daemons end with a killed parent", "[process][death][fork][spawn]") {
    const auto method = GENERATE(from_range(mp::get_all_start_methods()));
    const bool from_a_thread = GENERATE(false, true);
    await_end_after_parent(method, Kind::daemon, from_a_thread);
}

TEST_CASE("so do processes that die with their parent", "[process][death][fork][spawn]") {
    const auto method = GENERATE(from_range(mp::get_all_start_methods()));
    const bool from_a_thread = GENERATE(false, true);
    await_end_after_parent(method, Kind::die_with_parent, from_a_thread);
}

TEST_CASE("ordinary children live on and see their parent's end", "[process][death][fork][spawn]") {
    const auto method = GENERATE(from_range(mp::get_all_start_methods()));
    auto [ours, theirs] = mp::Pipe();
    mp::Process parent([method, t = theirs] {
        const auto child = mp::get_context(method).Process(
            [](const mp::Connection& c) {
                const auto mother = mp::parent_process().value();
                c.send(mother.is_alive());
                mother.join();
                c.send(mother.is_alive());
                static_cast<void>(c.recv<int>());
            },
            t);
        child.start();
        t.close();
        wait_for_signal();
    });
    parent.start();
    theirs.close();
    CHECK(ours.recv<bool>());
    parent.kill();
    CHECK(ended(parent) == -SIGKILL);
    CHECK_FALSE(ours.recv<bool>());
    ours.send(0);
    CHECK_THROWS_AS(ours.recv<int>(), mp::EOFError);
}

TEST_CASE("a parent that ends in order terminates daemons and joins the rest",
          "[process][death][fork][spawn]") {
    const auto method = GENERATE(from_range(mp::get_all_start_methods()));
    auto [reader, writer] = mp::Pipe(false);
    mp::Process parent([method, w = writer] {
        child_of(method, Kind::daemon, w).start();
        mp::Process({.daemon = true}, [w] {
            std::signal(SIGTERM, SIG_IGN);  // one that does not listen is killed
            report_and_wait(w);
        }).start();
    });
    parent.start();
    writer.close();
    CHECK(ended(parent) == 0);
    const auto read_to_the_end = [r = reader] {
        for (;;) static_cast<void>(r.recv<int>());
    };
    CHECK_THROWS_AS(read_to_the_end(), mp::EOFError);
}
