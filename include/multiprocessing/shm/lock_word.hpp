// SPDX-License-Identifier: BSL-1.0
//
// The lock that users hold: a futex word that names the process holding it. Unlike a robust mutex it
// may be released by another process (Python's Lock is ownerless), and it is given up by a process
// that ends in any way, not by a thread. Under `Lock`, `RLock` and what is built on them.
#pragma once

#include <multiprocessing/os/futex.hpp>
#include <multiprocessing/shm/processes.hpp>
#include <multiprocessing/shm/wait.hpp>

#include <atomic>
#include <cstdint>

namespace multiprocessing::shm {

/// Whether a lock was taken, and whether from a holder that had ended.
struct Taken {
    bool taken;
    bool from_the_dead = false;
    operator bool() const noexcept { return taken; }
};

/// A lock word. 0: free; else the holder's id, and the top bit when somebody may be asleep.
class LockWord {
public:
    /// Takes the lock for this process. A holder that has ended is noticed within `patience`; then
    /// abandoned() is true until the next release.
    Taken acquire(os::Deadline deadline) {
        const HolderId me = self();
        std::uint32_t seen = 0;
        if (word_.compare_exchange_strong(seen, me, std::memory_order_acquire)) [[likely]] {
            return {true};
        }
        return wait(deadline, me);
    }
    /// Takes it for one that line_up() may have put among those who wait for it: there may be more.
    Taken acquire_from_the_line() { return wait(os::Deadline::never(), self() | contended); }
    /// By who holds the lock: who sleeps on `word` as long as that is `expected` sleeps until the
    /// lock is released instead. False if nobody does.
    bool line_up(const std::atomic<std::uint32_t>& word, std::uint32_t expected) noexcept {
        if (os::futex_requeue(word, expected, word_) == 0) return false;
        // Not before: the holder has not released it yet. Should it be killed now, the sleeper's
        // nap ends.
        word_.fetch_or(contended, std::memory_order_relaxed);
        return true;
    }
    /// Lets the next one in. Returns false if the lock was not taken.
    bool release() noexcept;

    [[nodiscard]] bool locked() const noexcept { return holder() != 0; }
    /// Who holds it, or 0.
    [[nodiscard]] HolderId holder() const noexcept {
        return word_.load(std::memory_order_relaxed) & holder_mask;
    }
    /// Did the holder before this one end without releasing?
    [[nodiscard]] bool abandoned() const noexcept {
        return abandoned_.load(std::memory_order_relaxed) != 0;
    }
    /// Called by its holder: what it guards is whole, and the lock abandoned no more.
    void mark_consistent() noexcept { abandoned_.store(0, std::memory_order_relaxed); }

private:
    /// The rest of acquire(): `mine` is what the word is to be.
    Taken wait(os::Deadline deadline, std::uint32_t mine);

    static constexpr std::uint32_t contended = ~holder_mask;

    std::atomic<std::uint32_t> word_{0};
    std::atomic<std::uint32_t> abandoned_{0};
};

inline Taken LockWord::wait(os::Deadline deadline, std::uint32_t mine) {
    std::uint32_t seen = 0;
    const auto take = [&] {
        seen = word_.load(std::memory_order_relaxed);
        return (seen & holder_mask) == 0 &&
               word_.compare_exchange_strong(seen, mine | (seen & contended),
                                             std::memory_order_acquire);
    };
    if (take()) return {true};
    if (deadline.expired()) {
        // A poll still notices the dead: it is the only look that some waiters ever take.
        if ((seen & holder_mask) == 0 || alive(seen & holder_mask)) return {false};
    } else {
        if (LongSpin::until(take)) return {true};
    }
    // Others may sleep too, so whoever takes it after a sleep leaves the flag up.
    mine |= contended;
    bool look = false;
    for (;;) {
        seen = word_.load(std::memory_order_relaxed);
        if ((seen & holder_mask) == 0) {
            if (word_.compare_exchange_weak(seen, mine, std::memory_order_acquire)) return {true};
            continue;
        }
        if ((look || deadline.expired()) && !alive(seen & holder_mask)) {
            if (!word_.compare_exchange_strong(seen, mine, std::memory_order_acquire)) {
                continue;
            }
            // Who is killed between the two has abandoned it in turn.
            abandoned_.store(1, std::memory_order_relaxed);
            return {true, true};
        }
        if (deadline.expired()) return {false};
        if ((seen & contended) == 0 &&
            !word_.compare_exchange_weak(seen, seen | contended, std::memory_order_relaxed)) {
            continue;
        }
        look = !os::futex_wait(word_, seen | contended,
                               os::Deadline::after(patience).earlier(deadline));
    }
}

inline bool LockWord::release() noexcept {
    if (abandoned()) mark_consistent();
    const std::uint32_t before = word_.exchange(0, std::memory_order_release);
    if ((before & contended) != 0) os::futex_wake(word_, 1);
    return before != 0;
}

}  // namespace multiprocessing::shm
