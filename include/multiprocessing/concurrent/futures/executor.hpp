// SPDX-License-Identifier: BSL-1.0
//
// What executors have in common. Answers Python's `concurrent.futures.Executor`.
#pragma once

#include <multiprocessing/concurrent/futures/future.hpp>
#include <multiprocessing/concurrent/futures/zip.hpp>
#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/os/clock.hpp>
#include <multiprocessing/os/process.hpp>
#include <multiprocessing/runtime/pool/calling.hpp>
#include <multiprocessing/runtime/pool/checks.hpp>
#include <multiprocessing/runtime/pool/chunks.hpp>
#include <multiprocessing/runtime/pool/engine.hpp>
#include <multiprocessing/runtime/pool/future_job.hpp>
#include <multiprocessing/runtime/pool/imap_job.hpp>
#include <multiprocessing/runtime/pool/outcome_iterator.hpp>
#include <multiprocessing/timeout.hpp>

#include <atomic>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <initializer_list>
#include <iterator>
#include <limits>
#include <memory>
#include <mutex>
#include <optional>
#include <ranges>
#include <stdexcept>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

namespace multiprocessing::concurrent::futures {

/// The keyword arguments of an executor's `map`.
struct MapOptions {
    /// From the call of map() until the last result; left out: for ever.
    Timeout timeout = {};
    /// How many items go to a worker at once.
    int chunksize = 1;
    /// How many items are read ahead of the results that have been taken; left out: all, if the input
    /// has an end.
    std::optional<int> buffersize = std::nullopt;
};

/// The keyword arguments of `shutdown`.
struct ShutdownOptions {
    bool wait = true;
    bool cancel_futures = false;
};

/// The results of an executor's `map`, in the order of the items: an input range, for one iteration. An
/// exception is thrown where the value would be, and the iteration may go on. What nobody has begun
/// when the last handle goes, or at close(), is cancelled.
template <class R>
class MapResults {
    using Job = runtime::pool::ImapJob<R>;
    struct Shared;
    struct Take {
        std::shared_ptr<Shared> shared;
        auto operator()() const { return shared->next(); }
    };

public:
    using value_type = R;
    using iterator = runtime::pool::OutcomeIterator<R, Take>;

    /// The next result. *Throws* what the function threw for the item; StopIteration after the last, and
    /// after close(); TimeoutError when map()'s time is over, which is the end of the iteration.
    R next() const;
    /// Ends the iteration.
    void close() const { shared_->close(); }

    [[nodiscard]] iterator begin() const { return iterator(Take{shared_}); }
    [[nodiscard]] std::default_sentinel_t end() const noexcept { return {}; }

private:
    template <class Backend>
    friend class Executor;
    struct Shared {
        std::shared_ptr<Job> job;
        std::shared_ptr<runtime::pool::Engine> engine;
        os::Deadline deadline;
        std::atomic<bool> closed{false};

        Shared(std::shared_ptr<Job> of, std::shared_ptr<runtime::pool::Engine> by, os::Deadline until)
            : job(std::move(of)), engine(std::move(by)), deadline(until) {}
        Shared(const Shared&) = delete;
        Shared& operator=(const Shared&) = delete;
        ~Shared() {
            try {
                close();
            } catch (const AssertionError&) {  // in a forked child, whose it is not
            }
        }
        void close() {
            if (!closed.exchange(true)) engine->cancel(job);
        }
        std::optional<typename Job::Outcome> next() {
            if (closed) return std::nullopt;
            try {
                auto outcome = job->next(deadline);
                if (!outcome) closed = true;
                return outcome;
            } catch (const TimeoutError&) {
                close();
                throw TimeoutError("Executor.map(): not all results were there in the time given");
            }
        }
    };

    MapResults(std::shared_ptr<Job> job, std::shared_ptr<runtime::pool::Engine> engine,
               os::Deadline deadline)
        : shared_(std::make_shared<Shared>(std::move(job), std::move(engine), deadline)) {}

    std::shared_ptr<Shared> shared_;
};

/// The interface of all executors. A handle: copies are the same executor; the destructor of the last
/// one is `shutdown(true)`. *Thread safety*: all calls may come from several threads.
/// *Fork and spawn*: of the process that made it; in a forked child all calls throw AssertionError, and
/// the destructor does nothing.
template <class Backend>
class Executor {
    using Calling = runtime::pool::Calling;
    using Engine = typename Backend::Engine;

public:
    /// Has a worker call `f(args...)`, as soon as one is free. What cannot be pickled is the future's
    /// exception: to a process a Connection or another descriptor goes with its start, not in a call.
    /// *Throws* std::runtime_error after shutdown(), and BrokenExecutor.
    template <class F, class... Args>
    auto submit(F f, Args&&... args) const;

    /// Calls `f(items...)` with an item of each range, until the shortest ends, and gives the results
    /// in order. The ranges are read here and now if they have an end and no buffersize is given, else
    /// as results are taken. An lvalue is kept by reference then, and must outlive the iteration.
    /// *Throws* ValueError for a chunksize or buffersize under 1, and what submit() throws.
    template <class F, std::ranges::input_range... Ranges>
        requires(sizeof...(Ranges) > 0)
    auto map(F f, Ranges&&... ranges) const {
        return map(MapOptions(), std::move(f), std::forward<Ranges>(ranges)...);
    }
    template <class F, std::ranges::input_range... Ranges>
        requires(sizeof...(Ranges) > 0)
    auto map(const MapOptions& options, F f, Ranges&&... ranges) const;
    /// For braced lists: `map(f, {1, 2, 3}, {4, 5, 6})`.
    template <class F, class... Items>
        requires(sizeof...(Items) > 0)
    auto map(F f, std::initializer_list<Items>... lists) const {
        return map(MapOptions(), std::move(f), std::vector<Items>(lists)...);
    }
    template <class F, class... Items>
        requires(sizeof...(Items) > 0)
    auto map(const MapOptions& options, F f, std::initializer_list<Items>... lists) const {
        return map(options, std::move(f), std::vector<Items>(lists)...);
    }

    /// No new calls; workers leave when those there are have been made. Waits for that, if asked to.
    /// With cancel_futures what nobody has begun is cancelled.
    void shutdown(bool wait = true, bool cancel_futures = false) const {
        shared_->check_own();
        shared_->shut_down(wait, cancel_futures);
    }
    void shutdown(ShutdownOptions options) const { shutdown(options.wait, options.cancel_futures); }

protected:
    using Start = std::function<std::shared_ptr<Engine>()>;

    explicit Executor(Start start) : shared_(std::make_shared<Shared>(std::move(start))) {}

    /// The engine, if there has been anything to do yet.
    [[nodiscard]] std::shared_ptr<Engine> engine() const {
        shared_->check_own();
        const std::lock_guard lock(shared_->mutex);
        return shared_->engine;
    }
    /// No new calls; nobody waits. Returns the engine if there is one.
    [[nodiscard]] std::shared_ptr<Engine> shut_down_now() const {
        shared_->check_own();
        const std::lock_guard lock(shared_->mutex);
        shared_->is_shut_down = true;
        return shared_->engine;
    }

private:
    struct Shared {
        explicit Shared(Start starter) : start(std::move(starter)) {}
        Shared(const Shared&) = delete;
        Shared& operator=(const Shared&) = delete;
        ~Shared() {
            if (is_foreign()) {
                if (engine) engine->abandon();
                return;
            }
            const bool before = is_shut_down;
            shut_down(false, false);
            // Who has said that he does not wait does not.
            if (engine) engine->let_finish(!before || waits);
        }

        /// The engine to give a call to. It is started for the first.
        std::shared_ptr<Engine> working_engine();
        /// Calls it, which throws ValueError if the engine takes no more. Throws why that is.
        template <class Begin>
        static void ask(const Engine& engine, Begin begin);
        [[noreturn]] static void throw_shut_down() {
            throw std::runtime_error(std::string(Backend::name) +
                                     ": cannot schedule new futures after shutdown");
        }
        void shut_down(bool wait, bool cancel_futures);
        [[nodiscard]] bool is_foreign() const noexcept { return creator != os::this_pid(); }
        /// Before the mutex is asked for, which a thread may have held that is not in a forked child.
        void check_own() const;

        const Start start;
        const int creator = os::this_pid();
        std::mutex mutex;
        std::shared_ptr<Engine> engine;
        bool is_shut_down = false;
        bool waits = false;  // somebody does, or has
    };

    std::shared_ptr<Shared> shared_;
};

// ---------------------------------------------------------------------------------------------------

template <class R>
R MapResults<R>::next() const {
    auto outcome = shared_->next();
    if (!outcome) throw StopIteration();
    return std::move(runtime::pool::value_of<R>(*outcome));
}

template <class Backend>
void Executor<Backend>::Shared::check_own() const {
    if (is_foreign()) {
        throw AssertionError(std::string("a ") + Backend::name +
                             " can be used by the process that made it only (pid " +
                             std::to_string(creator) + ")");
    }
}

template <class Backend>
std::shared_ptr<typename Executor<Backend>::Engine> Executor<Backend>::Shared::working_engine() {
    check_own();
    const std::lock_guard lock(mutex);
    if (is_shut_down) throw_shut_down();
    if (!engine) {
        engine = start();
        engine->begin_service();  // nobody waits for futures but the pool's thread
    }
    if (const auto why = engine->broken()) std::rethrow_exception(why);
    return engine;
}

template <class Backend>
template <class Begin>
void Executor<Backend>::Shared::ask(const Engine& engine, Begin begin) {
    try {
        begin();
    } catch (const ValueError&) {  // since a moment ago, or because the process ends
        if (const auto why = engine.broken()) std::rethrow_exception(why);
        throw_shut_down();
    }
}

template <class Backend>
void Executor<Backend>::Shared::shut_down(bool wait, bool cancel_futures) {
    std::shared_ptr<Engine> pool;
    {
        const std::lock_guard lock(mutex);
        is_shut_down = true;
        waits = waits || wait;
        pool = engine;
    }
    if (!pool) return;
    if (cancel_futures) pool->cancel_waiting();
    pool->close();
    if (wait) pool->join();
}

template <class Backend>
template <class F, class... Args>
auto Executor<Backend>::submit(F f, Args&&... args) const {
    using namespace runtime::pool;
    static_assert(Backend::takes_references ||
                      (std::same_as<std::unwrap_ref_decay_t<Args>, std::decay_t<Args>> && ...),
                  "an executor of processes calls functions with copies in another process: std::ref "
                  "has no effect; return what has changed, or share it as mp::Value or mp::Array");
    using Item = std::tuple<typename Backend::template Argument<Args>...>;
    using Feeder = typename Backend::template Feeder<Calling::spread, F, Item>;
    using Returned = typename Call<Calling::spread, F, Item>::Returned;
    using R = std::conditional_t<std::is_void_v<Returned>, void, typename Feeder::R>;
    using Task = std::decay_t<decltype(std::declval<Feeder&>().last_task())>;

    const std::shared_ptr<Engine> engine = shared_->working_engine();
    const auto cell = std::make_shared<runtime::FutureCell<R>>();
    Shared::ask(*engine, [&] { engine->begin_feeding(); });
    const EndFeeding at_end{*engine};
    try {
        Feeder feeder(*engine, std::move(f), Backend::settings());
        Item item(std::forward<Args>(args)...);
        auto next = Backend::moving(&item);
        feeder.give(std::make_shared<FutureJob<R>>(cell), next, Backend::moving(&item + 1), 1, 1,
                    [](std::uint64_t) {});
        cell->set_source(std::make_shared<TaskSource<Engine, Task>>(engine, feeder.last_task()));
    } catch (...) {
        if (!cell->done()) cell->set_exception(std::current_exception());
    }
    return runtime::FutureAccess::handle<Future<R>>(cell);
}

template <class Backend>
template <class F, std::ranges::input_range... Ranges>
    requires(sizeof...(Ranges) > 0)
auto Executor<Backend>::map(const MapOptions& options, F f, Ranges&&... ranges) const {
    using namespace runtime::pool;
    using Item = std::tuple<ItemOf<Ranges>...>;
    using Feeder = typename Backend::template Feeder<Calling::spread, F, Item>;
    using Source = Zip<Ranges...>;

    const std::uint32_t chunk = at_least_one(options.chunksize, "Executor.map(): chunksize");
    constexpr bool has_end = (Finite<std::remove_reference_t<Ranges>> || ...);
    std::uint64_t ahead = std::numeric_limits<std::uint64_t>::max() / 2;
    if (options.buffersize) ahead = at_least_one(*options.buffersize, "Executor.map(): buffersize");
    const std::shared_ptr<Engine> engine = shared_->working_engine();
    const bool is_fixed = options.buffersize || has_end;
    if (!is_fixed) ahead = std::uint64_t{4} * engine->size() * chunk;
    const os::Deadline deadline(options.timeout);
    Feeder feeder(*engine, std::move(f), Backend::settings());
    const auto job = std::make_shared<StreamJob<Feeder, Source>>(
        engine, std::move(feeder), Source(std::in_place, std::forward<Ranges>(ranges)...), chunk, true,
        ReadAhead(ahead, is_fixed));
    Shared::ask(*engine, [&] { job->begin(); });
    return MapResults<typename Feeder::R>(job, engine, deadline);
}

}  // namespace multiprocessing::concurrent::futures
