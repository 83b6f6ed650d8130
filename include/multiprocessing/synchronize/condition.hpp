// SPDX-License-Identifier: BSL-1.0
//
// `Condition`, over either lock.
#pragma once

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/pickle/handle.hpp>
#include <multiprocessing/shm/condition.hpp>
#include <multiprocessing/shm/ref.hpp>
#include <multiprocessing/synchronize/lock.hpp>
#include <multiprocessing/timeout.hpp>

#include <cstdint>
#include <ostream>
#include <string>
#include <type_traits>
#include <utility>

namespace multiprocessing {

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

// ---------------------------------------------------------------------------------------------------

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

/// `<Condition(<RLock(None, 0)>, 2)>`: the lock, and how many wait that have not been notified.
inline std::ostream& operator<<(std::ostream& out, const Condition& condition) {
    return out << "<Condition(" << condition.lock_ << ", " << condition.state_->waiting() << ")>";
}

}  // namespace multiprocessing
