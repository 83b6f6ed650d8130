// SPDX-License-Identifier: BSL-1.0
#include <multiprocessing/queues.hpp>

#include <multiprocessing/synchronize.hpp>

#include "conformance/helpers.hpp"
#include "support/catch.hpp"

#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <variant>
#include <vector>

namespace mp = multiprocessing;
using namespace support;
using namespace std::chrono_literals;
using Catch::Matchers::ContainsSubstring;

namespace {

void take_six(const mp::Queue<int>& queue, const mp::Event& start, const mp::Event& done) {
    start.wait(patient);
    for (int i = 0; i < 6; ++i) static_cast<void>(queue.get(true, patient));
    done.set();
}

void put_four(const mp::Queue<int>& queue, const mp::Event& start, const mp::Event& done) {
    start.wait(patient);
    for (const int i : {2, 3, 4, 5}) queue.put(i);
    done.set();
}

void put_ten_to_nineteen(const mp::Queue<int>& queue) {
    for (int i = 10; i < 20; ++i) queue.put(i);
}

void work_until_shut_down(const mp::JoinableQueue<std::optional<int>>& queue) {
    while (queue.get(true, patient)) queue.task_done();
    queue.task_done();
}

// Its pickling fails when it is told to.
struct Moody {
    bool fails = false;
    template <class Archive>
    void serialize(Archive& archive, unsigned) {
        if (fails) throw std::runtime_error("I will not go");
        archive & fails;
    }
};

struct Unserializable : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// Its pickling always fails, and is noted.
struct NotSerializable {
    mutable bool was_called = false;
    template <class Archive>
    void serialize(Archive&, unsigned) {
        was_called = true;
        throw Unserializable("not in this world");
    }
};

}  // namespace

TEST_CASE("_TestQueue.test_put", "[queue][conformance]") {
    EVERY_START_METHOD;
    const mp::Queue<int> queue(6);
    const mp::Event start;
    const mp::Event done;
    Children children(method);
    children.start(take_six, queue, start, done);
    CHECK(queue.empty());
    CHECK_FALSE(queue.full());
    queue.put(1);
    queue.put(2, true);
    queue.put(3, true, std::nullopt);
    queue.put(4, false);
    queue.put(5, false, std::nullopt);
    queue.put_nowait(6);
    CHECK_FALSE(queue.empty());
    CHECK(queue.full());

    CHECK(elapsed([&] { CHECK_THROWS_AS(queue.put(7, false), mp::Full); }) < no_time);
    CHECK(elapsed([&] { CHECK_THROWS_AS(queue.put(7, false, std::nullopt), mp::Full); }) < no_time);
    CHECK(elapsed([&] { CHECK_THROWS_AS(queue.put_nowait(7), mp::Full); }) < no_time);
    CHECK(elapsed([&] { CHECK_THROWS_AS(queue.put(7, true, timeout1), mp::Full); }) >= timeout1);
    CHECK(elapsed([&] { CHECK_THROWS_AS(queue.put(7, false, 20), mp::Full); }) < no_time);
    CHECK(elapsed([&] { CHECK_THROWS_AS(queue.put(7, timeout3), mp::Full); }) >= timeout3);

    start.set();
    CHECK(done.wait(patient));
    CHECK(queue.empty());
    CHECK_FALSE(queue.full());
    CHECK(children.join());
}

TEST_CASE("_TestQueue.test_get", "[queue][conformance]") {
    EVERY_START_METHOD;
    const mp::Queue<int> queue;
    const mp::Event start;
    const mp::Event done;
    Children children(method);
    children.start(put_four, queue, start, done);
    CHECK(queue.empty());
    start.set();
    CHECK(done.wait(patient));
    CHECK_FALSE(queue.empty());
    CHECK(queue.get(true, std::nullopt) == 2);
    CHECK(queue.get(true) == 3);
    CHECK(queue.get(1) == 4);
    CHECK(queue.get_nowait() == 5);
    CHECK(queue.empty());
    const auto get = [&](auto... args) { static_cast<void>(queue.get(args...)); };
    CHECK(elapsed([&] { CHECK_THROWS_AS(get(false), mp::Empty); }) < no_time);
    CHECK(elapsed([&] { CHECK_THROWS_AS(get(false, std::nullopt), mp::Empty); }) < no_time);
    CHECK(elapsed([&] { CHECK_THROWS_AS(queue.get_nowait(), mp::Empty); }) < no_time);
    CHECK(elapsed([&] { CHECK_THROWS_AS(get(true, timeout1), mp::Empty); }) >= timeout1);
    CHECK(elapsed([&] { CHECK_THROWS_AS(get(false, 20), mp::Empty); }) < no_time);
    CHECK(elapsed([&] { CHECK_THROWS_AS(get(timeout3), mp::Empty); }) >= timeout3);
    CHECK(children.join());
}

TEST_CASE("_TestQueue.test_fork", "[queue][conformance]") {
    EVERY_START_METHOD;
    const mp::Queue<int> queue;
    for (int i = 0; i < 10; ++i) queue.put(i);
    Children children(method);
    children.start(put_ten_to_nineteen, queue);
    CHECK(children.join());
    for (int i = 0; i < 20; ++i) CHECK(queue.get(true, patient) == i);
    CHECK_THROWS_AS(queue.get(false), mp::Empty);
}

TEST_CASE("_TestQueue.test_qsize", "[queue][conformance]") {
    const mp::Queue<int> queue;
    CHECK(queue.qsize() == 0);
    queue.put(1);
    CHECK(queue.qsize() == 1);
    queue.put(5);
    CHECK(queue.qsize() == 2);
    static_cast<void>(queue.get());
    CHECK(queue.qsize() == 1);
    static_cast<void>(queue.get());
    CHECK(queue.qsize() == 0);
}

TEST_CASE("_TestQueue.test_task_done", "[queue][conformance]") {
    EVERY_START_METHOD;
    const mp::JoinableQueue<std::optional<int>> queue;
    Children children(method);
    for (int i = 0; i < 4; ++i) children.start(work_until_shut_down, queue);
    for (int i = 0; i < 10; ++i) queue.put(i);
    CHECK(queue.join(patient));
    CHECK(queue.empty());
    for (int i = 0; i < 4; ++i) queue.put(std::nullopt);
    CHECK(children.join());
    CHECK(queue.join());
    CHECK_THROWS_AS(queue.task_done(), mp::ValueError);
    CHECK_THROWS_WITH(queue.task_done(), ContainsSubstring("task_done() called too many times"));
}

TEST_CASE("_TestQueue.test_timeout", "[queue][conformance]") {
    const mp::Queue<int> queue;
    CHECK(elapsed([&] { CHECK_THROWS_AS(queue.get(true, 0.2), mp::Empty); }) >= 0.2s);
}

TEST_CASE("_TestQueue.test_queue_feeder_donot_stop_onexc", "[queue][conformance]") {
    const mp::Queue<Moody> queue(1);
    CHECK_THROWS_WITH(queue.put(Moody{true}), ContainsSubstring("I will not go"));
    CHECK_FALSE(queue.full());
    queue.put(Moody{false}, true, patient);
    CHECK(queue.full());
    CHECK_FALSE(queue.get(true, patient).fails);
    CHECK(queue.empty());
}

// There is no feeder and no hook: who puts has the object, and gets the exception.
TEST_CASE("_TestQueue.test_queue_feeder_on_queue_feeder_error", "[queue][conformance]") {
    using Item = std::variant<NotSerializable, bool>;
    const mp::Queue<Item> queue;
    const Item item;
    CHECK_THROWS_AS(queue.put(item), Unserializable);
    CHECK(std::get<NotSerializable>(item).was_called);
    queue.put(Item(true));
    CHECK(std::get<bool>(queue.get(true, patient)));
    CHECK(queue.empty());
}

TEST_CASE("_TestQueue.test_closed_queue_empty_exceptions", "[queue][conformance]") {
    const mp::Queue<int> unused;
    unused.close();
    unused.join_thread();
    CHECK(unused.empty());
    const mp::Queue<int> used;
    used.put(1);
    used.close();
    used.join_thread();
    CHECK_THROWS_AS(used.empty(), std::system_error);
    CHECK_THROWS_WITH(used.empty(), ContainsSubstring("is closed"));
}

TEST_CASE("_TestQueue.test_closed_queue_put_get_exceptions", "[queue][conformance]") {
    const mp::Queue<int> queue;
    queue.close();
    CHECK_THROWS_AS(queue.put(1), mp::ValueError);
    CHECK_THROWS_WITH(queue.put(1), ContainsSubstring("is closed"));
    CHECK_THROWS_AS(queue.get(), mp::ValueError);
    CHECK_THROWS_WITH(queue.get(), ContainsSubstring("is closed"));
}
