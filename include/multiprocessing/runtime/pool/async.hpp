// SPDX-License-Identifier: BSL-1.0
//
// A value or an exception that comes later, once. Behind `AsyncResult`.
#pragma once

#include <multiprocessing/os/clock.hpp>

#include <atomic>
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

    /// Gives the outcome, runs the callbacks, then lets those go who wait. The first outcome counts;
    /// whether this was it.
    bool complete(R value) { return settle(std::move(value), nullptr); }
    bool fail(std::exception_ptr exception) { return settle(std::nullopt, std::move(exception)); }

    [[nodiscard]] bool ready() const noexcept { return ready_.load(std::memory_order_acquire); }
    bool wait(os::Deadline deadline) const {
        std::unique_lock lock(mutex_);
        return wait_until(changed_, lock, deadline, [this] { return ready(); });
    }
    /// Once it is ready.
    [[nodiscard]] const std::exception_ptr& exception() const noexcept { return exception_; }
    [[nodiscard]] R& value() noexcept { return *value_; }

    /// Before the end: to be run by whoever brings it. After it: run now, and what it throws is the
    /// caller's.
    void then(Callback callback, ErrorCallback error_callback);

private:
    struct Callbacks {
        Callback callback;
        ErrorCallback error_callback;
    };
    bool settle(std::optional<R> value, std::exception_ptr exception);
    void run(const Callbacks& callbacks);

    mutable std::mutex mutex_;
    mutable std::condition_variable changed_;
    bool settled_ = false;
    // Nothing changes after it: so what is ready can be read without the mutex, and in a forked child.
    std::atomic<bool> ready_{false};
    std::optional<R> value_;
    std::exception_ptr exception_;
    std::vector<Callbacks> callbacks_;
};

template <class R>
bool AsyncState<R>::settle(std::optional<R> value, std::exception_ptr exception) {
    std::unique_lock lock(mutex_);
    if (std::exchange(settled_, true)) return false;
    value_ = std::move(value);
    exception_ = std::move(exception);
    while (!callbacks_.empty()) {
        auto callbacks = std::exchange(callbacks_, {});
        lock.unlock();
        for (const Callbacks& each : callbacks) {
            try {
                run(each);
            } catch (...) {
                // It is the call's outcome from now on, or nobody would hear of it.
                exception_ = std::current_exception();
            }
        }
        callbacks.clear();  // what they captured may look at this
        lock.lock();
    }
    ready_.store(true, std::memory_order_release);
    changed_.notify_all();
    return true;
}

template <class R>
void AsyncState<R>::then(Callback callback, ErrorCallback error_callback) {
    const Callbacks callbacks{std::move(callback), std::move(error_callback)};
    if (!ready()) {
        const std::lock_guard lock(mutex_);
        if (!ready()) {
            callbacks_.push_back(callbacks);
            return;
        }
    }
    run(callbacks);
}

template <class R>
void AsyncState<R>::run(const Callbacks& callbacks) {
    if (exception_) {
        if (callbacks.error_callback) callbacks.error_callback(exception_);
    } else if (callbacks.callback) {
        callbacks.callback(*value_);
    }
}

}  // namespace multiprocessing::runtime::pool
