// SPDX-License-Identifier: BSL-1.0
//
// Counting semaphores in the arena: one whose permits are nobody's, for it may count signals, and a
// bounded one that knows who has taken its permits, so that those of a process that has ended come
// back.
#pragma once

#include <multiprocessing/shm/cells.hpp>
#include <multiprocessing/shm/process_mutex.hpp>
#include <multiprocessing/shm/processes.hpp>
#include <multiprocessing/shm/wait.hpp>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <mutex>
#include <new>
#include <span>

namespace multiprocessing::shm {

/// The shared object; a bounded one is followed by a mutex and a share for each process that may
/// hold permits.
class SemaphoreState {
public:
    static constexpr std::uint32_t most = 0x7fff'ffff;  // SEM_VALUE_MAX

    /// Not bounded.
    explicit SemaphoreState(std::uint32_t value) noexcept : value_(value), bound_(most), shares_(0) {}
    /// Bounded, and at its bound.
    SemaphoreState(std::uint32_t bound, std::uint32_t shares) noexcept
        : value_(bound), bound_(bound), shares_(shares) {
        new (&mutex()) ProcessMutex;
        for (auto& share : this->shares()) share.store(0, std::memory_order_relaxed);
    }
    /// As many as there can be processes with a permit.
    [[nodiscard]] static std::uint32_t shares_for(std::uint32_t bound) noexcept {
        return std::clamp(bound, std::uint32_t{1}, static_cast<std::uint32_t>(ArenaHeader::slots));
    }
    [[nodiscard]] static std::uint64_t extra_bytes(std::uint32_t shares) noexcept {
        return sizeof(ProcessMutex) + shares * sizeof(Share);
    }
    /// With what follows.
    [[nodiscard]] std::uint64_t bytes() const noexcept {
        return sizeof(SemaphoreState) + (is_bounded() ? extra_bytes(shares_) : 0);
    }

    [[nodiscard]] bool is_bounded() const noexcept { return shares_ != 0; }
    [[nodiscard]] std::uint32_t bound() const noexcept { return bound_; }
    [[nodiscard]] std::uint32_t value() {
        if (is_bounded() && available() != bound_) static_cast<void>(reclaim());
        return available();
    }
    bool acquire(os::Deadline deadline);
    /// False if it is at its bound.
    bool release();

private:
    // A holder's id above, how many permits it has below. One store takes or gives back a permit;
    // `value_` follows, and is counted anew when somebody was killed in between.
    using Share = std::atomic<std::uint64_t>;

    [[nodiscard]] std::uint32_t available() const noexcept {
        return value_.load(std::memory_order_relaxed);
    }
    // Guards the shares.
    [[nodiscard]] ProcessMutex& mutex() noexcept {
        return *reinterpret_cast<ProcessMutex*>(this + 1);
    }
    [[nodiscard]] std::span<Share> shares() noexcept {
        return {reinterpret_cast<Share*>(&mutex() + 1), shares_};
    }
    [[nodiscard]] static std::uint32_t count_of(const Share& share) noexcept {
        return static_cast<std::uint32_t>(share.load(std::memory_order_relaxed));
    }
    [[nodiscard]] static HolderId holder_of(const Share& share) noexcept {
        return static_cast<HolderId>(share.load(std::memory_order_relaxed) >> 32);
    }
    static void set(Share& share, HolderId holder, std::uint32_t count) noexcept {
        share.store(std::uint64_t{holder} << 32 | count, std::memory_order_relaxed);
    }

    bool take();
    bool take_share();
    bool give_back_share();
    /// Gives back what processes that have ended had taken; false if there was nothing.
    bool reclaim();
    void count_anew() noexcept;

    friend class std::lock_guard<SemaphoreState>;
    void lock() {
        if (mutex().lock()) count_anew();
    }
    void unlock() noexcept { mutex().unlock(); }

    WaitWord waiting_;
    std::atomic<std::uint32_t> value_;
    std::uint32_t bound_;
    std::uint32_t shares_;
};
static_assert(sizeof(SemaphoreState) == Cells::payload_bytes, "semaphores there may be many of");
static_assert(sizeof(ProcessMutex) % alignof(std::uint64_t) == 0, "shares follow");

inline bool SemaphoreState::acquire(os::Deadline deadline) {
    if (!is_bounded()) return waiting_.wait([this] { return take(); }, deadline);
    const auto idle = [this] { static_cast<void>(reclaim()); };
    if (waiting_.wait([this] { return take_share(); }, deadline, idle)) return true;
    // A poll still notices the dead: it is the only look that some callers ever take.
    return reclaim() && take_share();
}

inline bool SemaphoreState::release() {
    if (is_bounded()) {
        if (!give_back_share()) return false;
    } else {
        std::uint32_t seen = available();
        do {
            if (seen >= bound_) return false;
        } while (!value_.compare_exchange_weak(seen, seen + 1, std::memory_order_release,
                                               std::memory_order_relaxed));
    }
    waiting_.notify_one();
    return true;
}

inline bool SemaphoreState::take() {
    std::uint32_t seen = available();
    while (seen != 0) {
        if (value_.compare_exchange_weak(seen, seen - 1, std::memory_order_acquire,
                                         std::memory_order_relaxed)) {
            return true;
        }
    }
    return false;
}

inline bool SemaphoreState::take_share() {
    if (available() == 0) return false;
    const HolderId me = self();
    const std::lock_guard lock(*this);
    if (available() == 0) return false;
    Share* mine = nullptr;
    for (Share& share : shares()) {
        const std::uint32_t count = count_of(share);
        if (count != 0 && holder_of(share) == me) {
            mine = &share;
            break;
        }
        if (count == 0 && mine == nullptr) mine = &share;
    }
    if (mine == nullptr) return false;  // the dead have them all, and reclaim() comes next
    const std::uint32_t before = count_of(*mine);
    set(*mine, me, before + 1);
    value_.store(available() - 1, std::memory_order_relaxed);
    return true;
}

inline bool SemaphoreState::give_back_share() {
    const HolderId me = self();
    const std::lock_guard lock(*this);
    // Its own if it has any; else, as Python allows, one that another process took.
    Share* given = nullptr;
    for (Share& share : shares()) {
        if (count_of(share) == 0) continue;
        given = &share;
        if (holder_of(share) == me) break;
    }
    if (given == nullptr) return false;
    set(*given, holder_of(*given), count_of(*given) - 1);
    value_.store(available() + 1, std::memory_order_relaxed);
    return true;
}

inline bool SemaphoreState::reclaim() {
    const HolderId me = self();
    bool found = false;
    {
        const std::lock_guard lock(*this);
        for (Share& share : shares()) {
            const HolderId holder = holder_of(share);
            if (count_of(share) == 0 || holder == me || alive(holder)) continue;
            set(share, 0, 0);
            found = true;
        }
        if (found) count_anew();
    }
    if (found) waiting_.notify_all();
    return found;
}

inline void SemaphoreState::count_anew() noexcept {
    std::uint64_t taken = 0;
    for (const Share& share : shares()) taken += count_of(share);
    value_.store(static_cast<std::uint32_t>(bound_ - taken), std::memory_order_relaxed);
}

}  // namespace multiprocessing::shm
