// SPDX-License-Identifier: BSL-1.0
//
// `manager.Lock()`, `RLock()`, `Semaphore(n)` and `BoundedSemaphore(n)`: in a manager's server, for
// processes anywhere. Answers Python's `AcquirerProxy`.
#pragma once

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/managers/proxy.hpp>
#include <multiprocessing/os/clock.hpp>
#include <multiprocessing/os/random.hpp>
#include <multiprocessing/runtime/log.hpp>
#include <multiprocessing/synchronize/lock.hpp>
#include <multiprocessing/synchronize/semaphore.hpp>
#include <multiprocessing/timeout.hpp>

#include <algorithm>
#include <chrono>
#include <concepts>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace multiprocessing::managers {

/// A thread of a client.
struct Owner {
    SessionId session;
    std::uint64_t thread = 0;
    friend auto operator<=>(const Owner&, const Owner&) = default;
};

/// A number for this thread that no other thread of the process has.
[[nodiscard]] inline std::uint64_t this_thread_number() {
    static thread_local const std::uint64_t number = os::random_number();
    return number;
}

enum class LockKind : std::uint8_t { lock, recursive, semaphore, bounded };

/// All four kinds: a number of permits, and who holds them.
class ServedLock {
public:
    using is_thread_safe = void;

    explicit ServedLock(LockKind kind, int value = 1) : kind_(kind), bound_(value), value_(value) {
        if (value < 0) {
            throw ValueError("semaphore initial value must be >= 0, which " + std::to_string(value) +
                             " is not");
        }
    }

    // For what is registered: a new one of the same kind.
    explicit ServedLock(const Lock&) : ServedLock(LockKind::lock) {}
    explicit ServedLock(const RLock&) : ServedLock(LockKind::recursive) {}
    explicit ServedLock(const Semaphore& like)
        : ServedLock(LockKind::semaphore, like.get_value()) {}
    explicit ServedLock(const BoundedSemaphore& like)
        : ServedLock(LockKind::bounded, like.get_value()) {}

    static bool acquire(ServedLock& self, const Caller& caller, std::uint64_t thread, Timeout timeout) {
        std::unique_lock lock(self.mutex_);
        return self.acquire_locked(lock, caller, {caller.session(), thread}, timeout);
    }
    static void release(ServedLock& self, const Caller& caller, std::uint64_t thread) {
        const std::scoped_lock lock(self.mutex_);
        self.release_locked({caller.session(), thread});
    }
    static bool locked(ServedLock& self) {
        const std::scoped_lock lock(self.mutex_);
        return self.value_ == 0;
    }
    static int value(ServedLock& self) {
        const std::scoped_lock lock(self.mutex_);
        return self.value_;
    }
    static bool is_abandoned(ServedLock& self) {
        const std::scoped_lock lock(self.mutex_);
        return self.abandoned_;
    }

    /// A client has ended. What it held others may take, or release in its stead.
    void abandon(const SessionId& session);

    // For a condition, with its own mutex held: lets go wholly, and takes back as much.
    [[nodiscard]] std::mutex& mutex() noexcept { return mutex_; }
    [[nodiscard]] bool is_held_by(const Owner& owner) const {
        return kind_ == LockKind::recursive ? owner_ == owner : value_ == 0;
    }
    [[nodiscard]] int release_all_locked(const Owner& owner);
    void take_back_locked(std::unique_lock<std::mutex>& lock, const Caller& caller, const Owner& owner,
                          int depth);

private:
    [[nodiscard]] bool acquire_locked(std::unique_lock<std::mutex>& lock, const Caller& caller,
                                      const Owner& owner, os::Deadline deadline);
    void release_locked(const Owner& owner);
    /// What the dead had, for whoever needs it.
    [[nodiscard]] bool take_orphan() {
        if (orphans_ == 0) return false;
        --orphans_;
        abandoned_ = true;
        return true;
    }

    const LockKind kind_;
    const int bound_;
    std::mutex mutex_;  // guards what follows
    std::condition_variable freed_;
    int value_;        // permits that are there; of a lock 1 or 0
    int orphans_ = 0;  // permits that ended clients held
    bool abandoned_ = false;
    std::map<SessionId, int> holders_;  // permits, by client; not of a Semaphore, which may be a signal
    std::optional<Owner> owner_;        // of a recursive lock
    int depth_ = 0;
};

/// What can be acquired, in the server of a manager. (Its functions, and those of what follows, are
/// templates so that programs which have no manager are not compiled with one.)
class AcquirerProxy : public BaseProxy {
public:
    using Referent = ServedLock;

    /// Whether it was acquired; false at the timeout, or at once if `block` is false.
    /// *Blocks* until then.
    template <class S = ServedLock>
    bool acquire(Timeout timeout = {}) const {
        return call_waiting<S, &S::acquire>(timeout, this_thread_number(), timeout);
    }
    template <std::same_as<bool> Block>
    bool acquire(Block block, Timeout timeout = {}) const {
        return acquire(block ? timeout : Timeout(0));
    }
    /// *Throws* std::runtime_error when it is not locked, ValueError from a BoundedSemaphore that has
    /// all its permits, AssertionError from an RLock that another thread has.
    template <class S = ServedLock>
    void release() const { call<S, &S::release>(this_thread_number()); }
    template <class S = ServedLock>
    [[nodiscard]] bool locked() const { return call<S, &S::locked>(); }

    // std::lock_guard and its like: the `with` statement.
    template <class S = ServedLock>
    void lock() const {
        static_cast<void>(acquire<S>());
    }
    template <class S = ServedLock>
    void unlock() const {
        release<S>();
    }
    template <class S = ServedLock>
    [[nodiscard]] bool try_lock() const {
        return acquire<S>(0);
    }
    template <class Rep, class Period>
    [[nodiscard]] bool try_lock_for(std::chrono::duration<Rep, Period> duration) const {
        return acquire(Timeout(duration));
    }

    /// Has servers of this program know all that clients of others may call.
    template <class S = ServedLock>
    static void expose_all() {
        expose<S, &S::acquire, &S::release, &S::locked, &S::value, &S::is_abandoned>();
    }

    using BaseProxy::BaseProxy;
};

/// A lock in the server of a manager. *If a client dies* while it holds it, the next who wants it gets
/// it, and `abandoned()` is true until the next release. *Python*: the proxies of `SyncManager.Lock()`
/// and `RLock()`.
template <LockKind>
class KindOfLockProxy : public AcquirerProxy {
public:
    using AcquirerProxy::AcquirerProxy;
    template <class S = ServedLock>
    [[nodiscard]] bool abandoned() const {
        return call<S, &S::is_abandoned>();
    }
};
using LockProxy = KindOfLockProxy<LockKind::lock>;
/// The thread that holds it may acquire it again.
using RLockProxy = KindOfLockProxy<LockKind::recursive>;

/// A semaphore in the server of a manager. The permits that a client held when it ended come back to a
/// BoundedSemaphore alone. *Python*: of `SyncManager.Semaphore()` and `BoundedSemaphore()`.
class SemaphoreProxy : public AcquirerProxy {
public:
    using AcquirerProxy::AcquirerProxy;
    template <class S = ServedLock>
    [[nodiscard]] int get_value() const { return call<S, &S::value>(); }
};

// ---------------------------------------------------------------------------------------------------

inline bool ServedLock::acquire_locked(std::unique_lock<std::mutex>& lock, const Caller& caller,
                                       const Owner& owner, os::Deadline deadline) {
    if (kind_ == LockKind::recursive && owner_ == owner) {
        ++depth_;
        return true;
    }
    const bool acquired = caller.wait(lock, freed_, deadline, [&] {
        if (value_ > 0) {
            --value_;
            return true;
        }
        return take_orphan();
    });
    if (!acquired) return false;
    if (kind_ == LockKind::recursive) {
        owner_ = owner;
        depth_ = 1;
    }
    if (kind_ != LockKind::semaphore) ++holders_[owner.session];
    return true;
}

inline void ServedLock::release_locked(const Owner& owner) {
    if (kind_ == LockKind::recursive) {
        if (orphans_ == 0) {
            if (owner_ != owner) {
                throw AssertionError("attempt to release recursive lock not owned by thread");
            }
            if (--depth_ > 0) return;
            owner_.reset();
        }
    }
    if (kind_ == LockKind::bounded && value_ >= bound_) {
        throw ValueError("Semaphore released too many times");
    }
    if (kind_ == LockKind::lock && value_ == 1) throw std::runtime_error("release unlocked lock");
    // A lock may be released by another than has it.
    auto holder = holders_.find(owner.session);
    if (holder == holders_.end() && orphans_ > 0) {
        --orphans_;
    } else {
        if (holder == holders_.end()) holder = holders_.begin();
        if (holder != holders_.end() && --holder->second == 0) holders_.erase(holder);
    }
    ++value_;
    abandoned_ = false;
    freed_.notify_one();
}

inline int ServedLock::release_all_locked(const Owner& owner) {
    const int depth = kind_ == LockKind::recursive ? std::exchange(depth_, 1) : 1;
    release_locked(owner);
    return depth;
}

inline void ServedLock::take_back_locked(std::unique_lock<std::mutex>& lock, const Caller& caller,
                                         const Owner& owner, int depth) {
    static_cast<void>(acquire_locked(lock, caller, owner, os::Deadline::never()));
    if (kind_ == LockKind::recursive) depth_ = depth;
}

inline void ServedLock::abandon(const SessionId& session) {
    const std::scoped_lock lock(mutex_);
    const auto holder = holders_.find(session);
    if (holder == holders_.end()) return;
    orphans_ += holder->second;
    holders_.erase(holder);
    owner_.reset();
    depth_ = 0;
    runtime::log_at(runtime::log_level::warning, [] {
        return std::string("a client of a manager has ended with a lock in its hands");
    });
    freed_.notify_all();
}

}  // namespace multiprocessing::managers
