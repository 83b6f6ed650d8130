// SPDX-License-Identifier: BSL-1.0
//
// What stands in the arena for a `Lock` or an `RLock`: a lock word, and for the recursive one the
// owning thread and the depth.
#pragma once

#include <multiprocessing/os/process.hpp>
#include <multiprocessing/shm/lock_word.hpp>

#include <atomic>
#include <cstdint>
#include <utility>

namespace multiprocessing::shm {

/// The calling thread's id, without a system call after the first.
[[nodiscard]] inline std::uint32_t this_thread() noexcept {
    thread_local std::pair<std::uint32_t, std::uint32_t> cached{0, 0};  // epoch, id
    if (cached.first != os::fork_epoch()) [[unlikely]] {
        cached = {os::fork_epoch(), static_cast<std::uint32_t>(os::this_thread_id())};
    }
    return cached.second;
}

/// Both locks; which of them is fixed when it is made.
class UserLock {
public:
    explicit UserLock(bool recursive) noexcept : recursive_(recursive ? 1 : 0) {}

    [[nodiscard]] bool recursive() const noexcept { return recursive_ != 0; }
    [[nodiscard]] bool locked() const noexcept { return word_.locked(); }
    [[nodiscard]] bool abandoned() const noexcept { return word_.abandoned(); }
    /// Has the calling thread acquired it? That is who may wait on a condition of it; a plain lock may be
    /// released by anybody.
    [[nodiscard]] bool is_mine() const {
        return word_.holder() == self() &&
               thread_.load(std::memory_order_relaxed) == this_thread();
    }

    Taken acquire(os::Deadline deadline) {
        if (!recursive()) {
            const Taken result = word_.acquire(deadline);
            if (result) thread_.store(this_thread(), std::memory_order_relaxed);
            return result;
        }
        if (is_mine()) {
            ++depth_;
            return {true};
        }
        const Taken result = word_.acquire(deadline);
        if (result) take(1);
        return result;
    }
    /// False if it is not locked, or recursive and not the caller's.
    bool release() {
        if (!recursive()) return word_.release();
        if (!is_mine()) return false;
        if (--depth_ != 0) return true;
        thread_.store(0, std::memory_order_relaxed);
        return word_.release();
    }
    /// Lets go whatever the depth, which is returned for restore(): what waiting on a condition does.
    [[nodiscard]] std::uint32_t release_all() {
        if (!recursive()) {
            word_.release();
            return 1;
        }
        const std::uint32_t depth = std::exchange(depth_, 0);
        thread_.store(0, std::memory_order_relaxed);
        word_.release();
        return depth;
    }
    void restore(std::uint32_t depth) {
        word_.acquire(os::Deadline::never());
        thread_.store(this_thread(), std::memory_order_relaxed);
        if (recursive()) take(depth);
    }

private:
    void take(std::uint32_t depth) noexcept {
        thread_.store(this_thread(), std::memory_order_relaxed);
        depth_ = depth;
    }

    LockWord word_;
    std::uint32_t recursive_;
    std::atomic<std::uint32_t> thread_{0};  // of the holder; means nothing when there is none
    std::uint32_t depth_ = 0;               // only the owning thread looks
};

}  // namespace multiprocessing::shm
