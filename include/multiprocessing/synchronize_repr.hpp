// SPDX-License-Identifier: BSL-1.0
//
// What locks, semaphores, conditions, events and barriers print as: the `repr` of Python's.
// Included by synchronize.hpp.
#pragma once

#include <multiprocessing/os/process.hpp>
#include <multiprocessing/runtime/log.hpp>
#include <multiprocessing/synchronize.hpp>

#include <ostream>
#include <string>

namespace multiprocessing {

/// `<Lock(owner=None)>`, `<Lock(owner=MainProcess)>`, `<Lock(owner=MainProcess|T1)>` in a thread T1
/// that has it, SomeOtherThread or SomeOtherProcess; `<RLock(None, 0)>`, `<RLock(MainProcess, 3)>`,
/// `<RLock(SomeOtherThread, nonzero)>`. *Python*: a thread is called by what the kernel knows it by
/// (pthread_setname_np), and is the main one if its process began with it.
inline std::ostream& operator<<(std::ostream& out, const AnyLock& lock) {
    const shm::UserLock& state = *lock.lock_;
    const auto owner = [&]() -> std::string {
        if (state.is_mine()) {
            const std::string process = runtime::log_of_this_process.process_name();
            return os::in_main_thread() ? process : process + "|" + os::this_thread_name();
        }
        if (!state.locked()) return "None";
        return state.is_this_process_s() ? "SomeOtherThread" : "SomeOtherProcess";
    };
    if (!state.recursive()) return out << "<Lock(owner=" << owner() << ")>";
    out << "<RLock(" << owner() << ", ";
    if (state.is_mine()) return out << state.depth() << ")>";
    return out << (state.locked() ? "nonzero" : "0") << ")>";
}

/// `<Semaphore(value=1)>`, `<BoundedSemaphore(value=1, maxvalue=2)>`.
inline std::ostream& operator<<(std::ostream& out, const Semaphore& semaphore) {
    const shm::Shared<shm::SemaphoreState>& state = semaphore.state_;
    if (!state->is_bounded()) return out << "<Semaphore(value=" << state->value() << ")>";
    return out << "<BoundedSemaphore(value=" << state->value() << ", maxvalue=" << state->bound()
               << ")>";
}

/// `<Condition(<RLock(None, 0)>, 2)>`: the lock, and how many wait that have not been notified.
inline std::ostream& operator<<(std::ostream& out, const Condition& condition) {
    return out << "<Condition(" << condition.lock_ << ", " << condition.state_->waiting() << ")>";
}

/// `<Event at 0x7f1200000000 set>`, or unset; where it is in this process.
inline std::ostream& operator<<(std::ostream& out, const Event& event) {
    return out << "<Event at " << event.state_.template get<void>()
               << (event.is_set() ? " set>" : " unset>");
}

/// `<multiprocessing.synchronize.Barrier at 0x7f1200000000: waiters=0/2>`, or `: broken>`.
inline std::ostream& operator<<(std::ostream& out, const Barrier& barrier) {
    out << "<multiprocessing.synchronize.Barrier at " << barrier.state_.template get<void>()
        << ": ";
    if (barrier.broken()) return out << "broken>";
    return out << "waiters=" << barrier.n_waiting() << "/" << barrier.parties() << ">";
}

}  // namespace multiprocessing
