// SPDX-License-Identifier: BSL-1.0
//
// The suite of all pools, with those over ranks: as they are, and as nodes that have processes.

#include <multiprocessing/mpi.hpp>

#include <multiprocessing/pool_concept.hpp>

#include <string>
#include <tuple>
#include <vector>

namespace {

struct OfRanks {
    using Pool = multiprocessing::mpi::Pool;
    static std::vector<std::string> modes() { return {"ranks", "hybrid"}; }
    static Pool make(const std::string& mode, int workers) {
        if (mode == "ranks") return Pool({.processes = workers});
        // This process's own node is one of them.
        return Pool({.processes = 1, .hybrid = true, .processes_per_node = workers > 1 ? 1 : workers});
    }
    static int workers(const Pool& pool) {
        int all = 0;
        for (const auto& rank : pool.ranks()) all += rank.processes;
        return all;
    }
    static constexpr bool pickles = true;
    static constexpr const char* worker_name = "";
};
using Kinds = std::tuple<OfRanks>;

static_assert(multiprocessing::AnyExecutor<multiprocessing::mpi::PoolExecutor>);

}  // namespace

#include "pool/suite.hpp"
