// SPDX-License-Identifier: BSL-1.0
//
// `Event`.
#pragma once

#include <multiprocessing/pickle/handle.hpp>
#include <multiprocessing/shm/event.hpp>
#include <multiprocessing/shm/ref.hpp>
#include <multiprocessing/timeout.hpp>

#include <ostream>

namespace multiprocessing {

/// A flag to wait for. *Python*: `multiprocessing.Event`.
class Event {
public:
    Event() : state_(shm::Shared<shm::EventState>::make(0)) {}

    [[nodiscard]] bool is_set() const { return state_->is_set(); }
    /// Wakes all that wait; they go even if it is cleared at once.
    void set() const { state_->set(); }
    void clear() const { state_->clear(); }
    /// True when it is set, false at the timeout.
    bool wait(Timeout timeout = {}) const { return state_->wait(timeout); }

    using travels_as_handle = void;

private:
    friend struct pickle::HandleAccess;
    friend std::ostream& operator<<(std::ostream& out, const Event& event);
    explicit Event(pickle::Unread) noexcept {}
    void save_handle(pickle::OArchive& archive) const { pickle::save_ref(archive, state_); }
    void load_handle(pickle::IArchive& archive) {
        state_ = shm::Shared<shm::EventState>(pickle::load_ref(archive, sizeof *state_));
    }

    shm::Shared<shm::EventState> state_;
};

/// `<Event at 0x7f1200000000 set>`, or unset; where it is in this process.
inline std::ostream& operator<<(std::ostream& out, const Event& event) {
    return out << "<Event at " << event.state_.template get<void>()
               << (event.is_set() ? " set>" : " unset>");
}

}  // namespace multiprocessing
