// SPDX-License-Identifier: BSL-1.0
//
// `Lock`, `RLock`, `Semaphore`, `BoundedSemaphore`, `Condition`, `Event` and `Barrier` between
// processes. Answers Python's `multiprocessing.synchronize`.
//
// All are handles: copies are the same object, in whatever process they are. None keeps anything in
// the system, and none hangs because somebody who held or awaited it was killed.
#pragma once

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/pickle/handle.hpp>
#include <multiprocessing/runtime/action.hpp>
#include <multiprocessing/runtime/log.hpp>
#include <multiprocessing/shm/barrier.hpp>
#include <multiprocessing/shm/condition.hpp>
#include <multiprocessing/shm/event.hpp>
#include <multiprocessing/shm/ref.hpp>
#include <multiprocessing/shm/semaphore.hpp>
#include <multiprocessing/shm/user_lock.hpp>
#include <multiprocessing/timeout.hpp>

#include <chrono>
#include <concepts>
#include <cstdint>
#include <functional>
#include <iosfwd>
#include <string>
#include <utility>

namespace multiprocessing {

/// What all that is acquired and released has: Python's `acquire`, and for its `with` what
/// std::lock_guard and std::unique_lock ask for (TimedLockable).
template <class Derived>
class Acquirable {
public:
    /// Takes it. Returns false when `block` is false or the timeout passed, and others have it.
    /// *Blocks* until then.
    template <std::same_as<bool> Block>  // not from a number, which is a timeout everywhere
    bool acquire(Block block, Timeout timeout = {}) const {
        return take(block ? os::Deadline(timeout) : os::Deadline::passed());
    }
    bool acquire(Timeout timeout) const { return take(timeout); }
    bool acquire() const { return take(os::Deadline::never()); }

    void lock() const { take(os::Deadline::never()); }
    void unlock() const { self().release(); }
    [[nodiscard]] bool try_lock() const { return take(os::Deadline::passed()); }
    template <class Rep, class Period>
    [[nodiscard]] bool try_lock_for(const std::chrono::duration<Rep, Period>& span) const {
        return take(Timeout(span));
    }
    template <class Clock, class Duration>
    [[nodiscard]] bool try_lock_until(const std::chrono::time_point<Clock, Duration>& time) const {
        const auto now = Clock::now();
        return take(time > now ? os::Deadline(Timeout(time - now)) : os::Deadline::passed());
    }

private:
    [[nodiscard]] const Derived& self() const noexcept { return static_cast<const Derived&>(*this); }
    bool take(os::Deadline deadline) const { return self().acquire_until(deadline); }
};

/// What `Lock` and `RLock` have in common, and what `get_lock()` gives: a mutex between processes
/// that satisfies the standard's TimedLockable, so std::lock_guard is Python's `with`.
///
/// *If a peer dies*: a holder whose process ends in any way lets go; the next to acquire gets the
/// lock within 100 ms, and `abandoned()` is true until the next release.
///
/// Prints as Python's `repr`, with the thread that has it if that is the one that prints it.
class AnyLock : public Acquirable<AnyLock> {
public:
    /// Lets go. *Throws* ValueError for a Lock that is not taken, AssertionError for an RLock that
    /// the calling thread does not own.
    void release() const;
    /// Does anybody hold it?
    [[nodiscard]] bool locked() const { return lock_->locked(); }
    /// Did the last holder but one end without releasing? What the lock guards may be half changed.
    [[nodiscard]] bool abandoned() const { return lock_->abandoned(); }

    /// The same lock?
    friend bool operator==(const AnyLock& a, const AnyLock& b) noexcept { return a.lock_ == b.lock_; }

    using travels_as_handle = void;

protected:
    explicit AnyLock(pickle::Unread) noexcept {}
    explicit AnyLock(bool recursive) : lock_(shm::Shared<shm::UserLock>::make(0, recursive)) {}
    /// A lock that a larger object begins with.
    explicit AnyLock(shm::Ref object) noexcept : lock_(std::move(object)) {}
    [[nodiscard]] bool exists() const noexcept { return static_cast<bool>(lock_); }

private:
    friend struct pickle::HandleAccess;
    friend class Acquirable<AnyLock>;
    friend class Condition;
    template <class T>
    friend class SharedData;
    friend std::ostream& operator<<(std::ostream& out, const AnyLock& lock);
    bool acquire_until(os::Deadline deadline) const {
        const shm::Taken result = lock_->acquire(deadline);
        if (result.from_the_dead) [[unlikely]] tell_of_the_dead();
        return result;
    }
    void tell_of_the_dead() const;
    void save_handle(pickle::OArchive& archive) const { pickle::save_ref(archive, lock_); }
    void load_handle(pickle::IArchive& archive) {
        lock_ = shm::Shared<shm::UserLock>(pickle::load_ref(archive, sizeof *lock_));
    }

    shm::Shared<shm::UserLock> lock_;
};

/// A lock that is not recursive and has no owner: any thread of any process may release it.
/// *Python*: `multiprocessing.Lock`.
class Lock : public AnyLock {
public:
    Lock() : AnyLock(false) {}

private:
    friend struct pickle::HandleAccess;
    explicit Lock(pickle::Unread unread) noexcept : AnyLock(unread) {}
};

/// A recursive lock, owned by one thread of one process. *Python*: `multiprocessing.RLock`.
/// *If a peer dies*: it comes back whole, whatever its depth was.
class RLock : public AnyLock {
public:
    RLock() : AnyLock(true) {}

private:
    friend struct pickle::HandleAccess;
    explicit RLock(pickle::Unread unread) noexcept : AnyLock(unread) {}
};

/// A counter of permits. *Python*: `multiprocessing.Semaphore`.
/// *If a peer dies*: the permits it had taken do not come back: who counts signals with it would be
/// lied to.
class Semaphore : public Acquirable<Semaphore> {
public:
    /// *Throws* ValueError for a negative value.
    explicit Semaphore(int value = 1)
        : state_(shm::Shared<shm::SemaphoreState>::make(0, checked(value, "Semaphore"))) {}

    /// Gives a permit back, or, not bounded, adds one. *Throws* ValueError at the greatest value there
    /// is, or, bounded, at the initial one.
    void release() const;
    [[nodiscard]] int get_value() const { return static_cast<int>(state_->value()); }
    /// Would a try to acquire fail?
    [[nodiscard]] bool locked() const { return state_->value() == 0; }

    using travels_as_handle = void;

protected:
    explicit Semaphore(const shm::Shared<shm::SemaphoreState>& state) noexcept : state_(state) {}
    explicit Semaphore(pickle::Unread) noexcept {}
    [[nodiscard]] static std::uint32_t checked(int value, const char* name);

private:
    friend struct pickle::HandleAccess;
    friend class Acquirable<Semaphore>;
    friend std::ostream& operator<<(std::ostream& out, const Semaphore& semaphore);
    bool acquire_until(os::Deadline deadline) const { return state_->acquire(deadline); }
    void save_handle(pickle::OArchive& archive) const { pickle::save_ref(archive, state_); }
    void load_handle(pickle::IArchive& archive) {
        shm::Shared<shm::SemaphoreState> state(pickle::load_ref(archive, sizeof *state_));
        if (state.size() < state->bytes()) {
            throw UnpicklingError("the message names a semaphore of another size");
        }
        state_ = std::move(state);
    }

    shm::Shared<shm::SemaphoreState> state_;
};

/// A semaphore that cannot be released more often than it was acquired.
/// *Python*: `multiprocessing.BoundedSemaphore`.
/// *If a peer dies*: the permits it had taken come back within 100 ms, however it ended.
class BoundedSemaphore : public Semaphore {
public:
    /// *Throws* ValueError for a negative value.
    explicit BoundedSemaphore(int value = 1) : Semaphore(make(checked(value, "BoundedSemaphore"))) {}

private:
    friend struct pickle::HandleAccess;
    [[nodiscard]] static shm::Shared<shm::SemaphoreState> make(std::uint32_t bound);
    explicit BoundedSemaphore(pickle::Unread unread) noexcept : Semaphore(unread) {}
};

/// A condition variable over a Lock or, by default, an RLock of its own; itself lockable.
/// *Python*: `multiprocessing.Condition`.
///
///     std::lock_guard guard(condition);
///     condition.wait_for([&] { return ready.value(); });
///
/// *If a peer dies*: a waiter that is dead takes no notification; its lock is as any other.
class Condition : public Acquirable<Condition> {
public:
    Condition() : Condition(RLock()) {}
    explicit Condition(AnyLock lock)
        : state_(shm::Shared<shm::ConditionState>::make(0)), lock_(std::move(lock)) {}

    void release() const { lock_.release(); }
    [[nodiscard]] bool locked() const { return lock_.locked(); }
    [[nodiscard]] bool abandoned() const { return lock_.abandoned(); }

    /// Lets go of the lock, every level of it, waits for a notification, takes the lock again.
    /// Returns false at the timeout. *Throws* AssertionError without the lock, as do all below.
    bool wait(Timeout timeout = {}) const;
    /// Waits until the predicate holds; returns its last value.
    template <class Predicate>
    auto wait_for(Predicate predicate, Timeout timeout = {}) const -> std::decay_t<decltype(predicate())>;
    /// Wakes at most `n` of those that wait.
    void notify(int n = 1) const;
    void notify_all() const;

    using travels_as_handle = void;

private:
    friend struct pickle::HandleAccess;
    friend class Acquirable<Condition>;
    friend std::ostream& operator<<(std::ostream& out, const Condition& condition);
    bool acquire_until(os::Deadline deadline) const { return lock_.acquire_until(deadline); }
    explicit Condition(pickle::Unread unread) noexcept : lock_(unread) {}
    void save_handle(pickle::OArchive& archive) const;
    void load_handle(pickle::IArchive& archive);
    void expect_mine(const char* call) const;
    bool wait_once(os::Deadline deadline) const;

    shm::Shared<shm::ConditionState> state_;
    AnyLock lock_;
};

/// A flag to wait for. *Python*: `multiprocessing.Event`.
class Event {
public:
    Event() : state_(shm::Shared<shm::EventState>::make(0)) {}

    [[nodiscard]] bool is_set() const { return state_->is_set(); }
    /// Wakes all that wait; they go even if it is cleared at once.
    void set() const { state_->set(); }
    void clear() const { state_->clear(); }
    /// True when it is set, false at the timeout.
    bool wait(Timeout timeout = {}) const { return state_->wait(timeout); }

    using travels_as_handle = void;

private:
    friend struct pickle::HandleAccess;
    friend std::ostream& operator<<(std::ostream& out, const Event& event);
    explicit Event(pickle::Unread) noexcept {}
    void save_handle(pickle::OArchive& archive) const { pickle::save_ref(archive, state_); }
    void load_handle(pickle::IArchive& archive) {
        state_ = shm::Shared<shm::EventState>(pickle::load_ref(archive, sizeof *state_));
    }

    shm::Shared<shm::EventState> state_;
};

/// The arguments of `Barrier` by name.
struct BarrierOptions {
    int parties;
    /// Run by one of the parties before any goes on.
    runtime::Action action = {};
    /// For `wait()` calls that say none.
    Timeout timeout = {};
};

/// A point that `parties` processes or threads pass together. *Python*: `multiprocessing.Barrier`.
/// *If a peer dies*: one that is killed while it waits breaks the barrier for the rest within 100 ms;
/// one that never arrived is found by the timeout only.
class Barrier {
public:
    /// *Throws* ValueError for less than one party.
    explicit Barrier(int parties, runtime::Action action = {}, Timeout timeout = {});
    Barrier(BarrierOptions options)
        : Barrier(options.parties, std::move(options.action), options.timeout) {}

    /// Waits for all; returns this party's index, from 0 to parties() - 1, each once.
    /// *Throws* BrokenBarrierError when the timeout passes, or somebody aborts or resets it, or a
    /// waiting party dies; the action's exception in the party that ran it.
    int wait(Timeout timeout) const;
    int wait() const { return wait(timeout_); }
    /// Back to empty; those that wait get BrokenBarrierError.
    void reset() const { state_->reset(); }
    /// Breaks it, until `reset()`.
    void abort() const { state_->abort(); }
    [[nodiscard]] int parties() const { return static_cast<int>(state_->parties()); }
    [[nodiscard]] int n_waiting() const { return static_cast<int>(state_->waiting()); }
    [[nodiscard]] bool broken() const { return state_->broken(); }

    using travels_as_handle = void;

private:
    friend struct pickle::HandleAccess;
    friend std::ostream& operator<<(std::ostream& out, const Barrier& barrier);
    explicit Barrier(pickle::Unread) noexcept {}
    void save_handle(pickle::OArchive& archive) const;
    void load_handle(pickle::IArchive& archive);

    shm::Shared<shm::BarrierState> state_;
    runtime::Action action_;
    Timeout timeout_;
};

// ---------------------------------------------------------------------------------------------------

inline void AnyLock::release() const {
    if (lock_->release()) return;
    if (lock_->recursive()) {
        throw AssertionError("RLock.release(): attempt to release recursive lock not owned by thread");
    }
    throw ValueError("Lock.release(): semaphore or lock released too many times");
}

inline void AnyLock::tell_of_the_dead() const {
    runtime::log_at(runtime::log_level::warning, [this] {
        return std::string(lock_->recursive() ? "RLock" : "Lock") +
               " abandoned: a process ended that held it";
    });
}

inline std::uint32_t Semaphore::checked(int value, const char* name) {
    if (value < 0) {
        throw ValueError(std::string(name) + ": the initial value is " + std::to_string(value) +
                         ", but must be 0 or more");
    }
    return static_cast<std::uint32_t>(value);
}

inline shm::Shared<shm::SemaphoreState> BoundedSemaphore::make(std::uint32_t bound) {
    const std::uint32_t shares = shm::SemaphoreState::shares_for(bound);
    return shm::Shared<shm::SemaphoreState>::make(shm::SemaphoreState::extra_bytes(shares), bound,
                                                  shares);
}

inline void Semaphore::release() const {
    if (!state_->release()) {
        throw ValueError("Semaphore.release(): semaphore or lock released too many times (there can "
                         "be no more than " + std::to_string(state_->bound()) + " permits)");
    }
}

inline void Condition::expect_mine(const char* call) const {
    if (!lock_.lock_->is_mine()) {
        throw AssertionError(std::string("Condition.") + call +
                             "(): the lock is not owned: acquire the condition first");
    }
}

inline bool Condition::wait_once(os::Deadline deadline) const {
    const bool notified = state_->wait(*lock_.lock_, deadline);
    if (lock_.abandoned()) lock_.tell_of_the_dead();  // it has just been taken again
    return notified;
}

inline bool Condition::wait(Timeout timeout) const {
    expect_mine("wait");
    return wait_once(timeout);
}

template <class Predicate>
auto Condition::wait_for(Predicate predicate, Timeout timeout) const
    -> std::decay_t<decltype(predicate())> {
    expect_mine("wait_for");
    const os::Deadline deadline(timeout);
    auto result = predicate();
    while (!result && !deadline.expired()) {
        wait_once(deadline);
        result = predicate();
    }
    return result;
}

inline void Condition::notify(int n) const {
    expect_mine("notify");
    if (n > 0) state_->notify(*lock_.lock_, static_cast<std::uint64_t>(n));
}

inline void Condition::notify_all() const {
    expect_mine("notify_all");
    state_->notify(*lock_.lock_, ~std::uint64_t{0});
}

inline void Condition::save_handle(pickle::OArchive& archive) const {
    pickle::save_ref(archive, state_);
    pickle::HandleAccess::save(archive, lock_);
}

inline void Condition::load_handle(pickle::IArchive& archive) {
    state_ = shm::Shared<shm::ConditionState>(pickle::load_ref(archive, sizeof *state_));
    pickle::HandleAccess::load(archive, lock_);
}

inline Barrier::Barrier(int parties, runtime::Action action, Timeout timeout)
    : action_(std::move(action)), timeout_(timeout) {
    if (parties < 1) {
        throw ValueError("Barrier: parties is " + std::to_string(parties) + ", but must be 1 or more");
    }
    const auto count = static_cast<std::uint32_t>(parties);
    state_ = shm::Shared<shm::BarrierState>::make(shm::BarrierState::extra_bytes(count), count);
}

inline void Barrier::save_handle(pickle::OArchive& archive) const {
    pickle::save_ref(archive, state_);
    action_.save(archive);
    archive.put(static_cast<std::int64_t>(timeout_.forever() ? -1 : timeout_.span()->count()));
}

inline void Barrier::load_handle(pickle::IArchive& archive) {
    shm::Shared<shm::BarrierState> state(pickle::load_ref(archive, sizeof(shm::BarrierState)));
    if (state.size() <
        sizeof(shm::BarrierState) + shm::BarrierState::extra_bytes(state->parties())) {
        throw UnpicklingError("the message names a barrier of another size");
    }
    state_ = std::move(state);
    action_.load(archive);
    const auto timeout = archive.get<std::int64_t>();
    timeout_ = timeout < 0 ? Timeout() : Timeout(std::chrono::nanoseconds(timeout));
}

inline int Barrier::wait(Timeout timeout) const {
    const auto index = state_->wait(timeout, [this] { action_(); });
    if (!index) {
        throw BrokenBarrierError("Barrier.wait(): the barrier is broken: a party timed out, died, or "
                                 "called abort() or reset()");
    }
    return static_cast<int>(*index);
}

}  // namespace multiprocessing

#include <multiprocessing/synchronize_repr.hpp>
