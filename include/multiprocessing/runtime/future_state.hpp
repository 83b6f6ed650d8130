// SPDX-License-Identifier: BSL-1.0
//
// What the handles of a Future share: its state, its outcome, and who is to hear of it.
#pragma once

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/os/clock.hpp>
#include <multiprocessing/pickle/exception.hpp>
#include <multiprocessing/pickle/type_name.hpp>
#include <multiprocessing/runtime/future_waiter.hpp>
#include <multiprocessing/runtime/log.hpp>
#include <multiprocessing/timeout.hpp>

#include <boost/intrusive/list.hpp>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <sstream>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>

#include <cxxabi.h>

namespace multiprocessing::runtime {

/// An executor, asked about one task whose future is still pending. Both are called without a lock,
/// by any thread, and by several at once.
class FutureSource {
public:
    FutureSource() = default;
    FutureSource(const FutureSource&) = delete;
    FutureSource& operator=(const FutureSource&) = delete;
    virtual ~FutureSource() = default;
    /// Takes the task back if nobody has begun it. Whether nobody will: true also when it has been
    /// taken back before.
    virtual bool revoke() = 0;
    /// Has a worker begun it?
    virtual bool begun() = 0;
    /// *Throws* AssertionError in a thread, or a process, that would wait for it in vain.
    virtual void check_may_wait([[maybe_unused]] os::Deadline deadline) const {}
};

/// In this order: those from `cancelled` on are the end.
enum class FuturePhase : std::uint8_t {
    pending,
    running,
    settling,  // somebody is about to finish it: it counts as running
    cancelled,
    cancelled_and_notified,  // and the executor has been told
    finished,
};

class FutureState;

/// What runs once when a future is done: a callback, or a coroutine that goes on.
class FutureCallback : public boost::intrusive::list_base_hook<> {
public:
    FutureCallback() = default;
    FutureCallback(const FutureCallback&) = delete;
    FutureCallback& operator=(const FutureCallback&) = delete;
    /// The object may be gone when it returns.
    virtual void run(FutureState& state) = 0;
    /// The future is gone and was never done.
    virtual void drop() noexcept {}

protected:
    ~FutureCallback() = default;
};

/// All but the value. Always in a std::shared_ptr, which the callers of what may end it hold
/// themselves: the handle they call it through may go in a callback, or as soon as it is done.
class FutureState : public std::enable_shared_from_this<FutureState> {
public:
    FutureState() = default;
    FutureState(const FutureState&) = delete;
    FutureState& operator=(const FutureState&) = delete;
    inline virtual ~FutureState();

    // Acquire: who sees that it is done sees the outcome, which does not change any more.
    [[nodiscard]] FuturePhase phase() const noexcept {
        return phase_.load(std::memory_order_acquire);
    }
    [[nodiscard]] bool done() const noexcept { return phase() >= FuturePhase::cancelled; }
    [[nodiscard]] bool cancelled() const noexcept { return is_cancelled(phase()); }
    [[nodiscard]] bool running() const;
    /// Once it is done.
    [[nodiscard]] bool failed() const noexcept { return exception_ != nullptr; }
    [[nodiscard]] const std::exception_ptr& exception() const noexcept { return exception_; }
    /// `<Future at 0x55d0 state=finished returned int>`
    [[nodiscard]] std::string describe() const;

    /// Whether it is done, at the deadline at the latest. *Throws* as check_may_wait().
    bool wait(os::Deadline deadline);
    /// *Throws* AssertionError if it would never be done while this thread waits.
    void check_may_wait(os::Deadline deadline) const {
        if (const auto asked = source()) asked->check_may_wait(deadline);
    }
    /// Waits, and throws where there is no outcome: TimeoutError, CancelledError. `call` is named.
    void wait_for_outcome(const Timeout& timeout, const char* call);

    /// Whether it is cancelled, with the source's leave.
    bool cancel();
    /// The same without asking: by who knows that it will not run.
    bool mark_cancelled();
    [[nodiscard]] bool set_running_or_notify_cancel();
    void set_exception(std::exception_ptr exception);
    /// Who is asked from now on until it is done.
    void set_source(std::shared_ptr<FutureSource> source);

    /// False, and nothing is added, if it is done.
    [[nodiscard]] bool add(FutureCallback& callback);
    [[nodiscard]] bool add(FutureWatch& watch);
    /// Nothing if it is not there any more: then it has been run, or given to its waiter.
    void remove(FutureCallback& callback);
    void remove(FutureWatch& watch);
    /// Runs it here. What it throws is logged.
    void run(FutureCallback& callback);

protected:
    /// Nobody else can end it from now on. *Throws* InvalidStateError if somebody has.
    FuturePhase claim();
    /// It could not be ended after all.
    void unclaim(FuturePhase before) noexcept { phase_.store(before, std::memory_order_release); }
    /// After claim().
    void finish();

private:
    static constexpr bool is_cancelled(FuturePhase phase) noexcept {
        return phase == FuturePhase::cancelled || phase == FuturePhase::cancelled_and_notified;
    }
    [[nodiscard]] virtual const std::string& result_type() const = 0;
    [[nodiscard]] std::shared_ptr<FutureSource> source() const;
    [[noreturn]] void throw_invalid(FuturePhase phase) const;
    void tell(std::unique_lock<std::mutex> lock);

    mutable std::mutex mutex_;
    // What ends it is stored under the lock, so that the lists, which only those add to who find it
    // not done, are complete then.
    std::atomic<FuturePhase> phase_{FuturePhase::pending};
    std::exception_ptr exception_;
    std::shared_ptr<FutureSource> source_;
    boost::intrusive::list<FutureWatch, boost::intrusive::constant_time_size<false>> watches_;
    boost::intrusive::list<FutureCallback, boost::intrusive::constant_time_size<false>> callbacks_;
};

/// With the value, which for `void` is a std::monostate.
template <class R>
class FutureCell final : public FutureState {
public:
    using Stored = std::conditional_t<std::is_void_v<R>, std::monostate, R>;

    void set_value(Stored&& value);
    /// Once it is finished without an exception.
    [[nodiscard]] Stored& value() noexcept { return *value_; }

private:
    [[nodiscard]] const std::string& result_type() const override { return pickle::type_name<R>(); }

    std::optional<Stored> value_;
};

/// To the state of a handle, and back. For executors.
struct FutureAccess {
    template <class Future>
    [[nodiscard]] static const auto& state(const Future& future) noexcept {
        return future.state_;
    }
    template <class Future>
    [[nodiscard]] static Future handle(std::shared_ptr<FutureState> state) noexcept {
        return Future(std::static_pointer_cast<typename Future::State>(std::move(state)));
    }
};

// ---------------------------------------------------------------------------------------------------

inline FutureState::~FutureState() {
    while (!callbacks_.empty()) {
        FutureCallback& callback = callbacks_.front();
        callbacks_.pop_front();
        callback.drop();
    }
}

inline std::shared_ptr<FutureSource> FutureState::source() const {
    const std::lock_guard lock(mutex_);
    return source_;
}

inline void FutureState::set_source(std::shared_ptr<FutureSource> source) {
    const std::lock_guard lock(mutex_);
    // Swapped, for the old one, or this one if it comes too late, is not destroyed under the lock.
    if (!done()) source_.swap(source);
}

inline bool FutureState::running() const {
    switch (phase()) {
    case FuturePhase::running:
    case FuturePhase::settling: return true;
    case FuturePhase::pending: break;
    default: return false;
    }
    const auto asked = source();
    return asked && asked->begun() && !done();
}

inline bool FutureState::wait(os::Deadline deadline) {
    if (done()) return true;
    if (deadline.is_passed()) return false;
    check_may_wait(deadline);
    // The watch first: the waiter may have it at the end.
    FutureWatch watch;
    FutureWaiter waiter;
    watch.waiter = &waiter;
    if (!add(watch)) return true;
    // However the wait ends, a cancelled thread's too.
    struct Removal {
        FutureState& state;
        FutureWatch* watch;
        ~Removal() {
            if (watch != nullptr) state.remove(*watch);
        }
    } removal{*this, &watch};
    if (waiter.wait(1, false, deadline)) {
        removal.watch = nullptr;  // the waiter has it
        return true;
    }
    return done();
}

inline void FutureState::wait_for_outcome(const Timeout& timeout, const char* call) {
    if (!done() && !wait(os::Deadline(timeout))) {
        throw TimeoutError(std::string("Future.") + call + "(): it is not done in the time given");
    }
    if (cancelled()) {
        throw CancelledError(std::string("Future.") + call + "(): the future was cancelled");
    }
}

inline bool FutureState::cancel() {
    const FuturePhase now = phase();
    if (now != FuturePhase::pending) return is_cancelled(now);
    // Another who asked first may have cancelled it meanwhile.
    if (const auto asked = source(); asked && !asked->revoke()) return cancelled();
    return mark_cancelled();
}

inline bool FutureState::mark_cancelled() {
    std::unique_lock lock(mutex_);
    FuturePhase expected = FuturePhase::pending;
    // Release as for any end, acquire to come after an attempt to finish it that failed.
    if (!phase_.compare_exchange_strong(expected, FuturePhase::cancelled,
                                        std::memory_order_acq_rel)) {
        return is_cancelled(expected);
    }
    tell(std::move(lock));
    return true;
}

inline bool FutureState::set_running_or_notify_cancel() {
    FuturePhase now = FuturePhase::pending;
    // Acquire and release, so that who sees the new phase is owed what the old one promised.
    if (phase_.compare_exchange_strong(now, FuturePhase::running, std::memory_order_acq_rel)) {
        return true;
    }
    if (now == FuturePhase::cancelled &&
        phase_.compare_exchange_strong(now, FuturePhase::cancelled_and_notified,
                                       std::memory_order_acq_rel)) {
        return false;
    }
    throw_invalid(now);
}

inline FuturePhase FutureState::claim() {
    FuturePhase before = phase_.load(std::memory_order_relaxed);
    do {
        if (before > FuturePhase::running) throw_invalid(before);
        // Acquire, to come after an attempt that failed.
    } while (!phase_.compare_exchange_weak(before, FuturePhase::settling, std::memory_order_acquire,
                                           std::memory_order_relaxed));
    return before;
}

inline void FutureState::finish() {
    std::unique_lock lock(mutex_);
    phase_.store(FuturePhase::finished, std::memory_order_release);
    tell(std::move(lock));
}

inline void FutureState::set_exception(std::exception_ptr exception) {
    if (exception == nullptr) {
        throw ValueError("Future.set_exception(): a null std::exception_ptr is no exception; for a "
                         "result there is set_result()");
    }
    static_cast<void>(claim());
    exception_ = std::move(exception);
    finish();
}

/// First those who wait, then the callbacks, as in Python: a callback may take its time.
inline void FutureState::tell(std::unique_lock<std::mutex> lock) {
    const std::shared_ptr<FutureSource> dropped_at_the_end = std::move(source_);
    while (!watches_.empty()) {
        FutureWatch& watch = watches_.front();
        watches_.pop_front();
        watch.waiter->add_done(watch, failed());
    }
    // One by one, for a callback may remove another: destroy the coroutine that waits here.
    while (!callbacks_.empty()) {
        FutureCallback& callback = callbacks_.front();
        callbacks_.pop_front();
        lock.unlock();
        run(callback);
        lock.lock();
    }
    lock.unlock();
}

inline bool FutureState::add(FutureCallback& callback) {
    if (done()) return false;
    const std::lock_guard lock(mutex_);
    if (done()) return false;
    callbacks_.push_back(callback);
    return true;
}

inline bool FutureState::add(FutureWatch& watch) {
    if (done()) return false;
    const std::lock_guard lock(mutex_);
    if (done()) return false;
    watches_.push_back(watch);
    return true;
}

inline void FutureState::remove(FutureCallback& callback) {
    const std::lock_guard lock(mutex_);
    if (callback.is_linked()) callbacks_.erase(callbacks_.iterator_to(callback));
}

inline void FutureState::remove(FutureWatch& watch) {
    const std::lock_guard lock(mutex_);
    // Linked it is also when the waiter has it, which is so when the future is done.
    if (!done() && watch.is_linked()) watches_.erase(watches_.iterator_to(watch));
}

inline void FutureState::run(FutureCallback& callback) {
    try {
        callback.run(*this);
    } catch (const abi::__forced_unwind&) {
        throw;  // a thread that is cancelled goes on unwinding
    } catch (...) {
        log_or_tell(log_level::error, [this] {
            return "exception calling callback for " + describe() + ": " +
                   pickle::describe(std::current_exception());
        });
    }
}

inline std::string FutureState::describe() const {
    std::ostringstream out;
    out << "<Future at " << static_cast<const void*>(this) << " state=";
    const FuturePhase now = phase();
    if (now == FuturePhase::finished) {
        out << "finished ";
        if (failed()) {
            out << "raised " << pickle::exceptions::facts_of(exception_).name;
        } else {
            out << "returned " << result_type();
        }
    } else {
        out << (is_cancelled(now) ? "cancelled" : running() ? "running" : "pending");
    }
    out << '>';
    return out.str();
}

inline void FutureState::throw_invalid(FuturePhase phase) const {
    constexpr const char* names[] = {"PENDING",   "RUNNING",                "RUNNING",
                                     "CANCELLED", "CANCELLED_AND_NOTIFIED", "FINISHED"};
    throw InvalidStateError(names[static_cast<std::size_t>(phase)] + (": " + describe()));
}

template <class R>
void FutureCell<R>::set_value(Stored&& value) {
    const FuturePhase before = claim();
    try {
        // Without the lock, for it is the type's own code that moves it.
        value_.emplace(std::move(value));
    } catch (...) {
        unclaim(before);
        throw;
    }
    finish();
}

}  // namespace multiprocessing::runtime
