// SPDX-License-Identifier: BSL-1.0
//
// `Semaphore` and `BoundedSemaphore`.
#pragma once

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/pickle/handle.hpp>
#include <multiprocessing/shm/ref.hpp>
#include <multiprocessing/shm/semaphore.hpp>
#include <multiprocessing/synchronize/lock.hpp>

#include <cstdint>
#include <ostream>
#include <string>

namespace multiprocessing {

/// A counter of permits. *Python*: `multiprocessing.Semaphore`.
/// *If a peer dies*: the permits it had taken do not come back: who counts signals with it would be
/// lied to.
class Semaphore : public Acquirable<Semaphore> {
public:
    /// *Throws* ValueError for a negative value.
    explicit Semaphore(int value = 1)
        : state_(shm::Shared<shm::SemaphoreState>::make(0, checked(value, "Semaphore"))) {}

    /// Gives a permit back, or, not bounded, adds one. *Throws* ValueError at the greatest value there
    /// is, or, bounded, at the initial one.
    void release() const;
    [[nodiscard]] int get_value() const { return static_cast<int>(state_->value()); }
    /// Would a try to acquire fail?
    [[nodiscard]] bool locked() const { return state_->value() == 0; }

    using travels_as_handle = void;

protected:
    explicit Semaphore(const shm::Shared<shm::SemaphoreState>& state) noexcept : state_(state) {}
    explicit Semaphore(pickle::Unread) noexcept {}
    [[nodiscard]] static std::uint32_t checked(int value, const char* name);

private:
    friend struct pickle::HandleAccess;
    friend class Acquirable<Semaphore>;
    friend std::ostream& operator<<(std::ostream& out, const Semaphore& semaphore);
    bool acquire_until(os::Deadline deadline) const { return state_->acquire(deadline); }
    void save_handle(pickle::OArchive& archive) const { pickle::save_ref(archive, state_); }
    void load_handle(pickle::IArchive& archive) {
        shm::Shared<shm::SemaphoreState> state(pickle::load_ref(archive, sizeof *state_));
        if (state.size() < state->bytes()) {
            throw UnpicklingError("the message names a semaphore of another size");
        }
        state_ = std::move(state);
    }

    shm::Shared<shm::SemaphoreState> state_;
};

/// A semaphore that cannot be released more often than it was acquired.
/// *Python*: `multiprocessing.BoundedSemaphore`.
/// *If a peer dies*: the permits it had taken come back to who waits for one, or asks for the value,
/// within 100 ms. So they do when it ends in order without giving them back; what other processes
/// release() meanwhile is taken from these.
class BoundedSemaphore : public Semaphore {
public:
    /// *Throws* ValueError for a negative value.
    explicit BoundedSemaphore(int value = 1) : Semaphore(make(checked(value, "BoundedSemaphore"))) {}

private:
    friend struct pickle::HandleAccess;
    [[nodiscard]] static shm::Shared<shm::SemaphoreState> make(std::uint32_t bound);
    explicit BoundedSemaphore(pickle::Unread unread) noexcept : Semaphore(unread) {}
};

// ---------------------------------------------------------------------------------------------------

inline std::uint32_t Semaphore::checked(int value, const char* name) {
    if (value < 0) {
        throw ValueError(std::string(name) + ": the initial value is " + std::to_string(value) +
                         ", but must be 0 or more");
    }
    return static_cast<std::uint32_t>(value);
}

inline shm::Shared<shm::SemaphoreState> BoundedSemaphore::make(std::uint32_t bound) {
    const std::uint32_t shares = shm::SemaphoreState::shares_for(bound);
    return shm::Shared<shm::SemaphoreState>::make(shm::SemaphoreState::extra_bytes(shares), bound,
                                                  shares);
}

inline void Semaphore::release() const {
    if (!state_->release()) {
        throw ValueError(std::string(state_->is_bounded() ? "BoundedSemaphore" : "Semaphore") +
                         ".release(): semaphore or lock released too many times (there can "
                         "be no more than " + std::to_string(state_->bound()) + " permits)");
    }
}

/// `<Semaphore(value=1)>`, `<BoundedSemaphore(value=1, maxvalue=2)>`.
inline std::ostream& operator<<(std::ostream& out, const Semaphore& semaphore) {
    const shm::Shared<shm::SemaphoreState>& state = semaphore.state_;
    if (!state->is_bounded()) return out << "<Semaphore(value=" << state->value() << ")>";
    return out << "<BoundedSemaphore(value=" << state->value() << ", maxvalue=" << state->bound()
               << ")>";
}

}  // namespace multiprocessing
