// SPDX-License-Identifier: BSL-1.0
#include <multiprocessing/queues.hpp>

#include <multiprocessing/synchronize.hpp>

#include "conformance/helpers.hpp"
#include "support/catch.hpp"

#include <string>
#include <system_error>

namespace mp = multiprocessing;
using namespace support;
using Catch::Matchers::ContainsSubstring;

namespace {

void put_two(const mp::SimpleQueue<std::string>& queue, const mp::Event& start,
             const mp::Event& done) {
    start.wait(patient);
    queue.put(queue.empty() ? "True" : "False");
    queue.put(queue.empty() ? "True" : "False");
    done.set();
}

}  // namespace

TEST_CASE("TestSimpleQueue.test_empty_exceptions", "[queue][conformance]") {
    const mp::SimpleQueue<int> queue;
    queue.close();
    CHECK_THROWS_AS(queue.empty(), std::system_error);
    CHECK_THROWS_WITH(queue.empty(), ContainsSubstring("is closed"));
}

TEST_CASE("TestSimpleQueue.test_empty", "[queue][conformance]") {
    EVERY_START_METHOD;
    const mp::SimpleQueue<std::string> queue;
    const mp::Event start;
    const mp::Event done;
    Children children(method);
    children.start(put_two, queue, start, done);
    CHECK(queue.empty());
    start.set();
    CHECK(done.wait(patient));
    CHECK_FALSE(queue.empty());
    CHECK(queue.get() == "True");
    CHECK(queue.get() == "False");
    CHECK(queue.empty());
    CHECK(children.join());
}

TEST_CASE("TestSimpleQueue.test_close", "[queue][conformance]") {
    const mp::SimpleQueue<int> queue;
    queue.close();
    queue.close();
}

TEST_CASE("TestSimpleQueue.test_closed", "[queue][conformance]") {
    const mp::SimpleQueue<int> queue;
    const auto copy = queue;
    queue.close();
    CHECK_THROWS_AS(copy.get(), std::system_error);
    CHECK_THROWS_AS(copy.put(1), std::system_error);
}
