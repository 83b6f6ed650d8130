// SPDX-License-Identifier: BSL-1.0
//
// A barrier in the arena. Each party has a seat that names its process, so that one which is killed
// while it waits breaks the barrier for the rest instead of hanging them.
#pragma once

#include <multiprocessing/shm/process_mutex.hpp>
#include <multiprocessing/shm/processes.hpp>
#include <multiprocessing/shm/wait.hpp>

#include <atomic>
#include <cstdint>
#include <mutex>
#include <optional>
#include <span>

namespace multiprocessing::shm {

/// The shared object, followed by one seat a party. The states are those of Python's
/// threading.Barrier: filling until the last party comes and acts, then draining until the last has
/// left.
class BarrierState {
public:
    explicit BarrierState(std::uint32_t parties) noexcept : parties_(parties) {
        for (auto& seat : seats()) seat = 0;
    }
    [[nodiscard]] static std::uint64_t extra_bytes(std::uint32_t parties) noexcept {
        return parties * sizeof(HolderId);
    }

    [[nodiscard]] std::uint32_t parties() const noexcept { return parties_; }
    [[nodiscard]] std::uint32_t waiting();
    [[nodiscard]] bool broken() const noexcept { return state() == State::broken; }

    /// Waits for all. The party's index, or nothing if the barrier is or becomes broken. The last one
    /// to come runs `action` first; if it throws, the barrier breaks.
    template <class Action>
    std::optional<std::uint32_t> wait(os::Deadline deadline, Action&& action);
    void reset();
    void abort();

private:
    enum class State : std::uint32_t { filling, acting, draining, resetting, broken };

    [[nodiscard]] State state() const noexcept { return state_.load(std::memory_order_acquire); }
    [[nodiscard]] std::span<HolderId> seats() noexcept {
        return {reinterpret_cast<HolderId*>(this + 1), parties_};
    }
    /// Takes the mutex; after a death inside, nothing is known but who sits.
    [[nodiscard]] std::unique_lock<BarrierState> guard() { return std::unique_lock(*this); }
    void change(State state) noexcept {
        state_.store(state, std::memory_order_release);
        changed_.notify_all();
    }
    void leave(std::uint32_t index);
    void remove_dead() {
        const auto lock = guard();
        static_cast<void>(find_dead());
    }
    /// With the mutex. True if there were any.
    bool find_dead();

    friend class std::unique_lock<BarrierState>;
    void lock() {
        if (mutex_.lock()) change(State::broken);
    }
    void unlock() noexcept { mutex_.unlock(); }

    ProcessMutex mutex_;
    WaitWord changed_;
    std::atomic<State> state_{State::filling};
    std::uint32_t parties_;
    os::Clock::time_point begun_{};  // when the first of this round came
};

template <class Action>
std::optional<std::uint32_t> BarrierState::wait(os::Deadline deadline, Action&& action) {
    const auto idle = [this] { remove_dead(); };
    std::uint32_t index = 0;
    for (;;) {
        // Those of the last round leave first, whatever the deadline: that is a matter of moments, and
        // to break the barrier would be to break what they have passed.
        const auto settled = [this] {
            return state() == State::filling || state() == State::broken;
        };
        changed_.wait(settled, os::Deadline::never(), idle);
        const auto lock = guard();
        if (state() == State::broken) return std::nullopt;
        if (state() != State::filling) continue;
        index = 0;
        while (seats()[index] != 0) ++index;
        if (index == 0) begun_ = os::Clock::now();
        // Among two there is nobody else who would have found out that the first is dead by now.
        const bool last = index + 1 == parties_;
        if (last && index != 0 && os::Clock::now() - begun_ > patience && find_dead()) {
            return std::nullopt;
        }
        seats()[index] = self();
        if (last) state_.store(State::acting, std::memory_order_release);
        break;
    }
    const auto over = [this] { return state() != State::filling && state() != State::acting; };
    if (index + 1 == parties_) {
        try {
            action();
        } catch (...) {
            abort();
            leave(index);
            throw;
        }
        const auto lock = guard();
        if (state() == State::acting) change(State::draining);
    } else if (!changed_.wait(over, deadline, idle)) {
        {
            const auto lock = guard();
            if (state() == State::filling) change(State::broken);
        }
        // All have come: nobody is late, and the action takes as long as it takes.
        changed_.wait(over, os::Deadline::never(), idle);
    }
    const bool passed = state() == State::draining;
    leave(index);
    if (!passed) return std::nullopt;
    return index;
}

inline std::uint32_t BarrierState::waiting() {
    const auto lock = guard();
    if (state() != State::filling && state() != State::acting) return 0;
    std::uint32_t count = 0;
    for (const HolderId seat : seats()) count += seat != 0 ? 1 : 0;
    return count;
}

inline void BarrierState::leave(std::uint32_t index) {
    const auto lock = guard();
    seats()[index] = 0;
    for (const HolderId seat : seats()) {
        if (seat != 0) return;
    }
    if (state() == State::draining || state() == State::resetting) change(State::filling);
}

inline bool BarrierState::find_dead() {
    bool found = false;
    bool empty = true;
    for (HolderId& seat : seats()) {
        if (seat != 0 && seat != self() && !alive(seat)) {
            seat = 0;
            found = true;
        }
        empty = empty && seat == 0;
    }
    if (!found) return false;
    if (state() == State::filling || state() == State::acting) {
        change(State::broken);
    } else if (empty && state() != State::broken) {
        change(State::filling);
    }
    return true;
}

inline void BarrierState::reset() {
    const auto lock = guard();
    // All have come: nobody waits any more, as far as Python is concerned, unless the one that acts died.
    if (state() == State::acting && !find_dead()) return;
    bool empty = true;
    for (const HolderId seat : seats()) empty = empty && seat == 0;
    if (empty) {
        change(State::filling);
    } else if (state() != State::draining) {
        change(State::resetting);
    }
}

inline void BarrierState::abort() {
    const auto lock = guard();
    change(State::broken);
}

}  // namespace multiprocessing::shm
