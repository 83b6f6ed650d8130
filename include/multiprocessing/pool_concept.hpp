// SPDX-License-Identifier: BSL-1.0
//
// What a pool is, whatever its workers are: for code that is to run with each of them.
#pragma once

#include <multiprocessing/concurrent/futures/executor.hpp>
#include <multiprocessing/concurrent/futures/future.hpp>
#include <multiprocessing/pool_interface.hpp>
#include <multiprocessing/pool_results.hpp>
#include <multiprocessing/pool_stats.hpp>
#include <multiprocessing/result.hpp>

#include <concepts>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace multiprocessing {

/// A pool: `mp::Pool`, `mp::ThreadPool`, `mp::mpi::Pool`.
///
///     std::vector<double> areas(const mp::AnyPool auto& pool, const std::vector<Shape>& shapes) {
///         return pool.map(area, shapes);
///     }
template <class P>
concept AnyPool =
    std::copyable<P> && std::constructible_from<P, int> &&
    requires(const P& pool, const TaskOptions& options, int (*f)(int), std::string (*g)(int, int),
             void (*nothing)(int), const std::vector<int>& items,
             const std::vector<std::pair<int, int>>& pairs, std::optional<int> buffersize) {
        { pool.apply(f, 1) } -> std::same_as<int>;
        { pool.apply(options, g, 1, 2) } -> std::same_as<std::string>;
        { pool.apply(nothing, 1) } -> std::same_as<void>;
        { pool.apply_async(f, 1) } -> std::same_as<AsyncResult<int>>;
        { pool.apply_async(options, nothing, 1) } -> std::same_as<AsyncResult<void>>;
        { pool.map(f, items) } -> std::same_as<std::vector<int>>;
        { pool.map(options, f, items, 2) } -> std::same_as<std::vector<int>>;
        { pool.map(f, {1, 2}) } -> std::same_as<std::vector<int>>;
        { pool.map_async(f, items, 2) } -> std::same_as<AsyncResult<std::vector<int>>>;
        { pool.map_async(options, f, {1, 2}) } -> std::same_as<AsyncResult<std::vector<int>>>;
        { pool.starmap(g, pairs) } -> std::same_as<std::vector<std::string>>;
        { pool.starmap(options, g, {std::pair(1, 2)}, 2) } -> std::same_as<std::vector<std::string>>;
        { pool.starmap_async(g, pairs) } -> std::same_as<AsyncResult<std::vector<std::string>>>;
        { pool.try_map(f, items) } -> std::same_as<std::vector<Result<int>>>;
        { pool.try_map(options, f, {1, 2}, 2) } -> std::same_as<std::vector<Result<int>>>;
        { pool.imap(f, items) } -> std::same_as<IMapIterator<int>>;
        { pool.imap(options, f, items, 2, buffersize) } -> std::same_as<IMapIterator<int>>;
        { pool.imap_unordered(f, {1, 2}) } -> std::same_as<IMapIterator<int>>;
        { pool.imap_unordered(options, f, items, 2) } -> std::same_as<IMapIterator<int>>;
        { pool.stats() } -> std::same_as<PoolStats>;
        { pool.close() } -> std::same_as<void>;
        { pool.terminate() } -> std::same_as<void>;
        { pool.join() } -> std::same_as<void>;
    };

/// An executor: `ProcessPoolExecutor`, `ThreadPoolExecutor`, `mp::mpi::PoolExecutor`.
template <class E>
concept AnyExecutor =
    std::copyable<E> && std::constructible_from<E, int> &&
    requires(const E& executor, const concurrent::futures::MapOptions& options, int (*f)(int),
             void (*nothing)(int), const std::vector<int>& items,
             concurrent::futures::ShutdownOptions shutdown) {
        { executor.submit(f, 1) } -> std::same_as<concurrent::futures::Future<int>>;
        { executor.submit(nothing, 1) } -> std::same_as<concurrent::futures::Future<void>>;
        { executor.map(f, items) } -> std::same_as<concurrent::futures::MapResults<int>>;
        { executor.map(options, f, {1, 2}) } -> std::same_as<concurrent::futures::MapResults<int>>;
        { executor.shutdown() } -> std::same_as<void>;
        { executor.shutdown(shutdown) } -> std::same_as<void>;
    };

}  // namespace multiprocessing
