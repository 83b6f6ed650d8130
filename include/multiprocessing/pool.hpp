// SPDX-License-Identifier: BSL-1.0
//
// `Pool`: worker processes that run functions on the items of a range. Answers Python's
// `multiprocessing.pool`.
#pragma once

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/os/cpu.hpp>
#include <multiprocessing/pickle/callable.hpp>
#include <multiprocessing/pool_interface.hpp>
#include <multiprocessing/pool_stats.hpp>
#include <multiprocessing/process.hpp>
#include <multiprocessing/runtime/action.hpp>
#include <multiprocessing/runtime/pool/feed.hpp>
#include <multiprocessing/runtime/pool/process_engine.hpp>
#include <multiprocessing/this_task.hpp>
#include <multiprocessing/thread_pool.hpp>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace multiprocessing {

/// The keyword arguments of `Pool`.
struct PoolOptions {
    /// How many workers; left out: one for each processor of `process_cpu_count()`.
    std::optional<int> processes = std::nullopt;
    /// Run by each worker before its first task: a callable without arguments, for instance
    /// `mp::partial(init, a, b)`. If it throws, every task ends with what it threw.
    runtime::Action initializer = {};
    /// A worker is replaced after so many tasks, which are chunks of items; left out: never.
    std::optional<int> maxtasksperchild = std::nullopt;
    /// The start method of the workers, as `mp::get_context("spawn")`.
    std::optional<runtime::ContextBase> context = std::nullopt;
    /// In bytes: a worker is replaced, between two tasks, when it has so much more memory of its own than
    /// before its first task. What it was forked with, and its initializer took, does not count.
    std::optional<std::uint64_t> max_memory_per_child = std::nullopt;
    /// The processors that the workers are kept to, counted from 0; empty: this process's.
    std::vector<int> cpu_affinity = {};
    /// When there has been nothing to do for so long all workers but one leave; they come back when
    /// there is. For ever: they stay.
    Timeout idle_timeout = {};
};

namespace runtime::pool {

/// What makes a pool one of processes.
struct ProcessBackend {
    using Engine = ProcessEngine;
    template <Calling calling, class F, class Item>
    using Feeder = ProcessFeeder<calling, F, Item>;
    template <class T>
    using Argument = pickle::travel_decay_t<T>;
    static constexpr bool takes_references = false;
    static constexpr bool sizes_chunks = false;
    /// A caller that may block has so many bytes of tasks under way at most.
    [[nodiscard]] static constexpr std::uint64_t bytes_ahead(const Engine&) noexcept {
        return std::uint64_t{16} << 20;
    }
    // Items are written, not moved.
    template <class Item>
    [[nodiscard]] static Item* moving(Item* items) noexcept {
        return items;
    }
};

}  // namespace runtime::pool

/// A number of worker processes. *Python*: `multiprocessing.Pool`.
///
///     int square(int x) { return x * x; }
///     mp::Pool pool(4);
///     std::vector<int> squares = pool.map(square, mp::range(10));
///
/// A function is a pointer to one, a captureless lambda, a pointer to a member, a function object
/// with `serialize`, or `mp::partial(f, args...)`; what cannot travel to a worker does not compile.
/// Arguments and results are pickled. Plain items that are in shared memory already, as those of an
/// `mp::Array` or a span of it, are not copied by calls that wait, nor those of an `mp::Array` by imap:
/// each is read there when its turn comes.
///
/// A handle: copies are the same pool; the destructor of the last one is `terminate()`.
/// *Process safety*: by the process that made it, from any thread. Workers are daemons, ignore
/// SIGINT and end with this process, however it ends.
/// *If a peer dies*: a worker that dies costs the one item it was at, which ends with
/// WorkerLostError or is run again (`TaskOptions::retries`); a new worker takes its place.
class Pool : public PoolInterface<runtime::pool::ProcessBackend> {
public:
    /// *Throws* ValueError for less than one worker, and what Process::start throws.
    explicit Pool(PoolOptions options = {})
        : PoolInterface(runtime::pool::ProcessEngine::start(settings(std::move(options)))) {}
    explicit Pool(int processes) : Pool(PoolOptions{.processes = processes}) {}

    /// The workers that there are now.
    [[nodiscard]] std::vector<Process> workers() const;
    /// What the workers have done so far. *Blocks* for as long as it takes to look.
    [[nodiscard]] PoolStats stats() const { return engine().stats(); }
    /// Has so many workers from now on: starts those that are missing, lets those who are too many
    /// leave when they have nothing in hand. Does not wait for either.
    void resize(int processes) const {
        engine().resize(runtime::pool::at_least_one(processes, "Pool.resize(): processes"));
    }

private:
    [[nodiscard]] static runtime::pool::Settings settings(PoolOptions options);
};

// ---------------------------------------------------------------------------------------------------

inline runtime::pool::Settings Pool::settings(PoolOptions options) {
    using runtime::pool::at_least_one;
    runtime::pool::Settings settings;
    settings.processes = at_least_one(
        options.processes ? *options.processes : process_cpu_count(), "Pool: processes");
    if (options.maxtasksperchild) {
        settings.limits.tasks = at_least_one(*options.maxtasksperchild, "Pool: maxtasksperchild");
    }
    if (options.max_memory_per_child) {
        if (*options.max_memory_per_child == 0) {
            throw ValueError("Pool: max_memory_per_child is 0 bytes, which every process has");
        }
        settings.limits.memory = *options.max_memory_per_child;
    }
    settings.initializer = std::move(options.initializer);
    if (options.context) settings.method = options.context->method();
    settings.cpu_affinity = std::move(options.cpu_affinity);
    settings.idle_timeout = options.idle_timeout.span();
    return settings;
}

inline std::vector<Process> Pool::workers() const {
    engine().check_own();
    std::vector<Process> processes;
    for (auto& worker : engine().workers()) {
        processes.push_back(runtime::ProcessAccess::make(std::move(worker)));
    }
    return processes;
}

}  // namespace multiprocessing
