// SPDX-License-Identifier: BSL-1.0
//
// A flag in the arena that can be waited for.
#pragma once

#include <multiprocessing/shm/cells.hpp>
#include <multiprocessing/shm/wait.hpp>

#include <atomic>
#include <cstdint>

namespace multiprocessing::shm {

class EventState {
public:
    [[nodiscard]] bool is_set() const noexcept { return (state_.load(std::memory_order_acquire) & 1) != 0; }
    void set() noexcept {
        std::uint64_t seen = state_.load(std::memory_order_relaxed);
        // Counting how often it was set lets those go who waited, even if it is cleared at once.
        while (!state_.compare_exchange_weak(seen, (seen + 2) | 1, std::memory_order_release)) {
        }
        waiting_.notify_all();
    }
    void clear() noexcept { state_.fetch_and(~std::uint64_t{1}, std::memory_order_acq_rel); }
    bool wait(os::Deadline deadline) {
        const std::uint64_t times = state_.load(std::memory_order_acquire) >> 1;
        const auto ready = [&] {
            const std::uint64_t seen = state_.load(std::memory_order_acquire);
            return (seen & 1) != 0 || seen >> 1 != times;
        };
        return waiting_.wait_for_signal(ready, deadline);
    }

private:
    std::atomic<std::uint64_t> state_{0};  // bit 0: the flag; the rest: how often it was set
    WaitWord waiting_;
};
static_assert(sizeof(EventState) <= Cells::payload_bytes, "events there may be many of");

}  // namespace multiprocessing::shm
