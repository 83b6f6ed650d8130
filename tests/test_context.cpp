// SPDX-License-Identifier: BSL-1.0

#include <multiprocessing/context.hpp>

#include <multiprocessing/connection.hpp>

#include "runtime/helpers.hpp"
#include "support/catch.hpp"

#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

namespace mp = multiprocessing;
using Catch::Matchers::ContainsSubstring;
using support::run;

namespace {

// The default method is the whole process's: each case looks from a fresh child of its own.
template <class F>
int in_a_child(F f) {
    return run(mp::get_context("fork").Process([f] {
        mp::set_start_method(std::nullopt, true);
        f();
    }));
}

void expect(bool right, int code) {
    if (!right) mp::exit(code);
}

}  // namespace

TEST_CASE("start methods are listed, the default first", "[context]") {
    CHECK(mp::get_all_start_methods() == std::vector<std::string>{"fork", "spawn", "forkserver"});
}

TEST_CASE("a context has its method", "[context]") {
    const auto spawn = mp::get_context("spawn");
    CHECK(spawn.get_start_method() == "spawn");
    CHECK(mp::get_context("fork").get_start_method() == "fork");
    CHECK(spawn.get_context() == spawn);
    CHECK(spawn.get_context("fork") == mp::get_context("fork"));
    CHECK_THROWS_AS(spawn.set_start_method("fork"), mp::ValueError);
    CHECK_THROWS_WITH(spawn.set_start_method("spawn", true),
                      ContainsSubstring("cannot set start method of concrete context"));
}

TEST_CASE("an unknown method is a ValueError", "[context]") {
    CHECK_THROWS_AS(mp::get_context("x"), mp::ValueError);
    CHECK_THROWS_WITH(mp::get_context("x"), ContainsSubstring("cannot find context for 'x'"));
    CHECK_THROWS_WITH(mp::get_context("x"), ContainsSubstring("'fork', 'spawn', 'forkserver'"));
    CHECK_THROWS_AS(mp::set_start_method("x", true), mp::ValueError);
    CHECK_THROWS_AS(mp::get_context("spawn").get_context("x"), mp::ValueError);
}

TEST_CASE("asking for the default fixes it", "[context]") {
    CHECK(in_a_child([] {
              expect(mp::get_start_method(true) == std::nullopt, 1);
              expect(mp::get_start_method() == "fork", 2);
              expect(mp::get_start_method(true) == "fork", 3);
          }) == 0);
    CHECK(in_a_child([] {
              expect(mp::get_context().get_start_method() == "fork", 1);
              expect(mp::get_start_method(true) == "fork", 2);
          }) == 0);
    CHECK(in_a_child([] {
              run(mp::Process([] {}));
              expect(mp::get_start_method(true) == "fork", 1);
          }) == 0);
}

TEST_CASE("the default is set once", "[context]") {
    CHECK(in_a_child([] {
              mp::set_start_method("spawn");
              expect(mp::get_start_method() == "spawn", 1);
              expect(mp::get_context() == mp::get_context("spawn"), 2);
              try {
                  mp::set_start_method("fork");
                  mp::exit(3);
              } catch (const std::runtime_error& error) {
                  expect(std::string(error.what()).find("context has already been set") == 0, 4);
              }
              mp::set_start_method("fork", true);
              expect(mp::get_start_method() == "fork", 5);
              mp::set_start_method(std::nullopt, true);
              expect(mp::get_start_method(true) == std::nullopt, 6);
          }) == 0);
}

TEST_CASE("a process of a concrete context leaves the default alone", "[context]") {
    CHECK(in_a_child([] {
              for (const auto& method : mp::get_all_start_methods()) {
                  expect(run(mp::get_context(method).Process([] {})) == 0, 1);
              }
              mp::freeze_support();
              expect(mp::get_start_method(true) == std::nullopt, 2);
          }) == 0);
}

TEST_CASE("a process without a context uses the default, and a child has it too", "[context]") {
    CHECK(in_a_child([] {
              mp::set_start_method("spawn");
              auto [a, b] = mp::Pipe();
              static bool set_here = false;
              set_here = true;  // a spawned child has none of this memory
              mp::Process p(
                  [](const mp::Connection& c) {
                      c.send(set_here);
                      c.send(mp::get_start_method(true));
                  },
                  b);
              expect(run(p) == 0, 1);
              expect(!a.recv<bool>(), 2);
              expect(a.recv<std::optional<std::string>>() == "spawn", 3);
          }) == 0);
}

TEST_CASE("a child of a context has its method as the default", "[context]") {
    CHECK(in_a_child([] {
              for (const auto& method : mp::get_all_start_methods()) {
                  auto [a, b] = mp::Pipe();
                  const auto p = mp::get_context(method).Process(
                      [](const mp::Connection& c) { c.send(mp::get_start_method(true)); }, b);
                  expect(run(p) == 0, 1);
                  expect(a.recv<std::optional<std::string>>() == method, 2);
                  expect(mp::get_start_method(true) == std::nullopt, 3);
              }
          }) == 0);
}

TEST_CASE("a context is an option of a process", "[context]") {
    const auto ctx = mp::get_context("spawn");
    static bool set_here = false;
    set_here = true;
    CHECK(run(mp::Process({.context = ctx}, [] { mp::exit(set_here ? 1 : 0); })) == 0);
    CHECK(run(ctx.Process({.name = "named"},
                          [] { mp::exit(mp::current_process().name() == "named" ? 0 : 1); })) == 0);
    set_here = false;
}
