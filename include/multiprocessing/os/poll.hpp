// SPDX-License-Identifier: BSL-1.0
//
// poll(2) with a deadline, which survives signals.
#pragma once

#include <multiprocessing/os/clock.hpp>
#include <multiprocessing/os/error.hpp>

#include <span>

#include <poll.h>

namespace multiprocessing::os {

using PollEntry = ::pollfd;

inline constexpr short poll_in = POLLIN;
inline constexpr short poll_out = POLLOUT;
inline constexpr short poll_invalid = POLLNVAL;  // no descriptor at all

/// Waits until one of the entries has something in `revents`; returns how many have, 0 at the
/// deadline.
inline int poll(std::span<PollEntry> entries, Deadline deadline) {
    for (;;) {
        const int ready = ::poll(entries.data(), static_cast<nfds_t>(entries.size()),
                                 deadline.poll_milliseconds());
        if (ready > 0) return ready;
        if (ready < 0 && errno != EINTR) throw_errno("poll");
        // A zero may come early: poll(2) counts at most INT_MAX milliseconds.
        if (deadline.expired()) return 0;
    }
}

/// The same for one descriptor: whether it became ready (end of file and errors count).
inline bool poll(int fd, short events, Deadline deadline) {
    PollEntry entry{fd, events, 0};
    return poll({&entry, 1}, deadline) > 0;
}

/// Whether nobody is at the other end of a stream any more.
[[nodiscard]] inline bool peer_has_left(int fd) noexcept {
    PollEntry entry{fd, POLLRDHUP, 0};
    return ::poll(&entry, 1, 0) > 0;
}

}  // namespace multiprocessing::os
