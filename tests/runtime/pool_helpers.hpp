// SPDX-License-Identifier: BSL-1.0
//
// What tests of pools share.
#pragma once

#include <multiprocessing/context.hpp>
#include <multiprocessing/pool.hpp>
#include <multiprocessing/shm/arena.hpp>
#include <multiprocessing/synchronize.hpp>

#include "support/catch.hpp"

#include <cstdint>
#include <exception>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include <unistd.h>

namespace support {

namespace mp = multiprocessing;

/// The rest of the test case is run with each start method.
inline mp::Context each_context() {
    return mp::get_context(GENERATE(from_range(mp::get_all_start_methods())));
}

inline int square(int x) { return x * x; }
inline int pid_of(int) { return ::getpid(); }

// Two functions that the optimiser leaves as they are.
[[gnu::noinline]] inline int throw_deep_inside(int x) {
    if (x % 2 == 1) throw std::out_of_range("deep");
    return x;
}
[[gnu::noinline]] inline int fail_deep_inside(int x) { return throw_deep_inside(x) + 1; }

/// Bytes of shared memory that are in use by anybody.
[[nodiscard]] inline std::uint64_t shared_bytes() {
    return mp::shm::Arena::instance().header().heap.allocated;
}

[[nodiscard]] inline std::set<int> pids_of(const mp::Pool& pool) {
    std::set<int> pids;
    for (const mp::Process& worker : pool.workers()) pids.insert(worker.pid().value());
    return pids;
}

/// What became of the items of an imap.
template <class R>
struct Outcomes {
    std::vector<R> values;
    int lost = 0;   // WorkerLostError
    int other = 0;  // another exception
    std::string last_error;
};
template <class R>
[[nodiscard]] Outcomes<R> outcomes_of(const mp::IMapIterator<R>& results) {
    Outcomes<R> outcomes;
    for (;;) {
        try {
            outcomes.values.push_back(results.next(30));
        } catch (const mp::StopIteration&) {
            return outcomes;
        } catch (const mp::TimeoutError&) {
            throw;
        } catch (const mp::WorkerLostError&) {
            ++outcomes.lost;
        } catch (const std::exception& error) {
            ++outcomes.other;
            outcomes.last_error = error.what();
        }
    }
}

}  // namespace support
