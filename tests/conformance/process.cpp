// SPDX-License-Identifier: BSL-1.0
//
// CPython's tests of Process, the first half: what a process is told, and what is known of it.
#include <multiprocessing/process.hpp>

#include <multiprocessing/queues.hpp>
#include <multiprocessing/synchronize.hpp>

#include "conformance/helpers.hpp"
#include "runtime/helpers.hpp"
#include "support/catch.hpp"

#include <concepts>
#include <csignal>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <variant>
#include <vector>

#include <unistd.h>

namespace mp = multiprocessing;
using namespace support;

namespace {

template <class T>
void put(const mp::Queue<T>& queue, const T& value) {
    queue.put(value);
}

template <class T>
void check_argument(const std::string& method, const T& value) {
    const mp::Queue<T> queue(1);
    Children children(method);
    children.start(mp::ProcessOptions{.daemon = true}, put<T>, queue, value);
    CHECK(queue.get(patient) == value);
    CHECK(children.join());
}

using Item = std::variant<int, double, std::string>;

void put_what_it_knows(const mp::Queue<Item>& queue, int first, int second, double third) {
    const auto current = mp::current_process();
    queue.put(first);
    queue.put(second);
    queue.put(third);
    queue.put(current.name());
    queue.put(current.authkey().str());
    queue.put(current.pid().value());
}

void send_parent(const mp::Connection& out) {
    const auto parent = mp::parent_process().value();
    out.send(std::pair(parent.pid().value(), parent.name()));
}

void send_parent_status(const mp::Connection& out) {
    const auto parent = mp::parent_process().value();
    out.send(parent.is_alive() ? "alive" : "not alive");
    parent.join(patient);
    out.send(parent.is_alive() ? "alive" : "not alive");
}

void start_grandchild_and_wait(const mp::Connection& out, const std::string& method) {
    mp::get_context(method).Process(send_parent_status, out).start();
    wait_for_signal();
}

void send_tree(const mp::Connection& out, const std::vector<int>& id, const std::string& method) {
    out.send(id);
    if (id.size() >= 2) return;
    for (const int i : {0, 1}) {
        auto longer = id;
        longer.push_back(i);
        Children children(method);
        children.start(send_tree, out, longer, method);
        EXPECT(children.join());
    }
}

struct Dummy {
    std::shared_ptr<int> token = std::make_shared<int>(5);
    void operator()(const mp::Queue<int>& queue, const Dummy& other) const {
        queue.put(*other.token);
    }
    template <class Archive>
    void serialize(Archive& archive, unsigned) {
        archive& token;
    }
};

void count_descriptors(const mp::Event& go, const mp::Queue<int>& counts) {
    counts.put(static_cast<int>(open_descriptors()));
    go.wait(patient);
}

}  // namespace

TEST_CASE("_TestProcess.test_current", "[process][conformance]") {
    const auto current = mp::current_process();
    CHECK(current.is_alive());
    CHECK_FALSE(current.daemon());
    CHECK(current.authkey().size() > 0);
    CHECK(current.ident() == ::getpid());
    CHECK(current.exitcode() == std::nullopt);
}

TEST_CASE("_TestProcess.test_args_argument", "[process][conformance]") {
    EVERY_START_METHOD;
    check_argument(method, 1);
    check_argument(method, std::string("str"));
    check_argument(method, std::vector{1});
    check_argument(method, std::tuple(1));
}

TEST_CASE("_TestProcess.test_daemon_argument", "[process][conformance]") {
    EVERY_START_METHOD;
    const auto ctx = mp::get_context(method);
    const auto nothing = [] {};
    CHECK(ctx.Process(nothing).daemon() == mp::current_process().daemon());
    CHECK(ctx.Process({.daemon = true}, nothing).daemon());
    CHECK_FALSE(ctx.Process({.daemon = false}, nothing).daemon());
}

TEST_CASE("_TestProcess.test_parent_process_attributes", "[process][conformance]") {
    EVERY_START_METHOD;
    CHECK(mp::parent_process() == std::nullopt);
    const auto [reader, writer] = mp::Pipe(false);
    Children children(method);
    children.start(send_parent, writer);
    const auto [pid, name] = receive<std::pair<int, std::string>>(reader);
    CHECK(pid == mp::current_process().pid());
    CHECK(pid == ::getpid());
    CHECK(name == mp::current_process().name());
    CHECK(children.join());
}

TEST_CASE("_TestProcess.test_parent_process", "[process][conformance]") {
    EVERY_START_METHOD;
    const auto [reader, writer] = mp::Pipe(false);
    Children children(method);
    const auto child = children.start(start_grandchild_and_wait, writer, method);
    writer.close();
    CHECK(receive<std::string>(reader) == "alive");
    child.terminate();
    CHECK(ended(child) == -SIGTERM);
    CHECK(receive<std::string>(reader) == "not alive");
    // The grandchild ends by itself, and this process has no other means to wait for that.
    CHECK(reader.poll(patient));
    CHECK_THROWS_AS(reader.recv<std::string>(), mp::EOFError);
}

TEST_CASE("_TestProcess.test_process", "[process][conformance]") {
    EVERY_START_METHOD;
    const mp::Queue<Item> queue(1);
    const auto current = mp::current_process();
    mp::Process p = mp::get_context(method).Process({.name = "SomeProcess"}, put_what_it_knows,
                                                    queue, 1, 2, 2.54);
    p.set_daemon(true);
    CHECK(p.authkey() == current.authkey());
    CHECK_FALSE(p.is_alive());
    CHECK(p.daemon());
    CHECK_FALSE(is_active(p));
    CHECK(p.exitcode() == std::nullopt);

    p.start();
    CHECK(p.exitcode() == std::nullopt);
    CHECK(p.is_alive());
    CHECK(is_active(p));
    CHECK(queue.get(patient) == Item(1));
    CHECK(queue.get(patient) == Item(2));
    CHECK(queue.get(patient) == Item(2.54));
    CHECK(queue.get(patient) == Item("SomeProcess"));
    CHECK(p.name() == "SomeProcess");
    CHECK(queue.get(patient) == Item(current.authkey().str()));
    CHECK(queue.get(patient) == Item(p.pid().value()));

    CHECK(ended(p) == 0);
    CHECK_FALSE(p.is_alive());
    CHECK_FALSE(is_active(p));
}

TEST_CASE("_TestProcess.test_process_mainthread_native_id", "[process][conformance]") {
    EVERY_START_METHOD;
    const mp::Queue<int> queue(1);
    Children children(method);
    const auto child =
        children.start([](const mp::Queue<int>& q) { q.put(mp::os::this_thread_id()); }, queue);
    const int theirs = queue.get(patient);
    CHECK(theirs != mp::os::this_thread_id());
    CHECK(theirs == child.pid());  // a main thread's number is its process's
    CHECK(children.join());
}

TEST_CASE("_TestProcess.test_cpu_count", "[process][conformance]") {
    const std::same_as<int> auto cpus = mp::cpu_count();
    CHECK(cpus >= 1);
}

TEST_CASE("_TestProcess.test_recursion", "[process][conformance]") {
    EVERY_START_METHOD;
    const auto [reader, writer] = mp::Pipe(false);
    send_tree(writer, {}, method);
    std::vector<std::vector<int>> result;
    while (reader.poll()) result.push_back(reader.recv<std::vector<int>>());
    CHECK(result == std::vector<std::vector<int>>{{}, {0}, {0, 0}, {0, 1}, {1}, {1, 0}, {1, 1}});
}

TEST_CASE("_TestProcess.test_lose_target_ref", "[process][conformance]") {
    EVERY_START_METHOD;
    std::optional<Dummy> dummy(std::in_place);
    const std::weak_ptr<int> token = dummy->token;
    const mp::Queue<int> queue;
    const auto p = mp::get_context(method).Process(*dummy, queue, *dummy);
    dummy.reset();
    CHECK_FALSE(token.expired());
    CHECK(run(p) == 0);
    CHECK(token.expired());
    CHECK(queue.get(patient) == 5);
}

TEST_CASE("_TestProcess.test_child_fd_inflation", "[process][conformance]") {
    EVERY_START_METHOD;
    if (method == "fork") return;  // a forked child has all that its parent has, its siblings' too
    const mp::Event go;
    const mp::Queue<int> counts;
    Children children(method);
    std::set<int> different;
    for (int i = 0; i < 5; ++i) children.start(count_descriptors, go, counts);
    for (int i = 0; i < 5; ++i) different.insert(counts.get(patient));
    CHECK(different.size() == 1);
    go.set();
    CHECK(children.join());
}
