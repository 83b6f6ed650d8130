// SPDX-License-Identifier: BSL-1.0
//
// What tests of executors share: tasks that wait until they may go on, and what came of a future.
#pragma once

#include <multiprocessing/concurrent/futures.hpp>
#include <multiprocessing/context.hpp>
#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/os/clock.hpp>
#include <multiprocessing/synchronize.hpp>
#include <multiprocessing/timeout.hpp>

#include "concurrent/helpers.hpp"
#include "support/catch.hpp"
#include "threads/crowd.hpp"

#include <atomic>
#include <cstddef>
#include <exception>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace support {

namespace mp = multiprocessing;
using futures::Future;
using futures::ProcessPoolExecutor;
using futures::ThreadPoolExecutor;

/// Where tasks say that they have begun, and wait until they may go on.
struct Gate {
    mp::Semaphore begun{0};
    mp::Event go{};

    template <class Archive>
    void serialize(Archive& archive, unsigned) {
        archive & begun & go;
    }
    /// Until so many more have begun.
    [[nodiscard]] bool wait_for(int tasks) const {
        for (int i = 0; i < tasks; ++i) {
            if (!begun.acquire(true, long_enough)) return false;
        }
        return true;
    }
};
/// Opens it, however the test ends. To be made after the executor, which waits for its tasks.
struct OpenAtTheEnd {
    explicit OpenAtTheEnd(const Gate& g) : gate(g) {}
    OpenAtTheEnd(const OpenAtTheEnd&) = delete;
    OpenAtTheEnd& operator=(const OpenAtTheEnd&) = delete;
    ~OpenAtTheEnd() { gate.go.set(); }
    const Gate& gate;
};

inline int pass(const Gate& gate, int x) {
    gate.begun.release();
    if (!gate.go.wait(long_enough)) throw std::runtime_error("nobody has opened the gate");
    return x;
}
inline int twice(int x) { return 2 * x; }

inline ProcessPoolExecutor processes(int workers, const std::string& method) {
    return ProcessPoolExecutor(
        futures::ProcessPoolExecutorOptions{.max_workers = workers, .mp_context = mp::get_context(method)});
}

/// One that waits can be cancelled, by anybody and for everybody; one that runs cannot.
template <class Executor>
void check_taking_back_with_one_worker(const Executor& executor) {
    const Gate gate;
    const OpenAtTheEnd open(gate);
    const auto runs = executor.submit(pass, gate, 1);
    const auto waits = executor.submit(pass, gate, 2);
    REQUIRE(gate.wait_for(1));
    CHECK(runs.running());
    CHECK_FALSE(runs.cancel());
    CHECK_FALSE(waits.running());
    std::atomic<int> said{0};
    run_together([&](int) { said += waits.cancel() ? 1 : 0; });
    CHECK(said == crowd);
    CHECK(waits.cancelled());
    CHECK_FALSE(waits.running());
    CHECK_THROWS_AS(waits.result(0), mp::CancelledError);
    gate.go.set();
    CHECK(runs.result(long_enough) == 1);
    CHECK_FALSE(runs.running());
    executor.shutdown();
    CHECK(gate.begun.get_value() == 0);
}

/// The workers, once there are so many: one may have begun a task before the executor hears that it
/// runs.
inline std::vector<mp::Process> workers_of(const ProcessPoolExecutor& executor, std::size_t least) {
    const mp::os::Deadline deadline{mp::Timeout(long_enough)};
    for (auto workers = executor.workers();; workers = executor.workers()) {
        if (workers.size() >= least) return workers;
        if (deadline.expired()) throw std::runtime_error("there are not so many workers");
        std::this_thread::yield();
    }
}
inline mp::Process first_worker(const ProcessPoolExecutor& executor) {
    return workers_of(executor, 1).front();
}

/// What is left of a map, or of the first `most` of it.
template <class R>
std::vector<R> list(const futures::MapResults<R>& results) {
    std::vector<R> all;
    for (R& result : results) all.push_back(std::move(result));
    return all;
}
template <class R>
std::vector<R> some(const futures::MapResults<R>& results, std::size_t most) {
    std::vector<R> all;
    while (all.size() < most) all.push_back(results.next());
    return all;
}

}  // namespace support
