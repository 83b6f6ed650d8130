// SPDX-License-Identifier: BSL-1.0
//
// `Barrier`.
#pragma once

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/pickle/handle.hpp>
#include <multiprocessing/runtime/action.hpp>
#include <multiprocessing/shm/barrier.hpp>
#include <multiprocessing/shm/ref.hpp>
#include <multiprocessing/timeout.hpp>

#include <chrono>
#include <cstdint>
#include <ostream>
#include <string>
#include <utility>

namespace multiprocessing {

/// The arguments of `Barrier` by name.
struct BarrierOptions {
    int parties;
    /// Run by one of the parties before any goes on.
    runtime::Action action = {};
    /// For `wait()` calls that say none.
    Timeout timeout = {};
};

/// A point that `parties` processes or threads pass together. *Python*: `multiprocessing.Barrier`.
/// *If a peer dies*: one that is killed while it waits breaks the barrier for the rest within 100 ms;
/// one that never arrived is found by the timeout only.
class Barrier {
public:
    /// *Throws* ValueError for less than one party.
    explicit Barrier(int parties, runtime::Action action = {}, Timeout timeout = {});
    Barrier(BarrierOptions options)
        : Barrier(options.parties, std::move(options.action), options.timeout) {}

    /// Waits for all; returns this party's index, from 0 to parties() - 1, each once.
    /// *Throws* BrokenBarrierError when the timeout passes, or somebody aborts or resets it, or a
    /// waiting party dies; the action's exception in the party that ran it.
    int wait(Timeout timeout) const;
    int wait() const { return wait(timeout_); }
    /// Back to empty; those that wait get BrokenBarrierError.
    void reset() const { state_->reset(); }
    /// Breaks it, until `reset()`.
    void abort() const { state_->abort(); }
    [[nodiscard]] int parties() const { return static_cast<int>(state_->parties()); }
    [[nodiscard]] int n_waiting() const { return static_cast<int>(state_->waiting()); }
    [[nodiscard]] bool broken() const { return state_->broken(); }

    using travels_as_handle = void;

private:
    friend struct pickle::HandleAccess;
    friend std::ostream& operator<<(std::ostream& out, const Barrier& barrier);
    explicit Barrier(pickle::Unread) noexcept {}
    void save_handle(pickle::OArchive& archive) const;
    void load_handle(pickle::IArchive& archive);

    shm::Shared<shm::BarrierState> state_;
    runtime::Action action_;
    Timeout timeout_;
};

// ---------------------------------------------------------------------------------------------------

inline Barrier::Barrier(int parties, runtime::Action action, Timeout timeout)
    : action_(std::move(action)), timeout_(timeout) {
    if (parties < 1) {
        throw ValueError("Barrier: parties is " + std::to_string(parties) + ", but must be 1 or more");
    }
    const auto count = static_cast<std::uint32_t>(parties);
    state_ = shm::Shared<shm::BarrierState>::make(shm::BarrierState::extra_bytes(count), count);
}

inline void Barrier::save_handle(pickle::OArchive& archive) const {
    pickle::save_ref(archive, state_);
    action_.save(archive);
    archive.put(static_cast<std::int64_t>(timeout_.forever() ? -1 : timeout_.span()->count()));
}

inline void Barrier::load_handle(pickle::IArchive& archive) {
    shm::Shared<shm::BarrierState> state(pickle::load_ref(archive, sizeof(shm::BarrierState)));
    if (state.size() <
        sizeof(shm::BarrierState) + shm::BarrierState::extra_bytes(state->parties())) {
        throw UnpicklingError("the message names a barrier of another size");
    }
    state_ = std::move(state);
    action_.load(archive);
    const auto timeout = archive.get<std::int64_t>();
    timeout_ = timeout < 0 ? Timeout() : Timeout(std::chrono::nanoseconds(timeout));
}

inline int Barrier::wait(Timeout timeout) const {
    const auto index = state_->wait(timeout, [this] { action_(); });
    if (!index) {
        throw BrokenBarrierError("Barrier.wait(): the barrier is broken: a party timed out, died, or "
                                 "called abort() or reset()");
    }
    return static_cast<int>(*index);
}

/// `<multiprocessing.synchronize.Barrier at 0x7f1200000000: waiters=0/2>`, or `: broken>`.
inline std::ostream& operator<<(std::ostream& out, const Barrier& barrier) {
    out << "<multiprocessing.synchronize.Barrier at " << barrier.state_.template get<void>()
        << ": ";
    if (barrier.broken()) return out << "broken>";
    return out << "waiters=" << barrier.n_waiting() << "/" << barrier.parties() << ">";
}

}  // namespace multiprocessing
