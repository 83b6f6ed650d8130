// SPDX-License-Identifier: BSL-1.0
//
// A value or an exception that comes later, once. Behind `AsyncResult`.
#pragma once

#include <multiprocessing/os/clock.hpp>
#include <multiprocessing/runtime/pool/engine.hpp>

#include <atomic>
#include <condition_variable>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

namespace multiprocessing::runtime::pool {

template <class R>
class AsyncState final : public Awaited, public std::enable_shared_from_this<AsyncState<R>> {
public:
    using Callback = std::function<void(const R&)>;
    using ErrorCallback = std::function<void(std::exception_ptr)>;

    explicit AsyncState(std::weak_ptr<Engine> engine) noexcept : engine_(std::move(engine)) {}

    /// Gives the outcome; then come the callbacks, in the pool's thread, and then those are let go who
    /// wait. The first outcome counts; whether this was it.
    bool complete(R value) { return settle(std::move(value), nullptr); }
    bool fail(std::exception_ptr exception) { return settle(std::nullopt, std::move(exception)); }

    [[nodiscard]] bool ready() const noexcept override {
        return ready_.load(std::memory_order_acquire);
    }
    bool sleep(os::Deadline deadline) const override {
        std::unique_lock lock(mutex_);
        return wait_until(changed_, lock, deadline, [this] { return ready(); });
    }
    /// Once it is ready.
    [[nodiscard]] const std::exception_ptr& exception() const noexcept { return exception_; }
    [[nodiscard]] R& value() noexcept { return *value_; }
    [[nodiscard]] const std::weak_ptr<Engine>& engine() const noexcept { return engine_; }

    /// Before the end: to be run when it comes. After it: run now, and what it throws is the caller's.
    void then(Callback callback, ErrorCallback error_callback);

private:
    struct Callbacks {
        Callback callback;
        ErrorCallback error_callback;
    };
    bool settle(std::optional<R> value, std::exception_ptr exception);
    void finish();
    void run(const Callbacks& callbacks);

    const std::weak_ptr<Engine> engine_;
    mutable std::mutex mutex_;
    mutable std::condition_variable changed_;
    bool settled_ = false;
    // Nothing changes after it: so what is ready can be read without the mutex, and in a forked child.
    std::atomic<bool> ready_{false};
    std::optional<R> value_;
    std::exception_ptr exception_;
    std::vector<Callbacks> callbacks_;
    std::optional<Service> service_;  // the pool's thread is to bring it, if there are callbacks
};

template <class R>
bool AsyncState<R>::settle(std::optional<R> value, std::exception_ptr exception) {
    {
        const std::lock_guard lock(mutex_);
        if (std::exchange(settled_, true)) return false;
        value_ = std::move(value);
        exception_ = std::move(exception);
        if (callbacks_.empty()) {
            ready_.store(true, std::memory_order_release);
            changed_.notify_all();
            return true;
        }
    }
    const auto engine = engine_.lock();
    auto self = this->shared_from_this();
    if (!engine || !engine->run_in_thread([self] { self->finish(); })) finish();
    return true;
}

template <class R>
void AsyncState<R>::finish() {
    std::optional<Service> service;
    std::unique_lock lock(mutex_);
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
    service_.swap(service);
    ready_.store(true, std::memory_order_release);
    changed_.notify_all();
}

template <class R>
void AsyncState<R>::then(Callback callback, ErrorCallback error_callback) {
    const Callbacks callbacks{std::move(callback), std::move(error_callback)};
    if (!ready()) {
        // Nobody may ever wait for it.
        std::optional<Service> service;
        if (auto engine = engine_.lock()) service.emplace(std::move(engine));
        const std::lock_guard lock(mutex_);
        if (!ready()) {
            callbacks_.push_back(callbacks);
            if (!service_) service_.swap(service);
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
