// SPDX-License-Identifier: BSL-1.0
//
// `manager.Pool(n)`: a pool whose workers are children of the manager's server, for processes anywhere.
// Answers Python's `PoolProxy` and `IteratorProxy`.
#pragma once

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/managers/proxy.hpp>
#include <multiprocessing/os/clock.hpp>
#include <multiprocessing/pool.hpp>
#include <multiprocessing/runtime/pool/outcome_iterator.hpp>
#include <multiprocessing/timeout.hpp>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <initializer_list>
#include <iterator>
#include <memory>
#include <optional>
#include <ranges>
#include <type_traits>
#include <utility>
#include <vector>

namespace multiprocessing::managers {

/// A result in the server.
template <class R>
struct ServedResult {
    using is_thread_safe = void;

    AsyncResult<R> result;

    explicit ServedResult(AsyncResult<R> given) : result(std::move(given)) {}

    static bool wait(ServedResult& self, const Caller& caller, Timeout timeout) {
        return caller.wait(timeout, [&](Timeout part) {
            self.result.wait(part);
            return self.result.ready();
        });
    }
    static R get(ServedResult& self, const Caller& caller, Timeout timeout) {
        if (!wait(self, caller, timeout)) {
            throw TimeoutError("AsyncResultProxy.get(): no result in the time given");
        }
        return self.result.get();
    }
    static bool ready(ServedResult& self) { return self.result.ready(); }
    static bool successful(ServedResult& self) { return self.result.successful(); }
    static bool cancel(ServedResult& self) { return self.result.cancel(); }
};

/// The result of a call that was given to a pool in a manager's server. *Python*: `AsyncResult`.
template <class R>
class AsyncResultProxy : public BaseProxy {
    using Served = ServedResult<R>;

public:
    using Referent = Served;

    /// As AsyncResult's.
    R get(Timeout timeout = {}) const {
        return this->template call_waiting<Served, &Served::get>(timeout, timeout);
    }
    void wait(Timeout timeout = {}) const {
        static_cast<void>(this->template call_waiting<Served, &Served::wait>(timeout, timeout));
    }
    [[nodiscard]] bool ready() const { return this->template call<Served, &Served::ready>(); }
    [[nodiscard]] bool successful() const {
        return this->template call<Served, &Served::successful>();
    }
    bool cancel() const { return this->template call<Served, &Served::cancel>(); }

    using BaseProxy::BaseProxy;
};

/// An iteration in the server.
template <class R>
struct ServedIterator {
    using is_thread_safe = void;

    IMapIterator<R> results;

    explicit ServedIterator(IMapIterator<R> given) : results(std::move(given)) {}

    static R next(ServedIterator& self, const Caller& caller, Timeout timeout) {
        std::optional<R> result;
        const bool there = caller.wait(timeout, [&](Timeout part) {
            try {
                result.emplace(self.results.next(part));
                return true;
            } catch (const TaskTimeoutError&) {  // the outcome of a task, not of this wait
                throw;
            } catch (const TimeoutError&) {
                return false;
            }
        });
        if (!there) throw TimeoutError("IteratorProxy.next(): no result in the time given");
        return *std::move(result);
    }
};

/// The results of a pool in a manager's server, one by one. *Python*: `IteratorProxy`.
template <class R>
class IteratorProxy : public BaseProxy {
    using Served = ServedIterator<R>;

public:
    using Referent = Served;
    using value_type = R;

    /// As IMapIterator's.
    R next(Timeout timeout = {}) const {
        return this->template call_waiting<Served, &Served::next>(timeout, timeout);
    }

    struct Take {
        IteratorProxy results;
        [[nodiscard]] std::optional<runtime::pool::Outcome<R>> operator()() const {
            using Outcome = runtime::pool::Outcome<R>;
            try {
                return Outcome(std::in_place_index<0>, results.next());
            } catch (const StopIteration&) {
                return std::nullopt;
            } catch (...) {
                return Outcome(std::in_place_index<1>, std::current_exception());
            }
        }
    };
    using iterator = runtime::pool::OutcomeIterator<R, Take>;
    [[nodiscard]] iterator begin() const { return iterator(Take{*this}); }
    [[nodiscard]] std::default_sentinel_t end() const noexcept { return {}; }

    using BaseProxy::BaseProxy;
};

/// What is done in the server.
struct PoolMethods {
    /// A new object, for who calls.
    template <class T, class Value>
    static std::uint64_t serve(const Caller& caller, Value value) {
        return caller.give(std::make_shared<Managed<T>>(std::in_place, std::move(value)));
    }
    template <class F, class... Args>
    static std::uint64_t apply_async(Pool& pool, const Caller& caller, F f, Args... args) {
        auto result = pool.apply_async(std::move(f), std::move(args)...);
        return serve<ServedResult<decltype(result.get())>>(caller, std::move(result));
    }
    template <class F, class Item>
    static std::uint64_t map_async(Pool& pool, const Caller& caller, F f, std::vector<Item> items,
                                   int chunksize) {
        auto result = pool.map_async(std::move(f), items, chunksize);
        return serve<ServedResult<decltype(result.get())>>(caller, std::move(result));
    }
    template <class F, class Item>
    static std::uint64_t starmap_async(Pool& pool, const Caller& caller, F f, std::vector<Item> items,
                                       int chunksize) {
        auto result = pool.starmap_async(std::move(f), items, chunksize);
        return serve<ServedResult<decltype(result.get())>>(caller, std::move(result));
    }
    template <class F, class Item>
    static std::uint64_t imap(Pool& pool, const Caller& caller, F f, std::vector<Item> items,
                              int chunksize) {
        auto results = pool.imap(std::move(f), std::move(items), chunksize);
        return serve<ServedIterator<typename decltype(results)::value_type>>(caller, results);
    }
    template <class F, class Item>
    static std::uint64_t imap_unordered(Pool& pool, const Caller& caller, F f, std::vector<Item> items,
                                        int chunksize) {
        auto results = pool.imap_unordered(std::move(f), std::move(items), chunksize);
        return serve<ServedIterator<typename decltype(results)::value_type>>(caller, results);
    }
    static void close(Pool& pool) { pool.close(); }
    static void terminate(Pool& pool) { pool.terminate(); }
    static void join(Pool& pool) { pool.join(); }
    static int processes(Pool& pool) { return static_cast<int>(pool.workers().size()); }
};

template <>
inline constexpr bool is_thread_safe<Pool> = true;

/// A pool in the server of a manager, with the calls of `mp::Pool`. Items go to the server all at
/// once, results come one by one from imap. See BaseProxy for what a call throws.
/// *Python*: the proxy of `SyncManager.Pool()`.
class PoolProxy : public BaseProxy {
    template <class F>
    using Kept = std::decay_t<F>;
    template <class A>
    using Argument = typename signature::Travelling<const A&>::type;

public:
    using Referent = Pool;

    template <class F, class... Args>
    auto apply(F f, const Args&... args) const {
        return apply_async(f, args...).get();
    }
    template <class F, class... Args>
    auto apply_async(F f, const Args&... args) const {
        static_assert(pickle::require_travelling_callable<F>);
        using R = decltype(std::declval<const Pool&>()
                               .apply_async(f, std::declval<Argument<Args>>()...)
                               .get());
        return AsyncResultProxy<R>(
            made(call<Pool, &PoolMethods::apply_async<F, Argument<Args>...>>(f, args...)));
    }
    template <class F, std::ranges::input_range Range>
    auto map(F f, Range&& items, int chunksize = 0) const {
        return map_async(f, std::forward<Range>(items), chunksize).get();
    }
    template <class F, class T>
    auto map(F f, std::initializer_list<T> items, int chunksize = 0) const {
        return map_async(f, std::vector<T>(items), chunksize).get();
    }
    template <class F, std::ranges::input_range Range>
    auto map_async(F f, Range&& items, int chunksize = 0) const {
        static_assert(pickle::require_travelling_callable<F>);
        const auto all = gather(std::forward<Range>(items));
        using Item = typename decltype(gather(std::forward<Range>(items)))::value_type;
        using R = decltype(std::declval<const Pool&>().map_async(f, all, chunksize).get());
        return AsyncResultProxy<R>(
            made(call<Pool, &PoolMethods::map_async<F, Item>>(f, all, chunksize)));
    }
    template <class F, std::ranges::input_range Range>
    auto starmap(F f, Range&& items, int chunksize = 0) const {
        return starmap_async(f, std::forward<Range>(items), chunksize).get();
    }
    template <class F, std::ranges::input_range Range>
    auto starmap_async(F f, Range&& items, int chunksize = 0) const {
        static_assert(pickle::require_travelling_callable<F>);
        const auto all = gather(std::forward<Range>(items));
        using Item = typename decltype(gather(std::forward<Range>(items)))::value_type;
        using R = decltype(std::declval<const Pool&>().starmap_async(f, all, chunksize).get());
        return AsyncResultProxy<R>(
            made(call<Pool, &PoolMethods::starmap_async<F, Item>>(f, all, chunksize)));
    }
    template <class F, std::ranges::input_range Range>
    auto imap(F f, Range&& items, int chunksize = 1) const {
        static_assert(pickle::require_travelling_callable<F>);
        auto all = gather(std::forward<Range>(items));
        using Item = typename decltype(all)::value_type;
        using R = typename decltype(std::declval<const Pool&>().imap(f, all))::value_type;
        return IteratorProxy<R>(made(call<Pool, &PoolMethods::imap<F, Item>>(f, all, chunksize)));
    }
    template <class F, std::ranges::input_range Range>
    auto imap_unordered(F f, Range&& items, int chunksize = 1) const {
        static_assert(pickle::require_travelling_callable<F>);
        auto all = gather(std::forward<Range>(items));
        using Item = typename decltype(all)::value_type;
        using R = typename decltype(std::declval<const Pool&>().imap_unordered(f, all))::value_type;
        return IteratorProxy<R>(
            made(call<Pool, &PoolMethods::imap_unordered<F, Item>>(f, all, chunksize)));
    }
    template <class M = PoolMethods>
    void close() const {
        call<Pool, &M::close>();
    }
    template <class M = PoolMethods>
    void terminate() const {
        call<Pool, &M::terminate>();
    }
    /// *Blocks* until the workers have ended.
    template <class M = PoolMethods>
    void join() const {
        call_waiting<Pool, &M::join>(Timeout());
    }
    /// How many workers there are.
    template <class M = PoolMethods>
    [[nodiscard]] int processes() const {
        return call<Pool, &M::processes>();
    }

    using BaseProxy::BaseProxy;

private:

    template <class Range>
    [[nodiscard]] static auto gather(Range&& items) {
        std::vector<pickle::travel_decay_t<std::ranges::range_reference_t<Range>>> all;
        for (auto&& item : items) all.emplace_back(std::forward<decltype(item)>(item));
        return all;
    }
};

}  // namespace multiprocessing::managers
