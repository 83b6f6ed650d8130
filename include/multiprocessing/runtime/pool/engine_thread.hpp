// SPDX-License-Identifier: BSL-1.0
//
// The life of the thread of a pool, whatever its workers are. The rest of runtime/pool/engine.hpp, which
// includes this.
#pragma once

#include <multiprocessing/runtime/pool/engine.hpp>

namespace multiprocessing::runtime::pool {

inline void Engine::start_thread() {
    {
        const os::BlockSignals for_the_thread;
        const std::lock_guard lock(mutex_);  // it asks who it is
        thread_ = std::thread([self = shared_from_this()] { self->run(); });
        thread_id_ = thread_.get_id();
    }
    // Before the children are ended, or the thread would replace them.
    constexpr int before_others = 15;
    const std::lock_guard lock(mutex_);
    at_exit_ = register_exit(
        [weak = weak_from_this()] {
            if (const auto pool = weak.lock()) pool->end_at_exit();
        },
        before_others);
}

inline void Engine::end_at_exit() noexcept {
    if (!finishes_at_exit_ || is_foreign()) return terminate();
    std::unique_lock lock(mutex_);
    if (phase_ == Phase::running) phase_ = Phase::closing;
    joined_ = true;  // what would give it more has no thread left to do so
    wake();
    ended_.wait(lock, [this] { return phase_ == Phase::ended; });
}

inline void Engine::run() noexcept {
    {
        const std::lock_guard until_it_is_known(mutex_);
    }
    try {
        serve();
    } catch (...) {
        report_current_exception();
        fail_all(always(std::current_exception()), true);
    }
    Failure failure = always(std::make_exception_ptr(
        CancelledError("the pool was terminated before the task ended")));
    {
        const std::lock_guard lock(mutex_);
        if (broken_) failure = broken_;
    }
    fail_all(failure, true);  // at once, for workers may take their time to end
    end_workers();
    fail_all(failure, false);
    {
        const std::lock_guard lock(mutex_);
        defers_ = false;
    }
    run_deferred();
    const std::lock_guard lock(mutex_);
    unregister_exit(at_exit_);  // the thread may be all that is left of the pool
    phase_ = Phase::ended;
    ended_.notify_all();
}

inline void Engine::serve() {
    for (;;) {
        run_deferred();
        attend();
        {
            const std::lock_guard lock(mutex_);
            if (phase_ == Phase::terminating) return;
            // Who still reads input may give more.
            const bool all_given = feeders_ == 0 && (streams_.empty() || joined_ || refuses_);
            if (phase_ == Phase::closing && all_given && is_idle() && deferred_.empty()) break;
        }
        sleep();
    }
    see_workers_off();
}

inline void Engine::run_deferred() {
    std::vector<std::function<void()>> functions;
    {
        const std::lock_guard lock(mutex_);
        functions.swap(deferred_);
    }
    for (const auto& function : functions) function();
    if (!functions.empty()) deferred_done();
}

}  // namespace multiprocessing::runtime::pool
