// SPDX-License-Identifier: BSL-1.0
//
// Who a managed object's function is called for, and how it waits.
#pragma once

#include <multiprocessing/managers/object.hpp>
#include <multiprocessing/managers/protocol.hpp>
#include <multiprocessing/managers/references.hpp>
#include <multiprocessing/os/clock.hpp>
#include <multiprocessing/os/poll.hpp>
#include <multiprocessing/timeout.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <utility>

namespace multiprocessing::managers {

/// Who a call is made for.
class Caller {
public:
    /// `connection` is -1 for the server itself; `stopping` says that it is to end.
    Caller(References& references, const std::atomic<bool>& stopping, SessionId session,
           int connection) noexcept
        : references_(references), stopping_(stopping), session_(session),
          connection_(connection) {}

    [[nodiscard]] const SessionId& session() const noexcept { return session_; }
    [[nodiscard]] References& references() const noexcept { return references_; }
    /// Gives it a new object, whose name in the server this returns.
    [[nodiscard]] std::uint64_t give(std::shared_ptr<Object> object) const {
        return references_.add(session_, std::move(object));
    }
    /// Throws NobodyIsWaiting if that is so.
    void check() const {
        if (stopping_.load() || (connection_ >= 0 && os::peer_has_left(connection_))) {
            throw NobodyIsWaiting();
        }
    }
    /// Waits until `ready()` or the deadline; which it was. Looks now and then whether anybody still
    /// waits for the result: there is no descriptor to wait for together with what other threads do.
    template <class Ready>
    bool wait(std::unique_lock<std::mutex>& lock, std::condition_variable& changed,
              os::Deadline deadline, Ready ready) const {
        while (!ready()) {
            if (deadline.expired()) return false;
            changed.wait_for(lock, std::min(deadline.is_never() ? look : deadline.remaining(), look));
            check();
        }
        return true;
    }
    /// The same for what has a wait of its own: `attempt(Timeout)` is true when it has succeeded.
    template <class Attempt>
    bool wait(os::Deadline deadline, Attempt attempt) const {
        for (;;) {
            const auto left = deadline.is_never() ? look : deadline.remaining();
            if (attempt(Timeout(std::min(left, look)))) return true;
            if (deadline.expired()) return false;
            check();
        }
    }

    static constexpr std::chrono::nanoseconds look = std::chrono::milliseconds(100);

private:
    References& references_;
    const std::atomic<bool>& stopping_;
    SessionId session_;
    int connection_;
};

}  // namespace multiprocessing::managers
