// SPDX-License-Identifier: BSL-1.0
//
// The fork server itself: one for a process, which may be killed at any time, and which nobody else
// can use.

#include <multiprocessing/runtime/forkserver.hpp>

#include <multiprocessing/pool.hpp>
#include <multiprocessing/queues.hpp>
#include <multiprocessing/synchronize.hpp>

#include "runtime/helpers.hpp"
#include "support/catch.hpp"

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

namespace mp = multiprocessing;
namespace forkserver = mp::runtime::forkserver;
using Catch::Matchers::ContainsSubstring;
using support::ended;
using support::report_and_wait;
using support::run;

namespace {

mp::Context context() { return mp::get_context("forkserver"); }

mp::runtime::ProcessPointer server() { return mp::runtime::this_process().fork_server.process(); }

int server_pid() { return server()->pid.value(); }

// Kills the server and waits until it is gone; the library is not told.
void kill_server() {
    const auto process = server();
    ::kill(process->pid.value(), SIGKILL);
    mp::os::poll(process->shared_sentinel()->get(), mp::os::poll_in,
                 mp::os::Deadline::after(std::chrono::seconds(30)));
}

// Preloaded; a server has copies of its own.
int loaded = 0;

mp::Queue<int>& queue_of_the_server() {
    static mp::os::Lazy<mp::Queue<int>> queue;
    return queue.get([] { return new mp::Queue<int>; });
}

class Preloaded {
public:
    explicit Preloaded(std::vector<mp::runtime::Action> functions) {
        mp::runtime::this_process().fork_server.stop();
        mp::set_forkserver_preload(std::move(functions));
    }
    ~Preloaded() {
        mp::set_forkserver_preload({});
        mp::runtime::this_process().fork_server.stop();
    }
    Preloaded(const Preloaded&) = delete;
    Preloaded& operator=(const Preloaded&) = delete;
};

}  // namespace

TEST_CASE("one server, started at first use, forks all children", "[forkserver]") {
    CHECK(server() == nullptr);
    const std::string next = mp::Process().name();
    auto [a, b] = mp::Pipe();
    const auto tell = [](const mp::Connection& c) { c.send(::getppid()); };
    std::set<int> parents;
    for (int i = 0; i < 3; ++i) {
        CHECK(run(context().Process(tell, b)) == 0);
        parents.insert(a.recv<int>());
    }
    CHECK(parents == std::set{server_pid()});
    CHECK(mp::active_children().empty());  // it is none
    const auto number = [](const std::string& name) {
        return std::stoi(name.substr(name.find('-') + 1));
    };
    CHECK(number(mp::Process().name()) == number(next) + 4);  // and has taken no number
}

TEST_CASE("a server that was killed is replaced", "[forkserver]") {
    CHECK(run(context().Process([] { mp::exit(3); })) == 3);
    const int first = server_pid();
    const bool known = GENERATE(false, true);
    kill_server();
    if (known) static_cast<void>(server()->poll_exitcode());
    CHECK(run(context().Process([] { mp::exit(4); })) == 4);
    CHECK(server_pid() != first);
}

TEST_CASE("children outlive their server, and how they end in order is known", "[forkserver]") {
    auto [a, b] = mp::Pipe();
    const auto leaves =
        context().Process([](const mp::Connection& c) { mp::exit(c.recv<int>()); }, b);
    const auto [reader, writer] = mp::Pipe(false);
    const auto killed = context().Process(report_and_wait, writer);
    leaves.start();
    killed.start();
    CHECK(reader.recv<int>() == killed.pid());
    kill_server();
    CHECK(leaves.is_alive());
    CHECK(killed.is_alive());
    a.send(5);
    CHECK(ended(leaves) == 5);
    killed.kill();
    CHECK(ended(killed) == 255);  // nobody could see it
}

TEST_CASE("a server killed while many are started costs none of them", "[forkserver]") {
    std::vector<mp::Process> processes;
    CHECK(run(context().Process([] {})) == 0);
    for (int i = 0; i < 60; ++i) {
        processes.push_back(context().Process([] { mp::exit(9); }));
        if (i % 5 == 0) ::kill(server_pid(), SIGKILL);  // before, during or after the next request
        processes.back().start();
    }
    for (const auto& p : processes) CHECK(ended(p) == 9);
}

TEST_CASE("a server's end is seen though others hold its sockets", "[forkserver]") {
    auto [reader, writer] = mp::Pipe(false);
    const auto killed = context().Process(report_and_wait, writer);
    killed.start();
    static_cast<void>(reader.recv<int>());
    // It is in the middle of a request, for which the channel is open here; a process is forked
    // that has copies of all of it; and the server is killed.
    const auto process = server();
    ::kill(process->pid.value(), SIGSTOP);
    const auto [ours, theirs] = mp::os::socket_pair(mp::os::SocketKind::messages);
    const int holder = ::fork();
    if (holder == 0) support::wait_for_signal();
    ::kill(process->pid.value(), SIGKILL);
    CHECK(forkserver::await_report(ours.get(), process->shared_sentinel()->get(),
                                   mp::os::Deadline::after(std::chrono::seconds(30))));
    CHECK_FALSE(forkserver::receive_message<forkserver::ForkReport>(ours.get()));
    CHECK(run(context().Process([] { mp::exit(4); })) == 4);
    killed.kill();
    CHECK(ended(killed) == 255);
    ::kill(holder, SIGKILL);
    ::waitpid(holder, nullptr, 0);
}

TEST_CASE("how a child was killed is known however late its server tells", "[forkserver]") {
    auto [reader, writer] = mp::Pipe(false);
    const auto killed = context().Process(report_and_wait, writer);
    killed.start();
    static_cast<void>(reader.recv<int>());
    ::kill(server_pid(), SIGSTOP);
    killed.kill();
    CHECK(mp::connection::wait({killed.sentinel()}, 30).size() == 1);
    killed.join(0.01);
    CHECK_FALSE(killed.exitcode().has_value());
    ::kill(server_pid(), SIGCONT);
    CHECK(ended(killed) == -SIGKILL);
}

TEST_CASE("who does not know the key is refused", "[forkserver]") {
    CHECK(run(context().Process([] {})) == 0);
    auto& client = mp::runtime::this_process().fork_server;
    const auto [ours, theirs] = mp::os::socket_pair(mp::os::SocketKind::messages);
    const int their_end = theirs.get();
    REQUIRE(forkserver::send_message(client.control(), forkserver::ForkRequest{{}, 1},
                                     {&their_end, 1}));
    const auto report = forkserver::receive_message<forkserver::ForkReport>(ours.get());
    REQUIRE(report);
    CHECK(report->kind == forkserver::ForkReport::Kind::refused);
    // Nor does nonsense end it.
    const int before = server_pid();
    forkserver::send_message(client.control(), forkserver::ForkRequest{{}, 1});
    CHECK(run(context().Process([] { mp::exit(2); })) == 2);
    CHECK(server_pid() == before);
}

TEST_CASE("a server ignores Ctrl-C, its children do not", "[forkserver]") {
    CHECK(run(context().Process([] {})) == 0);
    const int before = server_pid();
    ::kill(before, SIGINT);
    auto [a, b] = mp::Pipe();
    const auto p = context().Process(report_and_wait, b);
    p.start();
    static_cast<void>(a.recv<int>());
    p.interrupt();
    CHECK(ended(p) == -SIGINT);
    CHECK(server_pid() == before);
}

TEST_CASE("children find signals as they would without a server", "[forkserver]") {
    const auto check = [] {
        sigset_t blocked;
        ::pthread_sigmask(SIG_SETMASK, nullptr, &blocked);
        struct sigaction ends {};
        struct sigaction interrupts {};
        ::sigaction(SIGCHLD, nullptr, &ends);
        ::sigaction(SIGINT, nullptr, &interrupts);
        if (::sigismember(&blocked, SIGCHLD) != 0) mp::exit(1);
        if (ends.sa_handler != SIG_DFL || interrupts.sa_handler != SIG_DFL) mp::exit(2);
        if (run(mp::Process([] { mp::exit(7); })) != 7) mp::exit(3);
    };
    CHECK(run(context().Process(check)) == 0);
}

TEST_CASE("a server started where signals are blocked lets its children have theirs",
          "[forkserver]") {
    {
        const mp::Pool pool = context().Pool(1);  // whose workers are started with all blocked
        CHECK(pool.apply([](int n) { return n + 1; }, 1) == 2);
    }
    auto [a, b] = mp::Pipe();
    const auto p = context().Process(report_and_wait, b);
    p.start();
    static_cast<void>(a.recv<int>());
    p.terminate();
    CHECK(ended(p) == -SIGTERM);

    // As under the other methods, it is the starting thread's mask that counts.
    const auto q = context().Process(
        [](const mp::Connection& c) { c.send(mp::os::SignalMask::of_this_thread().blocked()); }, b);
    const auto mask = mp::os::SignalMask::of_this_thread();
    mp::os::SignalMask::blocking({SIGUSR1, SIGTERM}).apply();
    q.start();
    mask.apply();
    CHECK(a.recv<std::vector<int>>() == std::vector<int>{SIGUSR1, SIGTERM});
    CHECK(ended(q) == 0);
}

TEST_CASE("a server ends with its process, however that ends", "[forkserver]") {
    const bool in_order = GENERATE(true, false);
    auto [ours, theirs] = mp::Pipe();
    const mp::Process parent([c = theirs] {
        run(context().Process([] {}));
        c.send(server_pid());
        static_cast<void>(c.recv<int>());
    });
    parent.start();
    const mp::os::Fd end = mp::os::open_pidfd(ours.recv<int>());
    in_order ? ours.send(0) : parent.kill();
    CHECK(ended(parent) == (in_order ? 0 : -SIGKILL));
    CHECK(mp::os::poll(end.get(), mp::os::poll_in,
                       mp::os::Deadline::after(std::chrono::seconds(30))));
}

TEST_CASE("a forked child has a server of its own", "[forkserver]") {
    CHECK(run(context().Process([] {})) == 0);
    const int ours = server_pid();
    const mp::Process child([ours] {
        if (server() != nullptr) mp::exit(1);
        if (run(context().Process([] { mp::exit(6); })) != 6) mp::exit(2);
        mp::exit(server_pid() != ours ? 0 : 3);
    });
    CHECK(run(child) == 0);
    CHECK(run(context().Process([] { mp::exit(6); })) == 6);
    CHECK(server_pid() == ours);
}

TEST_CASE("a child of the server has the descriptors it needs and no others", "[forkserver]") {
    auto [a, b] = mp::Pipe();
    const auto sleeper = context().Process(report_and_wait, b);
    sleeper.start();  // the server keeps something for it
    static_cast<void>(a.recv<int>());
    const auto p = context().Process(
        [](const mp::Connection& c) {
            int open = 0;
            for (int fd = 0; fd < 1000; ++fd) open += ::fcntl(fd, F_GETFD) >= 0 ? 1 : 0;
            c.send(open);
        },
        b);
    CHECK(run(p) == 0);
    // The standard streams, the connection, the parent's sentinel, the arena.
    CHECK(a.recv<int>() == 6);
    sleeper.kill();
    CHECK(ended(sleeper) == -SIGKILL);
}

TEST_CASE("more descriptors than one message takes", "[forkserver]") {
    std::vector<mp::Connection> many;
    auto [a, b] = mp::Pipe();
    for (int i = 0; i < 300; ++i) many.push_back(b);
    const auto p = context().Process(
        [](const std::vector<mp::Connection>& connections) {
            for (const auto& c : connections) c.send(1);
        },
        many);
    p.start();
    int sum = 0;
    for (int i = 0; i < 300; ++i) sum += a.recv<int>();
    CHECK(sum == 300);
    CHECK(ended(p) == 0);
}

TEST_CASE("arguments of any length reach a child", "[forkserver]") {
    // The short ones in a message, the long ones in a file.
    auto [a, b] = mp::Pipe();
    const auto most = forkserver::most_told;
    for (const std::size_t length : {std::size_t{0}, most / 2, most, 100 * most}) {
        const std::string text(length, 'x');
        CHECK(run(context().Process(
                  [](const mp::Connection& c, const std::string& s) { c.send(s); }, b, text)) == 0);
        CHECK((a.recv<std::string>() == text));
    }
}

TEST_CASE("a server preloads once, for all children", "[forkserver]") {
    auto [a, b] = mp::Pipe();
    const Preloaded preloaded({[] { ++loaded; }, [] { loaded += 10; }});
    const auto tell = [](const mp::Connection& c) { c.send(loaded++); };
    for (int i = 0; i < 2; ++i) {
        CHECK(run(context().Process(tell, b)) == 0);
        CHECK(a.recv<int>() == 11);
    }
    CHECK(loaded == 0);
}

TEST_CASE("what a preloaded function throws is reported, and the server goes on", "[forkserver]") {
    support::Capture capture(STDERR_FILENO);
    {
        const Preloaded preloaded({[] { throw std::runtime_error("no such table"); }});
        CHECK(run(context().Process([] { mp::exit(8); })) == 8);
    }
    CHECK_THAT(capture.text(),
               ContainsSubstring("no such table") && ContainsSubstring("ForkServer"));
}

TEST_CASE("what cannot be preloaded is refused at once", "[forkserver]") {
    int captured = 1;
    CHECK_THROWS_AS(mp::set_forkserver_preload({[captured] { std::exit(captured); }}),
                    mp::PicklingError);
    CHECK_THROWS_AS(mp::set_forkserver_preload({mp::runtime::Action()}), mp::ValueError);
    CHECK_THROWS_AS(mp::set_forkserver_preload({static_cast<void (*)()>(nullptr)}), mp::ValueError);
}

TEST_CASE("a server that cannot last is an error, not a loop", "[forkserver]") {
    const Preloaded preloaded({[] { ::_exit(3); }});
    const auto p = context().Process({.name = "unlucky"}, [] {});
    CHECK_THROWS_AS(p.start(), std::runtime_error);
    CHECK_THROWS_WITH(p.start(), ContainsSubstring("unlucky") && ContainsSubstring("fork server") &&
                                     ContainsSubstring("exit code 3"));
    CHECK_FALSE(p.pid().has_value());
}

TEST_CASE("children share what the server made, also after its end", "[forkserver]") {
    const Preloaded preloaded({[] { queue_of_the_server().put(1); }});
    auto [a, b] = mp::Pipe();
    const auto take_and_put = [](const mp::Connection& c) {
        c.send(queue_of_the_server().get(30.0));
        c.recv<int>();
        queue_of_the_server().put(2);
        c.send(queue_of_the_server().get(30.0));
    };
    const auto p = context().Process(take_and_put, b);
    p.start();
    CHECK(a.recv<int>() == 1);
    kill_server();
    CHECK(run(mp::Process([] {})) == 0);  // a start sweeps up after the dead
    a.send(0);
    CHECK(a.recv<int>() == 2);
    CHECK(ended(p) == 0);
}
