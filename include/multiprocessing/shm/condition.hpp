// SPDX-License-Identifier: BSL-1.0
//
// A condition variable in the arena: a list of waiters, oldest first, each with a word of its own
// to sleep on. So notify(n) wakes n that wait and no other, and passes over the dead. Who has been
// notified sleeps on until the lock is released: it could do nothing before. Should it die before
// it has the lock, another is told in its stead.
#pragma once

#include <multiprocessing/os/clock.hpp>
#include <multiprocessing/os/futex.hpp>
#include <multiprocessing/shm/arena.hpp>
#include <multiprocessing/shm/processes.hpp>
#include <multiprocessing/shm/user_lock.hpp>
#include <multiprocessing/shm/wait.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstdint>
#include <new>
#include <span>

namespace multiprocessing::shm {

/// The shared object. All calls are made with the user's lock held, which guards the list too;
/// changes are transactions, for its holder may be killed.
class ConditionState {
public:
    /// Lets go of the lock, waits, takes it again. False at the deadline.
    bool wait(UserLock& lock, os::Deadline deadline);
    [[nodiscard]] std::uint64_t waiting() noexcept {
        return std::atomic_ref(waiting_).load(std::memory_order_relaxed);
    }
    /// Lets at most `count` waiters go, once they get the lock; returns how many.
    std::uint64_t notify(UserLock& lock, std::uint64_t count);

private:
    struct Waiter {
        Offset next = 0;
        std::uint64_t notified =
            0;                // by which notification: the transaction that takes it off the list
        std::uint64_t since;  // how many notifications there had been
        HolderId process;
        Waiter(HolderId id, std::uint64_t count) noexcept : since(count), process(id) {}
        /// The half of `notified` that changes, for the kernel to look at.
        [[nodiscard]] const std::atomic<std::uint32_t>& word() const noexcept {
            return reinterpret_cast<const std::atomic<std::uint32_t>*>(
                &notified)[std::endian::native == std::endian::little ? 0 : 1];
        }
    };
    /// A waiter that was told and has died, and the one to be told in its stead.
    struct Legacy {
        Offset dead = 0;
        std::uint64_t notified = 0;
        Offset heir = 0;
        HolderId process = 0;  // the heir's
        friend bool operator==(const Legacy&, const Legacy&) = default;
    };

    [[nodiscard]] static Waiter& waiter(Offset block) {
        return *Arena::payload<Waiter>(*Arena::instance().at<Block>(block));
    }
    [[nodiscard]] static bool lives(HolderId process) {
        return process == self() || alive(process);
    }
    Offset enlist();
    /// Takes a waiter off the list.
    void strike(Transaction& tx, Offset block);
    /// Takes one off the list of those who have been told. False if it is not there.
    bool strike_told(Transaction& tx, Offset block);
    /// Puts a waiter on that list.
    void tell(Transaction& tx, Offset block, std::uint64_t notification);
    /// Forgets one who has been told and is dead. False if another has been told in its stead.
    bool forget(Ticket told);
    /// Has others told instead of those who have died since they were. Without the user's lock,
    /// too.
    void pass_on();
    [[nodiscard]] Legacy find_legacy(std::span<const HolderId> dead) const;

    Offset first_ = 0;
    Offset last_ = 0;
    Offset told_ = 0;
    std::uint64_t waiting_ = 0;  // how many are on the first list
    std::uint64_t notifications_ = 0;
    std::atomic<os::Clock::rep> looked_{0};  // when it was last seen to those who were told
};

inline bool ConditionState::wait(UserLock& lock, os::Deadline deadline) {
    const Arena& arena = Arena::instance();
    const Offset mine = enlist();
    Waiter& me = waiter(mine);
    const std::uint32_t depth = lock.release_all();
    const auto notified = [&me] {
        return std::atomic_ref(me.notified).load(std::memory_order_acquire) != 0;
    };
    // Inside a transaction it is for good: what a notifier did who was killed before its end is
    // undone.
    const auto told = [&] {
        if (!notified()) return false;
        const Transaction whole = arena.transaction();
        return notified();
    };
    // Who yields is not the next to run where there is but one processor.
    bool gone =
        told() || (!one_processor() && !deadline.expired() && Spin::until(notified) && told());
    while (!gone && !deadline.expired()) {
        // A nap, for a notifier that is killed before its call of the kernel.
        const bool woken =
            os::futex_wait(me.word(), 0, os::Deadline::after(patience).earlier(deadline));
        gone = told();
        if (!gone && !woken) pass_on();
    }
    lock.restore(depth);
    // Only now: between the deadline and the lock somebody may have counted on this waiter.
    Transaction tx = arena.transaction();
    const bool result = notified();
    if (result) {
        strike_told(tx, mine);
    } else {
        strike(tx, mine);
    }
    arena.destroy(tx, *arena.at<Block>(mine));
    return result;
}

inline std::uint64_t ConditionState::notify(UserLock& lock, std::uint64_t count) {
    const Arena& arena = Arena::instance();
    const auto load = [](auto& word) {
        return std::atomic_ref(word).load(std::memory_order_relaxed);
    };
    if (load(told_) != 0) {
        const auto last = os::Clock::duration(looked_.load(std::memory_order_relaxed));
        if (os::Clock::now().time_since_epoch() - last > patience) pass_on();
    }
    // An empty list may be what a notifier has left who was killed before its end, and is looked at
    // again when that is undone.
    const auto anybody = [&] {
        if (load(first_) != 0) return true;
        const Transaction whole = arena.transaction();
        return first_ != 0;
    };
    std::uint64_t number = 0;
    std::uint64_t woken = 0;
    while (woken < count && anybody()) {
        Transaction tx = arena.transaction();
        const Offset first = first_;
        if (first == 0) continue;  // somebody has passed on
        if (number == 0) {
            number = notifications_ + 1;
            if (static_cast<std::uint32_t>(number) == 0) ++number;  // which would not wake anybody
            tx.set(notifications_, number);
        }
        Waiter& next = waiter(first);
        const HolderId process = next.process;
        const Ticket ticket = arena.ticket(*arena.at<Block>(first));
        strike(tx, first);
        tell(tx, first, number);
        tx.commit();
        // Not later: until the mutex is free the block stays.
        const bool slept = lock.line_up(next.word(), static_cast<std::uint32_t>(number));
        tx.unlock();
        // Who sleeps lives. Of the rest it has to be asked, which takes longer than all else here.
        if (slept || lives(process) || !forget(ticket)) ++woken;
    }
    return woken;
}

inline bool ConditionState::forget(Ticket told) {
    const Arena& arena = Arena::instance();
    Transaction tx = arena.transaction();
    Block* const block = arena.heap().find(told.offset, told.serial);
    if (block == nullptr || !strike_told(tx, arena.offset_of(block))) return false;
    arena.destroy(tx, *block);
    return true;
}

inline void ConditionState::pass_on() {
    looked_.store(os::Clock::now().time_since_epoch().count(), std::memory_order_relaxed);
    if (std::atomic_ref(told_).load(std::memory_order_relaxed) == 0) return;
    const Arena& arena = Arena::instance();
    // Of more another look tells. Not a vector: nothing may be thrown without the user's lock.
    std::array<HolderId, 32> processes;
    auto end = processes.begin();
    {
        const Transaction whole = arena.transaction();
        for (Offset at = told_; at != 0 && end != processes.end(); at = waiter(at).next) {
            const HolderId process = waiter(at).process;
            if (std::find(processes.begin(), end, process) == end) *end++ = process;
        }
    }
    end = std::remove_if(processes.begin(), end, [](HolderId process) { return lives(process); });
    const std::span<const HolderId> dead(processes.begin(), end);
    while (!dead.empty()) {
        Legacy legacy;
        {
            const Transaction whole = arena.transaction();
            legacy = find_legacy(dead);
        }
        if (legacy.dead == 0) return;
        const bool heir_lives = legacy.heir != 0 && lives(legacy.process);
        Transaction tx = arena.transaction();
        if (find_legacy(dead) != legacy) continue;
        if (legacy.heir != 0) strike(tx, legacy.heir);
        if (legacy.heir != 0 && !heir_lives) {
            arena.destroy(tx, *arena.at<Block>(legacy.heir));
            continue;
        }
        strike_told(tx, legacy.dead);
        if (heir_lives) tell(tx, legacy.heir, legacy.notified);
        arena.destroy(tx, *arena.at<Block>(legacy.dead));
        if (heir_lives) os::futex_wake(waiter(legacy.heir).word(), 1);
    }
}

inline ConditionState::Legacy ConditionState::find_legacy(std::span<const HolderId> dead) const {
    for (Offset at = told_; at != 0; at = waiter(at).next) {
        const Waiter& one = waiter(at);
        if (std::find(dead.begin(), dead.end(), one.process) == dead.end()) continue;
        Legacy legacy{at, one.notified, 0, 0};
        // Who has come since does not wait for that.
        if (first_ != 0 && waiter(first_).since < one.notified) {
            legacy.heir = first_;
            legacy.process = waiter(first_).process;
        }
        return legacy;
    }
    return {};
}

inline void ConditionState::tell(Transaction& tx, Offset block, std::uint64_t notification) {
    tx.set(waiter(block).next, told_);
    tx.set(told_, block);
    tx.set(waiter(block).notified, notification);
}

inline bool ConditionState::strike_told(Transaction& tx, Offset block) {
    Offset before = 0;
    for (Offset at = told_; at != block; at = waiter(at).next) {
        if (at == 0) return false;
        before = at;
    }
    tx.set(before != 0 ? waiter(before).next : told_, waiter(block).next);
    return true;
}

inline Offset ConditionState::enlist() {
    const Arena& arena = Arena::instance();
    const HolderId me = self();
    Transaction tx = arena.transaction();
    Block& block = arena.allocate(tx, sizeof(Waiter), Arena::block_of(this).owned);
    new (Arena::payload(block)) Waiter(me, notifications_);
    const Offset offset = arena.offset_of(&block);
    tx.set(last_ != 0 ? waiter(last_).next : first_, offset);
    tx.set(last_, offset);
    tx.set(waiting_, waiting_ + 1);
    tx.commit();
    return offset;
}

inline void ConditionState::strike(Transaction& tx, Offset block) {
    Offset before = 0;
    for (Offset at = first_; at != block; at = waiter(at).next) {
        if (at == 0) return;  // not there: only if the lock was not held
        before = at;
    }
    tx.set(before != 0 ? waiter(before).next : first_, waiter(block).next);
    if (last_ == block) tx.set(last_, before);
    tx.set(waiting_, waiting_ - 1);
}

}  // namespace multiprocessing::shm
