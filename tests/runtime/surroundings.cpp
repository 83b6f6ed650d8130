// SPDX-License-Identifier: BSL-1.0
//
// The options of a process beyond Python's: what it finds around it.

#include <multiprocessing/runtime/surroundings.hpp>

#include "runtime/helpers.hpp"
#include "support/catch.hpp"

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <system_error>
#include <vector>

#include <sched.h>
#include <unistd.h>

namespace mp = multiprocessing;
namespace fs = std::filesystem;
using Catch::Matchers::ContainsSubstring;
using support::ended;
using support::run;

namespace {

std::string value_of(const char* name) {
    const char* const value = std::getenv(name);
    return value == nullptr ? "(not set)" : value;
}

std::vector<int> allowed_processors() {
    cpu_set_t set;
    CPU_ZERO(&set);
    ::sched_getaffinity(0, sizeof set, &set);
    std::vector<int> allowed;
    for (int processor = 0; processor < CPU_SETSIZE; ++processor) {
        if (CPU_ISSET(static_cast<std::size_t>(processor), &set)) allowed.push_back(processor);
    }
    return allowed;
}

// Neither of these makes a process.
template <class Error>
void check_refused(const mp::Process& process, int code, const std::string& named) {
    try {
        process.start();
        FAIL_CHECK("it was started");
        ended(process);
    } catch (const Error& error) {
        CHECK(error.code().value() == code);
        CHECK_THAT(error.what(), ContainsSubstring(named));
    }
    CHECK_FALSE(process.pid().has_value());
    CHECK(mp::active_children().empty());
}

}  // namespace

TEST_CASE("a child has variables of its own", "[process][fork][spawn][forkserver]") {
    const auto ctx = mp::get_context(GENERATE(from_range(mp::get_all_start_methods())));
    ::setenv("MP_TEST_KEPT", "kept", 1);
    ::setenv("MP_TEST_CHANGED", "before", 1);
    auto [a, b] = mp::Pipe();
    const mp::Process p(
        {.context = ctx, .env = {{"MP_TEST_CHANGED", "after = x"}, {"MP_TEST_NEW", ""}}},
        [](const mp::Connection& c) {
            for (const char* name : {"MP_TEST_KEPT", "MP_TEST_CHANGED", "MP_TEST_NEW"}) {
                c.send(value_of(name));
            }
        },
        b);
    CHECK(run(p) == 0);
    CHECK(a.recv<std::string>() == "kept");
    CHECK(a.recv<std::string>() == "after = x");
    CHECK(a.recv<std::string>().empty());
    CHECK(value_of("MP_TEST_CHANGED") == "before");
    CHECK(value_of("MP_TEST_NEW") == "(not set)");
    ::unsetenv("MP_TEST_KEPT");
    ::unsetenv("MP_TEST_CHANGED");
}

TEST_CASE("a child works in a folder of its own", "[process][fork][spawn][forkserver]") {
    const auto ctx = mp::get_context(GENERATE(from_range(mp::get_all_start_methods())));
    const auto tell = [](const mp::Connection& c) { c.send(fs::current_path().string()); };
    const fs::path before = fs::current_path();
    const fs::path folder = fs::temp_directory_path() / ("cwd-" + std::to_string(::getpid()));
    fs::create_directories(folder / "inner");
    auto [a, b] = mp::Pipe();

    CHECK(run(mp::Process({.context = ctx, .cwd = folder}, tell, b)) == 0);
    CHECK(a.recv<std::string>() == folder);
    // Without the option it is the parent's at the start, under forkserver too.
    fs::current_path(folder);
    CHECK(run(mp::Process({.context = ctx}, tell, b)) == 0);
    CHECK(a.recv<std::string>() == folder);
    CHECK(run(mp::Process({.context = ctx, .cwd = "inner"}, tell, b)) == 0);
    CHECK(a.recv<std::string>() == folder / "inner");
    fs::current_path(before);

    fs::remove_all(folder);
    check_refused<std::system_error>(mp::Process({.context = ctx, .cwd = folder}, tell, b), ENOENT,
                                     folder);
    check_refused<std::system_error>(
        mp::Process({.context = ctx, .cwd = "/proc/self/exe"}, tell, b), ENOTDIR, "/proc/self/exe");
    CHECK(fs::current_path() == before);
}

TEST_CASE("a child is kept to its processors", "[process][fork][spawn][forkserver]") {
    const auto ctx = mp::get_context(GENERATE(from_range(mp::get_all_start_methods())));
    const auto allowed = allowed_processors();
    auto [a, b] = mp::Pipe();
    const auto tell = [](const mp::Connection& c) {
        c.send(allowed_processors());
        c.send(mp::process_cpu_count());
    };
    CHECK(run(mp::Process({.context = ctx, .cpu_affinity = {allowed.back()}}, tell, b)) == 0);
    CHECK(a.recv<std::vector<int>>() == std::vector{allowed.back()});
    CHECK(a.recv<int>() == 1);
    CHECK(run(mp::Process({.context = ctx}, tell, b)) == 0);
    CHECK(a.recv<std::vector<int>>() == allowed);
    CHECK(a.recv<int>() >= 1);
    check_refused<std::system_error>(
        mp::Process({.context = ctx, .cpu_affinity = {100'000}}, tell, b), EINVAL, "100000");
    CHECK(allowed_processors() == allowed);
}

TEST_CASE("a child's libraries use so many threads", "[process][fork][spawn][forkserver]") {
    const auto ctx = mp::get_context(GENERATE(from_range(mp::get_all_start_methods())));
    const std::string before = value_of("OMP_NUM_THREADS");
    auto [a, b] = mp::Pipe();
    const mp::Process p(
        {.context = ctx, .env = {{"MKL_NUM_THREADS", "5"}}, .inner_threads = 2},
        [](const mp::Connection& c) {
            for (const char* name :
                 {"OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"}) {
                c.send(value_of(name));
            }
        },
        b);
    CHECK(run(p) == 0);
    CHECK(a.recv<std::string>() == "2");
    CHECK(a.recv<std::string>() == "2");
    CHECK(a.recv<std::string>() == "5");  // who names one means it
    CHECK(value_of("OMP_NUM_THREADS") == before);
}

TEST_CASE("options that no process can have are refused when it is made", "[process]") {
    const auto made = [](mp::ProcessOptions options) {
        return mp::Process(std::move(options), [] {});
    };
    CHECK_THROWS_AS(made({.env = {{"", "x"}}}), mp::ValueError);
    CHECK_THROWS_AS(made({.env = {{"A=B", "x"}}}), mp::ValueError);
    CHECK_THROWS_AS(made({.env = {{std::string("A\0B", 3), "x"}}}), mp::ValueError);
    CHECK_THROWS_AS(made({.env = {{"A", std::string("x\0y", 3)}}}), mp::ValueError);
    CHECK_THROWS_WITH(made({.env = {{"A=B", "x"}}}), ContainsSubstring("'A=B'"));
    CHECK_THROWS_AS(made({.cwd = std::string("/tmp\0x", 6)}), mp::ValueError);
    CHECK_THROWS_AS(made({.cpu_affinity = {0, -1}}), mp::ValueError);
    CHECK_THROWS_WITH(made({.cpu_affinity = {-1}}), ContainsSubstring("no processor -1"));
    CHECK_THROWS_AS(made({.inner_threads = 0}), mp::ValueError);
    CHECK_THROWS_WITH(made({.inner_threads = -3}), ContainsSubstring("-3"));
}
