// SPDX-License-Identifier: BSL-1.0
//
// Waiting for something in shared memory to become true: a short spin, then sleep on a futex. The
// word carries no count of sleepers, so one that is killed in its sleep leaves nothing wrong behind.
#pragma once

#include <multiprocessing/os/clock.hpp>
#include <multiprocessing/os/cpu.hpp>
#include <multiprocessing/os/fault.hpp>
#include <multiprocessing/os/fence.hpp>
#include <multiprocessing/os/futex.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <climits>
#include <cstdint>
#include <thread>

namespace multiprocessing::shm {

/// How long a sleeper sleeps before it looks for what no wake-up tells: that the one who was to wake
/// it, or the one who was woken in its place, has been killed.
inline constexpr std::chrono::milliseconds patience{50};

/// Is there but one processor for this process? Looked up once; threads that do so at the same time
/// find the same.
[[nodiscard]] inline bool one_processor() noexcept {
    static constinit std::atomic<int> processors{0};  // 0: not known yet
    int count = processors.load(std::memory_order_relaxed);
    if (count == 0) [[unlikely]] {
        count = os::affinity_cpu_count();
        processors.store(count, std::memory_order_relaxed);
    }
    return count == 1;
}

/// How many steps a wait of this thread spins before it sleeps: waking a sleeper costs 20 to 50 µs,
/// so spinning pays where answers are quick, and is given up where they are not. Now and then it is
/// tried again at full length: two who have given it up would else sleep for each other for ever.
///
/// At most `most` steps, at least `least`, and one in `between_yields` is for others to run. Steps
/// grow from one pause to `longest`.
template <int most, int least, int between_yields, int longest = 1>
class Spinning {
public:
    template <class Ready>
    static bool until(Ready& ready) {
        return steps_until(ready) >= 0;
    }
    /// After how many steps; -1 if in vain.
    template <class Ready>
    static int steps_until(Ready& ready) {
        const bool alone = one_processor();
        for (int step = 0, pauses = 1; step < steps_; ++step) {
            if (ready()) {
                steps_ = std::min(steps_ * 2, most);
                return step;
            }
            if (alone && step != 0) return -1;
            // Who is to answer may be waiting for this very processor.
            if (alone || step % between_yields == between_yields - 1) {
                std::this_thread::yield();
            } else {
                for (int i = 0; i < pauses; ++i) os::spin_pause();
                pauses = std::min(2 * pauses, longest);
            }
        }
        steps_ = ++failures_ % between_trials == 0 ? most : std::max(steps_ / 2, least);
        return -1;
    }

private:
    static constexpr unsigned between_trials = 16;
    static inline thread_local int steps_ = most;
    static inline thread_local unsigned failures_ = 0;
};

/// For what is seen by a look at memory.
using Spin = Spinning<1024, 64, 16>;

/// For what is taken and given back by others again and again: who looks at it all the time takes
/// their cache line from them each time, and who stays away for some turns of theirs costs them
/// nothing.
using LongSpin = Spinning<64, 4, 8, 32>;

/// Keeps many who sleep at one place for long from looking up each by itself: they do so in turn. Shared
/// by them, and only ever a hint.
class Lookout {
public:
    /// When the caller, who has slept a while already, is to look: `interval` after the one before it.
    [[nodiscard]] os::Clock::time_point next(std::chrono::milliseconds interval) noexcept {
        const auto now = os::Clock::now();
        const os::Clock::time_point last(os::Clock::duration(last_.load(std::memory_order_relaxed)));
        const auto mine = std::min(std::max(now, last) + interval, now + longest);
        last_.store(mine.time_since_epoch().count(), std::memory_order_relaxed);
        return mine;
    }
    /// Somebody has been woken: from now on.
    void restart() noexcept { last_.store(0, std::memory_order_relaxed); }

private:
    // Should several be killed at once, those who are left have forgotten nothing for longer.
    static constexpr std::chrono::seconds longest{5};

    std::atomic<os::Clock::rep> last_{0};
};

/// How long a sleeper sleeps at a time: `first`, then four times as long each time, up to `most`; then
/// in turn with others, if there is a lookout.
struct Naps {
    std::chrono::milliseconds first{patience};
    std::chrono::milliseconds most{patience};
    Lookout* lookout = nullptr;

    /// For waits that may be long and that many may be in: they cost two looks a second for all who
    /// sleep, or if there are dozens of them one each in five seconds. (Naps shorter than the kernel's
    /// tick would double the price of a sleep: a timer that is the next to go off has to be told to the
    /// hardware.)
    [[nodiscard]] static Naps long_ones(Lookout& lookout) noexcept {
        return {patience, std::chrono::milliseconds(450), &lookout};
    }
};

/// A place to wait at: bit 0 says that somebody may be asleep, the rest counts so that no wake-up
/// falls between a sleeper's last look and its sleep.
class WaitWord {
public:
    /// Blocks until ready() is true (returned) or the deadline has passed (false). `ready` is called
    /// again and again and may change state when it succeeds. `idle` is called each time that a nap
    /// has passed without a wake-up.
    template <class Ready, class Idle>
    bool wait(Ready ready, os::Deadline deadline, Idle idle, Naps naps = {}) {
        if (ready()) return true;
        if (deadline.expired()) return false;
        if (Spin::until(ready)) return true;
        return sleep_until(ready, [] {}, deadline, idle, naps);
    }
    template <class Ready>
    bool wait(Ready ready, os::Deadline deadline) {
        return wait(std::move(ready), deadline, [] {});
    }
    /// The same for what is long in coming. Where there is but one processor it does not yield
    /// before it sleeps: who yields is not the next to run when it is woken.
    template <class Ready>
    bool wait_for_signal(Ready ready, os::Deadline deadline) {
        if (!one_processor()) return wait(std::move(ready), deadline);
        if (ready()) return true;
        if (deadline.expired()) return false;
        return sleep_until(
            ready, [] {}, deadline, [] {}, {});
    }
    /// Without the spin. `prepare` is called before the last look of each sleep.
    template <class Ready, class Prepare, class Idle>
    bool sleep_until(Ready ready, Prepare prepare, os::Deadline deadline, Idle idle, Naps naps);

    /// After a change: wakes one sleeper, or all. Costs a fence when nobody sleeps. Not where rouse() is
    /// called too: those whom that leaves asleep are not seen.
    void notify_one() noexcept { notify(1); }
    void notify_all() noexcept { notify(INT_MAX); }

    /// After a change that anybody here can make use of: wakes one sleeper at most, and no other
    /// until that one runs, who then has to call this for what it leaves. So a burst of changes costs
    /// one system call. There is no fence either: the processor may look at the flag before it has
    /// shown the change to others. Against that a sleeper pauses before its last look for longer than
    /// that takes; and should it not have, its nap ends.
    void rouse() noexcept {
        if ((word_.load(std::memory_order_relaxed) & sleepers) != 0) [[unlikely]] rouse_one();
    }
    /// Wakes all who sleep, whoever has been roused before them. Always a system call.
    void rouse_all() noexcept {
        word_.fetch_add(2, std::memory_order_seq_cst);  // who is about to sleep does not
        os::futex_wake(word_, INT_MAX);
    }

    /// Waits until every change made by now, by whatever processor, can be seen. (Others may run on more
    /// processors than this process.)
    static void settle() noexcept {
        const auto settled = os::Clock::now() + settling;
        while (os::Clock::now() < settled) os::spin_pause();
    }

private:
    static constexpr std::uint32_t sleepers = 1;
    // Longer than a processor keeps a store to itself.
    static constexpr std::chrono::nanoseconds settling{200};

    void notify(int count) noexcept;
    void rouse_one() noexcept;

    std::atomic<std::uint32_t> word_{0};
};

template <class Ready, class Prepare, class Idle>
bool WaitWord::sleep_until(Ready ready, Prepare prepare, os::Deadline deadline, Idle idle,
                           Naps naps) {
    for (auto nap = naps.first;;) {
        std::uint32_t seen = word_.load(std::memory_order_relaxed);
        // Changing the word even if the flag is up keeps a notifier from taking it down now.
        const std::uint32_t mine = (seen + 2) | sleepers;
        if (!word_.compare_exchange_weak(seen, mine, std::memory_order_seq_cst)) continue;
        prepare();
        settle();
        if (ready()) return true;
        MULTIPROCESSING_FAULT_POINT("wait: announced, not asleep");
        const auto nap_end = naps.lookout != nullptr && nap == naps.most
                                 ? os::Deadline::at(naps.lookout->next(nap))
                                 : os::Deadline::after(nap);
        const bool woken = os::futex_wait(word_, mine, nap_end.earlier(deadline));
        MULTIPROCESSING_FAULT_POINT("wait: awake");
        if (woken) {
            // Others may sleep on; who roused this one has taken the flag down.
            word_.fetch_or(sleepers, std::memory_order_relaxed);
            if (naps.lookout != nullptr) naps.lookout->restart();
        }
        if (ready()) return true;
        if (deadline.expired()) return false;
        if (!woken) {
            idle();
            nap = std::min(nap * 4, naps.most);
        }
    }
}

inline void WaitWord::notify(int count) noexcept {
    // Orders the change that is announced before the look at the flag; its counterpart is the
    // exchange above, between the sleeper's flag and its last look.
    if ((os::look_after_fence(word_) & sleepers) == 0) return;
    std::uint32_t mine = (word_.fetch_add(2, std::memory_order_seq_cst) + 2) | sleepers;
    MULTIPROCESSING_FAULT_POINT("notify: word changed, nobody woken");
    if (os::futex_wake(word_, count) == 0 || count == INT_MAX) {
        // Nobody sleeps, unless the word has changed since: then the flag stays up.
        word_.compare_exchange_strong(mine, mine & ~sleepers, std::memory_order_relaxed);
        MULTIPROCESSING_FAULT_POINT("notify: nobody sleeps any more");
    }
}

inline void WaitWord::rouse_one() noexcept {
    std::uint32_t seen = word_.load(std::memory_order_relaxed);
    while ((seen & sleepers) != 0) {
        if (word_.compare_exchange_weak(seen, (seen + 2) & ~sleepers, std::memory_order_seq_cst)) {
            MULTIPROCESSING_FAULT_POINT("rouse: flag taken down, nobody woken");
            os::futex_wake(word_, 1);
            return;
        }
    }
}

}  // namespace multiprocessing::shm
