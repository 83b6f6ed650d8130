// SPDX-License-Identifier: BSL-1.0
//
// CPython's tests of waits that signals interrupt.
#include <multiprocessing/process.hpp>

#include <multiprocessing/sharedctypes.hpp>
#include <multiprocessing/synchronize.hpp>

#include "conformance/helpers.hpp"
#include "runtime/helpers.hpp"
#include "support/catch.hpp"

#include <csignal>
#include <cstddef>
#include <string>

#include <unistd.h>

namespace mp = multiprocessing;
using namespace support;

namespace {

constexpr int interruptions = 50;
constexpr std::size_t more_than_a_socket_holds = 16 * 1024 * 1024 + 1;

/// While it lives, SIGUSR1 is counted, and interrupts the calls that it can interrupt.
class SignalCount {
public:
    explicit SignalCount(const mp::Value<int>& signals) {
        counted = &signals;
        struct ::sigaction action {};
        action.sa_handler = [](int) { counted->fetch_add(1); };
        ::sigaction(SIGUSR1, &action, &before_);
    }
    SignalCount(const SignalCount&) = delete;
    SignalCount& operator=(const SignalCount&) = delete;
    ~SignalCount() { ::sigaction(SIGUSR1, &before_, nullptr); }

private:
    static inline const mp::Value<int>* counted = nullptr;
    struct ::sigaction before_ {};
};

/// Sends a signal when the one before has come, so that most of them find the process where it
/// waits for what follows the last.
void interrupt(int pid, const mp::Value<int>& signals) {
    for (int i = 0; i < interruptions; ++i) {
        const int before = signals.load();
        ::kill(pid, SIGUSR1);
        EXPECT(eventually([&] { return signals.load() > before; }));
    }
}

void interrupt_join(int pid, const mp::Value<int>& signals, const mp::Event& joining,
                    const mp::Event& may_end) {
    EXPECT(joining.wait(patient));
    interrupt(pid, signals);
    may_end.set();
}

void receive_and_send(const mp::Connection& connection, const mp::Value<int>& signals) {
    const SignalCount count(signals);
    connection.send("ready");
    connection.send(connection.recv<int>());
    // The second waits until the first has been received.
    connection.send_bytes(std::string(more_than_a_socket_holds, 'x'));
    connection.send_bytes(std::string(more_than_a_socket_holds, 'y'));
}

}  // namespace

TEST_CASE("_TestPollEintr.test_poll_eintr", "[process][conformance]") {
    EVERY_START_METHOD;
    const mp::Value<int> signals(0);
    const mp::Event joining;
    const mp::Event may_end;
    const SignalCount count(signals);
    Children children(method);
    const auto p = children.start([](const mp::Event& e) { EXPECT(e.wait(patient)); }, may_end);
    children.start(interrupt_join, ::getpid(), signals, joining, may_end);
    joining.set();
    p.join(patient);
    CHECK(p.exitcode() == 0);
    CHECK(signals.load() == interruptions);
    CHECK(children.join());
}

TEST_CASE("TestIgnoreEINTR.test_ignore", "[connection][conformance]") {
    EVERY_START_METHOD;
    const auto [ours, theirs] = mp::Pipe();
    const mp::Value<int> signals(0);
    Children children(method);
    const auto p =
        children.start(mp::ProcessOptions{.daemon = true}, receive_and_send, theirs, signals);
    theirs.close();
    CHECK(receive<std::string>(ours) == "ready");
    interrupt(p.pid().value(), signals);  // while it receives
    ours.send(1234);
    CHECK(receive<int>(ours) == 1234);
    CHECK(ours.poll(patient));
    interrupt(p.pid().value(), signals);  // while it sends
    CHECK(ours.recv_bytes().str() == std::string(more_than_a_socket_holds, 'x'));
    CHECK(ours.recv_bytes().str() == std::string(more_than_a_socket_holds, 'y'));
    CHECK(children.join());
}
