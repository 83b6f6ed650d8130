// SPDX-License-Identifier: BSL-1.0
//
// CPython's tests of ProcessPoolExecutor, under their own names.

#include <multiprocessing/concurrent/futures.hpp>

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/process.hpp>
#include <multiprocessing/range.hpp>

#include "concurrent/executors.hpp"
#include "conformance/helpers.hpp"
#include "runtime/helpers.hpp"
#include "support/catch.hpp"

#include <csignal>
#include <set>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <sys/resource.h>
#include <unistd.h>

namespace mp = multiprocessing;
using namespace support;
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::StartsWith;

namespace {

constexpr int worker_count = 4;

ProcessPoolExecutor each_executor() {
    EVERY_START_METHOD;
    return processes(worker_count, method);
}
/// Without fork, with which workers are not replaced, nor started when they are needed.
std::string each_other_method() { return noted(GENERATE("spawn", "forkserver")); }
ProcessPoolExecutor recycling(const std::string& method, int workers, int tasks) {
    return ProcessPoolExecutor(
        {.max_workers = workers, .mp_context = mp::get_context(method), .max_tasks_per_child = tasks});
}

int multiply(int x, int y) { return x * y; }
int own_pid() { return ::getpid(); }
void fail() { throw std::runtime_error("123"); }
void end_at_once(int code) { ::_exit(code); }
bool acquire(const mp::Semaphore& begun, const mp::Semaphore& semaphore) {
    begun.release();
    return semaphore.acquire(true, patient);
}

// Says when it is destroyed by another process than the one that made it.
struct EventfulObject {
    mp::Event event{};
    int maker = ::getpid();
    EventfulObject() = default;
    EventfulObject(const EventfulObject&) = default;
    EventfulObject& operator=(const EventfulObject&) = default;
    ~EventfulObject() {
        if (maker != ::getpid()) event.set();
    }
    template <class Archive>
    void serialize(Archive& archive, unsigned) {
        archive & event & maker;
    }
};
int take(const EventfulObject&) { return 0; }

// No more descriptors than there are, while it lives.
class FewDescriptors {
public:
    FewDescriptors() {
        ::getrlimit(RLIMIT_NOFILE, &before_);
        rlimit less = before_;
        less.rlim_cur = 4;
        ::setrlimit(RLIMIT_NOFILE, &less);
    }
    FewDescriptors(const FewDescriptors&) = delete;
    FewDescriptors& operator=(const FewDescriptors&) = delete;
    ~FewDescriptors() { ::setrlimit(RLIMIT_NOFILE, &before_); }

private:
    rlimit before_{};
};

struct Force {
    void (ProcessPoolExecutor::*stop)() const;
    int signal;
};
Force each_force() {
    return GENERATE(values<Force>({{&ProcessPoolExecutor::terminate_workers, SIGTERM},
                                   {&ProcessPoolExecutor::kill_workers, SIGKILL}}));
}

}  // namespace

TEST_CASE("ProcessPoolExecutorTest.test_max_workers_too_large", "[executor][conformance]") {
    // There is no such limit. Workers that nobody needs are not started.
    const ProcessPoolExecutor executor = processes(1000, "spawn");
    CHECK(executor.submit(multiply, 6, 7).result(patient) == 42);
    CHECK(workers_of(executor, 1).size() == 1);
}

TEST_CASE("ProcessPoolExecutorTest.test_killed_child", "[executor][conformance]") {
    const ProcessPoolExecutor executor = each_executor();
    const Gate gate;
    const OpenAtTheEnd open(gate);
    const auto future = executor.submit(pass, gate, 1);
    REQUIRE(gate.wait_for(1));
    first_worker(executor).terminate();
    CHECK_THROWS_AS(future.result(patient), mp::BrokenProcessPool);
    CHECK_THROWS_AS(executor.submit(multiply, 2, 8), mp::BrokenProcessPool);
}

TEST_CASE("ProcessPoolExecutorTest.test_broken_process_pool_traceback", "[executor][conformance]") {
    const ProcessPoolExecutor executor = each_executor();
    const Gate gate;
    const OpenAtTheEnd open(gate);
    std::vector<Future<int>> all;
    for (int i = 0; i < 2 * worker_count; ++i) all.push_back(executor.submit(pass, gate, i));
    REQUIRE(gate.wait_for(1));
    first_worker(executor).kill();
    std::set<const void*> objects;
    for (const auto& future : all) {
        try {
            future.result(patient);
        } catch (const mp::BrokenProcessPool& error) {
            objects.insert(&error);
            CHECK_THAT(error.what(), ContainsSubstring("SIGKILL"));
        }
    }
    CHECK(objects.size() == all.size());
}

TEST_CASE("ProcessPoolExecutorTest.test_map_chunksize", "[executor][conformance]") {
    const ProcessPoolExecutor executor = each_executor();
    std::vector<int> ref;
    for (int i = 0; i < 40; ++i) ref.push_back(multiply(i, i));
    for (const int chunksize : {6, 50, 40}) {
        CHECK(list(executor.map({.chunksize = chunksize}, multiply, mp::range(40), mp::range(40))) == ref);
    }
    CHECK_THROWS_AS(executor.map({.chunksize = -1}, multiply, mp::range(40), mp::range(40)),
                    mp::ValueError);
}

TEST_CASE("ProcessPoolExecutorTest.test_traceback", "[executor][conformance]") {
    const ProcessPoolExecutor executor = each_executor();
    const auto future = executor.submit(fail);
    try {
        future.result(patient);
        FAIL("nothing was thrown");
    } catch (const std::runtime_error& error) {
        CHECK(error.what() == std::string("123"));
        const auto* cause = dynamic_cast<const mp::RemoteTraceback*>(&error);
        REQUIRE(cause != nullptr);
        CHECK(cause->type_name() == "std::runtime_error");
        std::set<int> pids;
        for (const auto& worker : executor.workers()) pids.insert(worker.pid().value());
        CHECK(pids.contains(cause->pid()));
        CHECK_THAT(cause->text(), ContainsSubstring("123"));
    }
}

TEST_CASE("ProcessPoolExecutorTest.test_traceback_when_child_process_terminates_abruptly",
          "[executor][conformance]") {
    const ProcessPoolExecutor executor = each_executor();
    CHECK_THROWS_WITH(executor.submit(end_at_once, 99).result(patient),
                      ContainsSubstring("ended with exit code 99 abruptly"));
}

TEST_CASE("ProcessPoolExecutorTest.test_ressources_gced_in_workers", "[executor][conformance]") {
    const ProcessPoolExecutor executor = each_executor();
    const EventfulObject object;
    CHECK(executor.submit(take, object).result(patient) == 0);
    CHECK(object.event.wait(patient));
}

TEST_CASE("ProcessPoolExecutorTest.test_saturation", "[executor][conformance]") {
    const ProcessPoolExecutor executor = each_executor();
    const mp::Semaphore begun(0);
    const mp::Semaphore semaphore(0);
    constexpr int job_count = 15 * worker_count;
    for (int i = 0; i < job_count; ++i) executor.submit(acquire, begun, semaphore);
    for (int i = 0; i < worker_count; ++i) REQUIRE(begun.acquire(true, patient));
    CHECK(workers_of(executor, worker_count).size() == worker_count);
    for (int i = 0; i < job_count; ++i) semaphore.release();
}

TEST_CASE("ProcessPoolExecutorTest.test_idle_process_reuse_one", "[executor][conformance]") {
    const ProcessPoolExecutor executor = processes(worker_count, each_other_method());
    CHECK(executor.submit(multiply, 21, 2).result(patient) == 42);
    CHECK(executor.submit(multiply, 6, 7).result(patient) == 42);
    CHECK(executor.submit(multiply, 3, 14).result(patient) == 42);
    CHECK(workers_of(executor, 1).size() == 1);
}

TEST_CASE("ProcessPoolExecutorTest.test_idle_process_reuse_multiple", "[executor][conformance]") {
    const ProcessPoolExecutor executor = processes(worker_count, each_other_method());
    CHECK(executor.submit(multiply, 12, 7).result(patient) == 84);
    executor.submit(multiply, 33, 25);
    CHECK(executor.submit(multiply, 25, 26).result(patient) == 650);
    executor.submit(multiply, 18, 29);
    CHECK(executor.submit(multiply, 1, 2).result(patient) == 2);
    executor.submit(multiply, 0, 9);
    CHECK(executor.workers().size() <= 3);
    executor.shutdown();
}

TEST_CASE("ProcessPoolExecutorTest.test_max_tasks_per_child", "[executor][conformance]") {
    EVERY_START_METHOD;
    if (method == "fork") {
        CHECK_THROWS_AS(recycling(method, 1, 3), mp::ValueError);
        return;
    }
    const ProcessPoolExecutor executor = recycling(method, 1, 3);
    const int original_pid = executor.submit(own_pid).result(patient);
    CHECK(executor.submit(own_pid).result(patient) == original_pid);
    CHECK(workers_of(executor, 1).size() == 1);
    CHECK(executor.submit(own_pid).result(patient) == original_pid);
    CHECK(executor.submit(own_pid).result(patient) != original_pid);
    CHECK(workers_of(executor, 1).size() == 1);
    executor.shutdown();
}

TEST_CASE("ProcessPoolExecutorTest.test_max_tasks_per_child_defaults_to_spawn_context",
          "[executor][conformance]") {
    const ProcessPoolExecutor executor({.max_workers = 1, .max_tasks_per_child = 3});
    CHECK(executor.submit(multiply, 6, 7).result(patient) == 42);
    CHECK_THAT(first_worker(executor).name(), StartsWith("Spawn"));
}

TEST_CASE("ProcessPoolExecutorTest.test_max_tasks_per_child_pending_tasks_gh115634",
          "[executor][conformance]") {
    const ProcessPoolExecutor executor = recycling(each_other_method(), 1, 2);
    const Gate gate;
    const OpenAtTheEnd open(gate);
    std::vector<Future<int>> all;
    for (int i = 0; i < 6; ++i) all.push_back(executor.submit(pass, gate, i));
    REQUIRE(gate.wait_for(1));
    gate.go.set();
    for (int i = 0; i < 6; ++i) CHECK(all[static_cast<std::size_t>(i)].result(patient) == i);
}

TEST_CASE("ProcessPoolExecutorTest.test_shutdown_no_wait_max_tasks_gh119592",
          "[executor][conformance]") {
    const ProcessPoolExecutor executor = recycling(each_other_method(), 1, 1);
    std::vector<Future<int>> all;
    for (int i = 0; i < 6; ++i) all.push_back(executor.submit(multiply, i, i));
    executor.shutdown(false);
    for (int i = 0; i < 6; ++i) CHECK(all[static_cast<std::size_t>(i)].result(patient) == i * i);
    executor.shutdown();
}

TEST_CASE("ProcessPoolExecutorTest.test_gc_during_max_tasks_worker_exit_gh152967",
          "[executor][conformance]") {
    // Nobody has to look after an executor: it is destroyed when all is done.
    const auto method = each_other_method();
    std::vector<Future<int>> all;
    {
        const ProcessPoolExecutor executor = recycling(method, 1, 1);
        for (int i = 0; i < 6; ++i) all.push_back(executor.submit(multiply, i, i));
        CHECK(all.front().result(patient) == 0);
    }
    for (int i = 0; i < 6; ++i) CHECK(all[static_cast<std::size_t>(i)].result(0) == i * i);
}

TEST_CASE("ProcessPoolExecutorTest.test_force_shutdown_during_max_tasks_worker_exit",
          "[executor][conformance]") {
    const auto method = each_other_method();
    const auto [stop, signal] = each_force();
    const ProcessPoolExecutor executor = recycling(method, 2, 1);
    std::vector<Future<int>> all;
    for (int i = 0; i < 20; ++i) all.push_back(executor.submit(multiply, i, i));
    CHECK(all.front().result(patient) == 0);  // its worker is about to be replaced
    (executor.*stop)();
    CHECK(futures::wait(all, patient).not_done.empty());
    executor.shutdown();
    CHECK(executor.workers().empty());
    CHECK(mp::active_children().empty());
}

TEST_CASE("ProcessPoolExecutorTest.test_failed_worker_replacement_breaks_pool",
          "[executor][conformance]") {
    const ProcessPoolExecutor executor = recycling(each_other_method(), 1, 1);
    const Gate gate;
    const OpenAtTheEnd open(gate);
    const auto first = executor.submit(pass, gate, 42);
    const auto second = executor.submit(multiply, 6, 7);
    REQUIRE(gate.wait_for(1));
    first_worker(executor);
    {
        const FewDescriptors few;
        gate.go.set();
        CHECK(first.result(patient) == 42);
        const auto why = second.exception(patient);
        CHECK(is_an<mp::BrokenProcessPool>(why));
        CHECK_THAT(what_of(why), ContainsSubstring("could not be started"));
    }
    CHECK_THROWS_AS(executor.submit(multiply, 6, 7), mp::BrokenProcessPool);
}

TEST_CASE("ProcessPoolExecutorTest.test_max_tasks_early_shutdown", "[executor][conformance]") {
    const ProcessPoolExecutor executor = recycling(each_other_method(), 3, 1);
    std::vector<Future<int>> all;
    for (int i = 0; i < 6; ++i) all.push_back(executor.submit(multiply, i, i));
    executor.shutdown();
    for (int i = 0; i < 6; ++i) CHECK(all[static_cast<std::size_t>(i)].result(0) == i * i);
}

TEST_CASE("ProcessPoolExecutorTest.test_force_shutdown_workers", "[executor][conformance]") {
    const ProcessPoolExecutor executor = each_executor();
    const auto [stop, signal] = each_force();
    const Gate gate;
    const OpenAtTheEnd open(gate);
    const auto future = executor.submit(pass, gate, 1);
    REQUIRE(gate.wait_for(1));
    const auto worker = first_worker(executor);
    (executor.*stop)();
    CHECK_THROWS_AS(future.result(patient), mp::BrokenProcessPool);
    worker.join(patient);
    CHECK(worker.exitcode() == -signal);
    executor.shutdown();
}

TEST_CASE("ProcessPoolExecutorTest.test_force_shutdown_workers_dead_workers",
          "[executor][conformance]") {
    const ProcessPoolExecutor executor = each_executor();
    const auto [stop, signal] = each_force();
    CHECK_THROWS_AS(executor.submit(end_at_once, 1).result(patient), mp::BrokenProcessPool);
    CHECK_NOTHROW((executor.*stop)());
    executor.shutdown();
}

TEST_CASE("ProcessPoolExecutorTest.test_force_shutdown_workers_not_started_yet",
          "[executor][conformance]") {
    const ProcessPoolExecutor executor = each_executor();
    const auto [stop, signal] = each_force();
    CHECK_NOTHROW((executor.*stop)());
    CHECK(executor.workers().empty());
}

TEST_CASE("ProcessPoolExecutorTest.test_force_shutdown_workers_stops_pool",
          "[executor][conformance]") {
    const ProcessPoolExecutor executor = each_executor();
    const auto [stop, signal] = each_force();
    CHECK(executor.submit(multiply, 6, 7).result(patient) == 42);
    const auto worker = first_worker(executor);
    (executor.*stop)();
    CHECK_THROWS_WITH(executor.submit(multiply, 6, 7),
                      ContainsSubstring("cannot schedule new futures after shutdown"));
    worker.join(patient);
    CHECK_FALSE(worker.is_alive());
    executor.shutdown();
}
