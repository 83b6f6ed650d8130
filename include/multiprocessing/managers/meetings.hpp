// SPDX-License-Identifier: BSL-1.0
//
// `manager.Condition()`, `Event()` and `Barrier(n)`: in a manager's server, for processes anywhere.
// Answers Python's `ConditionProxy`, `EventProxy` and `BarrierProxy`.
#pragma once

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/managers/locks.hpp>
#include <multiprocessing/managers/proxy.hpp>
#include <multiprocessing/os/clock.hpp>
#include <multiprocessing/runtime/action.hpp>
#include <multiprocessing/synchronize/event.hpp>
#include <multiprocessing/timeout.hpp>

#include <algorithm>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>

namespace multiprocessing::managers {

/// A condition of a lock in the same server.
class ServedCondition {
public:
    using is_thread_safe = void;

    /// `object` is the lock's, which lives as long as this.
    explicit ServedCondition(std::shared_ptr<Object> object, ServedLock& lock)
        : object_(std::move(object)), lock_(lock) {}

    static bool acquire(ServedCondition& self, const Caller& caller, std::uint64_t thread,
                        Timeout timeout) {
        return ServedLock::acquire(self.lock_, caller, thread, timeout);
    }
    static void release(ServedCondition& self, const Caller& caller, std::uint64_t thread) {
        ServedLock::release(self.lock_, caller, thread);
    }
    static bool wait(ServedCondition& self, const Caller& caller, std::uint64_t thread, Timeout timeout);
    static void notify(ServedCondition& self, const Caller& caller, std::uint64_t thread,
                       std::uint64_t count);
    static bool is_abandoned(ServedCondition& self) { return ServedLock::is_abandoned(self.lock_); }
    /// Of a lock of its own nobody else is told.
    void abandon(const SessionId& session) { lock_.abandon(session); }

    /// The entry that makes one: of the lock that the request names, or of a new RLock.
    struct Make {
        static void run(Call& call);
    };

private:
    void check_held(const Owner& owner, const char* call) const {
        if (!lock_.is_held_by(owner)) {
            throw AssertionError(std::string("Condition.") + call +
                                 "(): the lock is not held by who calls: acquire it first");
        }
    }
    void wake(std::uint64_t count) {
        for (auto each = waiting_.begin(); count != 0 && each != waiting_.end(); ++each) {
            if (std::exchange(each->notified, true)) continue;
            --count;
        }
        changed_.notify_all();
    }

    struct Waiter {
        bool notified = false;
    };
    std::shared_ptr<Object> object_;
    ServedLock& lock_;
    std::list<Waiter> waiting_;  // under the lock's mutex, in the order in which they came
    std::condition_variable changed_;
};

/// A condition in the server of a manager. *Python*: the proxy of `SyncManager.Condition()`.
class ConditionProxy : public BaseProxy {
public:
    using Referent = ServedCondition;

    template <class S = ServedCondition>
    bool acquire(Timeout timeout = {}) const {
        return call_waiting<S, &S::acquire>(timeout, this_thread_number(),
                                                                       timeout);
    }
    template <std::same_as<bool> Block>
    bool acquire(Block block, Timeout timeout = {}) const {
        return acquire(block ? timeout : Timeout(0));
    }
    template <class S = ServedCondition>
    void release() const {
        call<S, &S::release>(this_thread_number());
    }
    template <class S = ServedCondition>
    void lock() const {
        static_cast<void>(acquire<S>());
    }
    template <class S = ServedCondition>
    void unlock() const {
        release<S>();
    }
    template <class S = ServedCondition>
    [[nodiscard]] bool try_lock() const {
        return acquire<S>(0);
    }
    template <class S = ServedCondition>
    [[nodiscard]] bool abandoned() const {
        return call<S, &S::is_abandoned>();
    }

    /// Lets the lock go, waits to be notified, and has it again; false at the timeout. *Throws*
    /// AssertionError unless this thread has the lock.
    template <class S = ServedCondition>
    bool wait(Timeout timeout = {}) const {
        // It may have to wait for the lock after that, for as long as others have it.
        return call_waiting<S, &S::wait>(Timeout(), this_thread_number(),
                                                                     timeout);
    }
    /// Waits until `predicate()`, which is called here and with the lock; what it gave last.
    template <class Predicate>
    auto wait_for(Predicate predicate, Timeout timeout = {}) const {
        const os::Deadline deadline(timeout);
        auto result = predicate();
        while (!result && !deadline.expired()) {
            static_cast<void>(wait(deadline.is_never() ? Timeout() : Timeout(deadline.remaining())));
            result = predicate();
        }
        return result;
    }
    /// Wakes as many of those that wait. *Throws* AssertionError unless this thread has the lock.
    template <class S = ServedCondition>
    void notify(std::uint64_t n = 1) const {
        call<S, &S::notify>(this_thread_number(), n);
    }
    template <class S = ServedCondition>
    void notify_all() const {
        notify<S>(static_cast<std::uint64_t>(-1));
    }

    using BaseProxy::BaseProxy;
};

class ServedEvent {
public:
    using is_thread_safe = void;

    ServedEvent() = default;
    /// For what is registered: a new one.
    explicit ServedEvent(const Event& like) : set_(like.is_set()) {}

    static bool is_set(ServedEvent& self) {
        const std::scoped_lock lock(self.mutex_);
        return self.set_;
    }
    static void assign(ServedEvent& self, bool set) {
        const std::scoped_lock lock(self.mutex_);
        self.set_ = set;
        if (!set) return;
        ++self.times_;
        self.changed_.notify_all();
    }
    static bool wait(ServedEvent& self, const Caller& caller, Timeout timeout) {
        std::unique_lock lock(self.mutex_);
        // Set and cleared again counts for who waited.
        const std::uint64_t before = self.times_;
        return caller.wait(lock, self.changed_, timeout,
                           [&] { return self.set_ || self.times_ != before; });
    }

private:
    std::mutex mutex_;  // guards what follows
    std::condition_variable changed_;
    bool set_ = false;
    std::uint64_t times_ = 0;
};

/// An event in the server of a manager. *Python*: the proxy of `SyncManager.Event()`.
class EventProxy : public BaseProxy {
public:
    using Referent = ServedEvent;

    template <class S = ServedEvent>
    [[nodiscard]] bool is_set() const { return call<S, &S::is_set>(); }
    template <class S = ServedEvent>
    void set() const { call<S, &S::assign>(true); }
    template <class S = ServedEvent>
    void clear() const { call<S, &S::assign>(false); }
    /// Waits until it is set; false at the timeout.
    template <class S = ServedEvent>
    bool wait(Timeout timeout = {}) const {
        return call_waiting<S, &S::wait>(timeout, timeout);
    }

    /// Has servers of this program know all that clients of others may call.
    template <class S = ServedEvent>
    static void expose_all() {
        expose<S, &S::is_set, &S::assign, &S::wait>();
    }

    using BaseProxy::BaseProxy;
};

/// As Python's threading.Barrier.
class ServedBarrier {
public:
    using is_thread_safe = void;

    ServedBarrier(int parties, runtime::Action action, Timeout timeout)
        : parties_(parties), action_(std::move(action)), timeout_(timeout) {
        if (parties < 1) {
            throw ValueError("Barrier: parties must be 1 or more, which " + std::to_string(parties) +
                             " is not");
        }
    }

    static int wait(ServedBarrier& self, const Caller& caller, const std::optional<Timeout>& timeout);
    static void reset(ServedBarrier& self);
    static void abort(ServedBarrier& self) {
        const std::scoped_lock lock(self.mutex_);
        self.change(State::broken);
    }
    static int parties(ServedBarrier& self) { return self.parties_; }
    static int n_waiting(ServedBarrier& self) {
        const std::scoped_lock lock(self.mutex_);
        return self.state_ == State::filling ? self.count_ : 0;
    }
    static bool broken(ServedBarrier& self) {
        const std::scoped_lock lock(self.mutex_);
        return self.state_ == State::broken;
    }

private:
    enum class State : std::uint8_t { filling, draining, resetting, broken };

    void change(State state) {
        state_ = state;
        changed_.notify_all();
    }
    [[nodiscard]] bool is_closing() const noexcept {
        return state_ == State::draining || state_ == State::resetting;
    }
    /// The last of all that were inside opens it for the next.
    void leave() {
        if (--count_ == 0 && is_closing()) change(State::filling);
    }

    const int parties_;
    const runtime::Action action_;
    const Timeout timeout_;
    std::mutex mutex_;  // guards what follows
    std::condition_variable changed_;
    State state_ = State::filling;
    int count_ = 0;
};

/// A barrier in the server of a manager, where its action runs. *If a client dies* while it waits, the
/// barrier is broken for the rest. *Python*: the proxy of `SyncManager.Barrier(n)`.
class BarrierProxy : public BaseProxy {
public:
    using Referent = ServedBarrier;

    /// Waits until all parties do; a number that each has for itself, from 0. *Throws*
    /// BrokenBarrierError when the barrier is broken, reset, or one of them ran out of time.
    template <class S = ServedBarrier>
    int wait() const {
        return call_waiting<S, &S::wait>(Timeout(),
                                                                 std::optional<Timeout>());
    }
    template <class S = ServedBarrier>
    int wait(Timeout timeout) const {
        return call_waiting<S, &S::wait>(Timeout(),
                                                                 std::optional<Timeout>(timeout));
    }
    template <class S = ServedBarrier>
    void reset() const { call<S, &S::reset>(); }
    template <class S = ServedBarrier>
    void abort() const { call<S, &S::abort>(); }
    template <class S = ServedBarrier>
    [[nodiscard]] int parties() const { return call<S, &S::parties>(); }
    template <class S = ServedBarrier>
    [[nodiscard]] int n_waiting() const { return call<S, &S::n_waiting>(); }
    template <class S = ServedBarrier>
    [[nodiscard]] bool broken() const { return call<S, &S::broken>(); }

    using BaseProxy::BaseProxy;
};

// ---------------------------------------------------------------------------------------------------

inline void ServedCondition::Make::run(Call& call) {
    std::shared_ptr<Object> object;
    if (call.in.get<bool>()) {
        object = call.caller.references().find(call.in.get<std::uint64_t>());
    } else {
        object = std::make_shared<Managed<ServedLock>>(std::in_place, LockKind::recursive);
    }
    call.object = object.get();
    ServedLock& lock = target_of<ServedLock>(call);
    call.object = nullptr;
    call.out.put(call.caller.give(
        std::make_shared<Managed<ServedCondition>>(std::in_place, std::move(object), lock)));
}

inline bool ServedCondition::wait(ServedCondition& self, const Caller& caller, std::uint64_t thread,
                                  Timeout timeout) {
    const Owner owner{caller.session(), thread};
    std::unique_lock lock(self.lock_.mutex());
    self.check_held(owner, "wait");
    const auto me = self.waiting_.emplace(self.waiting_.end());
    const int depth = self.lock_.release_all_locked(owner);
    bool notified = false;
    try {
        notified = caller.wait(lock, self.changed_, timeout, [&] { return me->notified; });
    } catch (const NobodyIsWaiting&) {
        // What woke who is not there any more is for the next.
        const bool lost = me->notified;
        self.waiting_.erase(me);
        if (lost) self.wake(1);
        throw;
    }
    self.waiting_.erase(me);
    self.lock_.take_back_locked(lock, caller, owner, depth);
    return notified;
}

inline void ServedCondition::notify(ServedCondition& self, const Caller& caller, std::uint64_t thread,
                                    std::uint64_t count) {
    const std::scoped_lock lock(self.lock_.mutex());
    self.check_held({caller.session(), thread}, "notify");
    self.wake(count);
}

inline int ServedBarrier::wait(ServedBarrier& self, const Caller& caller,
                               const std::optional<Timeout>& timeout) {
    const auto throw_broken = [] {
        throw BrokenBarrierError("the managed Barrier is broken: a party has given up, was killed or "
                                 "has aborted it, or it was reset");
    };
    std::unique_lock lock(self.mutex_);
    const os::Deadline deadline(timeout.value_or(self.timeout_));
    caller.wait(lock, self.changed_, os::Deadline::never(), [&] { return !self.is_closing(); });
    if (self.state_ == State::broken) throw_broken();
    const int index = self.count_++;
    try {
        if (index + 1 == self.parties_) {
            self.action_();
            self.change(State::draining);
        } else {
            const bool changed = caller.wait(lock, self.changed_, deadline,
                                             [&] { return self.state_ != State::filling; });
            if (!changed) self.change(State::broken);
            if (self.state_ == State::broken || self.state_ == State::resetting) throw_broken();
        }
    } catch (const BrokenBarrierError&) {
        self.leave();
        throw;
    } catch (...) {  // its client has gone, or the action threw
        self.change(State::broken);
        self.leave();
        throw;
    }
    self.leave();
    return index;
}

inline void ServedBarrier::reset(ServedBarrier& self) {
    const std::scoped_lock lock(self.mutex_);
    if (self.count_ == 0) {
        self.change(State::filling);
    } else if (self.state_ != State::resetting) {
        // Those inside leave with an error, the last of them opens it again.
        self.change(State::resetting);
    }
}

}  // namespace multiprocessing::managers
