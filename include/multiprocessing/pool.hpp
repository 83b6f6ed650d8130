// SPDX-License-Identifier: BSL-1.0
//
// `Pool`: worker processes that run functions on the items of a range. Answers Python's
// `multiprocessing.pool`.
#pragma once

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/os/cpu.hpp>
#include <multiprocessing/pickle/callable.hpp>
#include <multiprocessing/pool_results.hpp>
#include <multiprocessing/process.hpp>
#include <multiprocessing/range.hpp>
#include <multiprocessing/runtime/action.hpp>
#include <multiprocessing/runtime/pool/async.hpp>
#include <multiprocessing/runtime/pool/engine.hpp>
#include <multiprocessing/runtime/pool/feed.hpp>
#include <multiprocessing/runtime/pool/imap_job.hpp>
#include <multiprocessing/runtime/pool/map_job.hpp>

#include <concepts>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <optional>
#include <ranges>
#include <string>
#include <tuple>
#include <type_traits>
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
    /// A worker is replaced after so many tasks; left out: never.
    std::optional<int> maxtasksperchild = std::nullopt;
    /// The start method of the workers, as `mp::get_context("spawn")`.
    std::optional<runtime::ContextBase> context = std::nullopt;
};

/// A fixed number of worker processes. *Python*: `multiprocessing.Pool`.
///
///     int square(int x) { return x * x; }
///     mp::Pool pool(4);
///     std::vector<int> squares = pool.map(square, mp::range(10));
///
/// A function is a pointer to one, a captureless lambda, a pointer to a member, a function object
/// with `serialize`, or `mp::partial(f, args...)`; what cannot travel to a worker does not compile.
/// Arguments and results are pickled.
///
/// A handle: copies are the same pool; the destructor of the last one is `terminate()`.
/// *Process safety*: by the process that made it, from any thread. Workers are daemons, ignore
/// SIGINT and end with this process, however it ends.
/// *If a peer dies*: a worker that dies costs the one item it was at, which ends with
/// WorkerLostError; a new worker takes its place.
class Pool {
public:
    /// *Throws* ValueError for less than one worker, and what Process::start throws.
    explicit Pool(PoolOptions options = {});
    explicit Pool(int processes) : Pool(PoolOptions{.processes = processes}) {}

    /// Runs `f(args...)` in a worker and returns what it returns. *Blocks* until then.
    template <class F, class... Args>
    auto apply(F f, Args&&... args) const {
        return apply_async(std::move(f), std::forward<Args>(args)...).get();
    }
    template <class F, class... Args>
    auto apply_async(F f, Args&&... args) const;

    /// Calls `f(item)` for every item of a range, in chunks of `chunksize` (0: about four for each
    /// worker), and returns the results in the order of the items. All are run; then the first
    /// exception in that order is thrown. What reading the range throws is thrown at once.
    /// *Throws* ValueError for a negative chunksize, and when the pool is not running.
    template <class F, std::ranges::input_range Range>
    auto map(F f, Range&& items, int chunksize = 0) const {
        return gather<Calling::whole>(std::move(f), items, chunksize, true).get();
    }
    template <class F, class T>
    auto map(F f, std::initializer_list<T> items, int chunksize = 0) const {
        return gather<Calling::whole>(std::move(f), items, chunksize, true).get();
    }
    template <class F, std::ranges::input_range Range>
    auto map_async(F f, Range&& items, int chunksize = 0) const {
        return gather<Calling::whole>(std::move(f), items, chunksize, false);
    }
    template <class F, class T>
    auto map_async(F f, std::initializer_list<T> items, int chunksize = 0) const {
        return gather<Calling::whole>(std::move(f), items, chunksize, false);
    }
    /// The same for a range of tuples or pairs, whose elements are the arguments.
    template <class F, std::ranges::input_range Range>
    auto starmap(F f, Range&& items, int chunksize = 0) const {
        return gather<Calling::spread>(std::move(f), items, chunksize, true).get();
    }
    template <class F, class T>
    auto starmap(F f, std::initializer_list<T> items, int chunksize = 0) const {
        return gather<Calling::spread>(std::move(f), items, chunksize, true).get();
    }
    template <class F, std::ranges::input_range Range>
    auto starmap_async(F f, Range&& items, int chunksize = 0) const {
        return gather<Calling::spread>(std::move(f), items, chunksize, false);
    }
    template <class F, class T>
    auto starmap_async(F f, std::initializer_list<T> items, int chunksize = 0) const {
        return gather<Calling::spread>(std::move(f), items, chunksize, false);
    }

    /// Results one by one in the order of the items, which are read as results are taken: an endless
    /// range will do. The range is kept: an lvalue by reference, which must outlive the iteration.
    /// *Throws* ValueError for a chunksize under 1, and when the pool is not running.
    template <class F, std::ranges::input_range Range>
    auto imap(F f, Range&& items, int chunksize = 1) const {
        return stream(std::move(f), std::forward<Range>(items), chunksize, true);
    }
    template <class F, class T>
    auto imap(F f, std::initializer_list<T> items, int chunksize = 1) const {
        return stream(std::move(f), std::vector<T>(items), chunksize, true);
    }
    /// The same in the order in which results come.
    template <class F, std::ranges::input_range Range>
    auto imap_unordered(F f, Range&& items, int chunksize = 1) const {
        return stream(std::move(f), std::forward<Range>(items), chunksize, false);
    }
    template <class F, class T>
    auto imap_unordered(F f, std::initializer_list<T> items, int chunksize = 1) const {
        return stream(std::move(f), std::vector<T>(items), chunksize, false);
    }

    /// No new work; workers leave when what there is has been done.
    void close() const { engine().close(); }
    /// Ends the workers (SIGTERM, then SIGKILL); what has not ended ends with CancelledError. From a
    /// callback, too, where it returns at once.
    void terminate() const { engine().terminate(); }
    /// Waits for the workers to leave. *Throws* ValueError before `close()` or `terminate()`.
    void join() const { engine().join(); }
    /// The workers that there are now.
    [[nodiscard]] std::vector<Process> workers() const;

private:
    using Calling = runtime::pool::Calling;
    // Ends the pool with the last handle.
    struct Held {
        std::shared_ptr<runtime::pool::Engine> engine;
        explicit Held(std::shared_ptr<runtime::pool::Engine> started) : engine(std::move(started)) {}
        Held(const Held&) = delete;
        Held& operator=(const Held&) = delete;
        ~Held() { engine->abandon(); }
    };

    [[nodiscard]] runtime::pool::Engine& engine() const noexcept { return *held_->engine; }
    [[nodiscard]] static runtime::pool::Settings settings(PoolOptions options);

    template <Calling calling, class F, class Range>
    auto gather(F f, Range& items, int chunksize, bool wait_for_room) const;
    template <class F, class Range>
    auto stream(F f, Range&& items, int chunksize, bool ordered) const;

    std::shared_ptr<const Held> held_;
};

// ---------------------------------------------------------------------------------------------------

inline runtime::pool::Settings Pool::settings(PoolOptions options) {
    const int processes = options.processes ? *options.processes : process_cpu_count();
    if (processes < 1) {
        throw ValueError("Pool: processes is " + std::to_string(processes) + ", but must be 1 or more");
    }
    if (options.maxtasksperchild && *options.maxtasksperchild < 1) {
        throw ValueError("Pool: maxtasksperchild is " + std::to_string(*options.maxtasksperchild) +
                         ", but must be 1 or more");
    }
    return {static_cast<std::uint32_t>(processes), std::move(options.initializer),
            static_cast<std::uint64_t>(options.maxtasksperchild.value_or(0)),
            options.context ? std::optional(options.context->method()) : std::nullopt};
}

inline Pool::Pool(PoolOptions options)
    : held_(std::make_shared<const Held>(runtime::pool::Engine::start(settings(std::move(options))))) {}

inline std::vector<Process> Pool::workers() const {
    engine().check_own();
    std::vector<Process> processes;
    for (auto& worker : engine().workers()) {
        processes.push_back(runtime::ProcessAccess::make(std::move(worker)));
    }
    return processes;
}

template <class F, class... Args>
auto Pool::apply_async(F f, Args&&... args) const {
    using namespace runtime::pool;
    static_assert((std::same_as<std::unwrap_ref_decay_t<Args>, std::decay_t<Args>> && ...),
                  "a pool's function is called with copies in another process: std::ref has no effect; "
                  "return what has changed, or share it as mp::Value or mp::Array");
    using Item = std::tuple<pickle::travel_decay_t<Args>...>;
    using TheWork = Work<Calling::spread, F, Item>;
    using R = typename TheWork::R;
    using Public = std::conditional_t<std::is_void_v<typename TheWork::Returned>, void, R>;

    auto state = std::make_shared<AsyncState<R>>();
    const auto job = std::make_shared<ApplyJob<R>>(state);
    Engine& pool = engine();
    pool.begin_feeding();
    const EndFeeding at_end{pool};
    const Item item(std::forward<Args>(args)...);
    const Item* next = &item;
    Feed<TheWork, F, Item>(pool, std::move(f)).give(job, next, next + 1, 1);
    return AsyncResult<Public>(std::move(state), held_->engine, job);
}

template <Pool::Calling calling, class F, class Range>
auto Pool::gather(F f, Range& items, int chunksize, bool wait_for_room) const {
    using namespace runtime::pool;
    using Item = ItemOf<Range>;
    using TheWork = Work<calling, F, Item>;
    using R = typename TheWork::R;

    if (chunksize < 0) {
        throw ValueError("Pool.map(): chunksize is " + std::to_string(chunksize) +
                         ", but must be 0 (automatic) or more");
    }
    auto state = std::make_shared<AsyncState<std::vector<R>>>();
    const auto job = std::make_shared<MapJob<R>>(state);
    Engine& pool = engine();
    pool.begin_feeding();
    const EndFeeding at_end{pool};
    Chunks chunks(pool.size(), chunksize, sizeof(Item));
    if constexpr (Finite<Range>) {
        const auto size = static_cast<std::uint64_t>(std::ranges::distance(items));
        chunks.expect(size);
        job->expect(size);
    }
    Feed<TheWork, F, Item> feed(pool, std::move(f));
    try {
        auto next = std::ranges::begin(items);
        const auto end = std::ranges::end(items);
        // Few tasks are always let out, many only while they are small.
        while (feed.give(job, next, end, chunks.next(), [&](std::uint64_t bytes) { job->giving(bytes); })) {
            const std::uint64_t tasks_ahead =
                wait_for_room ? std::uint64_t{2} * pool.size() : std::uint64_t(-1);
            if (!job->wait_for_room(tasks_ahead, Chunks::bytes_ahead)) break;
        }
    } catch (...) {
        pool.cancel(job);
        throw;
    }
    job->all_given(feed.given());
    return AsyncResult<std::vector<R>>(std::move(state), held_->engine, job);
}

template <class F, class Range>
auto Pool::stream(F f, Range&& items, int chunksize, bool ordered) const {
    using namespace runtime::pool;
    using Item = ItemOf<Range>;
    using TheWork = Work<Calling::whole, F, Item>;
    using R = typename TheWork::R;

    if (chunksize < 1) {
        throw ValueError("Pool.imap(): chunksize is " + std::to_string(chunksize) +
                         ", but must be 1 or more");
    }
    const auto job = std::make_shared<StreamJob<TheWork, F, Range>>(
        held_->engine, std::move(f), std::forward<Range>(items), static_cast<std::uint32_t>(chunksize),
        ordered);
    job->begin();
    return IMapIterator<R>(job);
}

}  // namespace multiprocessing
