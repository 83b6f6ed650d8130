// SPDX-License-Identifier: BSL-1.0
//
// Futures in every state, and threads that complete them.
#pragma once

#include <multiprocessing/concurrent/futures/future.hpp>

#include <cerrno>
#include <exception>
#include <functional>
#include <string>
#include <system_error>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

namespace support {

namespace futures = multiprocessing::concurrent::futures;

inline constexpr double long_enough = 30;  // seconds; nothing takes that long

inline futures::Future<int> pending_future() { return {}; }
inline futures::Future<int> running_future() {
    futures::Future<int> future;
    static_cast<void>(future.set_running_or_notify_cancel());
    return future;
}
inline futures::Future<int> cancelled_future() {
    futures::Future<int> future;
    future.cancel();
    return future;
}
inline futures::Future<int> cancelled_and_notified_future() {
    futures::Future<int> future = cancelled_future();
    static_cast<void>(future.set_running_or_notify_cancel());
    return future;
}
inline futures::Future<int> failed_future() {
    futures::Future<int> future;
    future.set_exception(
        std::make_exception_ptr(std::system_error(EIO, std::generic_category(), "failed")));
    return future;
}
inline futures::Future<int> successful_future() {
    futures::Future<int> future;
    future.set_result(42);
    return future;
}

/// Whether the exception is an E.
template <class E>
bool is_an(const std::exception_ptr& thrown) {
    if (!thrown) return false;
    try {
        std::rethrow_exception(thrown);
    } catch (const E&) {
        return true;
    } catch (...) {
        return false;
    }
}
inline std::string what_of(const std::exception_ptr& thrown) {
    try {
        if (thrown) std::rethrow_exception(thrown);
        return "";
    } catch (const std::exception& error) {
        return error.what();
    } catch (...) {
        return "something else";
    }
}

/// An executor with a thread a call. The destructor waits for all of them.
class Threads {
public:
    Threads() = default;
    Threads(const Threads&) = delete;
    Threads& operator=(const Threads&) = delete;
    ~Threads() { join(); }

    template <class F>
    auto submit(F f) {
        using R = std::invoke_result_t<F&>;
        futures::Future<R> future;
        run([future, f]() mutable {
            if (!future.set_running_or_notify_cancel()) return;
            try {
                if constexpr (std::is_void_v<R>) {
                    f();
                    future.set_result();
                } else {
                    future.set_result(f());
                }
            } catch (...) {
                future.set_exception(std::current_exception());
            }
        });
        return future;
    }
    /// What is to be run by some thread.
    template <class F>
    void run(F f) {
        threads_.emplace_back(std::move(f));
    }
    void join() {
        for (std::thread& thread : threads_) thread.join();
        threads_.clear();
    }

private:
    std::vector<std::thread> threads_;
};

}  // namespace support
