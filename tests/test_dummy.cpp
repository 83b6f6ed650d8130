// SPDX-License-Identifier: BSL-1.0

#include <multiprocessing/dummy.hpp>

#include <multiprocessing/exceptions.hpp>

#include "runtime/helpers.hpp"
#include "support/catch.hpp"

#include <functional>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include <unistd.h>

namespace dummy = multiprocessing::dummy;
namespace mp = multiprocessing;
using Catch::Matchers::ContainsSubstring;

TEST_CASE("a dummy process is a thread", "[dummy]") {
    const dummy::Queue<int> queue;
    int seen = 0;
    std::thread::id thread;
    const dummy::Process process(
        {.name = "worker"},
        [&thread](const dummy::Queue<int>& out, int& here, std::unique_ptr<int> number) {
            thread = std::this_thread::get_id();
            here = *number;
            out.put(*number + 1);
        },
        queue, std::ref(seen), std::make_unique<int>(5));
    CHECK(process.name() == "worker");
    CHECK_FALSE(process.is_alive());
    CHECK_FALSE(process.pid().has_value());
    CHECK_FALSE(process.exitcode().has_value());
    process.start();
    CHECK(queue.get(true, 30) == 6);
    process.join(30);
    CHECK(seen == 5);
    CHECK(thread != std::this_thread::get_id());
    CHECK(process.exitcode() == 0);
    CHECK(process.pid() == ::getpid());
    CHECK(process.ident() == ::getpid());
    CHECK_FALSE(process.is_alive());
}

TEST_CASE("dummy processes are refused what processes are", "[dummy]") {
    const dummy::Event go;
    const dummy::Process process([&] { go.wait(30); });
    CHECK_THROWS_AS(process.join(), mp::AssertionError);
    process.set_daemon(true);
    CHECK(process.daemon());
    process.start();
    CHECK_THROWS_AS(process.start(), mp::AssertionError);
    CHECK_THROWS_AS(process.set_daemon(false), mp::AssertionError);
    process.join(0);
    process.join(-1);
    CHECK(process.is_alive());
    go.set();
    process.join(30);
    process.join(30);
    CHECK_FALSE(process.is_alive());
    const dummy::Process itself([] {
        CHECK_THROWS_AS(dummy::current_process().join(), mp::AssertionError);
    });
    itself.start();
    itself.join(30);
}

TEST_CASE("a dummy process tells how it ended", "[dummy]") {
    const auto end_of = [](auto f) {
        const dummy::Process process({.name = "ender"}, f);
        process.start();
        process.join(30);
        return process.exitcode().value_or(-1000);
    };
    CHECK(end_of([] {}) == 0);
    CHECK(end_of([] { mp::exit(3); }) == 3);
    support::Capture errors(STDERR_FILENO);
    CHECK(end_of([] { throw std::out_of_range("far"); }) == 1);
    CHECK_THAT(errors.text(), ContainsSubstring("Thread ender: std::out_of_range: far"));
}

TEST_CASE("dummy processes know each other", "[dummy]") {
    const dummy::Event go;
    const dummy::Event looked;
    std::string name;
    std::size_t grandchildren = 0;
    const dummy::Process process({.name = "child"}, [&] {
        name = dummy::current_process().name();
        const dummy::Process grandchild([&] { go.wait(30); });
        grandchild.start();
        grandchildren = dummy::active_children().size();
        looked.set();
        grandchild.join(30);
    });
    const auto before = dummy::active_children().size();
    process.start();
    CHECK(dummy::active_children().size() == before + 1);
    CHECK(dummy::active_children().back() == process);
    CHECK(looked.wait(30));
    go.set();
    process.join(30);
    CHECK(name == "child");
    CHECK(grandchildren == 1);
    CHECK(dummy::active_children().size() == before);
}

TEST_CASE("a dummy process prints as Python's", "[dummy]") {
    const dummy::Process process({.name = "p", .daemon = true}, [] {});
    const auto text = [&] {
        std::ostringstream out;
        out << process;
        return out.str();
    };
    CHECK(text() == "<DummyProcess(p, initial daemon)>");
    process.start();
    process.join(30);
    CHECK(text() == "<DummyProcess(p, stopped daemon)>");
}

TEST_CASE("the dummy's pool is one of threads", "[dummy]") {
    const dummy::Pool pool(2);
    int offset = 4;
    CHECK(pool.map([&](int x) { return x + offset; }, dummy::range(3)) == std::vector{4, 5, 6});
    pool.close();
    pool.join();
}

TEST_CASE("a program's end waits for dummy processes that are no daemons", "[dummy]") {
    // In a child, whose end can be seen.
    const auto [reading, writing] = mp::Pipe(false);
    const mp::Process child([writing = writing] {
        const dummy::Process last([writing] {
            std::this_thread::yield();
            writing.send(7);
        });
        last.start();
    });
    child.start();
    CHECK(support::ended(child) == 0);
    REQUIRE(reading.poll(0));
    CHECK(reading.recv<int>() == 7);
}
