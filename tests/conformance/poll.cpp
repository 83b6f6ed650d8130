// SPDX-License-Identifier: BSL-1.0
//
// CPython's tests of Connection.poll.
#include <multiprocessing/connection.hpp>

#include <multiprocessing/synchronize.hpp>

#include "conformance/helpers.hpp"
#include "support/catch.hpp"

#include <string>
#include <vector>

namespace mp = multiprocessing;
using namespace support;

namespace {

// Where CPython's child sleeps, it waits to have been polled in vain.
void send_strings(const mp::Connection& connection, const std::vector<std::string>& strings,
                  const mp::Semaphore& pace) {
    for (const std::string& string : strings) {
        EXPECT(pace.acquire(patient));
        connection.send_bytes(string);
    }
    connection.close();
}

void poll_once(const mp::Connection& reader, const mp::Event& polling) {
    polling.set();
    EXPECT(reader.poll(patient));
}

void send_three(const mp::Connection& connection) {
    for (const char* const text : {"a", "b", "cd"}) connection.send_bytes(text);
}

}  // namespace

TEST_CASE("_TestPoll.test_empty_string", "[connection][conformance]") {
    const auto [a, b] = mp::Pipe();
    CHECK_FALSE(a.poll());
    b.send_bytes("");
    CHECK(a.poll());
    CHECK(a.poll());
    CHECK(a.recv_bytes().empty());
    CHECK_FALSE(a.poll());
}

TEST_CASE("_TestPoll.test_strings", "[connection][conformance]") {
    EVERY_START_METHOD;
    const std::vector<std::string> strings{"hello", "", "a", "b", "", "bye", "", "lop"};
    const auto [a, b] = mp::Pipe();
    const mp::Semaphore pace(0);
    Children children(method);
    children.start(send_strings, b, strings, pace);
    for (const std::string& string : strings) {
        CHECK_FALSE(a.poll(0.01));
        pace.release();
        CHECK(a.poll(patient));
        CHECK(a.recv_bytes().str() == string);
    }
    CHECK(children.join());
}

TEST_CASE("_TestPoll.test_boundaries", "[connection][conformance]") {
    EVERY_START_METHOD;
    const auto [reader, writer] = mp::Pipe(false);
    const mp::Event polling;
    Children children(method);
    children.start(poll_once, reader, polling);
    CHECK(polling.wait(patient));
    writer.send_bytes("first");
    writer.send_bytes("second");
    writer.close();
    CHECK(children.join());
    // What has been polled has not been touched.
    CHECK(reader.recv_bytes().str() == "first");
    CHECK(reader.recv_bytes().str() == "second");
    CHECK_THROWS_AS(reader.recv_bytes(), mp::EOFError);
}

TEST_CASE("_TestPoll.test_dont_merge", "[connection][conformance]") {
    EVERY_START_METHOD;
    const auto [a, b] = mp::Pipe();
    CHECK_FALSE(a.poll(0.0));
    CHECK_FALSE(a.poll(0.1));
    Children children(method);
    children.start(send_three, b);
    CHECK(a.recv_bytes().str() == "a");
    CHECK(a.poll(patient));
    CHECK(a.poll(patient));
    CHECK(a.recv_bytes().str() == "b");
    CHECK(a.poll(patient));
    CHECK(a.poll(patient));
    CHECK(a.poll(0.0));
    CHECK(a.recv_bytes().str() == "cd");
    CHECK(children.join());
}
