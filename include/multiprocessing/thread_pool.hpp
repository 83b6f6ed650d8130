// SPDX-License-Identifier: BSL-1.0
//
// `ThreadPool`: the interface of `Pool` over threads of this process. Answers Python's
// `multiprocessing.pool.ThreadPool`.
#pragma once

#include <multiprocessing/pool_interface.hpp>
#include <multiprocessing/pool_stats.hpp>
#include <multiprocessing/process.hpp>
#include <multiprocessing/runtime/pool/thread_engine.hpp>
#include <multiprocessing/runtime/pool/thread_feed.hpp>
#include <multiprocessing/this_task.hpp>

#include <concepts>
#include <functional>
#include <iterator>
#include <optional>
#include <type_traits>
#include <utility>

namespace multiprocessing {

/// The keyword arguments of `ThreadPool`.
struct ThreadPoolOptions {
    /// How many threads; left out: one for each processor of `process_cpu_count()`.
    std::optional<int> processes = std::nullopt;
    /// Run by each thread before its first task. If it throws, every task ends with what it threw.
    std::function<void()> initializer = {};
};

namespace runtime::pool {

/// What makes a pool one of threads.
struct ThreadBackend {
    using Engine = ThreadEngine;
    template <Calling calling, class F, class Item>
    using Feeder = ThreadFeeder<calling, F, Item>;
    // What std::ref() refers to is here.
    template <class T>
    using Argument = std::conditional_t<std::same_as<std::unwrap_ref_decay_t<T>, std::decay_t<T>>,
                                        pickle::travel_decay_t<T>, std::decay_t<T>>;
    static constexpr bool takes_references = true;
    static constexpr bool sizes_chunks = false;
    /// A caller that may block has so many bytes of tasks under way at most.
    [[nodiscard]] static constexpr std::uint64_t bytes_ahead(const Engine&) noexcept {
        return std::uint64_t{16} << 20;
    }
    // What is only the call's is moved from.
    template <class Item>
    [[nodiscard]] static auto moving(Item* items) noexcept {
        return std::make_move_iterator(items);
    }
};

}  // namespace runtime::pool

/// A number of threads that run functions on the items of a range. *Python*: `ThreadPool`.
///
///     mp::ThreadPool pool(4);
///     std::vector<Page> pages = pool.map([&](const Url& url) { return fetch(session, url); }, urls);
///
/// A function is any callable, captures and all; the threads share the one object. Nothing is
/// pickled: arguments and results need only be movable, and exceptions arrive as they were thrown.
///
/// A thread cannot be killed. So `TaskOptions::timeout` and `cancel()` end the waiting for a result at
/// once, but only ask the task to stop (`mp::this_task::stop_requested()`), and its thread is free
/// again when it returns; `terminate()`, and with it the destructor of the last handle, waits for
/// what runs. `TaskOptions::retries` has nothing to count.
///
/// A handle: copies are the same pool. *Fork and spawn*: it is no use to a forked child.
class ThreadPool : public PoolInterface<runtime::pool::ThreadBackend> {
public:
    /// *Throws* ValueError for less than one thread, std::system_error when there can be no more.
    explicit ThreadPool(ThreadPoolOptions options = {})
        : PoolInterface(runtime::pool::ThreadEngine::start(
              runtime::pool::at_least_one(options.processes ? *options.processes : process_cpu_count(),
                           "ThreadPool: processes"),
              std::move(options.initializer))) {}
    explicit ThreadPool(int processes) : ThreadPool(ThreadPoolOptions{.processes = processes}) {}

    /// What the workers have done so far. *Blocks* for as long as it takes to look.
    [[nodiscard]] PoolStats stats() const { return engine().stats(); }
    /// Has so many threads from now on; those who are too many leave when they have nothing in hand.
    void resize(int processes) const {
        engine().resize(runtime::pool::at_least_one(processes, "ThreadPool.resize(): processes"));
    }
};

}  // namespace multiprocessing
