// SPDX-License-Identifier: BSL-1.0
//
// CPython's tests of start methods and contexts.
#include <multiprocessing/context.hpp>

#include "conformance/helpers.hpp"
#include "runtime/helpers.hpp"
#include "support/catch.hpp"

#include <algorithm>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace mp = multiprocessing;
using namespace support;

namespace {

/// The default start method is the whole program's: what a test does to it ends with the test.
class DefaultMethod {
public:
    DefaultMethod() = default;
    DefaultMethod(const DefaultMethod&) = delete;
    DefaultMethod& operator=(const DefaultMethod&) = delete;
    ~DefaultMethod() { mp::set_start_method(before_, true); }

    void unset() const { mp::set_start_method(std::nullopt, true); }
    [[nodiscard]] bool is_set() const { return mp::get_start_method(true).has_value(); }

private:
    std::optional<std::string> before_ = mp::get_start_method(true);
};

/// The default method as a child sees it.
std::string method_in(const mp::Process& child, const mp::Connection& reader) {
    child.start();
    const auto method = receive<std::string>(reader);
    CHECK(ended(child) == 0);
    return method;
}

void send_method(const mp::Connection& out) { out.send(mp::get_start_method()); }

void put_one(const mp::Queue<int>& queue) { queue.put(1); }

void put_two_and_nest(const mp::Queue<int>& queue) {
    queue.put(2);
    EXPECT(run(mp::Process(put_one, queue)) == 0);
}

}  // namespace

TEST_CASE("TestStartMethod.test_context", "[context][conformance]") {
    EVERY_START_METHOD;
    const auto ctx = mp::get_context(method);
    CHECK(ctx.get_start_method() == method);
    CHECK(ctx.get_context() == ctx);
    CHECK_THROWS_AS(ctx.set_start_method("spawn"), mp::ValueError);
    CHECK_THROWS_AS(ctx.set_start_method(std::nullopt), mp::ValueError);
    const auto [reader, writer] = ctx.Pipe(false);
    CHECK(method_in(ctx.Process(send_method, writer), reader) == method);
}

TEST_CASE("TestStartMethod.test_spawn_dont_set_context", "[context][conformance]") {
    EVERY_START_METHOD;
    const DefaultMethod default_method;
    default_method.unset();
    CHECK(run(mp::get_context(method).Process([] {})) == 0);
    CHECK_FALSE(default_method.is_set());
}

TEST_CASE("TestStartMethod.test_freeze_support_dont_set_context", "[context][conformance]") {
    const DefaultMethod default_method;
    default_method.unset();
    mp::freeze_support();
    CHECK_FALSE(default_method.is_set());
}

TEST_CASE("TestStartMethod.test_set_get", "[context][conformance]") {
    EVERY_START_METHOD;
    const DefaultMethod default_method;
    mp::set_start_method(method, true);
    CHECK(mp::get_start_method() == method);
    const auto ctx = mp::get_context();
    CHECK(ctx.get_start_method() == method);
    const auto [reader, writer] = mp::Pipe(false);
    CHECK(method_in(mp::Process(send_method, writer), reader) == method);
}

TEST_CASE("TestStartMethod.test_get_all_start_methods", "[context][conformance]") {
    const auto methods = mp::get_all_start_methods();
    std::set<std::string> others(methods.begin(), methods.end());
    CHECK(others.size() == methods.size());
    CHECK(others.erase("fork") == 1);
    CHECK(others.erase("spawn") == 1);
    others.erase("forkserver");
    CHECK(others.empty());
    const DefaultMethod default_method;
    default_method.unset();
    CHECK(mp::get_start_method() == methods.front());
}

// In Python what a fork context has made cannot go to a spawned process. Here everything can.
TEST_CASE("TestStartMethod.test_mixed_startmethod", "[context][conformance]") {
    EVERY_START_METHOD;
    for (const auto& queue_method : mp::get_all_start_methods()) {
        const auto queue = mp::get_context(queue_method).Queue<int>();
        CHECK(run(mp::get_context(method).Process(put_one, queue)) == 0);
        CHECK(queue.get(patient) == 1);
    }
}

TEST_CASE("TestStartMethod.test_nested_startmethod", "[context][conformance]") {
    EVERY_START_METHOD;
    const DefaultMethod default_method;
    mp::set_start_method(method, true);
    const mp::Queue<int> queue;
    CHECK(run(mp::Process(put_two_and_nest, queue)) == 0);
    std::multiset<int> results;
    while (!queue.empty()) results.insert(queue.get(patient));
    CHECK(results == std::multiset{1, 2});
}
