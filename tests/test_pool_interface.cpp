// SPDX-License-Identifier: BSL-1.0
//
// The suite of all pools, with those of processes and of threads.

#include <multiprocessing/pool_interface.hpp>

#include <multiprocessing/concurrent/futures.hpp>
#include <multiprocessing/context.hpp>
#include <multiprocessing/pool.hpp>
#include <multiprocessing/pool_concept.hpp>
#include <multiprocessing/thread_pool.hpp>

#include <string>
#include <tuple>
#include <vector>

namespace {

struct OfProcesses {
    using Pool = multiprocessing::Pool;
    static std::vector<std::string> modes() { return {"fork", "spawn"}; }
    static Pool make(const std::string& mode, int workers) {
        return Pool({.processes = workers, .context = multiprocessing::get_context(mode)});
    }
    static int workers(const Pool& pool) { return static_cast<int>(pool.workers().size()); }
    static constexpr bool pickles = true;
    static constexpr const char* worker_name = "PoolWorker-";
};
struct OfThreads {
    using Pool = multiprocessing::ThreadPool;
    static std::vector<std::string> modes() { return {"threads"}; }
    static Pool make(const std::string&, int workers) { return Pool(workers); }
    static int workers(const Pool& pool) { return static_cast<int>(pool.stats().workers.size()); }
    static constexpr bool pickles = false;
    static constexpr const char* worker_name = "";
};
using Kinds = std::tuple<OfProcesses, OfThreads>;

static_assert(multiprocessing::AnyExecutor<multiprocessing::concurrent::futures::ProcessPoolExecutor>);
static_assert(multiprocessing::AnyExecutor<multiprocessing::concurrent::futures::ThreadPoolExecutor>);

}  // namespace

#include "pool/suite.hpp"
