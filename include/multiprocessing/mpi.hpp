// SPDX-License-Identifier: BSL-1.0
//
// The distributed engine: a pool, and an executor, over the ranks of MPI. Answers Python's
// `mpi4py.futures`. Not in <multiprocessing.hpp>, for it needs MPI and Boost.MPI.
#pragma once

#include <multiprocessing/concurrent/futures/executor.hpp>
#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/mpi/engine.hpp>
#include <multiprocessing/mpi/environment.hpp>
#include <multiprocessing/mpi/error.hpp>
#include <multiprocessing/mpi/feed.hpp>
#include <multiprocessing/pool_interface.hpp>
#include <multiprocessing/pool_stats.hpp>
#include <multiprocessing/process.hpp>
#include <multiprocessing/runtime/action.hpp>
#include <multiprocessing/runtime/pool/checks.hpp>
#include <multiprocessing/this_task.hpp>

#include <boost/mpi/communicator.hpp>

#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace multiprocessing::mpi {

/// The first line of `main` in a program that is started by `mpiexec`:
///
///     int main(int argc, char* argv[]) {
///         mp::mpi::freeze_support(argc, argv);
///         mp::mpi::Pool pool;
///         for (int x : pool.map(square, mp::range(100))) std::cout << x << '\n';
///     }
///
/// Rank 0 goes on; all others serve it from here until its end, and then end too, so what follows is run
/// once. Starts MPI, if the program has not, and ends it at the end of the program. It does what
/// `mp::freeze_support` does as well, and all programs of the run must be the same file.
/// *Throws*, in rank 0, std::runtime_error where a rank is another build of the program, or MPI was
/// started without threads. *If a peer dies*: see ErrorHandler.
inline void freeze_support(int& argc, char**& argv, EnvironmentOptions options = {}) {
    multiprocessing::freeze_support();
    if (environment != nullptr) return;
    environment = new Environment(argc, argv, std::move(options));
    environment->serve_if_spawned(argc, argv);
    const boost::mpi::communicator world;
    if (world.size() == 1) return;
    if (world.rank() == 0) return environment->lead(world);
    try {
        environment->serve(world);
    } catch (const RankLostError&) {
        os::exit_at_once(1);  // rank 0 is gone, and MPI cannot end in order without it
    }
    environment->leave();
}

/// Serves the Pool that rank 0 of the communicator makes with `.communicator`, until it ends. By all other
/// ranks of it, for a program that has something of its own to do in them besides: they do not come this
/// far after `freeze_support`, so it has to start MPI, and ranks, itself.
/// *Blocks* until then. *Throws* RankLostError.
inline void serve(const boost::mpi::communicator& communicator, EnvironmentOptions options = {}) {
    environment_for_a_group(std::move(options)).serve(communicator);
}

/// The keyword arguments of `mpi::Pool` and `mpi::PoolExecutor`.
struct PoolOptions {
    /// How many ranks work for it at most; left out: all there are beside this one.
    std::optional<int> processes = std::nullopt;
    /// Run by each worker before its first task: a callable without arguments, for instance
    /// `mp::partial(init, a, b)`. If it throws, every task ends with what it threw.
    runtime::Action initializer = {};
    /// A rank, of which there is then one on each node, does not run tasks itself, but has a pool of
    /// processes on its node, as rank 0 has on its own. So a task that dies costs itself alone.
    bool hybrid = false;
    /// How many processes that pool has; left out: one for each processor that the rank may use.
    std::optional<int> processes_per_node = std::nullopt;
    /// The start method of those processes, as `mp::get_context("spawn")`.
    std::optional<runtime::ContextBase> context = std::nullopt;
    /// One of those processes is replaced after so many tasks; left out: never.
    std::optional<int> maxtasksperchild = std::nullopt;
    /// Without ranks the pool is one of processes of this machine, `processes` of them; but with fewer ranks
    /// than this std::runtime_error is thrown.
    int minimum_ranks = 0;
    /// Starts so many ranks for this pool (`MPI_Comm_spawn`) instead of using those of the run.
    int spawn = 0;
    /// What MPI is told of where to start them: `{{"host", "node1,node2"}}`.
    std::map<std::string, std::string> spawn_info = {};
    /// Uses the ranks of this communicator, which call `mpi::serve` with it. This is its rank 0.
    std::optional<boost::mpi::communicator> communicator = std::nullopt;
};

/// What makes a pool one of ranks.
struct RankBackend {
    using Engine = RankEngine;
    template <Calling calling, class F, class Item>
    using Feeder = RankFeeder<calling, F, Item>;
    template <class T>
    using Argument = pickle::travel_decay_t<T>;
    static constexpr bool takes_references = false;
    static constexpr bool sizes_chunks = true;
    /// What is to come next is to be in the processor's cache still when it is sent.
    [[nodiscard]] static std::uint64_t bytes_ahead(const Engine& engine) noexcept {
        return std::min(std::uint64_t{engine.size()} << 21, std::uint64_t{16} << 20);
    }
    // Items are written, not moved.
    template <class Item>
    [[nodiscard]] static Item* moving(Item* items) noexcept {
        return items;
    }

    [[nodiscard]] static RankEngine::Settings settings(PoolOptions options);
};

/// `mp::Pool` with the ranks of MPI as its workers, on as many machines as these are on. All calls are
/// those of `mp::Pool`, and mean the same.
///
/// A function, and what it has bound, is sent to a rank once, not once a task, with the help of the other
/// ranks if it is large; items go in chunks that are as large as it takes to keep a rank busy (or of
/// `chunksize`, where that is given). What travels is as for `mp::Pool`, but nothing that is in this
/// machine's memory: no Queue, Lock, Value or Array. A manager's proxies may go.
///
/// A rank cannot be killed. So `TaskOptions::timeout` and `cancel()` end the waiting for a result at
/// once, but only ask the task to stop (`mp::this_task::stop_requested()`), and its rank is free again
/// when it returns. `terminate()` does not wait for that. With `.hybrid` all is as in `mp::Pool`.
///
/// A handle: copies are the same pool; the destructor of the last one is `terminate()`. Several pools may
/// share the ranks. *Process safety*: by the process that made it, from any thread.
/// *If a peer dies*: MPI cannot go on without a rank, see ErrorHandler; a process of a hybrid pool costs its
/// task alone.
class Pool : public PoolInterface<RankBackend> {
public:
    /// *Throws* ValueError for numbers that make no sense, AssertionError before `mpi::freeze_support`,
    /// std::runtime_error for fewer ranks than `minimum_ranks`, or of another build.
    explicit Pool(PoolOptions options = {})
        : PoolInterface(RankEngine::start(RankBackend::settings(std::move(options)))) {}
    explicit Pool(int processes) : Pool(PoolOptions{.processes = processes}) {}

    /// Who works for it.
    [[nodiscard]] std::vector<RankInfo> ranks() const { return engine().ranks(); }
    /// What they have done so far, as far as they have told.
    [[nodiscard]] PoolStats stats() const { return engine().stats(); }
};

struct RankExecutorBackend : RankBackend {
    static constexpr const char* name = "mpi::PoolExecutor";
    [[nodiscard]] static runtime::pool::TaskSettings settings() noexcept {
        runtime::pool::TaskSettings settings;
        settings.may_be_stopped = false;
        return settings;
    }
};

/// `concurrent.futures`' interface over the ranks of MPI. *Python*: `mpi4py.futures.MPIPoolExecutor`.
/// What is said of `mpi::Pool` is true of it too. A call can be cancelled until it has been sent to a rank.
class PoolExecutor : public concurrent::futures::Executor<RankExecutorBackend> {
public:
    /// *Throws* ValueError for numbers that make no sense; what else Pool throws, its first call does.
    explicit PoolExecutor(PoolOptions options = {})
        : Executor([options = std::move(options)] {
              RankEngine::Settings settings = RankBackend::settings(options);
              settings.is_executors = true;
              return RankEngine::start(std::move(settings));
          }) {}
    explicit PoolExecutor(int max_workers) : PoolExecutor(PoolOptions{.processes = max_workers}) {}
};

// ---------------------------------------------------------------------------------------------------

inline RankEngine::Settings RankBackend::settings(PoolOptions options) {
    using runtime::pool::at_least_one;
    RankEngine::Settings settings;
    settings.setup.initializer = std::move(options.initializer);
    if (options.context) settings.setup.method = options.context->method();
    if (options.maxtasksperchild) {
        settings.setup.limits.tasks =
            at_least_one(*options.maxtasksperchild, "mpi::Pool: maxtasksperchild");
    }
    std::optional<std::uint32_t> most;
    if (options.processes) most = at_least_one(*options.processes, "mpi::Pool: processes");
    std::optional<std::uint32_t> per_node;
    if (options.processes_per_node) {
        per_node = at_least_one(*options.processes_per_node, "mpi::Pool: processes_per_node");
    }
    if (options.spawn < 0) {
        throw ValueError("mpi::Pool: spawn is " + std::to_string(options.spawn) + ", but must be 0 or more");
    }

    // Who has ranks of his own has started MPI himself.
    Environment& here = options.communicator ? environment_for_a_group() : this_environment();
    if (options.spawn != 0) {
        settings.fleet = here.spawn(options.spawn, options.spawn_info);
    } else if (options.communicator) {
        settings.fleet = here.fleet(*options.communicator);
    } else {
        settings.fleet = here.world();
    }
    const int there = settings.fleet ? settings.fleet->ranks() : 0;
    if (there < options.minimum_ranks) {
        throw std::runtime_error("mpi::Pool: there are " + std::to_string(there) +
                                 " ranks beside this one, but minimum_ranks is " +
                                 std::to_string(options.minimum_ranks) +
                                 ": start the program with mpiexec -n " +
                                 std::to_string(options.minimum_ranks + 1));
    }
    if (there == 0) {
        settings.fleet = nullptr;
        settings.local_processes = per_node ? *per_node
                                            : most.value_or(static_cast<std::uint32_t>(process_cpu_count()));
        return settings;
    }
    for (int rank = 0; rank <= there; ++rank) {
        if (rank == settings.fleet->wire().rank()) continue;
        if (most && settings.ranks.size() == *most) break;
        const auto processors =
            static_cast<std::uint32_t>(std::max(settings.fleet->peers().at(rank).processors, 1));
        settings.ranks.push_back(rank);
        settings.capacities.push_back(options.hybrid ? per_node.value_or(processors) : 0);
    }
    if (options.hybrid) {
        settings.local_processes =
            per_node.value_or(static_cast<std::uint32_t>(process_cpu_count()));
    }
    return settings;
}

}  // namespace multiprocessing::mpi
