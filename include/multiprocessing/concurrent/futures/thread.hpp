// SPDX-License-Identifier: BSL-1.0
//
// `ThreadPoolExecutor`. Answers Python's `concurrent.futures.thread`.
#pragma once

#include <multiprocessing/concurrent/futures/executor.hpp>
#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/process.hpp>
#include <multiprocessing/thread_pool.hpp>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>

namespace multiprocessing::concurrent::futures {

/// The keyword arguments of `ThreadPoolExecutor`.
struct ThreadPoolExecutorOptions {
    /// How many threads; left out: four more than `process_cpu_count()`, 32 at most.
    std::optional<int> max_workers = std::nullopt;
    /// Run by each thread before its first call. If it throws, the executor is broken.
    std::function<void()> initializer = {};
};

struct ThreadExecutorBackend : runtime::pool::ThreadBackend {
    static constexpr const char* name = "ThreadPoolExecutor";
    [[nodiscard]] static runtime::pool::TaskSettings settings() noexcept {
        runtime::pool::TaskSettings settings;
        settings.may_be_stopped = false;
        return settings;
    }
};

/// Calls functions in threads. *Python*: `concurrent.futures.ThreadPoolExecutor`. A function is any
/// callable, captures and all, with any arguments; exceptions arrive as they were thrown.
class ThreadPoolExecutor : public Executor<ThreadExecutorBackend> {
public:
    /// *Throws* ValueError for less than one thread.
    explicit ThreadPoolExecutor(ThreadPoolExecutorOptions options = {})
        : Executor([threads = threads(options), initializer = std::move(options.initializer)] {
              constexpr bool finishes_at_exit = true;
              return runtime::pool::ThreadEngine::start(threads, guarded(initializer),
                                                        finishes_at_exit);
          }) {}
    explicit ThreadPoolExecutor(int max_workers)
        : ThreadPoolExecutor(ThreadPoolExecutorOptions{.max_workers = max_workers}) {}

private:
    [[nodiscard]] static std::uint32_t threads(const ThreadPoolExecutorOptions& options) {
        constexpr int most = 32;
        return runtime::pool::at_least_one(
            options.max_workers ? *options.max_workers : std::min(process_cpu_count() + 4, most),
            "ThreadPoolExecutor: max_workers");
    }
    [[nodiscard]] static std::function<void()> guarded(std::function<void()> initializer) {
        if (!initializer) return {};
        return [initializer = std::move(initializer)] {
            try {
                initializer();
            } catch (...) {
                throw BrokenThreadPool("a thread's initializer threw " +
                                       pickle::describe(std::current_exception()));
            }
        };
    }
};

}  // namespace multiprocessing::concurrent::futures
