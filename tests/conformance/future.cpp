// SPDX-License-Identifier: BSL-1.0
//
// CPython's tests of concurrent.futures that need no pool, under their own names. What these give
// to an executor runs in threads.
#include <multiprocessing/concurrent/futures/wait.hpp>

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/runtime/future_state.hpp>
#include <multiprocessing/synchronize.hpp>
#include <multiprocessing/util.hpp>

#include "concurrent/helpers.hpp"
#include "conformance/helpers.hpp"
#include "support/catch.hpp"
#include "support/logging.hpp"

#include <exception>
#include <initializer_list>
#include <memory>
#include <optional>
#include <regex>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

namespace mp = multiprocessing;
using namespace support;
using futures::as_completed;
using futures::Future;
using mp::runtime::FuturePhase;

namespace {

using IntFutures = std::vector<Future<int>>;

std::exception_ptr test_error(const char* what = "test") {
    return std::make_exception_ptr(std::runtime_error(what));
}
FuturePhase phase_of(const Future<int>& future) {
    return mp::runtime::FutureAccess::state(future)->phase();
}

// What is logged while it lives.
class CapturedLog {
public:
    CapturedLog() {
        mp::get_logger().set_sink([this](const mp::LogRecord& record) { text += record.text(); });
    }
    std::string text;

private:
    RestoreLog restore_;
};

int mul(int x, int y) { return x * y; }
int divmod(int x, int y) {
    if (y == 0) throw std::domain_error("division by zero");
    return x / y;
}
int wait_for(const mp::Event& event) { return event.wait(patient) ? 1 : 0; }
int wait_and_raise(const mp::Event& event) {
    event.wait(patient);
    throw std::runtime_error("this is an exception");
}

// Lets those go who wait for the event, however the test ends.
struct SetAtTheEnd {
    explicit SetAtTheEnd(mp::Event e) : event(std::move(e)) {}
    SetAtTheEnd(const SetAtTheEnd&) = delete;
    SetAtTheEnd& operator=(const SetAtTheEnd&) = delete;
    ~SetAtTheEnd() { event.set(); }
    mp::Event event;
};

}  // namespace

TEST_CASE("FutureTests.test_done_callback_with_result", "[future][conformance]") {
    std::optional<int> callback_result;
    const Future<int> f;
    f.add_done_callback([&](const Future<int>& future) { callback_result = future.result(); });
    f.set_result(5);
    CHECK(callback_result == 5);
}

TEST_CASE("FutureTests.test_done_callback_with_exception", "[future][conformance]") {
    std::exception_ptr callback_exception;
    const Future<int> f;
    f.add_done_callback(
        [&](const Future<int>& future) { callback_exception = future.exception(); });
    f.set_exception(test_error());
    REQUIRE(callback_exception);
    CHECK(what_of(callback_exception) == "test");
}

TEST_CASE("FutureTests.test_done_callback_with_cancel", "[future][conformance]") {
    std::optional<bool> was_cancelled;
    const Future<int> f;
    f.add_done_callback([&](const Future<int>& future) { was_cancelled = future.cancelled(); });
    CHECK(f.cancel());
    CHECK(was_cancelled == true);
}

TEST_CASE("FutureTests.test_done_callback_raises", "[future][conformance]") {
    const CapturedLog log;
    bool raising_was_called = false;
    bool fn_was_called = false;
    const Future<int> f;
    f.add_done_callback([&](const Future<int>&) {
        raising_was_called = true;
        throw std::runtime_error("doh!");
    });
    f.add_done_callback([&](const Future<int>&) { fn_was_called = true; });
    f.set_result(5);
    CHECK(raising_was_called);
    CHECK(fn_was_called);
    CHECK_THAT(log.text, Catch::Matchers::ContainsSubstring("std::runtime_error: doh!"));
}

TEST_CASE("FutureTests.test_done_callback_already_successful", "[future][conformance]") {
    std::optional<int> callback_result;
    const Future<int> f;
    f.set_result(5);
    f.add_done_callback([&](const Future<int>& future) { callback_result = future.result(); });
    CHECK(callback_result == 5);
}

TEST_CASE("FutureTests.test_done_callback_already_failed", "[future][conformance]") {
    std::exception_ptr callback_exception;
    const Future<int> f;
    f.set_exception(test_error());
    f.add_done_callback(
        [&](const Future<int>& future) { callback_exception = future.exception(); });
    REQUIRE(callback_exception);
    CHECK(what_of(callback_exception) == "test");
}

TEST_CASE("FutureTests.test_done_callback_already_cancelled", "[future][conformance]") {
    std::optional<bool> was_cancelled;
    const Future<int> f;
    CHECK(f.cancel());
    f.add_done_callback([&](const Future<int>& future) { was_cancelled = future.cancelled(); });
    CHECK(was_cancelled == true);
}

TEST_CASE("FutureTests.test_done_callback_raises_already_succeeded", "[future][conformance]") {
    const CapturedLog log;
    const Future<int> f;
    f.set_result(5);
    f.add_done_callback([](const Future<int>&) { throw std::runtime_error("doh!"); });
    CHECK_THAT(log.text, Catch::Matchers::ContainsSubstring("exception calling callback for"));
    CHECK_THAT(log.text, Catch::Matchers::ContainsSubstring("doh!"));
}

TEST_CASE("FutureTests.test_repr", "[future][conformance]") {
    const auto prints = [](const Future<int>& future, const std::string& state) {
        std::ostringstream out;
        out << future;
        return std::regex_match(out.str(),
                                std::regex("<Future at 0x[0-9a-f]+ state=" + state + ">"));
    };
    CHECK(prints(pending_future(), "pending"));
    CHECK(prints(running_future(), "running"));
    CHECK(prints(cancelled_future(), "cancelled"));
    CHECK(prints(cancelled_and_notified_future(), "cancelled"));
    CHECK(prints(failed_future(), "finished raised std::system_error"));
    CHECK(prints(successful_future(), "finished returned int"));
}

TEST_CASE("FutureTests.test_cancel", "[future][conformance]") {
    const auto f1 = pending_future();
    const auto f2 = running_future();
    const auto f3 = cancelled_future();
    const auto f4 = cancelled_and_notified_future();
    const auto f5 = failed_future();
    const auto f6 = successful_future();
    CHECK(f1.cancel());
    CHECK(phase_of(f1) == FuturePhase::cancelled);
    CHECK_FALSE(f2.cancel());
    CHECK(phase_of(f2) == FuturePhase::running);
    CHECK(f3.cancel());
    CHECK(phase_of(f3) == FuturePhase::cancelled);
    CHECK(f4.cancel());
    CHECK(phase_of(f4) == FuturePhase::cancelled_and_notified);
    CHECK_FALSE(f5.cancel());
    CHECK(phase_of(f5) == FuturePhase::finished);
    CHECK_FALSE(f6.cancel());
    CHECK(phase_of(f6) == FuturePhase::finished);
}

TEST_CASE("FutureTests.test_cancelled", "[future][conformance]") {
    CHECK_FALSE(pending_future().cancelled());
    CHECK_FALSE(running_future().cancelled());
    CHECK(cancelled_future().cancelled());
    CHECK(cancelled_and_notified_future().cancelled());
    CHECK_FALSE(failed_future().cancelled());
    CHECK_FALSE(successful_future().cancelled());
}

TEST_CASE("FutureTests.test_done", "[future][conformance]") {
    CHECK_FALSE(pending_future().done());
    CHECK_FALSE(running_future().done());
    CHECK(cancelled_future().done());
    CHECK(cancelled_and_notified_future().done());
    CHECK(failed_future().done());
    CHECK(successful_future().done());
}

TEST_CASE("FutureTests.test_running", "[future][conformance]") {
    CHECK_FALSE(pending_future().running());
    CHECK(running_future().running());
    CHECK_FALSE(cancelled_future().running());
    CHECK_FALSE(cancelled_and_notified_future().running());
    CHECK_FALSE(failed_future().running());
    CHECK_FALSE(successful_future().running());
}

TEST_CASE("FutureTests.test_result_with_timeout", "[future][conformance]") {
    CHECK_THROWS_AS(pending_future().result(0), futures::TimeoutError);
    CHECK_THROWS_AS(running_future().result(0), futures::TimeoutError);
    CHECK_THROWS_AS(cancelled_future().result(0), futures::CancelledError);
    CHECK_THROWS_AS(cancelled_and_notified_future().result(0), futures::CancelledError);
    CHECK_THROWS_AS(failed_future().result(0), std::system_error);
    CHECK(successful_future().result(0) == 42);
}

TEST_CASE("FutureTests.test_result_with_success", "[future][conformance]") {
    const auto f1 = pending_future();
    Threads threads;
    threads.run([f1] { f1.set_result(42); });
    CHECK(f1.result(patient) == 42);
}

TEST_CASE("FutureTests.test_result_with_cancel", "[future][conformance]") {
    const auto f1 = pending_future();
    Threads threads;
    threads.run([f1] { f1.cancel(); });
    CHECK_THROWS_AS(f1.result(patient), futures::CancelledError);
}

TEST_CASE("FutureTests.test_exception_with_timeout", "[future][conformance]") {
    CHECK_THROWS_AS(pending_future().exception(0), futures::TimeoutError);
    CHECK_THROWS_AS(running_future().exception(0), futures::TimeoutError);
    CHECK_THROWS_AS(cancelled_future().exception(0), futures::CancelledError);
    CHECK_THROWS_AS(cancelled_and_notified_future().exception(0), futures::CancelledError);
    CHECK(is_an<std::system_error>(failed_future().exception(0)));
    CHECK(successful_future().exception(0) == nullptr);
}

TEST_CASE("FutureTests.test_exception_with_success", "[future][conformance]") {
    const auto f1 = pending_future();
    Threads threads;
    threads.run([f1] { f1.set_exception(failed_future().exception()); });
    CHECK(is_an<std::system_error>(f1.exception(patient)));
}

TEST_CASE("FutureTests.test_multiple_set_result", "[future][conformance]") {
    const auto f = pending_future();
    f.set_result(1);
    std::string message;
    try {
        f.set_result(2);
    } catch (const futures::InvalidStateError& error) {
        message = error.what();
    }
    CHECK(std::regex_match(
        message, std::regex("FINISHED: <Future at 0x[0-9a-f]+ state=finished returned int>")));
    CHECK(f.done());
    CHECK(f.result() == 1);
}

TEST_CASE("FutureTests.test_multiple_set_exception", "[future][conformance]") {
    const auto f = pending_future();
    const auto e = std::make_exception_ptr(mp::ValueError("value"));
    f.set_exception(e);
    std::string message;
    try {
        f.set_exception(test_error());
    } catch (const futures::InvalidStateError& error) {
        message = error.what();
    }
    CHECK(std::regex_match(message, std::regex("FINISHED: <Future at 0x[0-9a-f]+ state=finished "
                                               "raised multiprocessing::ValueError>")));
    CHECK(f.exception() == e);
}

TEST_CASE("AsCompletedTests.test_no_timeout", "[future][conformance]") {
    Threads executor;
    const auto future1 = executor.submit([] { return mul(2, 21); });
    const auto future2 = executor.submit([] { return mul(7, 6); });
    const std::set all{cancelled_and_notified_future(), failed_future(), successful_future(),
                       future1, future2};
    std::set<Future<int>> completed;
    for (const auto& future : as_completed(all)) completed.insert(future);
    CHECK(completed == all);
}

TEST_CASE("AsCompletedTests.test_future_times_out", "[future][conformance]") {
    const std::set already_completed{cancelled_and_notified_future(), failed_future(),
                                     successful_future()};
    const double timeout = GENERATE(0.0, 0.1);
    Threads executor;
    const mp::Event event;
    const SetAtTheEnd set(event);
    const auto future = executor.submit([event] { return wait_for(event); });
    auto all = already_completed;
    all.insert(future);
    std::set<Future<int>> completed;
    try {
        for (const auto& f : as_completed(all, timeout)) completed.insert(f);
    } catch (const futures::TimeoutError&) {}
    CHECK(completed == already_completed);
}

TEST_CASE("AsCompletedTests.test_duplicate_futures", "[future][conformance]") {
    Threads executor;
    const auto future1 = executor.submit([] { return mul(2, 1); });
    IntFutures completed;
    for (const auto& future : as_completed(IntFutures(3, future1))) completed.push_back(future);
    CHECK(completed.size() == 1);
}

TEST_CASE("AsCompletedTests.test_free_reference_yielded_future", "[future][conformance]") {
    IntFutures list(8);
    list.push_back(cancelled_and_notified_future());
    list.push_back(successful_future());
    const auto is_freed = [&list](Future<int>& future) {
        const std::weak_ptr reference = mp::runtime::FutureAccess::state(future);
        std::erase(list, future);
        { const auto deleted = std::move(future); }
        return reference.expired();
    };
    const auto go = [&] {
        for (auto& future : as_completed(list, 0)) CHECK(is_freed(future));
    };
    CHECK_THROWS_AS(go(), futures::TimeoutError);
    REQUIRE(list.size() == 8);
    list.front().set_result(1);
    for (auto& future : as_completed(list, patient)) {
        CHECK(is_freed(future));
        if (!list.empty()) list.front().set_result(1);
    }
    CHECK(list.empty());
}

TEST_CASE("AsCompletedTests.test_correct_timeout_exception_msg", "[future][conformance]") {
    const IntFutures list{cancelled_and_notified_future(), pending_future(), running_future(),
                          successful_future()};
    const auto go = [&] {
        for (const auto& future : as_completed(list, 0)) static_cast<void>(future);
    };
    CHECK_THROWS_WITH(go(), "2 (of 4) futures unfinished");
}

TEST_CASE("WaitTests.test_20369", "[future][conformance]") {
    Threads executor;
    const auto future = executor.submit([] { return mul(1, 2); });
    const auto [done, not_done] = futures::wait({future, future}, patient, futures::ALL_COMPLETED);
    CHECK(done == IntFutures{future});
    CHECK(not_done.empty());
}

TEST_CASE("WaitTests.test_first_completed", "[future][conformance]") {
    Threads executor;
    const mp::Event event;
    const SetAtTheEnd set(event);
    const auto future1 = executor.submit([] { return mul(21, 2); });
    const auto future2 = executor.submit([event] { return wait_for(event); });
    // A cancelled future, which is not done in Python until its executor has noticed, is done here.
    const auto cancelled = cancelled_future();
    CHECK(futures::wait({cancelled, future2}, patient, futures::FIRST_COMPLETED).done ==
          IntFutures{cancelled});
    const auto [done, not_done] =
        futures::wait({future1, future2}, patient, futures::FIRST_COMPLETED);
    CHECK(done == IntFutures{future1});
    CHECK(not_done == IntFutures{future2});
}

TEST_CASE("WaitTests.test_first_completed_some_already_completed", "[future][conformance]") {
    Threads executor;
    const mp::Event event;
    const SetAtTheEnd set(event);
    const auto future1 = executor.submit([event] { return wait_for(event); });
    const IntFutures completed{cancelled_and_notified_future(), successful_future()};
    const auto [finished, pending] =
        futures::wait({completed[0], completed[1], future1}, patient, futures::FIRST_COMPLETED);
    CHECK(finished == completed);
    CHECK(pending == IntFutures{future1});
}

TEST_CASE("WaitTests.test_first_exception", "[future][conformance]") {
    Threads executor;
    const mp::Event event1;
    const mp::Event event2;
    const SetAtTheEnd set1(event1);
    const SetAtTheEnd set2(event2);
    const auto future1 = executor.submit([] { return mul(2, 21); });
    const auto future2 = executor.submit([event1] { return wait_and_raise(event1); });
    const auto future3 = executor.submit([event2] { return wait_for(event2); });
    // future1 is completed before future2 finishes.
    executor.run([event1, future1] {
        static_cast<void>(future1.result(patient));
        event1.set();
    });
    const auto [finished, pending] =
        futures::wait({future1, future2, future3}, patient, futures::FIRST_EXCEPTION);
    CHECK(finished == IntFutures{future1, future2});
    CHECK(pending == IntFutures{future3});
}

TEST_CASE("WaitTests.test_first_exception_some_already_complete", "[future][conformance]") {
    Threads executor;
    const mp::Event event;
    const SetAtTheEnd set(event);
    const auto future1 = executor.submit([] { return divmod(21, 0); });
    const auto future2 = executor.submit([event] { return wait_for(event); });
    // The second is not done in Python.
    const IntFutures completed{successful_future(), cancelled_future(),
                               cancelled_and_notified_future()};
    IntFutures all = completed;
    all.insert(all.end(), {future1, future2});
    const auto [finished, pending] = futures::wait(all, patient, futures::FIRST_EXCEPTION);
    CHECK(finished == IntFutures{completed[0], completed[1], completed[2], future1});
    CHECK(pending == IntFutures{future2});
}

TEST_CASE("WaitTests.test_first_exception_one_already_failed", "[future][conformance]") {
    Threads executor;
    const mp::Event event;
    const SetAtTheEnd set(event);
    const auto future1 = executor.submit([event] { return wait_for(event); });
    const auto failed = failed_future();
    const auto [finished, pending] =
        futures::wait({failed, future1}, patient, futures::FIRST_EXCEPTION);
    CHECK(finished == IntFutures{failed});
    CHECK(pending == IntFutures{future1});
}

TEST_CASE("WaitTests.test_all_completed", "[future][conformance]") {
    Threads executor;
    const auto future1 = executor.submit([] { return divmod(2, 0); });
    const auto future2 = executor.submit([] { return mul(2, 21); });
    const IntFutures all{successful_future(), cancelled_and_notified_future(), failed_future(),
                         future1, future2};
    const auto [finished, pending] = futures::wait(all, patient, futures::ALL_COMPLETED);
    CHECK(finished == all);
    CHECK(pending.empty());
}

TEST_CASE("WaitTests.test_timeout", "[future][conformance]") {
    Threads executor;
    const mp::Event event;
    const SetAtTheEnd set(event);
    const auto future = executor.submit([event] { return wait_for(event); });
    const IntFutures completed{cancelled_and_notified_future(), failed_future(),
                               successful_future()};
    IntFutures all = completed;
    all.push_back(future);
    const auto [finished, pending] = futures::wait(all, 0.050, futures::ALL_COMPLETED);
    CHECK(finished == completed);
    CHECK(pending == IntFutures{future});
}
