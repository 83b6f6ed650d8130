// SPDX-License-Identifier: BSL-1.0

#include <multiprocessing/process.hpp>

#include <multiprocessing/connection.hpp>
#include <multiprocessing/context.hpp>
#include <multiprocessing/exceptions.hpp>

#include "runtime/helpers.hpp"
#include "support/catch.hpp"
#include "support/sanitized.hpp"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <memory>
#include <optional>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <pthread.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

namespace mp = multiprocessing;
using namespace std::chrono_literals;
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::EndsWith;
using Catch::Matchers::StartsWith;
using support::ended;
using support::errors_of;
using support::report_and_wait;
using support::run;

namespace {

void add(const mp::Connection& out, int a, const std::string& b) {
    out.send(b + std::to_string(a));
}
void take_c_string(const mp::Connection& out, const char* text) { out.send(text); }
void take_reference(const mp::Connection& out, std::vector<int>& v) {
    v.push_back(4);
    out.send(v);
}
void take_unique(const mp::Connection& out, std::unique_ptr<int> p) { out.send(*p); }

struct Adder {
    int base = 0;
    void add(const mp::Connection& out, int n) const { out.send(base + n); }
    void operator()(const mp::Connection& out) const { out.send(base); }
    template <class Archive>
    void serialize(Archive& archive, unsigned) {
        archive& base;
    }
};

struct Forked : mp::Process {
    mp::Connection out;
    int number = 0;
    using mp::Process::Process;
    void run() override { out.send(number * 2); }
};

struct Spawned : mp::Spawnable<Spawned> {
    mp::Connection out;
    std::string text;
    using Spawnable::Spawnable;
    void run() override {
        out.send(text + "/" + name() + "/" + mp::current_process().name());
        mp::exit(*this == mp::current_process() ? 0 : 1);
    }
    template <class Archive>
    void serialize(Archive& archive, unsigned) {
        archive& out& text;
    }
};

struct SpawnedFromOptions : mp::Spawnable<SpawnedFromOptions> {
    explicit SpawnedFromOptions(mp::ProcessOptions options) : Spawnable(std::move(options)) {}
    void run() override {
        mp::Process nested([] {});
        mp::exit(nested.name() == "Process-" + std::to_string(number) + ":1" ? 0 : 1);
    }
    unsigned number = 0;
    template <class Archive>
    void serialize(Archive& archive, unsigned) {
        archive& number;
    }
};

std::vector<std::string> methods() { return mp::get_all_start_methods(); }

#if defined(TEST_IS_SANITIZED)
constexpr int many_starts = 50;  // a sanitizer makes each take 50 ms
#else
constexpr int many_starts = 1000;
#endif

std::ptrdiff_t mappings() {
    std::ifstream maps("/proc/self/maps");
    return std::count(std::istreambuf_iterator<char>(maps), {}, '\n');
}

}  // namespace

TEST_CASE("a process runs its target with copies of the arguments", "[process][fork][spawn]") {
    const auto ctx = mp::get_context(GENERATE(from_range(methods())));
    auto [a, b] = mp::Pipe();
    std::string text = "A";

    CHECK(run(ctx.Process(add, b, 1, text)) == 0);
    CHECK(a.recv<std::string>() == "A1");
    CHECK(run(ctx.Process(add, b, 2, "literal")) == 0);
    CHECK(a.recv<std::string>() == "literal2");
    CHECK(run(ctx.Process(take_c_string, b, "literal")) == 0);
    CHECK(a.recv<std::string>() == "literal");
    CHECK(run(ctx.Process(take_reference, b, std::vector{1, 2, 3})) == 0);
    CHECK(a.recv<std::vector<int>>() == std::vector{1, 2, 3, 4});
    CHECK(run(ctx.Process(take_unique, b, std::make_unique<int>(5))) == 0);
    CHECK(a.recv<int>() == 5);
    CHECK(run(ctx.Process(&Adder::add, Adder{10}, b, 5)) == 0);
    CHECK(a.recv<int>() == 15);
    CHECK(run(ctx.Process(Adder{7}, b)) == 0);
    CHECK(a.recv<int>() == 7);
    CHECK(run(ctx.Process([](mp::Connection out) { out.send(::getpid()); }, b)) == 0);
    CHECK(a.recv<int>() != ::getpid());
    CHECK(run(ctx.Process(mp::partial(add, b, 3), "bound")) == 0);
    CHECK(a.recv<std::string>() == "bound3");
}

TEST_CASE("a process without a target does nothing", "[process][fork][spawn]") {
    const auto ctx = mp::get_context(GENERATE(from_range(methods())));
    CHECK(run(ctx.Process()) == 0);
    CHECK(run(mp::Process()) == 0);
    CHECK(run(mp::Process({.name = "idle", .context = ctx})) == 0);
}

TEST_CASE("a forked process takes any callable", "[process][fork]") {
    auto [a, b] = mp::Pipe();
    auto owned = std::make_unique<int>(3);
    int local = 4;
    CHECK(run(mp::Process([&, b = b, owned = std::move(owned)] { b.send(*owned + local); })) == 0);
    CHECK(a.recv<int>() == 7);
    std::function<void()> erased = [b = b] { b.send("function"); };
    CHECK(run(mp::Process(erased)) == 0);
    CHECK(a.recv<std::string>() == "function");
    CHECK(run(mp::Process([](int& n) { mp::exit(++n); }, std::ref(local))) == 5);
    CHECK(local == 4);
}

TEST_CASE("options come before the target", "[process]") {
    mp::Process p(
        {.name = "w", .daemon = true}, [](int) {}, 1);
    CHECK(p.name() == "w");
    CHECK(p.daemon());
    mp::Process q({.name = "only a name"});
    CHECK(q.name() == "only a name");
    CHECK_FALSE(q.daemon());
    mp::Process r({.daemon = false}, [] {});
    CHECK_THAT(r.name(), ContainsSubstring("Process-"));
    CHECK_FALSE(r.daemon());
    mp::Process s({.authkey = mp::bytes("key")}, [] {});
    CHECK(s.authkey().str() == "key");
    CHECK(mp::Process([] {}).authkey() == mp::current_process().authkey());
}

TEST_CASE("a derived class overrides run", "[process][fork]") {
    auto [a, b] = mp::Pipe();
    Forked p({.name = "derived"});
    p.out = b;
    p.number = 21;
    CHECK(run(p) == 0);
    CHECK(a.recv<int>() == 42);
    CHECK(p.name() == "derived");
}

TEST_CASE("a mere copy of a derived object is not started", "[process][fork][spawn]") {
    Forked w({.name = "derived"});
    const mp::Process copy = w;
    mp::Process assigned;
    assigned = Forked({.name = "assigned"});
    for (const mp::Process& slice : {copy, assigned}) {
        CHECK_THROWS_AS(slice.start(), mp::AssertionError);
        CHECK_THROWS_WITH(slice.start(), ContainsSubstring("Forked") && ContainsSubstring("run()"));
        CHECK_FALSE(slice.pid().has_value());
    }
    CHECK_THROWS_WITH(copy.start(), ContainsSubstring("'derived'"));
    // The object itself may be, and what is copied from its class in full.
    auto [a, b] = mp::Pipe();
    w.out = b;
    w.number = 4;
    Forked whole = w;
    CHECK(run(whole) == 0);
    CHECK(a.recv<int>() == 8);
    CHECK(copy.exitcode() == 0);  // it is a handle for all else
}

TEST_CASE("a derived class that is Spawnable travels", "[process][fork][spawn]") {
    const auto ctx = mp::get_context(GENERATE(from_range(methods())));
    auto [a, b] = mp::Pipe();
    Spawned p({.name = "travelled", .context = ctx});
    p.out = b;
    p.text = "text";
    CHECK(run(p) == 0);
    CHECK(a.recv<std::string>() == "text/travelled/travelled");

    SpawnedFromOptions q({.context = ctx});
    const std::string name = q.name();
    q.number = static_cast<unsigned>(std::stoul(name.substr(name.find('-') + 1)));
    CHECK(run(q) == 0);
}

TEST_CASE("a derived class that cannot travel says so", "[process][spawn]") {
    Forked p({.name = "stuck", .context = mp::get_context("spawn")});
    CHECK_THROWS_WITH(p.start(), ContainsSubstring("stuck") && ContainsSubstring("Forked") &&
                                     ContainsSubstring("mp::Spawnable<"));
    CHECK(p.pid() == std::nullopt);
}

TEST_CASE("what cannot travel is a PicklingError and no process", "[process][spawn]") {
    const auto ctx = mp::get_context("spawn");
    int captured = 3;
    mp::Process closure = ctx.Process([captured] { mp::exit(captured); });
    CHECK_THROWS_AS(closure.start(), mp::PicklingError);
    CHECK_THROWS_WITH(closure.start(), ContainsSubstring("lambda") || ContainsSubstring("$_"));
    CHECK_THROWS_WITH(closure.start(),
                      ContainsSubstring("mp::partial") && ContainsSubstring("fork"));
    CHECK(closure.pid() == std::nullopt);
    CHECK(closure.exitcode() == std::nullopt);
    CHECK_FALSE(closure.is_alive());
    mp::Process argument = ctx.Process([](std::thread*) {}, static_cast<std::thread*>(nullptr));
    CHECK_THROWS_WITH(argument.start(),
                      ContainsSubstring("argument") && ContainsSubstring("std::thread*"));
    CHECK(mp::active_children().empty());
}

TEST_CASE("exit codes", "[process][fork][spawn]") {
    const auto ctx = mp::get_context(GENERATE(from_range(methods())));
    CHECK(run(ctx.Process([] {})) == 0);
    CHECK(run(ctx.Process([] { mp::exit(); })) == 0);
    CHECK(run(ctx.Process([] { mp::exit(3); })) == 3);
    CHECK(run(ctx.Process([] { mp::exit(256 + 7); })) == 7);
    CHECK(run(ctx.Process([] { mp::exit(-1); })) == 255);
    CHECK(run(ctx.Process([] { std::exit(4); })) == 4);
    CHECK(run(ctx.Process([] { ::_exit(5); })) == 5);
    CHECK(run(ctx.Process([] { std::raise(SIGKILL); })) == -SIGKILL);
    CHECK(run(ctx.Process([] { ::pthread_exit(nullptr); })) == 0);
    CHECK(run(ctx.Process([] {
              try {
                  mp::exit(6);
              } catch (const std::exception&) {  // SystemExit is none
                  mp::exit(1);
              }
          })) == 6);
}

TEST_CASE("exit with a message prints it", "[process][fork][spawn]") {
    const auto ctx = mp::get_context(GENERATE(from_range(methods())));
    const auto p = ctx.Process([] { mp::exit("out of milk"); });
    CHECK(errors_of(p) == "out of milk\n");
    CHECK(p.exitcode() == 1);
}

// C linkage: what the linker calls them is what they are called here.
extern "C" {
[[gnu::noinline]] void process_test_thrower(const mp::Connection& destroyed) {
    struct Guard {
        const mp::Connection& tell;
        ~Guard() { tell.send(1); }
    };
    const Guard guard{destroyed};
    throw std::out_of_range("far away");
}
[[gnu::noinline]] void process_test_rethrower(const mp::Connection& destroyed) {
    try {
        process_test_thrower(destroyed);
    } catch (const std::exception&) {
        throw;
    }
}
}

TEST_CASE("an exception out of the target is reported", "[process][fork][spawn]") {
    const auto ctx = mp::get_context(GENERATE(from_range(methods())));
    auto [a, b] = mp::Pipe();
    const auto p = ctx.Process({.name = "thrower"}, process_test_thrower, b);
    const std::string text = errors_of(p);
    CHECK_THAT(text, StartsWith("Process thrower (pid " + std::to_string(p.pid().value()) +
                                "): std::out_of_range: far away\n"));
    CHECK(p.exitcode() == 1);
    REQUIRE(a.poll());
    CHECK(a.recv<int>() == 1);
    const auto q = ctx.Process([] { throw 3; });
    CHECK_THAT(errors_of(q), ContainsSubstring("): int\n"));
    CHECK(q.exitcode() == 1);
}

TEST_CASE("the report of an exception tells where it was thrown", "[process][fork][spawn]") {
    const auto ctx = mp::get_context(GENERATE(from_range(methods())));
    auto [a, b] = mp::Pipe();
    const std::string thrown = errors_of(ctx.Process(process_test_thrower, b));
    // The first line is the thrower's, without the C++ runtime before it, and tells the place
    // twice: from the function and in the file.
    CHECK_THAT(thrown, ContainsSubstring("\n  #0 process_test_thrower"));
    CHECK_THAT(thrown,
               ContainsSubstring("+0x") &&
                   ContainsSubstring(
                       " (" + std::filesystem::read_symlink("/proc/self/exe").string() + "+0x"));
    CHECK_THAT(thrown, EndsWith(")\n"));
    CHECK_THAT(thrown, !ContainsSubstring("run_and_leave") && !ContainsSubstring("main+"));
    const std::string thrown_again = errors_of(ctx.Process(process_test_rethrower, b));
    CHECK_THAT(thrown_again, ContainsSubstring("\n  #0 process_test_rethrower"));
    CHECK_THAT(thrown_again, !ContainsSubstring("process_test_thrower"));
    // A child's child, on top of its parent's stack where it is forked.
    const std::string nested = errors_of(ctx.Process(
        [](const std::string& method, const mp::Connection& destroyed) {
            const auto inner = mp::get_context(method).Process(process_test_thrower, destroyed);
            inner.start();
            inner.join();
            process_test_rethrower(destroyed);
        },
        ctx.get_start_method(), b));
    const auto second = nested.find("Process ", 1);
    REQUIRE(second != std::string::npos);
    CHECK_THAT(nested.substr(0, second), ContainsSubstring("\n  #0 process_test_thrower") &&
                                             !ContainsSubstring("#1 process_test_rethrower"));
    CHECK_THAT(nested.substr(second), ContainsSubstring("\n  #0 process_test_rethrower"));
}

TEST_CASE("a backtrace is of an uncaught exception, and can be forgone", "[process][fork][spawn]") {
    const auto ctx = mp::get_context(GENERATE(from_range(methods())));
    auto [a, b] = mp::Pipe();
    CHECK(errors_of(ctx.Process(
              [](const mp::Connection& destroyed) {
                  try {
                      process_test_thrower(destroyed);
                  } catch (const std::exception&) {}
              },
              b)) == "");
    CHECK(errors_of(ctx.Process([] { mp::exit("out of milk"); })) == "out of milk\n");
    CHECK(errors_of(ctx.Process([] { ::pthread_exit(nullptr); })) == "");

    ::setenv("MULTIPROCESSING_BACKTRACE", "0", 1);
    const auto p = ctx.Process({.name = "thrower"}, process_test_thrower, b);
    const std::string text = errors_of(p);
    ::unsetenv("MULTIPROCESSING_BACKTRACE");
    CHECK(text == "Process thrower (pid " + std::to_string(p.pid().value()) +
                      "): std::out_of_range: far away\n");
}

TEST_CASE("terminate, kill and interrupt", "[process][fork][spawn]") {
    const auto ctx = mp::get_context(GENERATE(from_range(methods())));
    auto [a, b] = mp::Pipe();
    const auto stop = [&, a = a, b = b](void (mp::Process::*how)() const) {
        const auto p = ctx.Process(report_and_wait, b);
        p.start();
        CHECK(a.recv<int>() == p.pid());
        CHECK(p.is_alive());
        CHECK(p.exitcode() == std::nullopt);
        p.join(0);
        p.join(-1);
        CHECK(p.is_alive());
        (p.*how)();
        const int code = ended(p);
        CHECK_FALSE(p.is_alive());
        (p.*how)();  // nothing any more
        p.join();
        return code;
    };
    CHECK(stop(&mp::Process::terminate) == -SIGTERM);
    CHECK(stop(&mp::Process::kill) == -SIGKILL);
    CHECK(stop(&mp::Process::interrupt) == -SIGINT);
}

TEST_CASE("attributes of a process over its life", "[process][fork][spawn]") {
    const auto ctx = mp::get_context(GENERATE(from_range(methods())));
    auto [a, b] = mp::Pipe();
    mp::Process p = ctx.Process([](const mp::Connection& c) { c.send(c.recv<int>()); }, b);
    CHECK(p.pid() == std::nullopt);
    CHECK(p.ident() == std::nullopt);
    CHECK(p.exitcode() == std::nullopt);
    CHECK_FALSE(p.is_alive());
    CHECK_THAT(p.repr(), ContainsSubstring("initial"));
    p.set_name("renamed");
    p.set_daemon(true);
    p.set_authkey(mp::bytes("secret"));
    p.start();
    CHECK(p.pid().value() > 0);
    CHECK(p.ident() == p.pid());
    CHECK(p.is_alive());
    CHECK(p.name() == "renamed");
    CHECK(p.daemon());
    CHECK(p.authkey().str() == "secret");
    CHECK_THAT(p.repr(), ContainsSubstring("started daemon"));
    CHECK(mp::connection::wait({p.sentinel()}, 0).empty());
    a.send(1);
    CHECK(mp::connection::wait({p.sentinel()}, 30).size() == 1);
    p.join();
    CHECK(p.exitcode() == 0);
    CHECK(mp::connection::wait({p.sentinel()}, 0).size() == 1);
    std::ostringstream text;
    text << p;
    CHECK(text.str() == "<Process name='renamed' pid=" + std::to_string(p.pid().value()) +
                            " parent=" + std::to_string(::getpid()) +
                            " stopped exitcode=0 daemon>");
}

TEST_CASE("wrong use of a process is an error that names it", "[process][fork][spawn]") {
    const auto ctx = mp::get_context(GENERATE(from_range(methods())));
    mp::Process p = ctx.Process({.name = "misused"}, [] {});
    const auto names_it = ContainsSubstring("misused");
    CHECK_THROWS_AS(p.join(), mp::AssertionError);
    CHECK_THROWS_WITH(p.join(), ContainsSubstring("can only join a started process") && names_it);
    CHECK_THROWS_AS(p.terminate(), mp::AssertionError);
    CHECK_THROWS_AS(p.kill(), mp::AssertionError);
    CHECK_THROWS_AS(p.interrupt(), mp::AssertionError);
    CHECK_THROWS_AS(p.sentinel(), mp::ValueError);
    CHECK_THROWS_WITH(p.sentinel(), ContainsSubstring("process not started") && names_it);
    CHECK(run(p) == 0);
    CHECK_THROWS_AS(p.start(), mp::AssertionError);
    CHECK_THROWS_WITH(p.start(), ContainsSubstring("cannot start a process twice") && names_it);
    CHECK_THROWS_AS(p.set_daemon(true), mp::AssertionError);
    CHECK_THROWS_WITH(p.set_daemon(true),
                      ContainsSubstring("process has already started") && names_it);
}

TEST_CASE("close gives a process up", "[process][fork]") {
    auto [a, b] = mp::Pipe();
    mp::Process p(report_and_wait, b);
    p.start();
    static_cast<void>(a.recv<int>());
    CHECK_THROWS_AS(p.close(), mp::ValueError);
    CHECK_THROWS_WITH(p.close(),
                      ContainsSubstring("Cannot close a process while it is still running"));
    p.kill();
    p.join();
    const auto before = support::open_descriptors();
    p.close();
    CHECK(support::open_descriptors() == before - 1);
    p.close();
    CHECK_THROWS_AS(p.join(), mp::ValueError);
    CHECK_THROWS_WITH(p.is_alive(), ContainsSubstring("process object is closed"));
    CHECK_THROWS_AS(p.start(), mp::ValueError);
    CHECK_THROWS_AS(p.terminate(), mp::ValueError);
    CHECK_THROWS_AS(p.exitcode(), mp::ValueError);
    CHECK_THROWS_AS(p.pid(), mp::ValueError);
    CHECK_THROWS_AS(p.sentinel(), mp::ValueError);
    CHECK_THAT(p.repr(), ContainsSubstring("closed"));

    mp::Process never_started([] {});
    never_started.close();
    CHECK_THROWS_AS(never_started.start(), mp::ValueError);
}

TEST_CASE("copies of a handle are the same process", "[process][fork]") {
    auto [a, b] = mp::Pipe();
    const mp::Process p(report_and_wait, b);
    mp::Process copy(p);
    CHECK(copy == p);
    CHECK_FALSE(copy == mp::Process());
    copy.start();
    CHECK(p.is_alive());
    static_cast<void>(a.recv<int>());
    CHECK(mp::active_children() == std::vector{p});
    p.kill();
    copy.join();
    CHECK(p.exitcode() == -SIGKILL);
}

TEST_CASE("the target is destroyed in the parent once the child runs", "[process][fork][spawn]") {
    const auto ctx = mp::get_context(GENERATE(from_range(methods())));
    auto argument = std::make_shared<int>(1);
    const auto p = ctx.Process([](const std::shared_ptr<int>& n) { mp::exit(*n); }, argument);
    CHECK(argument.use_count() == 2);
    p.start();
    CHECK(argument.use_count() == 1);
    CHECK(ended(p) == 1);
}

TEST_CASE("active_children are those that run", "[process][fork][spawn]") {
    const auto ctx = mp::get_context(GENERATE(from_range(methods())));
    auto [a, b] = mp::Pipe();
    CHECK(mp::active_children().empty());
    mp::Process p = ctx.Process(report_and_wait, b);
    CHECK(mp::active_children().empty());
    p.start();
    CHECK(mp::active_children() == std::vector{p});
    mp::Process q = ctx.Process([] {});
    q.start();
    CHECK(mp::connection::wait({q.sentinel()}, 30).size() == 1);
    CHECK(mp::active_children() == std::vector{p});  // q was reaped by asking
    CHECK(q.exitcode() == 0);
    static_cast<void>(a.recv<int>());
    p.terminate();
    p.join();
    CHECK(mp::active_children().empty());
}

TEST_CASE("the main process is a process too", "[process]") {
    const auto main = mp::current_process();
    CHECK(main.name() == "MainProcess");
    CHECK_FALSE(main.daemon());
    CHECK(main.is_alive());
    CHECK(main.exitcode() == std::nullopt);
    CHECK(main.pid() == ::getpid());
    CHECK(main.authkey().size() == 32);
    CHECK(main == mp::current_process());
    CHECK_FALSE(mp::parent_process().has_value());
    main.close();
    CHECK(main.is_alive());
    CHECK_THROWS_AS(main.start(), mp::AssertionError);
    CHECK_THROWS_AS(main.join(), mp::AssertionError);
    CHECK_THROWS_AS(main.set_daemon(true), mp::AssertionError);
}

TEST_CASE("processors are counted", "[process]") {
    CHECK(mp::cpu_count() >= 1);
    CHECK(mp::process_cpu_count() >= 1);
    CHECK(mp::process_cpu_count() <= mp::cpu_count());
}

TEST_CASE("a child knows itself and its parent", "[process][fork][spawn]") {
    const auto ctx = mp::get_context(GENERATE(from_range(methods())));
    auto [a, b] = mp::Pipe();
    const auto p = ctx.Process(
        [](const mp::Connection& c) {
            const auto me = mp::current_process();
            const auto parent = mp::parent_process().value();
            parent.join(0);
            c.send(std::tuple(me.name(), me.pid().value(), me.is_alive(), me.daemon(),
                              me.authkey().str(), parent.name(), parent.pid().value(),
                              parent.is_alive(), mp::active_children().size(),
                              me.exitcode().has_value()));
        },
        b);
    CHECK(run(p) == 0);
    const auto [name, pid, alive, daemon, key, parent_name, parent_pid, parent_alive, children,
                has_exitcode] = a.recv<std::tuple<std::string, int, bool, bool, std::string,
                                                  std::string, int, bool, std::size_t, bool>>();
    CHECK(name == p.name());
    CHECK(pid == p.pid());
    CHECK(alive);
    CHECK_FALSE(daemon);
    CHECK(key == p.authkey().str());
    CHECK(parent_name == "MainProcess");
    CHECK(parent_pid == ::getpid());
    CHECK(parent_alive);
    CHECK(children == 0);
    CHECK_FALSE(has_exitcode);
}

TEST_CASE("processes nest, and are named after their place", "[process][fork][spawn]") {
    const auto method = GENERATE(from_range(methods()));
    const auto ctx = mp::get_context(method);
    auto [a, b] = mp::Pipe();
    const auto p = ctx.Process(
        [](const mp::Connection& c, const std::string& name_of_method) {
            const auto nested = mp::get_context(name_of_method);
            for (int i = 0; i < 2; ++i) {
                const auto q = nested.Process(
                    [](const mp::Connection& d) { d.send(mp::current_process().name()); }, c);
                if (run(q) != 0) mp::exit(1);
            }
        },
        b, method);
    CHECK(run(p) == 0);
    CHECK(a.recv<std::string>() == p.name() + ":1");
    CHECK(a.recv<std::string>() == p.name() + ":2");
}

TEST_CASE("a child joins its own children before it ends", "[process][fork][spawn]") {
    const auto ctx = mp::get_context(GENERATE(from_range(methods())));
    auto [reader, writer] = mp::Pipe(false);
    auto [go, goer] = mp::Pipe(false);
    const auto p = ctx.Process(
        [](mp::Connection w, mp::Connection g) {
            mp::Process grandchild(
                [](const mp::Connection& out, const mp::Connection& in) {
                    static_cast<void>(in.recv<int>());
                    out.send(1);
                },
                w, g);
            grandchild.start();
            auto [ready, its_end] = mp::Pipe(false);
            mp::Process daemon({.daemon = true}, report_and_wait, its_end);
            daemon.start();
            w.send(ready.recv<int>());
        },
        writer, go);
    p.start();
    writer.close();
    CHECK(reader.recv<int>() > 1);  // the daemon runs
    p.join(0);
    CHECK(p.is_alive());
    goer.send(0);
    CHECK(ended(p) == 0);
    CHECK(reader.recv<int>() == 1);
    CHECK_THROWS_AS(reader.recv<int>(), mp::EOFError);  // the daemon was terminated
}

TEST_CASE("a daemon has no children, and its flag is inherited", "[process][fork][spawn]") {
    const auto ctx = mp::get_context(GENERATE(from_range(methods())));
    const auto p = ctx.Process({.name = "d", .daemon = true}, [] {
        mp::Process child([] {});
        if (!child.daemon()) mp::exit(2);
        try {
            child.start();
        } catch (const mp::AssertionError& error) {
            const std::string what = error.what();
            const bool right =
                what.find("daemonic processes are not allowed to have children") == 0 &&
                what.find("'d'") != std::string::npos;
            mp::exit(right ? 0 : 3);
        }
        mp::exit(4);
    });
    CHECK(run(p) == 0);
}

TEST_CASE("only the creator starts, joins and asks", "[process][fork]") {
    auto [a, b] = mp::Pipe();
    mp::Process started(report_and_wait, b);
    started.start();
    static_cast<void>(a.recv<int>());
    mp::Process fresh([] {});
    mp::Process sibling([started, fresh] {
        const auto refused = [](const auto& call, const std::string& words) {
            try {
                call();
            } catch (const mp::AssertionError& error) {
                return std::string(error.what()).find(words) == 0;
            }
            return false;
        };
        if (!refused([&] { started.join(); }, "can only join a child process")) mp::exit(1);
        if (!refused([&] { static_cast<void>(started.is_alive()); },
                     "can only test a child process"))
            mp::exit(2);
        if (!refused([&] { fresh.start(); },
                     "can only start a process object created by current process"))
            mp::exit(3);
        if (started.exitcode()) mp::exit(4);
        if (!mp::active_children().empty()) mp::exit(5);
        started.terminate();  // a signal may come from anywhere
    });
    CHECK(run(sibling) == 0);
    CHECK(ended(started) == -SIGTERM);
}

TEST_CASE("a child has no stdin", "[process][fork][spawn]") {
    const auto ctx = mp::get_context(GENERATE(from_range(methods())));
    const mp::os::Fd ours = mp::os::duplicate(STDIN_FILENO);
    {
        const auto [reading, writing] = mp::os::pipe();
        REQUIRE(::write(writing.get(), "x", 1) == 1);
        ::dup2(reading.get(), STDIN_FILENO);
    }
    const int end = run(ctx.Process([] { mp::exit(std::getchar() == EOF ? 0 : 1); }));
    ::dup2(ours.get(), STDIN_FILENO);
    CHECK(end == 0);
}

TEST_CASE("what is buffered is written once", "[process][fork][spawn]") {
    const auto ctx = mp::get_context(GENERATE(from_range(methods())));
    support::Capture capture(STDOUT_FILENO);
    std::printf("parent ");
    const auto p = ctx.Process([] { std::printf("child "); });
    p.start();
    const std::string text = capture.text();
    CHECK(ended(p) == 0);
    CHECK(text == "parent child ");
}

TEST_CASE("a child may have closed its streams", "[process][fork]") {
    CHECK(run(mp::Process([] {
              for (int fd = 0; fd < 3; ++fd) ::close(fd);
              std::printf("lost");
          })) == 0);
}

TEST_CASE("processes start from several threads", "[process][fork][spawn]") {
    const auto ctx = mp::get_context(GENERATE(from_range(methods())));
    std::vector<mp::Process> processes(16);
    for (auto& p : processes) p = ctx.Process([] { mp::exit(9); });
    std::vector<std::thread> threads;
    for (std::size_t t = 0; t < 4; ++t) {
        threads.emplace_back([&processes, t] {
            for (std::size_t i = t; i < processes.size(); i += 4) processes[i].start();
        });
    }
    for (auto& thread : threads) thread.join();
    std::set<int> pids;
    for (const auto& p : processes) {
        CHECK(ended(p) == 9);
        pids.insert(p.pid().value());
    }
    CHECK(pids.size() == processes.size());
    CHECK(mp::active_children().empty());
}

TEST_CASE("several threads may join one process", "[process][fork]") {
    auto [a, b] = mp::Pipe();
    mp::Process p([](const mp::Connection& c) { mp::exit(c.recv<int>()); }, b);
    p.start();
    std::vector<std::thread> threads;
    std::atomic<int> seen = 0;
    for (int t = 0; t < 4; ++t) {
        threads.emplace_back([&] {
            p.join();
            seen += p.exitcode().value();
        });
    }
    a.send(7);
    for (auto& thread : threads) thread.join();
    CHECK(seen == 28);
}

TEST_CASE("the library runs no thread before a feature needs one",
          "[process][fork][spawn][forkserver]") {
    const mp::Process p([] {
        const mp::Queue<int> queue;
        const mp::Lock lock;
        for (const auto& method : methods()) {
            const auto child = mp::get_context(method).Process(
                [](const mp::Queue<int>& q, const mp::Lock& l) {
                    const std::lock_guard guard(l);
                    q.put(mp::os::thread_count());
                },
                queue, lock);
            if (run(child) != 0 || queue.get(30.0) != 1) mp::exit(1);
        }
        mp::exit(mp::os::thread_count() == 1 ? 0 : 2);
    });
    CHECK(run(p) == 0);
}

TEST_CASE("a thousand starts leave nothing behind", "[process][fork][spawn][forkserver]") {
    const auto ctx = mp::get_context(GENERATE(from_range(methods())));
    for (int i = 0; i < 5; ++i) run(ctx.Process([] {}));
    const auto descriptors = support::open_descriptors();
    const auto maps = mappings();
    int ended_well = 0;
    for (int i = 0; i < many_starts; ++i) ended_well += run(ctx.Process([] {})) == 0 ? 1 : 0;
    CHECK(ended_well == many_starts);
    CHECK(support::open_descriptors() == descriptors);
    CHECK(mappings() <= maps);
    mp::runtime::this_process().fork_server.stop();
    CHECK((::waitpid(-1, nullptr, WNOHANG) == -1 && errno == ECHILD));  // no zombie either
}

TEST_CASE("a spawned child has the descriptors it needs and no others", "[process][spawn]") {
    auto [a, b] = mp::Pipe();
    auto [other, another] = mp::os::pipe();
    const int inheritable = ::dup(other.get());  // not close-on-exec
    const auto p = mp::get_context("spawn").Process(
        [](const mp::Connection& c) {
            std::vector<int> open;
            for (int fd = 0; fd < 1000; ++fd) {
                if (::fcntl(fd, F_GETFD) >= 0) open.push_back(fd);
            }
            c.send(open.size());
            c.send(std::getenv("MULTIPROCESSING_SPAWN") == nullptr);
        },
        b);
    CHECK(run(p) == 0);
    // The standard streams, the connection, the parent's sentinel, the arena.
    CHECK(a.recv<std::size_t>() == 6);
    CHECK(a.recv<bool>());
    ::close(inheritable);
}

// UBSan's look at a vptr opens descriptors itself, and finds fault where it cannot.
#if !defined(TEST_IS_SANITIZED)
TEST_CASE("a lack of descriptors leaves nothing half done", "[process][fork][spawn]") {
    const auto method = GENERATE(from_range(methods()));
    // In a child, whose limits are its own.
    mp::Process p([method] {
        const auto ctx = mp::get_context(method);
        mp::Process q = ctx.Process([] { mp::exit(8); });
        rlimit before{};
        ::getrlimit(RLIMIT_NOFILE, &before);
        // Ever one more descriptor, until the start succeeds.
        for (rlim_t most = 3;; ++most) {
            rlimit limit{most, before.rlim_max};
            ::setrlimit(RLIMIT_NOFILE, &limit);
            std::optional<std::system_error> failure;
            try {
                q.start();
            } catch (const std::system_error& error) {
                failure = error;
            }
            ::setrlimit(RLIMIT_NOFILE, &before);
            if (!failure) break;
            if (failure->code() != std::errc::too_many_files_open) throw *failure;
            if (q.pid() || !mp::active_children().empty()) mp::exit(1);
        }
        mp::exit(ended(q));
    });
    CHECK(run(p) == 8);
}
#endif

TEST_CASE("a program that ignores SIGCHLD can still join", "[process][fork]") {
    mp::Process p([] {
        std::signal(SIGCHLD, SIG_IGN);
        for (int i = 0; i < 20; ++i) {
            mp::Process q([] { mp::exit(6); });
            q.start();
            q.join();
            if (q.is_alive() || q.exitcode() != 6) mp::exit(1);  // it has said so itself
            mp::Process killed([] { std::raise(SIGKILL); });
            killed.start();
            killed.join();
            if (killed.exitcode() != 255) mp::exit(2);  // nobody knows how it ended
        }
    });
    CHECK(run(p) == 0);
}

TEST_CASE("a process forked by hand has no children of ours", "[process][fork]") {
    auto [a, b] = mp::Pipe();
    mp::Process p(report_and_wait, b);
    p.start();
    static_cast<void>(a.recv<int>());
    const int pid = ::fork();
    if (pid == 0) {
        const bool right = mp::active_children().empty() && !p.exitcode() &&
                           run(mp::Process([] { mp::exit(3); })) == 3;
        ::_exit(right ? 0 : 1);
    }
    int status = -1;
    ::waitpid(pid, &status, 0);
    CHECK(status == 0);
    CHECK(p.is_alive());
    p.kill();
    p.join();
}

TEST_CASE("a null target is refused before anything is made of it", "[process]") {
    void (*null)(int) = nullptr;
    CHECK_THROWS_AS(mp::Process(null, 1), mp::ValueError);
    CHECK_THROWS_AS(mp::Process({.name = "p"}, std::function<void()>()), mp::ValueError);
    CHECK_THROWS_WITH(mp::Process(null, 1), ContainsSubstring("is null"));
}
