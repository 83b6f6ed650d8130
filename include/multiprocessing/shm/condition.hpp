// SPDX-License-Identifier: BSL-1.0
//
// A condition variable in the arena: a list of waiters, oldest first, each with a word of its own to
// sleep on. So notify(n) wakes n that wait and no other, and passes over the dead. Who has been told
// stays on another list until it has the lock: should it be killed before, the rest pass it on.
#pragma once

#include <multiprocessing/shm/arena.hpp>
#include <multiprocessing/shm/processes.hpp>
#include <multiprocessing/shm/user_lock.hpp>
#include <multiprocessing/shm/wait.hpp>

#include <algorithm>
#include <array>
#include <atomic>
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
    /// Wakes at most `count` waiters; returns how many.
    std::uint64_t notify(std::uint64_t count);

private:
    struct Waiter {
        Offset next = 0;
        std::uint64_t notified = 0;  // by which notification: the transaction that takes it off the list
        std::uint64_t since;         // how many notifications there had been
        HolderId process;
        WaitWord word{};
        Waiter(HolderId id, std::uint64_t count) noexcept : since(count), process(id) {}
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
    void strike_told(Transaction& tx, Offset block);
    /// Puts a waiter on the list of those who are told.
    void tell(Transaction& tx, Offset block, std::uint64_t notification);
    /// Has others told instead of those who have died since they were. Without the user's lock, too.
    void pass_on();
    [[nodiscard]] Legacy find_legacy(std::span<const HolderId> dead) const;

    Offset first_ = 0;
    Offset last_ = 0;
    Offset told_ = 0;
    std::uint64_t notifications_ = 0;
    std::atomic<os::Clock::rep> looked_{0};  // when it was last seen to those who were told
};

inline bool ConditionState::wait(UserLock& lock, os::Deadline deadline) {
    const Offset mine = enlist();
    Waiter& me = waiter(mine);
    const std::uint32_t depth = lock.release_all();
    const auto notified = [&me] {
        return std::atomic_ref(me.notified).load(std::memory_order_acquire) != 0;
    };
    const Arena& arena = Arena::instance();
    // Inside a transaction it is for good: what a notifier did who was killed before its end is undone.
    const auto for_good = [&] {
        const Transaction whole = arena.transaction();
        return notified();
    };
    while (me.word.wait(notified, deadline, [this] { pass_on(); }) && !for_good()) {
    }
    lock.restore(depth);
    // Only now: between the deadline and the lock somebody may have counted on this waiter.
    Transaction tx = arena.transaction();
    const bool result = notified();
    result ? strike_told(tx, mine) : strike(tx, mine);
    arena.destroy(tx, *arena.at<Block>(mine));
    return result;
}

inline std::uint64_t ConditionState::notify(std::uint64_t count) {
    const Arena& arena = Arena::instance();
    const auto load = [](auto& word) { return std::atomic_ref(word).load(std::memory_order_relaxed); };
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
        const Offset first = load(first_);
        if (first == 0) continue;
        const HolderId process = load(waiter(first).process);
        const bool is_there = lives(process);
        Transaction tx = arena.transaction();
        // Somebody passes on, or the lock has changed hands behind its owner's back.
        if (first_ != first || waiter(first).process != process) continue;
        strike(tx, first);
        if (!is_there) {
            arena.destroy(tx, *arena.at<Block>(first));
            continue;
        }
        if (number == 0) {
            number = notifications_ + 1;
            tx.set(notifications_, number);
        }
        tell(tx, first, number);
        tx.commit();
        waiter(first).word.notify_one();  // not later: until the mutex is free the block stays
        ++woken;
    }
    return woken;
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
        if (heir_lives) waiter(legacy.heir).word.notify_one();
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

inline void ConditionState::strike_told(Transaction& tx, Offset block) {
    Offset before = 0;
    for (Offset at = told_; at != block; at = waiter(at).next) {
        if (at == 0) return;
        before = at;
    }
    tx.set(before != 0 ? waiter(before).next : told_, waiter(block).next);
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
}

}  // namespace multiprocessing::shm
