// SPDX-License-Identifier: BSL-1.0

#include <multiprocessing/concurrent/futures/future.hpp>

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/process.hpp>
#include <multiprocessing/runtime/future_state.hpp>
#include <multiprocessing/util.hpp>

#include "concurrent/helpers.hpp"
#include "runtime/helpers.hpp"
#include "support/catch.hpp"
#include "support/logging.hpp"
#include "threads/crowd.hpp"

#include <atomic>
#include <chrono>
#include <coroutine>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <type_traits>
#include <unordered_set>
#include <utility>
#include <vector>

namespace mp = multiprocessing;
using namespace std::chrono_literals;
using Catch::Matchers::ContainsSubstring;
using mp::concurrent::futures::Future;
using support::long_enough;
using support::run_together;
using support::Threads;

namespace {

std::string printed(const auto& value) {
    std::ostringstream out;
    out << value;
    return out.str();
}

std::exception_ptr an_error(const std::string& what = "an error") {
    return std::make_exception_ptr(std::out_of_range(what));
}

template <class R>
void give_source(const Future<R>& future, std::shared_ptr<mp::runtime::FutureSource> source) {
    mp::runtime::FutureAccess::state(future)->set_source(std::move(source));
}

// An executor that answers as it is told to.
struct Source : mp::runtime::FutureSource {
    bool revoke() override {
        ++revoked;
        return on_revoke();
    }
    bool begun() override {
        ++asked;
        return on_begun();
    }
    std::function<bool()> on_revoke = [] { return false; };
    std::function<bool()> on_begun = [] { return false; };
    std::atomic<int> revoked{0};
    std::atomic<int> asked{0};
};

// Its own code runs whenever it is moved or copied.
struct Lively {
    explicit Lively(std::function<void()> f) : act(std::move(f)) {}
    Lively(const Lively& other) : act(other.act) { act(); }
    Lively(Lively&& other) : act(other.act) { act(); }
    Lively& operator=(const Lively&) = default;
    ~Lively() = default;
    std::function<void()> act;
};

// A coroutine that begins at once; its frame is destroyed at its end, or by destroy().
struct Task {
    struct promise_type {
        Task get_return_object() {
            return {std::coroutine_handle<promise_type>::from_promise(*this)};
        }
        std::suspend_never initial_suspend() noexcept { return {}; }
        std::suspend_never final_suspend() noexcept { return {}; }
        void return_void() {}
        void unhandled_exception() { throw; }
    };
    std::coroutine_handle<promise_type> handle;
    void destroy() const { handle.destroy(); }
};

struct Seen {
    std::string what;
    std::thread::id where;
};

Task await_text(Future<std::string> future, Seen& seen) {
    try {
        seen.what = co_await future;
    } catch (const std::exception& error) {
        seen.what = error.what();
    }
    seen.where = std::this_thread::get_id();
}

}  // namespace

TEST_CASE("a new future is pending", "[future]") {
    const Future<int> future;
    CHECK_FALSE(future.done());
    CHECK_FALSE(future.running());
    CHECK_FALSE(future.cancelled());
    CHECK_THROWS_AS(future.result(0), mp::TimeoutError);
}

TEST_CASE("copies are the same future", "[future]") {
    const Future<int> future;
    const Future<int> copy = future;
    const Future<int> other;
    CHECK(copy == future);
    CHECK(other != future);
    CHECK((copy <=> future) == std::strong_ordering::equal);
    CHECK(((other < future) != (other > future)));
    copy.set_result(3);
    CHECK(future.result(0) == 3);
    CHECK(std::set<Future<int>>{future, copy, other}.size() == 2);
    CHECK(std::unordered_set<Future<int>>{future, copy, other}.size() == 2);
}

TEST_CASE("result() copies from a future, and moves out of one that goes", "[future]") {
    Future<std::string> text;
    text.set_result("a text that is too long for the small string optimisation");
    const std::string first = text.result(0);
    CHECK(text.result(0) == first);
    const Future<std::string> copy = text;
    CHECK(std::move(text).result(0) == first);
    CHECK(copy.result(0).empty());

    Future<std::unique_ptr<int>> boxed;
    boxed.set_result(std::make_unique<int>(7));
    CHECK(*std::move(boxed).result(0) == 7);
}

TEST_CASE("result() waits for the thread that gives it", "[future]") {
    for (int n = 0; n < 200; ++n) {
        const Future<int> future;
        Threads threads;
        threads.run([future, n] { future.set_result(n); });
        REQUIRE(future.result(long_enough) == n);
        REQUIRE(future.done());
    }
}

TEST_CASE("several threads wait for one result", "[future]") {
    const Future<std::string> future;
    std::atomic<int> right{0};
    run_together([&](int i) {
        if (i == 0) {
            future.set_result("done");
        } else if (future.result(long_enough) == "done" && !future.exception(0)) {
            ++right;
        }
    });
    CHECK(right == support::crowd - 1);
}

TEST_CASE("a future of nothing", "[future]") {
    const Future<void> future;
    static_assert(std::is_void_v<decltype(future.result())>);
    future.set_result();
    CHECK(future.done());
    CHECK_NOTHROW(future.result(0));
    CHECK(future.exception(0) == nullptr);
    CHECK_THROWS_AS(future.set_result(), mp::InvalidStateError);
}

TEST_CASE("a failed call's exception is thrown, and may be looked at", "[future]") {
    const Future<int> future;
    const auto error = an_error("no such thing");
    future.set_exception(error);
    CHECK(future.done());
    CHECK(future.exception(0) == error);
    CHECK_THROWS_AS(future.result(0), std::out_of_range);
    CHECK_THROWS_WITH(Future<int>(future).result(), "no such thing");
    CHECK(support::successful_future().exception(0) == nullptr);
}

TEST_CASE("nothing is no exception", "[future]") {
    const Future<int> future;
    CHECK_THROWS_AS(future.set_exception(nullptr), mp::ValueError);
    CHECK_FALSE(future.done());
    future.set_result(1);
    CHECK(future.result() == 1);
}

TEST_CASE("waiting for a future ends with the time given", "[future]") {
    const auto timeout = GENERATE(as<mp::Timeout>{}, 0, -1, 20ms);
    for (const auto& future : {support::pending_future(), support::running_future()}) {
        CHECK_THROWS_AS(future.result(timeout), mp::TimeoutError);
        CHECK_THROWS_AS(future.exception(timeout), mp::TimeoutError);
        CHECK_FALSE(future.done());
        future.set_result(2);
        CHECK(future.result(timeout) == 2);
        CHECK(future.exception(timeout) == nullptr);
    }
}

TEST_CASE("a pending future can be cancelled, and only a pending one", "[future][cancel]") {
    const auto pending = support::pending_future();
    CHECK(pending.cancel());
    CHECK(pending.cancelled());
    CHECK(pending.done());
    CHECK_FALSE(pending.running());
    CHECK(pending.cancel());
    CHECK_THROWS_AS(pending.result(), mp::CancelledError);
    CHECK_THROWS_AS(pending.exception(), mp::CancelledError);
    CHECK_THROWS_AS(pending.set_result(1), mp::InvalidStateError);
    CHECK_THROWS_AS(pending.set_exception(an_error()), mp::InvalidStateError);

    for (const auto& other :
         {support::running_future(), support::failed_future(), support::successful_future()}) {
        CHECK_FALSE(other.cancel());
        CHECK_FALSE(other.cancelled());
    }
}

TEST_CASE("who waits for a future hears that it is cancelled", "[future][cancel]") {
    for (int n = 0; n < 100; ++n) {
        const Future<int> future;
        Threads threads;
        threads.run([future] { future.cancel(); });
        REQUIRE_THROWS_AS(future.result(long_enough), mp::CancelledError);
    }
}

TEST_CASE("an executor asks before it begins", "[future][cancel]") {
    const Future<int> future;
    CHECK(future.set_running_or_notify_cancel());
    CHECK(future.running());
    CHECK_THROWS_AS(future.set_running_or_notify_cancel(), mp::InvalidStateError);
    future.set_result(1);
    CHECK_FALSE(future.running());
    CHECK_THROWS_AS(future.set_running_or_notify_cancel(), mp::InvalidStateError);

    const auto cancelled = support::cancelled_future();
    CHECK_FALSE(cancelled.set_running_or_notify_cancel());
    CHECK(cancelled.cancelled());
    CHECK(cancelled.cancel());
    CHECK_THROWS_WITH(cancelled.set_running_or_notify_cancel(),
                      ContainsSubstring("CANCELLED_AND_NOTIFIED: <Future at 0x"));
}

TEST_CASE("the first outcome stays", "[future]") {
    const Future<int> future;
    future.set_result(1);
    CHECK_THROWS_WITH(future.set_result(2), ContainsSubstring("FINISHED: <Future at 0x"));
    CHECK_THROWS_AS(future.set_exception(an_error()), mp::InvalidStateError);
    CHECK(future.result() == 1);
    CHECK(future.exception() == nullptr);

    const auto failed = support::failed_future();
    CHECK_THROWS_AS(failed.set_result(2), mp::InvalidStateError);
    CHECK_THROWS_AS(failed.result(), std::system_error);
}

TEST_CASE("a result that cannot be moved in leaves the future as it was", "[future]") {
    bool refuses = true;
    const auto act = [&refuses] {
        if (refuses) throw std::runtime_error("not now");
    };
    const bool begun = GENERATE(false, true);
    const Future<Lively> future;
    if (begun) CHECK(future.set_running_or_notify_cancel());
    CHECK_THROWS_WITH(future.set_result(Lively(act)), "not now");
    CHECK_FALSE(future.done());
    CHECK(future.running() == begun);
    refuses = false;
    future.set_result(Lively(act));
    CHECK_NOTHROW(future.result(0));
}

TEST_CASE("the result's own code may use the future", "[future]") {
    const Future<Lively> future;
    int called = 0;
    const auto use = [weak = std::weak_ptr(mp::runtime::FutureAccess::state(future)), &called] {
        const auto state = weak.lock();
        // Not before set_result() has it.
        if (state == nullptr || (!state->running() && !state->done()) || state->cancel()) return;
        mp::runtime::FutureAccess::handle<Future<Lively>>(state).add_done_callback(
            [&] { ++called; });
    };
    future.set_result(Lively(use));
    CHECK(called > 0);
    const int before = called;
    static_cast<void>(future.result(0));
    CHECK(called > before);
}

TEST_CASE("callbacks run once, in the order they were added", "[future][callback]") {
    const Future<int> future;
    std::string order;
    future.add_done_callback([&](Future<int> f) { order += "a" + std::to_string(f.result()); });
    future.add_done_callback([&](const Future<int>& f) { order += f == future ? "b" : "?"; });
    future.add_done_callback([&] { order += "c"; });
    future.add_done_callback([&](auto&& f) { order += f.done() ? "d" : "?"; });
    future.add_done_callback([&, own = std::make_unique<int>(1)] { return order += "e"; });
    CHECK(order.empty());
    future.set_result(5);
    CHECK(order == "a5bcde");
    future.add_done_callback([&] { order += "f"; });
    CHECK(order == "a5bcdef");
}

TEST_CASE("callbacks run however a future ends", "[future][callback]") {
    int called = 0;
    const auto count = [&called] { ++called; };
    const Future<int> failing;
    failing.add_done_callback(count);
    failing.set_exception(an_error());
    CHECK(called == 1);
    const Future<void> cancelled;
    cancelled.add_done_callback(count);
    CHECK(cancelled.cancel());
    CHECK(called == 2);
    CHECK_FALSE(cancelled.set_running_or_notify_cancel());
    CHECK(cancelled.cancel());
    CHECK(called == 2);
}

TEST_CASE("what a callback throws is told on stderr where there is no log", "[future][callback]") {
    const mp::Process process([] {
        const Future<int> future;
        future.add_done_callback([] { throw std::runtime_error("doh!"); });
        future.set_result(1);
    });
    CHECK_THAT(support::errors_of(process),
               ContainsSubstring("exception calling callback for <Future at") &&
                   ContainsSubstring("std::runtime_error: doh!\n"));
}

TEST_CASE("what a callback throws is logged, and the others run", "[future][callback]") {
    const support::RestoreLog restore;
    std::vector<mp::LogRecord> records;
    mp::get_logger().set_sink([&](const mp::LogRecord& record) { records.push_back(record); });
    const Future<int> future;
    int called = 0;
    future.add_done_callback([] { throw std::runtime_error("doh!"); });
    future.add_done_callback([] { throw 5; });
    future.add_done_callback([&] { ++called; });
    CHECK_NOTHROW(future.set_result(1));
    CHECK(called == 1);
    CHECK_NOTHROW(future.add_done_callback([] { throw std::runtime_error("late"); }));
    REQUIRE(records.size() == 3);
    CHECK_THAT(records[0].message, ContainsSubstring("exception calling callback for <Future at"));
    CHECK_THAT(records[0].message, ContainsSubstring("std::runtime_error: doh!"));
    CHECK(records[0].level == mp::log_level::error);
    CHECK_THAT(records[1].message, ContainsSubstring("int"));
    CHECK_THAT(records[2].message, ContainsSubstring("late"));
}

TEST_CASE("a callback may do with the future what it likes", "[future][callback]") {
    const Future<int> future;
    int called = 0;
    future.add_done_callback([&called](const Future<int>& f) {
        if (f.cancel() || f.result(0) != 1) return;
        f.add_done_callback([&called] { ++called; });
        try {
            f.set_result(2);
        } catch (const mp::InvalidStateError&) {
            ++called;
        }
    });
    future.set_result(1);
    CHECK(called == 2);
}

TEST_CASE("a callback may drop the last handle", "[future][callback]") {
    int called = 0;
    std::optional<Future<std::string>> last(std::in_place);
    const std::weak_ptr state = mp::runtime::FutureAccess::state(*last);
    last->add_done_callback([&] {
        last.reset();
        ++called;
    });
    last->add_done_callback([&] { ++called; });
    SECTION("while it is finished") { last->set_result("text"); }
    SECTION("while it fails") { last->set_exception(an_error()); }
    SECTION("while it is cancelled") { CHECK(last->cancel()); }
    CHECK(called == 2);
    CHECK(state.expired());
}

TEST_CASE("a callback that is called at once may drop the last handle", "[future][callback]") {
    std::optional<Future<int>> last(support::successful_future());
    const std::weak_ptr state = mp::runtime::FutureAccess::state(*last);
    last->add_done_callback([&] { last.reset(); });
    CHECK(state.expired());
}

TEST_CASE("what a callback holds goes when it has run, or with the future", "[future][callback]") {
    auto held = std::make_shared<int>(1);
    const std::weak_ptr watched = held;
    {
        const Future<int> future;
        future.add_done_callback([held = std::move(held)] {});
        CHECK_FALSE(watched.expired());
        const bool done = GENERATE(true, false);
        if (done) {
            future.set_result(1);
            CHECK(watched.expired());
        }
    }
    CHECK(watched.expired());
}

TEST_CASE("what a callback holds may use the future at its end", "[future][callback]") {
    struct AtEnd {
        explicit AtEnd(std::function<void()> f) : act(std::move(f)) {}
        AtEnd(AtEnd&&) = default;
        AtEnd& operator=(AtEnd&&) = default;
        ~AtEnd() {
            if (act) act();
        }
        std::function<void()> act;
    };
    const Future<int> future;
    int called = 0;
    std::function<void()> act = [weak = std::weak_ptr(mp::runtime::FutureAccess::state(future)),
                                 &called] {
        const auto state = weak.lock();
        if (state && state->done() && !state->cancel()) ++called;
    };
    future.add_done_callback([end = std::make_unique<AtEnd>(std::move(act))] {});
    future.set_result(1);
    CHECK(called == 1);
}

TEST_CASE("who waits is woken before the callbacks run", "[future][callback]") {
    const Future<int> future;
    const Future<int> received;
    future.add_done_callback([received] { static_cast<void>(received.exception(long_enough)); });
    Threads threads;
    threads.run([&] { received.set_result(future.result(long_enough)); });
    future.set_result(9);
    CHECK(received.result(0) == 9);
}

TEST_CASE("a handle may go as soon as the future is done", "[future]") {
    for (int n = 0; n < 300; ++n) {
        auto last = std::make_unique<Future<int>>();
        Threads threads;
        threads.run([&future = *last] { future.set_result(1); });
        REQUIRE(Future<int>(*last).result(long_enough) == 1);
        last.reset();
    }
}

TEST_CASE("an executor is asked whether a pending future can be cancelled", "[future][cancel]") {
    const Future<int> future;
    const auto source = std::make_shared<Source>();
    give_source(future, source);
    CHECK_FALSE(future.cancel());
    CHECK_FALSE(future.cancelled());
    CHECK(source->revoked == 1);
    // Without a lock.
    source->on_revoke = [&] { return !future.done() && !future.running(); };
    CHECK(future.cancel());
    CHECK(source->revoked == 2);
    CHECK(future.cancel());
    CHECK(source->revoked == 2);
    CHECK(source.use_count() == 1);
}

TEST_CASE("what is not pending does not ask the executor", "[future][cancel]") {
    const auto source = std::make_shared<Source>();
    const auto running = support::running_future();
    give_source(running, source);
    CHECK_FALSE(running.cancel());
    CHECK(running.running());
    running.set_result(1);
    CHECK_FALSE(running.cancel());
    CHECK_FALSE(running.running());
    give_source(running, source);  // too late
    CHECK(source.use_count() == 1);
    CHECK(source->revoked == 0);
    CHECK(source->asked == 0);
}

TEST_CASE("a pending future runs when its executor says so", "[future]") {
    const Future<int> future;
    const auto source = std::make_shared<Source>();
    give_source(future, source);
    CHECK_FALSE(future.running());
    source->on_begun = [] { return true; };
    CHECK(future.running());
    CHECK_THAT(printed(future), ContainsSubstring("state=running"));
    future.set_result(1);
    CHECK_FALSE(future.running());
    CHECK(source.use_count() == 1);
}

TEST_CASE("an executor may end the future while it is asked", "[future][cancel]") {
    const Future<int> future;
    const auto source = std::make_shared<Source>();
    give_source(future, source);
    SECTION("with a result") {
        source->on_revoke = [&] {
            future.set_result(1);
            return true;
        };
        CHECK_FALSE(future.cancel());
        CHECK(future.result(0) == 1);
    }
    SECTION("by cancelling it") {
        source->on_revoke = [&] {
            mp::runtime::FutureAccess::state(future)->mark_cancelled();
            return false;
        };
        CHECK(future.cancel());
        CHECK(future.cancelled());
    }
}

TEST_CASE("threads cancel, finish and listen to one future", "[future][cancel]") {
    for (int n = 0; n < 200; ++n) {
        const Future<int> future;
        std::atomic<int> ended{0};
        std::atomic<int> cancelled{0};
        std::atomic<int> called{0};
        std::atomic<int> heard{0};
        run_together(6, [&](int i) {
            future.add_done_callback([&called] { ++called; });
            if (i < 2) {
                try {
                    future.set_result(i);
                    ++ended;
                } catch (const mp::InvalidStateError&) {}
            } else if (i < 4) {
                if (future.cancel()) ++cancelled;
            } else {
                try {
                    if (future.result(long_enough) < 2) ++heard;
                } catch (const mp::CancelledError&) {
                    ++heard;
                }
            }
        });
        REQUIRE(called == 6);
        REQUIRE(heard == 2);
        REQUIRE(ended == (future.cancelled() ? 0 : 1));
        REQUIRE(cancelled == (future.cancelled() ? 2 : 0));
    }
}

TEST_CASE("threads that wait a short time for a future", "[future]") {
    for (int n = 0; n < 100; ++n) {
        const Future<int> future;
        std::atomic<bool> all_right{true};
        run_together([&](int i) {
            if (i == 0) {
                for (int k = 0; k < n; ++k) std::this_thread::yield();
                future.set_result(1);
                return;
            }
            while (!future.done()) {
                try {
                    if (future.result(0.000'02) != 1) all_right = false;
                } catch (const mp::TimeoutError&) {}
            }
        });
        REQUIRE(all_right);
    }
}

TEST_CASE("a coroutine goes on in the thread that completes the future", "[future][coroutine]") {
    const Future<std::string> future;
    Seen seen;
    await_text(future, seen);
    CHECK(seen.what.empty());
    std::thread::id completing;
    Threads threads;
    threads.run([&] {
        completing = std::this_thread::get_id();
        future.set_result("awaited");
    });
    threads.join();
    CHECK(seen.what == "awaited");
    CHECK(seen.where == completing);
    CHECK(future.result(0) == "awaited");
}

TEST_CASE("a coroutine does not wait for what is done", "[future][coroutine]") {
    Future<std::string> future;
    future.set_result("there");
    Seen seen;
    await_text(future, seen);
    CHECK(seen.what == "there");
    CHECK(seen.where == std::this_thread::get_id());
}

TEST_CASE("a coroutine gets the exception, or that it was cancelled", "[future][coroutine]") {
    Seen seen;
    const Future<std::string> failing;
    await_text(failing, seen);
    failing.set_exception(an_error("thrown"));
    CHECK(seen.what == "thrown");
    const Future<std::string> cancelled;
    await_text(cancelled, seen);
    cancelled.cancel();
    CHECK_THAT(seen.what, ContainsSubstring("cancelled"));
}

TEST_CASE("a coroutine moves the result out of a future that goes", "[future][coroutine]") {
    Future<std::unique_ptr<int>> boxed;
    const Future<void> nothing;
    int got = 0;
    const auto coroutine = [](Future<std::unique_ptr<int>> b, Future<void> n, int& to) -> Task {
        co_await n;
        to = *co_await std::move(b);
    };
    coroutine(boxed, nothing, got);
    boxed.set_result(std::make_unique<int>(3));
    CHECK(got == 0);
    nothing.set_result();
    CHECK(got == 3);
    CHECK(std::move(boxed).result(0) == nullptr);
}

TEST_CASE("a coroutine that is destroyed is not resumed", "[future][coroutine]") {
    const Future<std::string> future;
    Seen first;
    Seen second;
    std::optional<Task> task;
    SECTION("before the future is done") {
        task = await_text(future, first);
        await_text(future, second);
        task->destroy();
    }
    SECTION("by a callback that runs before") {
        future.add_done_callback([&] { task->destroy(); });
        task = await_text(future, first);
        await_text(future, second);
    }
    future.set_result("text");
    CHECK(first.what.empty());
    CHECK(second.what == "text");
}

TEST_CASE("a coroutine that throws does not hurt who completes the future", "[future][coroutine]") {
    const Future<int> future;
    const Task task = [](Future<int> f) -> Task { throw co_await f; }(future);
    int called = 0;
    future.add_done_callback([&] { ++called; });
    CHECK_NOTHROW(future.set_result(1));
    CHECK(called == 1);
    task.destroy();  // it is at its end, but has not gone by itself
}

TEST_CASE("coroutines and threads that complete what they wait for", "[future][coroutine]") {
    for (int n = 0; n < 100; ++n) {
        const Future<int> a;
        const Future<int> b;
        const Future<int> sum;
        run_together(3, [&](int i) {
            if (i == 0) a.set_result(n);
            if (i == 1) b.set_result(1);
            if (i == 2) {
                [](Future<int> x, Future<int> y, Future<int> to) -> Task {
                    to.set_result(co_await x + co_await y);
                }(a, b, sum);
            }
        });
        REQUIRE(sum.result(long_enough) == n + 1);
    }
}

TEST_CASE("a future prints as Python's does", "[future]") {
    const auto ends = [](const auto& future, const std::string& end) {
        const std::string text = printed(future);
        INFO(text);
        CHECK(text.starts_with("<Future at 0x"));
        CHECK(text.ends_with(" state=" + end + ">"));
    };
    ends(support::pending_future(), "pending");
    ends(support::running_future(), "running");
    ends(support::cancelled_future(), "cancelled");
    ends(support::cancelled_and_notified_future(), "cancelled");
    ends(support::failed_future(), "finished raised std::system_error");
    ends(support::successful_future(), "finished returned int");
    const Future<void> nothing;
    nothing.set_result();
    ends(nothing, "finished returned void");
}
