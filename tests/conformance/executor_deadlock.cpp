// SPDX-License-Identifier: BSL-1.0
//
// CPython's tests of what goes wrong in a call of an executor of processes, at every place, under their
// own names. An object that says no as it is pickled, or as it is read back, is the loss of its own
// call here, and the death of a worker that of all: in Python the former, too, breaks the executor where
// it happens in the worker's or the executor's own code.

#include <multiprocessing/concurrent/futures.hpp>

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/process.hpp>
#include <multiprocessing/range.hpp>

#include "concurrent/executors.hpp"
#include "conformance/helpers.hpp"
#include "support/catch.hpp"

#include <csignal>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace mp = multiprocessing;
using namespace support;
using Catch::Matchers::ContainsSubstring;

namespace {

enum class Way { crash, exit, error };

template <class Error>
void act(Way way) {
    switch (way) {
    case Way::crash: std::raise(SIGKILL); break;
    case Way::exit: mp::exit(1);
    case Way::error: throw Error("Error in pickle");
    }
}

/// CrashAtPickle, ExitAtPickle, ErrorAtPickle.
template <Way way>
struct AtPickle {
    int number = 0;
    template <class Archive>
    void save(Archive&, unsigned) const {
        act<mp::PicklingError>(way);
    }
    template <class Archive>
    void load(Archive&, unsigned) {}
    BOOST_SERIALIZATION_SPLIT_MEMBER()
};
template <Way way>
struct AtUnpickle {
    int number = 0;
    template <class Archive>
    void save(Archive& archive, unsigned) const {
        archive & number;
    }
    template <class Archive>
    void load(Archive&, unsigned) {
        act<mp::UnpicklingError>(way);
    }
    BOOST_SERIALIZATION_SPLIT_MEMBER()
};

template <class T>
int take(const T&) {
    return 0;
}
template <class T>
T make() {
    return {};
}
template <Way way>
void run() {
    act<std::runtime_error>(way);
}
void crash_when_told(const mp::Event& told) {
    told.wait(patient);
    std::raise(SIGKILL);
}
int crash_with_data(const std::string&) {
    std::raise(SIGKILL);
    return 0;
}

/// What came of a call in an executor of two, which works on after it unless it is broken.
template <class F, class... Args>
std::exception_ptr end_of(F f, Args... args) {
    EVERY_START_METHOD;
    const ProcessPoolExecutor executor = processes(2, method);
    const auto why = executor.submit(f, args...).exception(patient);
    if (is_an<mp::BrokenProcessPool>(why)) {
        CHECK_THROWS_AS(executor.submit(twice, 21), mp::BrokenProcessPool);
    } else {
        CHECK(executor.submit(twice, 21).result(patient) == 42);
    }
    executor.shutdown();
    return why;
}

}  // namespace

TEST_CASE("ExecutorDeadlockTest.test_error_at_task_pickle", "[executor][conformance]") {
    using Argument = AtPickle<Way::error>;
    CHECK(is_an<mp::PicklingError>(end_of(take<Argument>, Argument())));
}

TEST_CASE("ExecutorDeadlockTest.test_exit_at_task_unpickle", "[executor][conformance]") {
    using Argument = AtUnpickle<Way::exit>;
    CHECK(is_an<mp::BrokenProcessPool>(end_of(take<Argument>, Argument())));
}

TEST_CASE("ExecutorDeadlockTest.test_error_at_task_unpickle", "[executor][conformance]") {
    using Argument = AtUnpickle<Way::error>;
    CHECK(is_an<mp::UnpicklingError>(end_of(take<Argument>, Argument())));
}

TEST_CASE("ExecutorDeadlockTest.test_crash_at_task_unpickle", "[executor][conformance]") {
    using Argument = AtUnpickle<Way::crash>;
    CHECK(is_an<mp::BrokenProcessPool>(end_of(take<Argument>, Argument())));
}

TEST_CASE("ExecutorDeadlockTest.test_crash_during_func_exec_on_worker", "[executor][conformance]") {
    CHECK(is_an<mp::BrokenProcessPool>(end_of(run<Way::crash>)));
}

TEST_CASE("ExecutorDeadlockTest.test_exit_during_func_exec_on_worker", "[executor][conformance]") {
    CHECK(is_an<mp::SystemExit>(end_of(run<Way::exit>)));
}

TEST_CASE("ExecutorDeadlockTest.test_error_during_func_exec_on_worker", "[executor][conformance]") {
    CHECK(is_an<std::runtime_error>(end_of(run<Way::error>)));
}

TEST_CASE("ExecutorDeadlockTest.test_crash_during_result_pickle_on_worker",
          "[executor][conformance]") {
    CHECK(is_an<mp::BrokenProcessPool>(end_of(make<AtPickle<Way::crash>>)));
}

TEST_CASE("ExecutorDeadlockTest.test_exit_during_result_pickle_on_worker",
          "[executor][conformance]") {
    CHECK(is_an<mp::SystemExit>(end_of(make<AtPickle<Way::exit>>)));
}

TEST_CASE("ExecutorDeadlockTest.test_error_during_result_pickle_on_worker",
          "[executor][conformance]") {
    CHECK(is_an<mp::PicklingError>(end_of(make<AtPickle<Way::error>>)));
}

TEST_CASE("ExecutorDeadlockTest.test_error_during_result_unpickle_in_result_handler",
          "[executor][conformance]") {
    CHECK(is_an<mp::UnpicklingError>(end_of(make<AtUnpickle<Way::error>>)));
}

TEST_CASE("ExecutorDeadlockTest.test_exit_during_result_unpickle_in_result_handler",
          "[executor][conformance]") {
    CHECK(is_an<mp::SystemExit>(end_of(make<AtUnpickle<Way::exit>>)));
}

TEST_CASE("ExecutorDeadlockTest.test_shutdown_deadlock", "[executor][conformance]") {
    EVERY_START_METHOD;
    const ProcessPoolExecutor executor = processes(2, method);
    const mp::Event told;
    const auto f = executor.submit(crash_when_told, told);
    executor.shutdown(false);
    told.set();
    CHECK(elapsed([&] { executor.shutdown(); }) < no_time);
    CHECK(is_an<mp::BrokenProcessPool>(f.exception(0)));
}

TEST_CASE("ExecutorDeadlockTest.test_shutdown_deadlock_pickle", "[executor][conformance]") {
    EVERY_START_METHOD;
    const ProcessPoolExecutor executor = processes(2, method);
    CHECK(executor.submit(twice, 21).result(patient) == 42);
    const auto f = executor.submit(take<AtPickle<Way::error>>, AtPickle<Way::error>());
    executor.shutdown(false);
    CHECK(is_an<mp::PicklingError>(f.exception(patient)));
    CHECK(elapsed([&] { executor.shutdown(); }) < no_time);
}

TEST_CASE("ExecutorDeadlockTest.test_crash_big_data", "[executor][conformance]") {
    EVERY_START_METHOD;
    const ProcessPoolExecutor executor = processes(2, method);
    const std::string data((std::size_t{4} << 20) + 1, 'a');  // support.PIPE_MAX_SIZE
    const auto results = executor.map(crash_with_data, std::vector(10, data));
    CHECK_THROWS_AS(list(results), mp::BrokenProcessPool);
    executor.shutdown();
}

TEST_CASE("ExecutorDeadlockTest.test_gh105829_should_not_deadlock_if_wakeup_pipe_full",
          "[executor][conformance]") {
    // There is no such pipe. But nobody takes anything while all this is given.
    EVERY_START_METHOD;
    const ProcessPoolExecutor executor = processes(2, method);
    const Gate gate;
    const OpenAtTheEnd open(gate);
    const auto first = executor.submit(pass, gate, 1);
    const auto second = executor.submit(pass, gate, 2);
    REQUIRE(gate.wait_for(2));
    std::vector<Future<int>> fs;
    for (int i = 0; i < 10'000; ++i) fs.push_back(executor.submit(twice, i));
    const auto results = executor.map(twice, mp::range(100));
    gate.go.set();
    CHECK(list(results).size() == 100);
    CHECK(futures::wait(fs, patient).not_done.empty());
}
