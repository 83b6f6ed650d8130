// SPDX-License-Identifier: BSL-1.0
//
// The calls of a pool, the same whatever its workers are. Answers the methods of Python's
// `multiprocessing.pool.Pool` that give it work.
#pragma once

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/pool_results.hpp>
#include <multiprocessing/range.hpp>
#include <multiprocessing/result.hpp>
#include <multiprocessing/runtime/pool/async.hpp>
#include <multiprocessing/runtime/pool/calling.hpp>
#include <multiprocessing/runtime/pool/checks.hpp>
#include <multiprocessing/runtime/pool/chunks.hpp>
#include <multiprocessing/runtime/pool/engine.hpp>
#include <multiprocessing/runtime/pool/imap_job.hpp>
#include <multiprocessing/runtime/pool/map_job.hpp>
#include <multiprocessing/timeout.hpp>

#include <algorithm>
#include <chrono>
#include <concepts>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <optional>
#include <ranges>
#include <span>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

namespace multiprocessing {

/// What may be said of the tasks of one call, as its first argument:
///
///     pool.map({.timeout = 5s, .retries = 2}, f, items);
struct TaskOptions {
    /// How long a task, which is one call of the function, may take from its start; left out: as long
    /// as it likes. Its outcome is TaskTimeoutError then, at once, and its worker is told to stop.
    Timeout timeout = {};
    /// How often a task is run again whose worker has died with it in hand. After that it ends with
    /// WorkerLostError. What throws is not run again.
    int retries = 0;
    /// Draws a progress bar with rate and time left on stderr, if that is a terminal: for the calls that
    /// give many results, whenever some come.
    bool progress = false;
    /// A worker that is told to stop is asked first (`mp::this_task::stop_requested()`), after this
    /// time sent SIGTERM, and after it again SIGKILL.
    Timeout grace = std::chrono::milliseconds(100);
};

/// The calls. A function is called with copies of the items; what it returns is moved to the caller.
/// What it throws is thrown by the call that gives the result. *Thread safety*: all of them may be
/// called by several threads.
template <class Backend>
class PoolInterface {
    using Calling = runtime::pool::Calling;
    template <class T>
    using AllValues = runtime::pool::AllValues<T>;
    template <class T>
    using AllResults = runtime::pool::AllResults<T>;

public:
    /// Runs `f(args...)` in a worker and returns what it returns. *Blocks* until then.
    template <class F, class... Args>
        requires(!std::same_as<std::remove_cvref_t<F>, TaskOptions>)
    auto apply(F f, Args&&... args) const {
        return apply(TaskOptions(), std::move(f), std::forward<Args>(args)...);
    }
    template <class F, class... Args>
    auto apply(const TaskOptions& options, F f, Args&&... args) const {
        engine().check_may_wait();  // also where it would be done by then
        return apply_async(options, std::move(f), std::forward<Args>(args)...).get();
    }
    /// The same without waiting: an AsyncResult of what it returns.
    template <class F, class... Args>
        requires(!std::same_as<std::remove_cvref_t<F>, TaskOptions>)
    auto apply_async(F f, Args&&... args) const {
        return apply_async(TaskOptions(), std::move(f), std::forward<Args>(args)...);
    }
    template <class F, class... Args>
    auto apply_async(const TaskOptions& options, F f, Args&&... args) const;

    /// Calls `f(item)` for every item of a range, in chunks of `chunksize` (0: about four for each
    /// worker), and returns the results in the order of the items. All are run; then the first
    /// exception in that order is thrown. What reading the range throws is thrown at once.
    /// *Throws* ValueError for a negative chunksize, and when the pool is not running.
    template <class F, std::ranges::input_range Range>
    auto map(F f, Range&& items, int chunksize = 0) const {
        return gather<Calling::whole, AllValues>({}, std::move(f), items, chunksize, true).get();
    }
    template <class F, std::ranges::input_range Range>
    auto map(const TaskOptions& options, F f, Range&& items, int chunksize = 0) const {
        return gather<Calling::whole, AllValues>(options, std::move(f), items, chunksize, true).get();
    }
    template <class F, class T>
    auto map(F f, std::initializer_list<T> items, int chunksize = 0) const {
        return map(TaskOptions(), std::move(f), items, chunksize);
    }
    template <class F, class T>
    auto map(const TaskOptions& options, F f, std::initializer_list<T> items, int chunksize = 0) const {
        return map(options, std::move(f), all_of(items), chunksize);
    }
    /// The same without waiting. The range is read before it returns.
    template <class F, std::ranges::input_range Range>
    auto map_async(F f, Range&& items, int chunksize = 0) const {
        return gather<Calling::whole, AllValues>({}, std::move(f), items, chunksize, false);
    }
    template <class F, std::ranges::input_range Range>
    auto map_async(const TaskOptions& options, F f, Range&& items, int chunksize = 0) const {
        return gather<Calling::whole, AllValues>(options, std::move(f), items, chunksize, false);
    }
    template <class F, class T>
    auto map_async(F f, std::initializer_list<T> items, int chunksize = 0) const {
        return map_async(TaskOptions(), std::move(f), items, chunksize);
    }
    template <class F, class T>
    auto map_async(const TaskOptions& options, F f, std::initializer_list<T> items,
                   int chunksize = 0) const {
        return map_async(options, std::move(f), all_of(items), chunksize);
    }

    /// `map` for a range of tuples or pairs, whose elements are the arguments.
    template <class F, std::ranges::input_range Range>
    auto starmap(F f, Range&& items, int chunksize = 0) const {
        return gather<Calling::spread, AllValues>({}, std::move(f), items, chunksize, true).get();
    }
    template <class F, std::ranges::input_range Range>
    auto starmap(const TaskOptions& options, F f, Range&& items, int chunksize = 0) const {
        return gather<Calling::spread, AllValues>(options, std::move(f), items, chunksize, true).get();
    }
    template <class F, class T>
    auto starmap(F f, std::initializer_list<T> items, int chunksize = 0) const {
        return starmap(TaskOptions(), std::move(f), items, chunksize);
    }
    template <class F, class T>
    auto starmap(const TaskOptions& options, F f, std::initializer_list<T> items,
                 int chunksize = 0) const {
        return starmap(options, std::move(f), all_of(items), chunksize);
    }
    template <class F, std::ranges::input_range Range>
    auto starmap_async(F f, Range&& items, int chunksize = 0) const {
        return gather<Calling::spread, AllValues>({}, std::move(f), items, chunksize, false);
    }
    template <class F, std::ranges::input_range Range>
    auto starmap_async(const TaskOptions& options, F f, Range&& items, int chunksize = 0) const {
        return gather<Calling::spread, AllValues>(options, std::move(f), items, chunksize, false);
    }
    template <class F, class T>
    auto starmap_async(F f, std::initializer_list<T> items, int chunksize = 0) const {
        return starmap_async(TaskOptions(), std::move(f), items, chunksize);
    }
    template <class F, class T>
    auto starmap_async(const TaskOptions& options, F f, std::initializer_list<T> items,
                       int chunksize = 0) const {
        return starmap_async(options, std::move(f), all_of(items), chunksize);
    }

    /// `map` whose items fail one by one: a `Result` for each, in their order, and nothing thrown for
    /// what became of them.
    template <class F, std::ranges::input_range Range>
    auto try_map(F f, Range&& items, int chunksize = 0) const {
        return gather<Calling::whole, AllResults>({}, std::move(f), items, chunksize, true).get();
    }
    template <class F, std::ranges::input_range Range>
    auto try_map(const TaskOptions& options, F f, Range&& items, int chunksize = 0) const {
        return gather<Calling::whole, AllResults>(options, std::move(f), items, chunksize, true).get();
    }
    template <class F, class T>
    auto try_map(F f, std::initializer_list<T> items, int chunksize = 0) const {
        return try_map(TaskOptions(), std::move(f), items, chunksize);
    }
    template <class F, class T>
    auto try_map(const TaskOptions& options, F f, std::initializer_list<T> items,
                 int chunksize = 0) const {
        return try_map(options, std::move(f), all_of(items), chunksize);
    }

    /// Results one by one in the order of the items, which are read as results are taken: an endless
    /// range will do. At most `buffersize` items are read ahead of the results that have been taken;
    /// left out: a few for each worker, more where that keeps short tasks from waiting. The range is
    /// kept: an lvalue by reference, which must outlive the iteration, an mp::Array as its handle.
    /// *Throws* ValueError for a chunksize or buffersize under 1, and when the pool is not running.
    template <class F, std::ranges::input_range Range>
    auto imap(F f, Range&& items, int chunksize = 1, std::optional<int> buffersize = {}) const {
        return stream({}, std::move(f), std::forward<Range>(items), chunksize, buffersize, true);
    }
    template <class F, std::ranges::input_range Range>
    auto imap(const TaskOptions& options, F f, Range&& items, int chunksize = 1,
              std::optional<int> buffersize = {}) const {
        return stream(options, std::move(f), std::forward<Range>(items), chunksize, buffersize, true);
    }
    template <class F, class T>
    auto imap(F f, std::initializer_list<T> items, int chunksize = 1,
              std::optional<int> buffersize = {}) const {
        return stream({}, std::move(f), std::vector<T>(items), chunksize, buffersize, true);
    }
    template <class F, class T>
    auto imap(const TaskOptions& options, F f, std::initializer_list<T> items, int chunksize = 1,
              std::optional<int> buffersize = {}) const {
        return stream(options, std::move(f), std::vector<T>(items), chunksize, buffersize, true);
    }
    /// The same in the order in which results come.
    template <class F, std::ranges::input_range Range>
    auto imap_unordered(F f, Range&& items, int chunksize = 1,
                        std::optional<int> buffersize = {}) const {
        return stream({}, std::move(f), std::forward<Range>(items), chunksize, buffersize, false);
    }
    template <class F, std::ranges::input_range Range>
    auto imap_unordered(const TaskOptions& options, F f, Range&& items, int chunksize = 1,
                        std::optional<int> buffersize = {}) const {
        return stream(options, std::move(f), std::forward<Range>(items), chunksize, buffersize, false);
    }
    template <class F, class T>
    auto imap_unordered(F f, std::initializer_list<T> items, int chunksize = 1,
                        std::optional<int> buffersize = {}) const {
        return stream({}, std::move(f), std::vector<T>(items), chunksize, buffersize, false);
    }
    template <class F, class T>
    auto imap_unordered(const TaskOptions& options, F f, std::initializer_list<T> items,
                        int chunksize = 1, std::optional<int> buffersize = {}) const {
        return stream(options, std::move(f), std::vector<T>(items), chunksize, buffersize, false);
    }

    /// No new work; workers leave when what there is has been done.
    void close() const { engine().close(); }
    /// Ends the workers; what has not ended ends with CancelledError. From a callback, too, where it
    /// returns at once.
    void terminate() const { engine().terminate(); }
    /// Waits for the workers to leave. *Throws* ValueError before `close()` or `terminate()`.
    void join() const { engine().join(); }

protected:
    using Engine = typename Backend::Engine;

    explicit PoolInterface(std::shared_ptr<Engine> engine)
        : held_(std::make_shared<const Held>(std::move(engine))) {}

    [[nodiscard]] Engine& engine() const noexcept { return *held_->engine; }

private:
    // Ends the pool with the last handle.
    struct Held {
        std::shared_ptr<Engine> engine;
        explicit Held(std::shared_ptr<Engine> started) : engine(std::move(started)) {}
        Held(const Held&) = delete;
        Held& operator=(const Held&) = delete;
        ~Held() { engine->abandon(); }
    };

    [[nodiscard]] static runtime::pool::TaskSettings settings(const TaskOptions& options);
    [[nodiscard]] std::unique_ptr<runtime::pool::Progress> progress_bar() const {
        return runtime::pool::Progress::on_terminal(
            [this] { return std::make_shared<runtime::pool::Service>(held_->engine); });
    }

    template <class T>
    [[nodiscard]] static auto all_of(const std::initializer_list<T>& items) {
        return std::span<const T>(items.begin(), items.size());
    }

    template <Calling calling, template <class> class Gathering, class F, class Range>
    auto gather(const TaskOptions& options, F f, Range& items, int chunksize, bool waits) const;
    template <class F, class Range>
    auto stream(const TaskOptions& options, F f, Range&& items, int chunksize,
                std::optional<int> buffersize, bool ordered) const;

    std::shared_ptr<const Held> held_;
};

// ---------------------------------------------------------------------------------------------------

template <class Backend>
runtime::pool::TaskSettings PoolInterface<Backend>::settings(const TaskOptions& options) {
    if (options.retries < 0) {
        throw ValueError("TaskOptions: retries is " + std::to_string(options.retries) +
                         ", but must be 0 or more");
    }
    constexpr std::chrono::nanoseconds none{0};
    constexpr std::chrono::nanoseconds least{1};
    runtime::pool::TaskSettings settings;
    settings.timeout = options.timeout.forever() ? none : std::max(*options.timeout.span(), least);
    // For ever is as good as a year.
    settings.grace = options.grace.forever() ? std::chrono::hours(8766) : *options.grace.span();
    settings.retries = static_cast<std::uint32_t>(options.retries);
    return settings;
}

template <class Backend>
template <class F, class... Args>
auto PoolInterface<Backend>::apply_async(const TaskOptions& options, F f, Args&&... args) const {
    using namespace runtime::pool;
    static_assert(Backend::takes_references ||
                      (std::same_as<std::unwrap_ref_decay_t<Args>, std::decay_t<Args>> && ...),
                  "a pool's function is called with copies in another process: std::ref has no effect; "
                  "return what has changed, or share it as mp::Value or mp::Array");
    using Item = std::tuple<typename Backend::template Argument<Args>...>;
    using Feeder = typename Backend::template Feeder<Calling::spread, F, Item>;
    using R = typename Feeder::R;
    using Returned = typename Call<Calling::spread, F, Item>::Returned;
    using Public = std::conditional_t<std::is_void_v<Returned>, void, R>;

    Feeder feeder(engine(), std::move(f), settings(options));
    auto state = std::make_shared<AsyncState<R>>(held_->engine);
    const auto job = std::make_shared<ApplyJob<R>>(state);
    engine().begin_feeding();
    const EndFeeding at_end{engine()};
    Item item(std::forward<Args>(args)...);
    auto next = Backend::moving(&item);
    feeder.give(job, next, Backend::moving(&item + 1), 1, 1, [](std::uint64_t) {});
    return AsyncResult<Public>(std::move(state), job);
}

template <class Backend>
template <runtime::pool::Calling calling, template <class> class Gathering, class F, class Range>
auto PoolInterface<Backend>::gather(const TaskOptions& options, F f, Range& items, int chunksize,
                                    bool waits) const {
    using namespace runtime::pool;
    using Item = ItemOf<Range>;
    using Feeder = typename Backend::template Feeder<calling, F, Item>;
    using R = typename Feeder::R;
    using Gathered = typename Gathering<R>::type;

    if (chunksize < 0) {
        throw ValueError("Pool.map(): chunksize is " + std::to_string(chunksize) +
                         ", but must be 0 (automatic) or more");
    }
    auto task_settings = settings(options);
    if (waits) engine().check_may_wait();  // also where it would be done by then
    task_settings.items_stay = waits;      // who does not wait may do with them what he likes
    Feeder feeder(engine(), std::move(f), task_settings);
    auto state = std::make_shared<AsyncState<Gathered>>(held_->engine);
    const auto job = std::make_shared<MapJob<R, Gathering<R>>>(state);
    Engine& pool = engine();
    pool.begin_feeding();
    const EndFeeding at_end{pool};
    if (options.progress) job->show(progress_bar());
    Chunks chunks(pool.size(), chunksize, sizeof(Item));
    if constexpr (Finite<Range>) {
        const auto size = static_cast<std::uint64_t>(std::ranges::distance(items));
        chunks.expect(size);
        job->expect(size);
    }
    try {
        auto next = std::ranges::begin(items);
        const auto end = std::ranges::end(items);
        // Few tasks are always let out, many only while they are small.
        for (;;) {
            const auto step = chunks.next();
            // Who measures how long items take puts as many together as it should.
            const std::uint32_t grain = Backend::sizes_chunks && chunksize == 0 ? 1 : step.grain;
            if (!feeder.give(job, next, end, step.items, grain,
                             [&](std::uint64_t bytes) { job->giving(bytes); })) {
                break;
            }
            const std::uint64_t tasks_ahead =
                waits ? std::uint64_t{2} * pool.size() : std::uint64_t(-1);
            if (!job->wait_for_room(pool, tasks_ahead, Backend::bytes_ahead(pool))) break;
        }
    } catch (...) {
        pool.cancel(job);
        throw;
    }
    job->all_given(feeder.given());
    return AsyncResult<Gathered>(std::move(state), job);
}

template <class Backend>
template <class F, class Range>
auto PoolInterface<Backend>::stream(const TaskOptions& options, F f, Range&& items, int chunksize,
                                    std::optional<int> buffersize, bool ordered) const {
    using namespace runtime::pool;
    using Item = ItemOf<Range>;
    using Feeder = typename Backend::template Feeder<Calling::whole, F, Item>;

    const auto chunk = at_least_one(chunksize, "Pool.imap(): chunksize");
    const ReadAhead ahead =
        buffersize ? ReadAhead(at_least_one(*buffersize, "Pool.imap(): buffersize"), true)
                   : ReadAhead(std::uint64_t{4} * engine().size() * chunk, false);
    auto task_settings = settings(options);
    // Who drops the iterator does not wait for the tasks that are under way.
    task_settings.items_stay = pickle::Handle<std::remove_cvref_t<Range>>;
    Feeder feeder(engine(), std::move(f), task_settings);
    const auto job = std::make_shared<StreamJob<Feeder, Range>>(
        held_->engine, std::move(feeder), std::forward<Range>(items), chunk, ordered, ahead);
    if (options.progress) job->show(progress_bar());
    job->begin();
    return IMapIterator<typename Feeder::R>(job);
}

}  // namespace multiprocessing
