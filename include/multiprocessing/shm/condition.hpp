// SPDX-License-Identifier: BSL-1.0
//
// A condition variable in the arena: a list of waiters, oldest first, each with a word of its own
// to sleep on. So notify(n) wakes n that wait and no other, and passes over the dead. Who has been
// notified sleeps on until the lock is released: it could do nothing before.
#pragma once

#include <multiprocessing/os/futex.hpp>
#include <multiprocessing/shm/arena.hpp>
#include <multiprocessing/shm/processes.hpp>
#include <multiprocessing/shm/user_lock.hpp>
#include <multiprocessing/shm/wait.hpp>

#include <atomic>
#include <bit>
#include <cstdint>
#include <new>

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
        std::uint64_t notified = 0;  // part of the transaction that takes it off the list
        HolderId process;
        explicit Waiter(HolderId id) noexcept : process(id) {}
        /// The half of `notified` that changes, for the kernel to look at.
        [[nodiscard]] const std::atomic<std::uint32_t>& word() const noexcept {
            return reinterpret_cast<const std::atomic<std::uint32_t>*>(
                &notified)[std::endian::native == std::endian::little ? 0 : 1];
        }
    };

    [[nodiscard]] static Waiter& waiter(Offset block) {
        return *Arena::payload<Waiter>(*Arena::instance().at<Block>(block));
    }
    Offset enlist();
    /// Takes a waiter off the list.
    void strike(Transaction& tx, Offset block);

    Offset first_ = 0;
    Offset last_ = 0;
    std::uint64_t waiting_ = 0;  // how many are on the list
};

inline bool ConditionState::wait(UserLock& lock, os::Deadline deadline) {
    const Offset mine = enlist();
    Waiter& me = waiter(mine);
    const std::uint32_t depth = lock.release_all();
    const auto notified = [&me] {
        return std::atomic_ref(me.notified).load(std::memory_order_acquire) != 0;
    };
    // Who yields is not the next to run where there is but one processor.
    bool gone = notified() || (!one_processor() && !deadline.expired() && Spin::until(notified));
    while (!gone && !deadline.expired()) {
        // A nap, for a notifier that is killed before its call of the kernel.
        os::futex_wait(me.word(), 0, os::Deadline::after(patience).earlier(deadline));
        gone = notified();
    }
    lock.restore(depth);
    // Only now: between the deadline and the lock somebody may have counted on this waiter. And inside
    // a transaction: what a notifier did who was killed before its end is undone.
    const Arena& arena = Arena::instance();
    Transaction tx = arena.transaction();
    const bool result = notified();
    if (!result) strike(tx, mine);
    arena.destroy(tx, *arena.at<Block>(mine));
    return result;
}

inline std::uint64_t ConditionState::notify(UserLock& lock, std::uint64_t count) {
    const Arena& arena = Arena::instance();
    Processes& processes = Processes::instance();
    // An empty list may be what a notifier has left who was killed before its end, and is looked at
    // again when that is undone.
    const auto anybody = [&] {
        if (first_ != 0) return true;
        const Transaction whole = arena.transaction();
        return first_ != 0;
    };
    std::uint64_t woken = 0;
    while (woken < count && anybody()) {
        Transaction tx = arena.transaction();
        const Offset first = first_;
        if (first == 0) break;
        Waiter& next = waiter(first);
        Block& block = *arena.at<Block>(first);
        const HolderId process = next.process;
        strike(tx, first);
        ProcessSlot& home = processes.slot(process);
        if (home.holder != process) {
            arena.destroy(tx, block);
            continue;
        }
        // From here on the block ends with the waiter's process.
        arena.unhang(tx, block);
        arena.hang(tx, home.owned, block);
        tx.set(next.notified, 1);
        tx.commit();
        // Not later: until the mutex is free the block stays.
        const bool slept = lock.line_up(next.word(), 1);
        tx.unlock();
        // Who sleeps lives. Of the rest it has to be asked, which takes longer than all else here.
        if (slept || process == self() || processes.alive(process)) ++woken;
    }
    return woken;
}

inline Offset ConditionState::enlist() {
    const Arena& arena = Arena::instance();
    const HolderId me = self();
    Transaction tx = arena.transaction();
    Block& block = arena.allocate(tx, sizeof(Waiter), Arena::block_of(this).owned);
    new (Arena::payload(block)) Waiter(me);
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
