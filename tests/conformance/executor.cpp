// SPDX-License-Identifier: BSL-1.0
//
// CPython's tests of what all executors have in common, under their own names: with processes of
// every start method, and with threads.

#include <multiprocessing/concurrent/futures.hpp>

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/range.hpp>

#include "conformance/executors.hpp"
#include "runtime/pool_helpers.hpp"
#include "support/catch.hpp"

#include <cstddef>
#include <memory>
#include <optional>
#include <ranges>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace mp = multiprocessing;
using namespace support;
using Catch::Matchers::ContainsSubstring;

namespace {

constexpr int worker_count = 3;

int power(int x, int y) {
    int result = 1;
    for (int i = 0; i < y; ++i) result *= x;
    return result;
}
std::pair<int, int> divide(int x, int y) {
    if (y == 0) throw std::domain_error("division by zero");
    return {x / y, x % y};
}
std::string text(int x) { return std::to_string(x); }
int time_out_at_2(int x) {
    if (x == 2) throw mp::TimeoutError("of the callable");
    return x;
}
int pass_at_2(const Gate& gate, int x) { return x == 2 ? pass(gate, x) : x; }
std::shared_ptr<int> make_object(int x) { return std::make_shared<int>(x); }

std::vector<int> serial_powers() {
    std::vector<int> result;
    for (int i = 0; i < 10; ++i) result.push_back(power(i, i));
    return result;
}

// It is known when it has been destroyed.
struct MyObject {
    explicit MyObject(mp::Event event) : collected(std::move(event)) {}
    MyObject(const MyObject&) = delete;
    MyObject& operator=(const MyObject&) = delete;
    ~MyObject() { collected.set(); }
    void my_method() const {}
    mp::Event collected;
};

int initializer_status = 0;
thread_local int initializer_status_of_thread = 0;
void init(int x) { initializer_status = x; }
int get_init_status() { return initializer_status; }
void init_fail(const mp::Event& scheduled) {
    scheduled.wait(patient);  // let some futures be scheduled
    throw mp::ValueError("error in initializer");
}

template <class Executor>
void check_that_it_breaks(const Executor& executor, const mp::Event& scheduled) {
    const auto future = executor.submit(get_init_status);
    scheduled.set();
    // What CPython logs is in the exception's text.
    const auto why = future.exception(patient);
    CHECK(is_an<mp::BrokenExecutor>(why));
    CHECK_THAT(what_of(why), ContainsSubstring("ValueError: error in initializer"));
    CHECK_THROWS_AS(executor.submit(get_init_status), mp::BrokenExecutor);
}
futures::ProcessPoolExecutorOptions failing(const std::string& method, const mp::Event& scheduled) {
    return {.max_workers = 2,
            .mp_context = mp::get_context(method),
            .initializer = mp::partial(init_fail, scheduled)};
}
void check_that_nothing_is_left(const std::string& method) {
    const auto go = [&] {
        const mp::Event scheduled;
        check_that_it_breaks(ProcessPoolExecutor(failing(method, scheduled)), scheduled);
    };
    go();  // what is there once, is there after this
    const auto before = shared_bytes();
    go();
    CHECK(shared_bytes() == before);
}

}  // namespace

TEST_CASE("ExecutorTest.test_submit", "[executor][conformance]") {
    with_each_executor(worker_count, [](const auto& executor) {
        CHECK(executor.submit(power, 2, 8).result(patient) == 256);
    });
}

TEST_CASE("ExecutorTest.test_map", "[executor][conformance]") {
    with_each_executor(worker_count, [](const auto& executor) {
        CHECK(list(executor.map(power, mp::range(10), mp::range(10))) == serial_powers());
        CHECK(list(executor.map({.chunksize = 3}, power, mp::range(10), mp::range(10))) ==
              serial_powers());
    });
}

TEST_CASE("ExecutorTest.test_map_exception", "[executor][conformance]") {
    with_each_executor(worker_count, [](const auto& executor) {
        for (const int chunksize : {1, 3}) {
            const auto i = executor.map({.chunksize = chunksize}, divide, std::vector{1, 1, 1, 1},
                                        std::vector{2, 3, 0, 5});
            CHECK(i.next() == std::pair(0, 1));
            CHECK(i.next() == std::pair(0, 1));
            CHECK_THROWS_AS(i.next(), std::domain_error);
            CHECK(i.next() == std::pair(0, 1));
            CHECK_THROWS_AS(i.next(), mp::StopIteration);
        }
    });
}

TEST_CASE("ExecutorTest.test_map_timeout_from_callable", "[executor][conformance]") {
    with_each_executor(worker_count, [](const auto& executor) {
        const auto i = executor.map({.timeout = patient}, time_out_at_2, mp::range(4));
        CHECK(i.next() == 0);
        CHECK(i.next() == 1);
        CHECK_THROWS_WITH(i.next(), ContainsSubstring("of the callable"));
        CHECK(i.next() == 3);
        CHECK_THROWS_AS(i.next(), mp::StopIteration);
    });
}

TEST_CASE("ExecutorTest.test_map_timeout", "[executor][conformance]") {
    with_each_executor(worker_count, [](const auto& executor) {
        const Gate gate;
        const OpenAtTheEnd open(gate);
        for (const int x : list(executor.map(twice, mp::range(9)))) static_cast<void>(x);  // workers begin
        const auto i = executor.map({.timeout = 1}, mp::partial(pass_at_2, gate), mp::range(4));
        CHECK(i.next() == 0);
        CHECK(i.next() == 1);
        CHECK_THROWS_WITH(i.next(), ContainsSubstring("Executor.map()"));
        CHECK_THROWS_AS(i.next(), mp::StopIteration);
    });
}

TEST_CASE("ExecutorTest.test_map_close", "[executor][conformance]") {
    with_each_executor(worker_count, [](const auto& executor) {
        for (const int chunksize : {1, 3}) {
            const auto i = executor.map({.chunksize = chunksize}, twice, mp::range(10));
            CHECK(i.next() == 0);
            i.close();
            CHECK_THROWS_AS(i.next(), mp::StopIteration);
            i.close();
        }
    });
}

TEST_CASE("ExecutorTest.test_map_buffersize_value_validation", "[executor][conformance]") {
    with_each_executor(worker_count, [](const auto& executor) {
        for (const int buffersize : {0, -1}) {
            CHECK_THROWS_WITH(executor.map({.buffersize = buffersize}, twice, mp::range(4)),
                              ContainsSubstring("buffersize is " + std::to_string(buffersize)));
        }
        CHECK_THROWS_AS(executor.map({.buffersize = 0}, twice, mp::range(4)), mp::ValueError);
    });
}

TEST_CASE("ExecutorTest.test_map_buffersize", "[executor][conformance]") {
    with_each_executor(worker_count, [](const auto& executor) {
        const std::vector<std::optional<int>> sizes{std::nullopt, 1, 2, 4, 8};
        for (const auto buffersize : sizes) {
            CHECK(list(executor.map({.buffersize = buffersize}, text, mp::range(4))) ==
                  std::vector<std::string>{"0", "1", "2", "3"});
        }
    });
}

TEST_CASE("ExecutorTest.test_map_buffersize_on_multiple_iterables", "[executor][conformance]") {
    with_each_executor(worker_count, [](const auto& executor) {
        const std::vector<std::optional<int>> sizes{std::nullopt, 1, 2, 10, 20};
        for (const auto buffersize : sizes) {
            CHECK(list(executor.map({.buffersize = buffersize}, power, mp::range(10), mp::range(12))) ==
                  serial_powers());
        }
    });
}

TEST_CASE("ExecutorTest.test_map_buffersize_on_infinite_iterable", "[executor][conformance]") {
    with_each_executor(worker_count, [](const auto& executor) {
        const auto results = executor.map({.buffersize = 2}, text, std::views::iota(0));
        CHECK(some(results, 3) == std::vector<std::string>{"0", "1", "2"});
        CHECK(results.next() == "3");
    });
}

TEST_CASE("ExecutorTest.test_map_buffersize_on_multiple_infinite_iterables",
          "[executor][conformance]") {
    with_each_executor(worker_count, [](const auto& executor) {
        const auto results =
            executor.map({.buffersize = 2}, power, std::views::iota(0), std::views::iota(0));
        CHECK(some(results, 10) == serial_powers());
    });
}

TEST_CASE("ExecutorTest.test_map_buffersize_on_empty_iterable", "[executor][conformance]") {
    with_each_executor(worker_count, [](const auto& executor) {
        CHECK_THROWS_AS(executor.map({.buffersize = 2}, twice, std::vector<int>()).next(),
                        mp::StopIteration);
    });
}

TEST_CASE("ExecutorTest.test_map_buffersize_when_buffer_is_full", "[executor][conformance]") {
    with_each_executor(worker_count, [](const auto& executor) {
        int read = 0;
        const auto count = [&read](int x) {
            ++read;
            return x;
        };
        constexpr int buffersize = 4;
        const auto results = executor.map({.buffersize = buffersize}, twice,
                                          std::views::iota(0) | std::views::transform(count));
        CHECK(read == buffersize);
        CHECK(results.next() == 0);
        CHECK(read == buffersize);
        CHECK(results.next() == 2);
        CHECK(read == buffersize + 1);
    });
}

TEST_CASE("ExecutorTest.test_shutdown_race_issue12456", "[executor][conformance]") {
    with_each_executor(worker_count, [](const auto& executor) {
        const auto results = executor.map(text, std::vector<int>(worker_count + 1, 2));
        executor.shutdown();
        CHECK(list(results) == std::vector<std::string>(worker_count + 1, "2"));
    });
}

TEST_CASE("ExecutorTest.test_no_stale_references", "[executor][conformance]") {
    with_each_executor(worker_count, []<class Executor>(const Executor& executor) {
        if constexpr (std::same_as<Executor, ThreadPoolExecutor>) {
            const mp::Event collected;
            executor.submit(&MyObject::my_method, std::make_shared<MyObject>(collected));
            CHECK(collected.wait(patient));
        } else {
            // What goes to a process is a copy, written as it is submitted.
            const auto my_object = std::make_shared<int>(7);
            executor.submit([](const std::shared_ptr<int>& object) { return *object; }, my_object);
            CHECK(my_object.use_count() == 1);
        }
    });
}

TEST_CASE("ExecutorTest.test_max_workers_negative", "[executor][conformance]") {
    for (const int number : {0, -1}) {
        CHECK_THROWS_AS(ProcessPoolExecutor(number), mp::ValueError);
        CHECK_THROWS_AS(ThreadPoolExecutor(number), mp::ValueError);
        CHECK_THROWS_WITH(ProcessPoolExecutor(number), ContainsSubstring("must be 1 or more"));
    }
}

TEST_CASE("ExecutorTest.test_free_reference", "[executor][conformance]") {
    with_each_executor(worker_count, [](const auto& executor) {
        int seen = 0;
        for (auto& object : executor.map(make_object, mp::range(10))) {
            CHECK(*object == seen++);
            const std::weak_ptr reference = object;
            { const auto taken = std::move(object); }
            CHECK(reference.expired());
        }
        CHECK(seen == 10);
    });
}

TEST_CASE("InitializerMixin.test_initializer", "[executor][conformance]") {
    auto kinds = mp::get_all_start_methods();
    kinds.emplace_back("threads");
    const auto kind = noted(GENERATE_COPY(from_range(kinds)));
    const auto check = [](const auto& executor, auto status) {
        std::vector<Future<int>> all;
        for (int i = 0; i < 2; ++i) all.push_back(executor.submit(status));
        for (const auto& future : all) CHECK(future.result(patient) == 42);
    };
    if (kind == "threads") {
        check(ThreadPoolExecutor({.max_workers = 2,
                                  .initializer = [] { initializer_status_of_thread = 42; }}),
              [] { return initializer_status_of_thread; });
    } else {
        check(ProcessPoolExecutor({.max_workers = 2,
                                   .mp_context = mp::get_context(kind),
                                   .initializer = mp::partial(init, 42)}),
              get_init_status);
    }
}

TEST_CASE("FailingInitializerMixin.test_initializer", "[executor][conformance]") {
    auto kinds = mp::get_all_start_methods();
    kinds.emplace_back("threads");
    const auto kind = noted(GENERATE_COPY(from_range(kinds)));
    const mp::Event scheduled;
    if (kind == "threads") {
        check_that_it_breaks(
            ThreadPoolExecutor({.max_workers = 2, .initializer = [scheduled] { init_fail(scheduled); }}),
            scheduled);
    } else {
        check_that_it_breaks(ProcessPoolExecutor(failing(kind, scheduled)), scheduled);
    }
}

TEST_CASE("FailingInitializerResourcesTest.test_spawn", "[executor][conformance]") {
    check_that_nothing_is_left(noted("spawn"));
}

TEST_CASE("FailingInitializerResourcesTest.test_forkserver", "[executor][conformance]") {
    check_that_nothing_is_left(noted("forkserver"));
}
