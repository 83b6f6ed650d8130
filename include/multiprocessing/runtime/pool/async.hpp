// SPDX-License-Identifier: BSL-1.0
//
// A value or an exception that comes later, once. Behind `AsyncResult`.
#pragma once

#include <multiprocessing/os/clock.hpp>

#include <chrono>
#include <condition_variable>
#include <exception>
#include <functional>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

namespace multiprocessing::runtime::pool {

/// Waits on a condition variable of this process until a deadline; whether `ready` came true.
template <class Ready>
bool wait_until(std::condition_variable& changed, std::unique_lock<std::mutex>& lock,
                os::Deadline deadline, Ready ready) {
    if (deadline.is_never()) {
        changed.wait(lock, ready);
        return true;
    }
    while (!ready()) {
        if (deadline.expired()) return false;
        changed.wait_for(lock, deadline.remaining());
    }
    return true;
}

template <class R>
class AsyncState {
public:
    using Callback = std::function<void(const R&)>;
    using ErrorCallback = std::function<void(std::exception_ptr)>;

    /// Gives the outcome, runs the callbacks, then lets those go who wait. The first outcome counts.
    void complete(R value) { settle(std::move(value), nullptr); }
    void fail(std::exception_ptr exception) { settle(std::nullopt, std::move(exception)); }

    [[nodiscard]] bool ready() const {
        const std::lock_guard lock(mutex_);
        return ready_;
    }
    bool wait(os::Deadline deadline) const {
        std::unique_lock lock(mutex_);
        return wait_until(changed_, lock, deadline, [this] { return ready_; });
    }
    /// After wait().
    [[nodiscard]] const std::exception_ptr& exception() const noexcept { return exception_; }
    [[nodiscard]] R& value() noexcept { return *value_; }

    /// Before the end: to be run by whoever brings it. After it: run now.
    void then(Callback callback, ErrorCallback error_callback);

private:
    struct Callbacks {
        Callback callback;
        ErrorCallback error_callback;
    };
    void settle(std::optional<R> value, std::exception_ptr exception);
    void run(const Callbacks& callbacks);

    mutable std::mutex mutex_;
    mutable std::condition_variable changed_;
    bool settled_ = false;
    bool ready_ = false;
    std::optional<R> value_;
    std::exception_ptr exception_;
    std::vector<Callbacks> callbacks_;
};

template <class R>
void AsyncState<R>::settle(std::optional<R> value, std::exception_ptr exception) {
    std::unique_lock lock(mutex_);
    if (std::exchange(settled_, true)) return;
    value_ = std::move(value);
    exception_ = std::move(exception);
    while (!callbacks_.empty()) {
        const auto callbacks = std::exchange(callbacks_, {});
        lock.unlock();
        for (const Callbacks& each : callbacks) run(each);
        lock.lock();
    }
    ready_ = true;
    changed_.notify_all();
}

template <class R>
void AsyncState<R>::then(Callback callback, ErrorCallback error_callback) {
    const Callbacks callbacks{std::move(callback), std::move(error_callback)};
    {
        const std::lock_guard lock(mutex_);
        if (!ready_) {
            callbacks_.push_back(callbacks);
            return;
        }
    }
    run(callbacks);
}

template <class R>
void AsyncState<R>::run(const Callbacks& callbacks) {
    try {
        if (exception_) {
            if (callbacks.error_callback) callbacks.error_callback(exception_);
        } else if (callbacks.callback) {
            callbacks.callback(*value_);
        }
    } catch (...) {
        // What a callback throws is the call's outcome from now on, or nobody would hear of it.
        const std::lock_guard lock(mutex_);
        exception_ = std::current_exception();
    }
}

}  // namespace multiprocessing::runtime::pool
