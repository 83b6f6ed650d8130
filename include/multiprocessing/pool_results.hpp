// SPDX-License-Identifier: BSL-1.0
//
// What a Pool gives for the work it is given: `AsyncResult` and `IMapIterator`. Answers the classes of
// these names in Python's `multiprocessing.pool`.
#pragma once

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/result.hpp>
#include <multiprocessing/runtime/pool/async.hpp>
#include <multiprocessing/runtime/pool/engine.hpp>
#include <multiprocessing/runtime/pool/imap_job.hpp>
#include <multiprocessing/runtime/pool/job.hpp>
#include <multiprocessing/runtime/pool/outcome_iterator.hpp>
#include <multiprocessing/timeout.hpp>

#include <concepts>
#include <cstddef>
#include <exception>
#include <functional>
#include <iterator>
#include <memory>
#include <optional>
#include <type_traits>
#include <utility>
#include <variant>

namespace multiprocessing {

template <class Backend>
class PoolInterface;

/// The result of a call that has been given to a pool. A handle: copies are the same result.
/// *Python*: `AsyncResult`.
template <class R>
class AsyncResult {
    // What stands for nothing is std::monostate inside.
    using Stored = std::conditional_t<std::is_void_v<R>, std::monostate, R>;
    using State = runtime::pool::AsyncState<Stored>;

public:
    /// Waits, and returns the value or throws what the function threw, as the same type where it is
    /// one of std, of this library or registered, else RemoteError. *Throws* TimeoutError when the
    /// time is over; WorkerLostError when the worker died with the task in hand; CancelledError.
    R get(Timeout timeout = {}) const&;
    /// The same; moves the value out, which other handles of it have no more then.
    R get(Timeout timeout = {}) &&;
    /// Waits until it is ready or the time is over.
    void wait(Timeout timeout = {}) const { static_cast<void>(wait_until_ready(timeout)); }
    [[nodiscard]] bool ready() const;
    /// Whether it ended without an exception. *Throws* ValueError before it is ready.
    bool successful() const;
    /// Has `callback(value)`, or `error_callback(std::exception_ptr)`, run when the result comes:
    /// in the pool's thread before get() returns, where what it throws becomes the outcome, or here if
    /// it has come already. *Python*: the arguments of `apply_async`.
    template <class Callback, class ErrorCallback = std::nullptr_t>
    const AsyncResult& then(Callback callback, ErrorCallback error_callback = nullptr) const;
    /// Gives the result up: get() throws CancelledError, what no worker has begun will not be run, and
    /// a worker that is at it is told to stop: `mp::this_task::stop_requested()`, then SIGTERM, then
    /// SIGKILL, with `TaskOptions::grace` between them. (A thread can only be asked.) Returns false
    /// if it was over already.
    bool cancel() const;

private:
    template <class Backend>
    friend class PoolInterface;
    AsyncResult(std::shared_ptr<State> state, const std::shared_ptr<runtime::pool::Job>& job)
        : state_(std::move(state)), job_(job) {}
    bool wait_until_ready(const Timeout& timeout) const;
    Stored& wait_for_value(const Timeout& timeout) const;

    std::shared_ptr<State> state_;
    std::weak_ptr<runtime::pool::Job> job_;
};

/// Results one by one, an input range: `for (auto&& r : pool.imap(f, items))`. The items are read as
/// results are taken. An exception is thrown where the value would be, and the iteration may go on.
/// A handle: copies go through the same results. When the last one goes no more items are read; those
/// that have been are run. *Python*: `IMapIterator`.
template <class R>
class IMapIterator {
    using Job = runtime::pool::ImapJob<R>;
    // What all handles share. The pool has the job too.
    struct Held {
        std::shared_ptr<Job> job;
        explicit Held(std::shared_ptr<Job> begun) noexcept : job(std::move(begun)) {}
        Held(const Held&) = delete;
        Held& operator=(const Held&) = delete;
        ~Held() { job->give_no_more(); }
    };
    struct Take {
        std::shared_ptr<Held> held;
        auto operator()() const { return held->job->next(os::Deadline::never()); }
    };

public:
    using value_type = R;
    using iterator = runtime::pool::OutcomeIterator<R, Take>;

    /// The next result. *Throws* what the function threw for the item; StopIteration after the last;
    /// TimeoutError when the time is over (call it again).
    R next(Timeout timeout = {}) const;

    [[nodiscard]] iterator begin() const { return iterator(Take{held_}); }
    [[nodiscard]] std::default_sentinel_t end() const noexcept { return {}; }

private:
    template <class Backend>
    friend class PoolInterface;
    explicit IMapIterator(std::shared_ptr<Job> job) : held_(std::make_shared<Held>(std::move(job))) {}

    std::shared_ptr<Held> held_;
};

// ---------------------------------------------------------------------------------------------------

template <class R>
bool AsyncResult<R>::wait_until_ready(const Timeout& timeout) const {
    if (state_->ready()) return true;
    if (const auto engine = state_->engine().lock()) return engine->wait(*state_, timeout);
    return state_->sleep(timeout);
}

template <class R>
bool AsyncResult<R>::ready() const {
    if (!state_->ready()) {
        if (const auto engine = state_->engine().lock()) engine->look();
    }
    return state_->ready();
}

template <class R>
typename AsyncResult<R>::Stored& AsyncResult<R>::wait_for_value(const Timeout& timeout) const {
    if (!wait_until_ready(timeout)) {
        throw TimeoutError("AsyncResult.get(): no result in the time given");
    }
    if (state_->exception()) std::rethrow_exception(state_->exception());
    return state_->value();
}

template <class R>
R AsyncResult<R>::get(Timeout timeout) const& {
    Stored& value = wait_for_value(timeout);
    if constexpr (!std::is_void_v<R>) return value;
}

template <class R>
R AsyncResult<R>::get(Timeout timeout) && {
    Stored& value = wait_for_value(timeout);
    if constexpr (!std::is_void_v<R>) {
        return std::move(value);
    }
}

template <class R>
bool AsyncResult<R>::successful() const {
    if (!ready()) throw ValueError("AsyncResult.successful(): the result is not ready");
    return !state_->exception();
}

template <class R>
template <class Callback, class ErrorCallback>
const AsyncResult<R>& AsyncResult<R>::then(Callback callback, ErrorCallback error_callback) const {
    typename State::Callback on_value;
    typename State::ErrorCallback on_error;
    if constexpr (!std::same_as<Callback, std::nullptr_t>) {
        if constexpr (std::is_void_v<R>) {
            static_assert(std::invocable<Callback&>,
                          "the callback of a call without a result takes no argument");
        } else {
            static_assert(std::invocable<Callback&, const R&>,
                          "the callback takes the result, by value or by const reference");
        }
        on_value = [call = std::move(callback)](const Stored& value) mutable {
            if constexpr (std::is_void_v<R>) {
                static_cast<void>(value);
                std::invoke(call);
            } else {
                std::invoke(call, value);
            }
        };
    }
    if constexpr (!std::same_as<ErrorCallback, std::nullptr_t>) {
        static_assert(std::invocable<ErrorCallback&, std::exception_ptr>,
                      "the error callback takes a std::exception_ptr");
        on_error = std::move(error_callback);
    }
    state_->then(std::move(on_value), std::move(on_error));
    return *this;
}

template <class R>
bool AsyncResult<R>::cancel() const {
    const auto engine = state_->engine().lock();
    const auto job = job_.lock();
    if (!engine || !job) return false;
    engine->check_own();
    return !ready() && engine->cancel(job);
}

template <class R>
R IMapIterator<R>::next(Timeout timeout) const {
    auto outcome = held_->job->next(timeout);
    if (!outcome) throw StopIteration();
    return std::move(runtime::pool::value_of<R>(*outcome));
}

}  // namespace multiprocessing
