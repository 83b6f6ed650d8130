// SPDX-License-Identifier: BSL-1.0
//
// A counting semaphore in the arena, bounded or not.
#pragma once

#include <multiprocessing/shm/wait.hpp>

#include <atomic>
#include <cstdint>

namespace multiprocessing::shm {

class SemaphoreState {
public:
    static constexpr std::uint32_t most = 0x7fff'ffff;  // SEM_VALUE_MAX

    SemaphoreState(std::uint32_t value, std::uint32_t bound) noexcept : value_(value), bound_(bound) {}

    [[nodiscard]] std::uint32_t value() const noexcept { return value_.load(std::memory_order_relaxed); }
    [[nodiscard]] std::uint32_t bound() const noexcept { return bound_; }

    bool acquire(os::Deadline deadline) {
        return waiting_.wait(
            [this] {
                std::uint32_t seen = value_.load(std::memory_order_relaxed);
                while (seen != 0) {
                    if (value_.compare_exchange_weak(seen, seen - 1, std::memory_order_acquire)) {
                        return true;
                    }
                }
                return false;
            },
            deadline);
    }
    /// False if it is at its bound.
    bool release() noexcept {
        std::uint32_t seen = value_.load(std::memory_order_relaxed);
        do {
            if (seen >= bound_) return false;
        } while (!value_.compare_exchange_weak(seen, seen + 1, std::memory_order_release));
        waiting_.notify_one();
        return true;
    }

private:
    std::atomic<std::uint32_t> value_;
    std::uint32_t bound_;
    WaitWord waiting_;
};

}  // namespace multiprocessing::shm
