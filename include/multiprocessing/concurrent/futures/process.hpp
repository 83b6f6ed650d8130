// SPDX-License-Identifier: BSL-1.0
//
// `ProcessPoolExecutor`. Answers Python's `concurrent.futures.process`.
#pragma once

#include <multiprocessing/concurrent/futures/executor.hpp>
#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/pool.hpp>
#include <multiprocessing/process.hpp>
#include <multiprocessing/runtime/action.hpp>
#include <multiprocessing/runtime/pool/feed.hpp>
#include <multiprocessing/runtime/pool/process_engine.hpp>

#include <csignal>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace multiprocessing::concurrent::futures {

/// The keyword arguments of `ProcessPoolExecutor`.
struct ProcessPoolExecutorOptions {
    /// How many workers at most; left out: one for each processor of `process_cpu_count()`.
    std::optional<int> max_workers = std::nullopt;
    /// Their start method, as `mp::get_context("spawn")`; left out: the default, or spawn if
    /// max_tasks_per_child is given.
    std::optional<runtime::ContextBase> mp_context = std::nullopt;
    /// Run by each worker before its first call: a callable without arguments, for instance
    /// `mp::partial(init, a, b)`. If it throws, the executor is broken.
    runtime::Action initializer = {};
    /// A worker is replaced after so many calls; not with fork. Left out: never.
    std::optional<int> max_tasks_per_child = std::nullopt;
};

struct ProcessExecutorBackend : runtime::pool::ProcessBackend {
    static constexpr const char* name = "ProcessPoolExecutor";
    [[nodiscard]] static runtime::pool::TaskSettings settings() noexcept {
        runtime::pool::TaskSettings settings;
        settings.may_be_stopped = false;
        return settings;
    }
};

/// Calls functions in worker processes. *Python*: `concurrent.futures.ProcessPoolExecutor`.
///
///     mp::concurrent::futures::ProcessPoolExecutor executor(4);
///     auto future = executor.submit(square, 7);
///     int x = future.result();
///
/// What travels is as for `mp::Pool`. Workers are started at the first call; with spawn and forkserver
/// when one more is needed. They may have children. What has been submitted is done though the
/// program ends.
/// *If a peer dies*: a worker that ends abruptly breaks the executor: every future that is not done,
/// and every call of submit(), throws BrokenProcessPool. (A `Pool` goes on.)
class ProcessPoolExecutor : public Executor<ProcessExecutorBackend> {
public:
    /// *Throws* ValueError for less than one worker, or max_tasks_per_child with fork.
    explicit ProcessPoolExecutor(ProcessPoolExecutorOptions options = {})
        : Executor([settings = settings(std::move(options))] {
              return runtime::pool::ProcessEngine::start(settings);
          }) {}
    explicit ProcessPoolExecutor(int max_workers)
        : ProcessPoolExecutor(ProcessPoolExecutorOptions{.max_workers = max_workers}) {}

    /// Sends the workers SIGTERM. No new calls; what nobody has begun is cancelled, what runs ends with
    /// BrokenProcessPool. Does not wait.
    void terminate_workers() const { end_by(SIGTERM); }
    /// The same with SIGKILL.
    void kill_workers() const { end_by(SIGKILL); }

    /// The workers that there are now. *Python*: `_processes`.
    [[nodiscard]] std::vector<Process> workers() const {
        std::vector<Process> processes;
        if (const auto pool = engine()) {
            for (auto& worker : pool->workers()) {
                processes.push_back(runtime::ProcessAccess::make(std::move(worker)));
            }
        }
        return processes;
    }

private:
    [[nodiscard]] static runtime::pool::Settings settings(ProcessPoolExecutorOptions options);
    void end_by(int signal) const {
        if (const auto pool = shut_down_now()) pool->end_by(signal);
    }
};

// ---------------------------------------------------------------------------------------------------

inline runtime::pool::Settings ProcessPoolExecutor::settings(ProcessPoolExecutorOptions options) {
    using runtime::StartMethod;
    using runtime::pool::at_least_one;
    runtime::pool::Settings settings;
    settings.processes =
        at_least_one(options.max_workers ? *options.max_workers : process_cpu_count(),
                     "ProcessPoolExecutor: max_workers");
    if (options.mp_context) settings.method = options.mp_context->method();
    if (options.max_tasks_per_child) {
        settings.limits.tasks = at_least_one(*options.max_tasks_per_child,
                                             "ProcessPoolExecutor: max_tasks_per_child");
        if (!settings.method) settings.method = StartMethod::spawn;
        if (*settings.method == StartMethod::fork) {
            throw ValueError("ProcessPoolExecutor: max_tasks_per_child cannot be used with fork, for "
                             "workers would be forked while threads run: give another mp_context");
        }
    }
    settings.initializer = std::move(options.initializer);
    const StartMethod method =
        settings.method ? *settings.method : runtime::default_start_method().get();
    settings.method = method;
    settings.is_executors = true;
    settings.on_demand = method != StartMethod::fork;
    return settings;
}

}  // namespace multiprocessing::concurrent::futures
