// SPDX-License-Identifier: BSL-1.0
//
// Items for a thread of this process to run.
#pragma once

#include <multiprocessing/runtime/pool/job.hpp>
#include <multiprocessing/runtime/pool/shared.hpp>
#include <multiprocessing/runtime/pool/task_settings.hpp>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <utility>

namespace multiprocessing::runtime::pool {

/// What a thread is at, as a WorkerSlot says it of a process.
class Delivery {
public:
    explicit Delivery(std::atomic<std::uint64_t>& run) noexcept
        : run_(run), now_(run.load(std::memory_order_relaxed) & ~WorkerSlot::run_mask) {}
    void begin() noexcept {
        now_ += WorkerSlot::one_start;
        run_.store(now_ | WorkerSlot::running);
    }
    /// The item has ended: is its outcome wanted? What the pool has decided on has one.
    [[nodiscard]] bool is_wanted() noexcept {
        return (run_.exchange(now_ | WorkerSlot::idle) & WorkerSlot::run_mask) == WorkerSlot::running;
    }

private:
    std::atomic<std::uint64_t>& run_;
    std::uint64_t now_;
};

/// Items of a job for a thread to run, in chunks.
class LocalTask {
public:
    LocalTask(std::shared_ptr<Job> job, std::uint64_t base, std::uint32_t count, std::uint32_t grain,
              const TaskSettings& settings)
        : job_(std::move(job)), settings_(settings), base_(base), count_(count), grain_(grain),
          left_(count) {}
    LocalTask(const LocalTask&) = delete;
    LocalTask& operator=(const LocalTask&) = delete;
    virtual ~LocalTask() = default;

    /// Calls the function with an item, and gives the job its outcome, if that is wanted then.
    virtual void run(std::uint32_t item, Delivery& delivery) = 0;

    [[nodiscard]] const std::shared_ptr<Job>& job() const noexcept { return job_; }
    [[nodiscard]] const TaskSettings& settings() const noexcept { return settings_; }
    [[nodiscard]] std::uint64_t number_of(std::uint32_t item) const noexcept { return base_ + item; }
    /// Claims the next chunk: its first item and the one after it. With the engine's mutex.
    [[nodiscard]] std::pair<std::uint32_t, std::uint32_t> claim() noexcept {
        const std::uint32_t first = std::exchange(next_, std::min(next_ + grain_, count_));
        return {first, next_};
    }
    [[nodiscard]] bool all_claimed() const noexcept { return next_ == count_; }
    [[nodiscard]] bool has_begun() const noexcept { return next_ != 0; }
    /// The rest is not to be run. How many items that is. With the engine's mutex.
    std::uint32_t take_back() noexcept {
        wanted_.store(false, std::memory_order_relaxed);
        return count_ - std::exchange(next_, count_);
    }
    /// The same, though what has been claimed goes on. The first of them.
    std::uint32_t take_rest() noexcept { return std::exchange(next_, count_); }
    [[nodiscard]] std::uint32_t count() const noexcept { return count_; }
    [[nodiscard]] bool is_wanted() const noexcept { return wanted_.load(std::memory_order_relaxed); }
    /// So many items have ended; whether those were the last. With the engine's mutex.
    [[nodiscard]] bool done(std::uint32_t items) noexcept { return (left_ -= items) == 0; }

private:
    const std::shared_ptr<Job> job_;
    const TaskSettings settings_;
    const std::uint64_t base_;
    const std::uint32_t count_;
    const std::uint32_t grain_;
    std::uint32_t next_ = 0;
    std::uint32_t left_;
    std::atomic<bool> wanted_{true};
};

}  // namespace multiprocessing::runtime::pool
