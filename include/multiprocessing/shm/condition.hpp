// SPDX-License-Identifier: BSL-1.0
//
// A condition variable in the arena: a list of waiters, oldest first, each with a word of its own to
// sleep on. So notify(n) wakes n that wait and no other, and passes over the dead.
#pragma once

#include <multiprocessing/shm/arena.hpp>
#include <multiprocessing/shm/processes.hpp>
#include <multiprocessing/shm/user_lock.hpp>
#include <multiprocessing/shm/wait.hpp>

#include <atomic>
#include <cstdint>
#include <new>

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
        HolderId process;
        std::atomic<std::uint32_t> notified{0};
        WaitWord word{};
        explicit Waiter(HolderId id) noexcept : process(id) {}
    };

    [[nodiscard]] static Waiter& waiter(Offset block) {
        return *Arena::payload<Waiter>(*Arena::instance().at<Block>(block));
    }
    Offset enlist();
    /// Takes a waiter off the list and hands its block to `heir`.
    void strike(Offset before, Offset block, Offset& heir);

    Offset first_ = 0;
    Offset last_ = 0;
};

inline bool ConditionState::wait(UserLock& lock, os::Deadline deadline) {
    const Offset mine = enlist();
    Waiter& me = waiter(mine);
    const std::uint32_t depth = lock.release_all();
    const auto notified = [&] { return me.notified.load(std::memory_order_acquire) != 0; };
    me.word.wait(notified, deadline);
    lock.restore(depth);
    // Only now: between the deadline and the lock somebody may have counted on this waiter.
    const bool result = notified();
    if (!result) {
        Offset before = 0;
        for (Offset at = first_; at != mine; at = waiter(at).next) before = at;
        strike(before, mine, Processes::instance().owned());
    }
    const Arena& arena = Arena::instance();
    Transaction tx = arena.transaction();
    arena.destroy(tx, *arena.at<Block>(mine));
    return result;
}

inline std::uint64_t ConditionState::notify(std::uint64_t count) {
    Processes& processes = Processes::instance();
    std::uint64_t woken = 0;
    while (woken < count && first_ != 0) {
        const Offset block = first_;
        Waiter& next = waiter(block);
        const HolderId process = next.process;
        // From here on the block ends with the waiter's process, unless that is gone: then with us.
        const bool lives = process == self() || processes.alive(process);
        strike(0, block, lives ? processes.slot(process).owned : processes.owned());
        if (!lives) {
            const Arena& arena = Arena::instance();
            Transaction tx = arena.transaction();
            arena.destroy(tx, *arena.at<Block>(block));
            continue;
        }
        next.notified.store(1, std::memory_order_release);
        next.word.notify_one();
        ++woken;
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
    tx.commit();
    return offset;
}

inline void ConditionState::strike(Offset before, Offset block, Offset& heir) {
    const Arena& arena = Arena::instance();
    Transaction tx = arena.transaction();
    const Offset next = waiter(block).next;
    tx.set(before != 0 ? waiter(before).next : first_, next);
    if (last_ == block) tx.set(last_, before);
    Block& room = *arena.at<Block>(block);
    arena.unhang(tx, room);
    arena.hang(tx, heir, room);
    tx.commit();
}

}  // namespace multiprocessing::shm
