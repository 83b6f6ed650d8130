// SPDX-License-Identifier: BSL-1.0
//
// `Lock` and `RLock`, and what all that is acquired and released has in common.
#pragma once

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/os/process.hpp>
#include <multiprocessing/pickle/handle.hpp>
#include <multiprocessing/runtime/log.hpp>
#include <multiprocessing/shm/ref.hpp>
#include <multiprocessing/shm/user_lock.hpp>
#include <multiprocessing/timeout.hpp>

#include <chrono>
#include <concepts>
#include <ostream>
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
    template <class T>
    friend class SharedPtr;
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

/// `<Lock(owner=None)>`, `<Lock(owner=MainProcess)>`, `<Lock(owner=MainProcess|T1)>` in a thread T1
/// that has it, SomeOtherThread or SomeOtherProcess; `<RLock(None, 0)>`, `<RLock(MainProcess, 3)>`,
/// `<RLock(SomeOtherThread, nonzero)>`. *Python*: a thread is called by what the kernel knows it by
/// (pthread_setname_np), and is the main one if its process began with it.
inline std::ostream& operator<<(std::ostream& out, const AnyLock& lock) {
    const shm::UserLock& state = *lock.lock_;
    const auto owner = [&]() -> std::string {
        if (state.is_mine()) {
            const std::string process = runtime::log_of_this_process.process_name();
            return os::in_main_thread() ? process : process + "|" + os::this_thread_name();
        }
        if (!state.locked()) return "None";
        return state.is_this_process_s() ? "SomeOtherThread" : "SomeOtherProcess";
    };
    if (!state.recursive()) return out << "<Lock(owner=" << owner() << ")>";
    out << "<RLock(" << owner() << ", ";
    if (state.is_mine()) return out << state.depth() << ")>";
    return out << (state.locked() ? "nonzero" : "0") << ")>";
}

}  // namespace multiprocessing
