// SPDX-License-Identifier: BSL-1.0
//
// CPython's tests of how executors end, under their own names.

#include <multiprocessing/concurrent/futures.hpp>

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/process.hpp>
#include <multiprocessing/queues.hpp>
#include <multiprocessing/range.hpp>
#include <multiprocessing/runtime/exit.hpp>
#include <multiprocessing/sharedctypes.hpp>

#include "conformance/executors.hpp"
#include "support/catch.hpp"

#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

namespace mp = multiprocessing;
using namespace support;
using Catch::Matchers::ContainsSubstring;

namespace {

constexpr int worker_count = 5;

ProcessPoolExecutor each_process_executor() {
    EVERY_START_METHOD;
    return processes(worker_count, method);
}

int absolute(int x) { return x < 0 ? -x : x; }
const std::vector<int> absolutes{5, 4, 3, 2, 1, 0, 1, 2, 3, 4};
int count(const mp::Value<int>& calls) {
    calls.fetch_add(1);
    return 0;
}
int pass_and_count(const Gate& gate, const mp::Value<int>& calls) {
    pass(gate, 0);
    return count(calls);
}
bool acquire(const mp::Semaphore& begun, const mp::Semaphore& semaphore) {
    begun.release();
    return semaphore.acquire(true, patient);
}

struct ErrorAtPickle {
    int number = 0;
    template <class Archive>
    void save(Archive&, unsigned) const {
        throw mp::PicklingError("Error in pickle");
    }
    template <class Archive>
    void load(Archive&, unsigned) {}
    BOOST_SERIALIZATION_SPLIT_MEMBER()
};
int take(const ErrorAtPickle&) { return 0; }

using Output = mp::Queue<std::string>;

// What follows is run by a process which then ends; its executor is never destroyed.

void print_in_turn(const Gate& gate, const Output& out) {
    pass(gate, 0);
    out.put(std::string("apple"));
}
template <class Executor>
const Executor& for_good(Executor executor) {
    return *new Executor(std::move(executor));
}
void end_while_it_runs(const std::string& kind, const Gate& gate, const Output& out,
                       bool shut_down) {
    with_executor(kind, worker_count, [&](auto made) {
        const auto& executor = for_good(std::move(made));
        executor.submit(print_in_turn, gate, out);
        if (shut_down) executor.shutdown(false);
        // From here on it only has to end.
        mp::runtime::register_exit([gate] { gate.go.set(); }, 100);
    });
}
void submit_at_the_end(const std::string& kind, const Output& out) {
    with_executor(kind, worker_count, [&out](auto made) {
        const auto& executor = for_good(std::move(made));
        executor.submit(twice, 21).result(patient);
        constexpr int last = 1;
        mp::runtime::register_exit(
            [&executor, out] {
                try {
                    executor.submit(twice, 21);
                } catch (const std::runtime_error& error) {
                    out.put(std::string(error.what()));
                }
            },
            last);
    });
}
std::string printed_by_one_that_ends(const std::string& kind, bool shut_down) {
    const Gate gate;
    const Output out;
    Children children("fork");
    children.start(end_while_it_runs, kind, gate, out, shut_down);
    CHECK(children.join());
    return out.get_nowait();
}

}  // namespace

TEST_CASE("ExecutorShutdownTest.test_run_after_shutdown", "[executor][conformance]") {
    with_each_executor(worker_count, [](const auto& executor) {
        executor.shutdown();
        CHECK_THROWS_AS(executor.submit(twice, 2), std::runtime_error);
        CHECK_THROWS_WITH(executor.submit(twice, 2),
                          ContainsSubstring("cannot schedule new futures after shutdown"));
    });
}

TEST_CASE("ExecutorShutdownTest.test_interpreter_shutdown", "[executor][conformance]") {
    with_each_kind(
        [](const std::string& kind) { CHECK(printed_by_one_that_ends(kind, false) == "apple"); });
}

TEST_CASE("ExecutorShutdownTest.test_submit_after_interpreter_shutdown", "[executor][conformance]") {
    with_each_kind([](const std::string& kind) {
        const Output out;
        Children children("fork");
        children.start(submit_at_the_end, kind, out);
        CHECK_THAT(out.get(patient), ContainsSubstring("cannot schedule new futures"));
        CHECK(children.join());
    });
}

TEST_CASE("ExecutorShutdownTest.test_hang_issue12364", "[executor][conformance]") {
    with_each_executor(worker_count, [](const auto& executor) {
        std::vector<Future<int>> fs;
        for (int i = 0; i < 50; ++i) fs.push_back(executor.submit(twice, i));
        executor.shutdown();
        for (const auto& f : fs) CHECK(f.result(0) % 2 == 0);
    });
}

TEST_CASE("ExecutorShutdownTest.test_cancel_futures", "[executor][conformance]") {
    with_each_executor(worker_count, [](const auto& executor) {
        const Gate gate;
        const OpenAtTheEnd open(gate);
        std::vector<Future<int>> fs;
        for (int i = 0; i < 50; ++i) fs.push_back(executor.submit(pass, gate, i));
        REQUIRE(gate.wait_for(1));
        executor.shutdown({.wait = false, .cancel_futures = true});
        gate.go.set();
        executor.shutdown();
        int cancelled = 0;
        int others = 0;
        for (const auto& f : fs) {
            CHECK(f.done());
            if (f.cancelled()) {
                ++cancelled;
            } else {
                ++others;
                CHECK(f.exception(0) == nullptr);
            }
        }
        CHECK(cancelled > 20);
        CHECK(others > 0);
    });
}

TEST_CASE("ExecutorShutdownTest.test_hang_gh83386", "[executor][conformance]") {
    with_each_kind(
        [](const std::string& kind) { CHECK(printed_by_one_that_ends(kind, true) == "apple"); });
}

TEST_CASE("ExecutorShutdownTest.test_hang_gh94440", "[executor][conformance]") {
    with_each_executor(worker_count, [](const auto& executor) {
        CHECK(executor.submit(twice, 0).result(patient) == 0);
        executor.submit(twice, 0).cancel();
        CHECK(elapsed([&] { executor.shutdown(); }) < no_time);
    });
}

TEST_CASE("ProcessPoolShutdownTest.test_cancel_futures", "[executor][conformance]") {
    const ProcessPoolExecutor executor = each_process_executor();
    const mp::Value<int> calls(0);
    const Gate gate;
    const OpenAtTheEnd open(gate);
    std::vector<Future<int>> fs;
    for (int i = 0; i < 50; ++i) fs.push_back(executor.submit(pass_and_count, gate, calls));
    REQUIRE(gate.wait_for(worker_count));
    executor.shutdown({.wait = false, .cancel_futures = true});
    // All workers are at one, and the rest is nobody's.
    int cancelled = 0;
    for (const auto& f : fs) cancelled += f.cancelled() ? 1 : 0;
    CHECK(cancelled == 50 - worker_count);
    gate.go.set();
    executor.shutdown();
    CHECK(calls.value() == worker_count);
    for (const auto& f : fs) CHECK((f.cancelled() || f.exception(0) == nullptr));
}

TEST_CASE("ProcessPoolShutdownTest.test_processes_terminate", "[executor][conformance]") {
    EVERY_START_METHOD;
    const ProcessPoolExecutor executor = processes(worker_count, method);
    const mp::Semaphore begun(0);
    const mp::Semaphore semaphore(0);
    for (int i = 0; i < 3; ++i) executor.submit(acquire, begun, semaphore);
    for (int i = 0; i < 3; ++i) REQUIRE(begun.acquire(true, patient));
    // Those that are forked are all started with the first.
    const std::size_t expected = method == "fork" ? worker_count : 3;
    CHECK(workers_of(executor, expected).size() == expected);
    for (int i = 0; i < 3; ++i) semaphore.release();
    const auto workers = executor.workers();
    executor.shutdown();
    for (const auto& worker : workers) CHECK(worker.exitcode() == 0);
}

TEST_CASE("ProcessPoolShutdownTest.test_context_manager_shutdown", "[executor][conformance]") {
    std::vector<mp::Process> workers;
    {
        const ProcessPoolExecutor executor = each_process_executor();
        const auto results = executor.map(absolute, mp::range(-5, 5));
        CHECK(list(results) == absolutes);
        workers = workers_of(executor, 1);
    }
    CHECK_FALSE(workers.empty());
    for (const auto& worker : workers) CHECK(worker.exitcode() == 0);
}

TEST_CASE("ProcessPoolShutdownTest.test_del_shutdown", "[executor][conformance]") {
    std::optional<ProcessPoolExecutor> executor = each_process_executor();
    const auto results = executor->map(absolute, mp::range(-5, 5));
    const auto workers = executor->workers();
    executor.reset();
    for (const auto& worker : workers) CHECK(worker.exitcode() == 0);
    CHECK(list(results) == absolutes);
}

TEST_CASE("ProcessPoolShutdownTest.test_shutdown_no_wait", "[executor][conformance]") {
    const ProcessPoolExecutor executor = each_process_executor();
    const auto results = executor.map(absolute, mp::range(-5, 5));
    executor.shutdown(false);
    CHECK(list(results) == absolutes);
    for (const auto& worker : executor.workers()) {
        worker.join(patient);
        CHECK(worker.exitcode() == 0);
    }
    executor.shutdown();
    CHECK(executor.workers().empty());
}

TEST_CASE("ProcessPoolShutdownTest.test_shutdown_gh_132969_case_1", "[executor][conformance]") {
    const ProcessPoolExecutor executor = each_process_executor();
    const auto bad = executor.submit(take, ErrorAtPickle());
    const auto good = executor.submit(twice, 21);
    executor.shutdown(false);
    CHECK(is_an<mp::PicklingError>(bad.exception(patient)));
    CHECK(good.result(patient) == 42);
    executor.shutdown();
}

TEST_CASE("ProcessPoolShutdownTest.test_shutdown_gh_132969_case_2", "[executor][conformance]") {
    const ProcessPoolExecutor executor = each_process_executor();
    const Gate gate;
    const OpenAtTheEnd open(gate);
    const auto good = executor.submit(pass, gate, 42);
    const auto bad = executor.submit(take, ErrorAtPickle());
    executor.shutdown(false);
    gate.go.set();
    CHECK(is_an<mp::PicklingError>(bad.exception(patient)));
    CHECK(good.result(patient) == 42);
    executor.shutdown();
}
