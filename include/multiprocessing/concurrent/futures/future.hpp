// SPDX-License-Identifier: BSL-1.0
//
// `Future`: the result of a call that somebody else makes. Answers the class of that name in
// Python's `concurrent.futures`.
#pragma once

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/runtime/future_state.hpp>
#include <multiprocessing/timeout.hpp>

#include <compare>
#include <concepts>
#include <coroutine>
#include <cstddef>
#include <exception>
#include <functional>
#include <memory>
#include <ostream>
#include <type_traits>
#include <utility>

namespace multiprocessing::concurrent::futures {

using multiprocessing::CancelledError;
using multiprocessing::InvalidStateError;
using multiprocessing::TimeoutError;

/// What will come of a call that an executor has been given. A handle: copies are the same future,
/// equal to each other, and may be kept in sets. One that has been moved from is only to be
/// assigned to or destroyed.
///
///     mp::concurrent::futures::Future<int> future = executor.submit(square, 7);
///     future.add_done_callback([](auto f) { std::cout << f << '\n'; });
///     int x = future.result(1.5s);  // or, in a coroutine: co_await future
///
/// *Python*: `Future`; pending, running, cancelled or finished. A cancelled one is done for `wait`
/// and `as_completed` too, at once: in Python only when its executor has noticed.
/// *Process safety*: all calls may come from several threads; no lock is held while a callback, or
/// the code of R, runs.
/// *Fork and spawn*: of the process that made it; a forked child's copy never becomes done.
template <class R>
class Future {
    static_assert(std::is_void_v<R> || (std::is_object_v<R> && !std::is_const_v<R> &&
                                        !std::is_array_v<R> && std::move_constructible<R>),
                  "Future<R>: R is void, or a type of values that can be moved: no reference, "
                  "no array, not const");
    using State = runtime::FutureCell<R>;
    using Stored = typename State::Stored;
    template <bool moves>
    class Awaiter;

public:
    /// What result() returns.
    using value_type = R;

    /// Pending, of no executor: for one's own, and for tests.
    Future() : state_(std::make_shared<State>()) {}

    /// Waits, and returns a copy of the result or throws the exception that it ended with.
    /// *Throws* CancelledError if it was cancelled; TimeoutError when the time is over; AssertionError
    /// where it would wait in vain: in a callback, for another future of the same processes, and in a
    /// forked child.
    R result(Timeout timeout = {}) const&;
    /// The same; moves the result out, which other handles of it have no more then.
    R result(Timeout timeout = {}) &&;
    /// Waits, and returns the exception, or nullptr if there is a result. *Throws* CancelledError
    /// if it was cancelled; TimeoutError when the time is over.
    [[nodiscard]] std::exception_ptr exception(Timeout timeout = {}) const;

    /// Is it finished or cancelled? Then result() does not wait.
    [[nodiscard]] bool done() const noexcept { return state_->done(); }
    /// Has it been begun, and is not done?
    [[nodiscard]] bool running() const { return state_->running(); }
    [[nodiscard]] bool cancelled() const noexcept { return state_->cancelled(); }
    /// Cancels it if it has not been begun. Returns whether it is cancelled, now or already.
    bool cancel() const;

    /// Calls `callback(future)`, or `callback()`, once it is done: in the thread that completes or
    /// cancels it, before that goes on; here, if it is done. In the order they were added; those
    /// who wait are woken first. What a callback throws is logged (`mp::get_logger()`, ERROR), and
    /// the others run. If the future is never done it is destroyed with the last handle.
    template <class Callback>
    void add_done_callback(Callback&& callback) const;

    /// `co_await future` is its result(). What waits goes on in the thread that completes it; a
    /// coroutine that is destroyed meanwhile is forgotten.
    [[nodiscard]] auto operator co_await() const& { return Awaiter<false>(*this); }
    /// The same; moves the result out.
    [[nodiscard]] auto operator co_await() && { return Awaiter<true>(std::move(*this)); }

    // For executors and tests, as in Python.

    /// Says that the call is about to be made. Returns false if it is cancelled: it is not to be
    /// made then. *Throws* InvalidStateError if that has been asked before, or it is finished.
    [[nodiscard]] bool set_running_or_notify_cancel() const;
    /// Finishes it: wakes those who wait, and runs the callbacks. *Throws* InvalidStateError if it
    /// is done.
    void set_result(Stored value) const requires(!std::is_void_v<R>) {
        const auto state = state_;  // this handle may go, see FutureState
        state->set_value(std::move(value));
    }
    void set_result() const requires(std::is_void_v<R>) {
        const auto state = state_;
        state->set_value({});
    }
    /// The same with an exception. *Throws* ValueError for nullptr, too.
    void set_exception(std::exception_ptr exception) const;

    /// The same future?
    friend bool operator==(const Future& a, const Future& b) noexcept = default;
    /// Some order, for sets.
    friend std::strong_ordering operator<=>(const Future& a, const Future& b) noexcept {
        return std::compare_three_way()(a.state_.get(), b.state_.get());
    }
    /// `<Future at 0x55d0 state=finished returned int>`
    friend std::ostream& operator<<(std::ostream& out, const Future& future) {
        return out << future.state_->describe();
    }

private:
    friend struct runtime::FutureAccess;
    explicit Future(std::shared_ptr<State> state) noexcept : state_(std::move(state)) {}
    template <class F>
    struct DoneCallback;

    std::shared_ptr<State> state_;
};

// ---------------------------------------------------------------------------------------------------

template <class R>
R Future<R>::result(Timeout timeout) const& {
    static_assert(std::is_void_v<R> || std::copy_constructible<R>,
                  "result() copies the result, which other handles may want too: of a type that "
                  "cannot be copied take it with std::move(future).result()");
    state_->wait_for_outcome(timeout, "result");
    if (state_->failed()) std::rethrow_exception(state_->exception());
    if constexpr (!std::is_void_v<R>) return std::as_const(state_->value());
}

template <class R>
R Future<R>::result(Timeout timeout) && {
    state_->wait_for_outcome(timeout, "result");
    if (state_->failed()) std::rethrow_exception(state_->exception());
    if constexpr (!std::is_void_v<R>) return std::move(state_->value());
}

template <class R>
std::exception_ptr Future<R>::exception(Timeout timeout) const {
    state_->wait_for_outcome(timeout, "exception");
    return state_->exception();
}

template <class R>
bool Future<R>::cancel() const {
    const auto state = state_;
    return state->cancel();
}

template <class R>
bool Future<R>::set_running_or_notify_cancel() const {
    return state_->set_running_or_notify_cancel();
}

template <class R>
void Future<R>::set_exception(std::exception_ptr exception) const {
    const auto state = state_;
    state->set_exception(std::move(exception));
}

template <class R>
template <class F>
struct Future<R>::DoneCallback final : runtime::FutureCallback {
    template <class G>
    explicit DoneCallback(G&& g) : f(std::forward<G>(g)) {}
    void run(runtime::FutureState& state) override {
        const std::unique_ptr<DoneCallback> gone_at_the_end(this);
        if constexpr (std::invocable<F&, Future>) {
            static_cast<void>(
                std::invoke(f, runtime::FutureAccess::handle<Future>(state.shared_from_this())));
        } else {
            static_cast<void>(std::invoke(f));
        }
    }
    void drop() noexcept override { delete this; }
    F f;
};

template <class R>
template <class Callback>
void Future<R>::add_done_callback(Callback&& callback) const {
    using F = std::decay_t<Callback>;
    static_assert(std::invocable<F&, Future> || std::invocable<F&>,
                  "add_done_callback(): the callback takes the Future, by value or by const "
                  "reference, or nothing; its result() is there then");
    const auto state = state_;
    auto added = std::make_unique<DoneCallback<F>>(std::forward<Callback>(callback));
    if (state->add(*added)) {
        static_cast<void>(added.release());
    } else {
        state->run(*added.release());
    }
}

/// In the coroutine's frame. It has a handle of its own: the one awaited may be gone by the end.
template <class R>
template <bool moves>
class Future<R>::Awaiter final : runtime::FutureCallback {
public:
    explicit Awaiter(Future future) noexcept : future_(std::move(future)) {}
    Awaiter(const Awaiter&) = delete;
    Awaiter& operator=(const Awaiter&) = delete;
    ~Awaiter() {
        if (waiting_) future_.state_->remove(*this);
    }
    [[nodiscard]] bool await_ready() const noexcept { return future_.done(); }
    [[nodiscard]] bool await_suspend(std::coroutine_handle<> waiting) {
        // From add() on the coroutine may go on in another thread, and this with it.
        const auto state = future_.state_;
        waiting_ = waiting;
        if (state->add(*this)) return true;
        waiting_ = nullptr;
        return false;
    }
    R await_resume() {
        if constexpr (moves) {
            return std::move(future_).result();
        } else {
            return future_.result();
        }
    }

private:
    void run(runtime::FutureState&) override { std::exchange(waiting_, nullptr).resume(); }

    Future future_;
    std::coroutine_handle<> waiting_;
};

}  // namespace multiprocessing::concurrent::futures

template <class R>
struct std::hash<multiprocessing::concurrent::futures::Future<R>> {
    [[nodiscard]] std::size_t operator()(
        const multiprocessing::concurrent::futures::Future<R>& future) const noexcept {
        return std::hash<const void*>()(
            multiprocessing::runtime::FutureAccess::state(future).get());
    }
};
