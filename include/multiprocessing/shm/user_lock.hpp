// SPDX-License-Identifier: BSL-1.0
//
// What stands in the arena for a `Lock` or an `RLock`: a lock word, and for the recursive one the
// owning thread and the depth.
#pragma once

#include <multiprocessing/os/process.hpp>
#include <multiprocessing/shm/cells.hpp>
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
    explicit UserLock(bool recursive) noexcept : depth_(recursive ? recursive_flag : 0) {}

    [[nodiscard]] bool recursive() const noexcept { return (raw_depth() & recursive_flag) != 0; }
    [[nodiscard]] bool locked() const noexcept { return word_.locked(); }
    [[nodiscard]] bool abandoned() const noexcept { return word_.abandoned(); }
    void mark_consistent() noexcept { word_.mark_consistent(); }
    /// Has the calling thread acquired it? That is who may wait on a condition of it; a plain lock may be
    /// released by anybody.
    [[nodiscard]] bool is_mine() const {
        return is_this_process_s() && thread_.load(std::memory_order_relaxed) == this_thread();
    }
    /// Has a thread of this process?
    [[nodiscard]] bool is_this_process_s() const { return word_.holder() == self(); }
    /// How often the owner of a recursive one has taken it; meant for that thread.
    [[nodiscard]] std::uint32_t depth() const noexcept { return raw_depth() & ~recursive_flag; }

    Taken acquire(os::Deadline deadline) {
        if (recursive() && is_mine()) {
            set_depth(depth() + 1);
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
        set_depth(depth() - 1);
        if (depth() != 0) return true;
        thread_.store(0, std::memory_order_relaxed);
        return word_.release();
    }
    /// Lets go whatever the depth, which is returned for restore(): what waiting on a condition does.
    [[nodiscard]] std::uint32_t release_all() {
        if (!recursive()) {
            word_.release();
            return 1;
        }
        const std::uint32_t held = depth();
        set_depth(0);
        thread_.store(0, std::memory_order_relaxed);
        word_.release();
        return held;
    }
    void restore(std::uint32_t held) {
        word_.acquire_from_the_line();
        take(held);
    }

    /// As LockWord::line_up().
    bool line_up(const std::atomic<std::uint32_t>& word, std::uint32_t expected) noexcept {
        return word_.line_up(word, expected);
    }

private:
    static constexpr std::uint32_t recursive_flag = std::uint32_t{1} << 31;

    void take(std::uint32_t held) noexcept {
        // Of a plain lock it is for who prints it.
        thread_.store(this_thread(), std::memory_order_relaxed);
        if (recursive()) set_depth(held);
    }
    [[nodiscard]] std::uint32_t raw_depth() const noexcept {
        return depth_.load(std::memory_order_relaxed);
    }
    void set_depth(std::uint32_t depth) noexcept {
        depth_.store(depth | recursive_flag, std::memory_order_relaxed);
    }

    LockWord word_;
    std::atomic<std::uint32_t> thread_{0};  // of the holder; means nothing when there is none
    std::atomic<std::uint32_t> depth_;      // and whether it is recursive
};
static_assert(sizeof(UserLock) == Cells::payload_bytes, "locks there may be many of");

}  // namespace multiprocessing::shm
