// SPDX-License-Identifier: BSL-1.0
//
// The jobs whose outcomes are gathered into one: `map` and its relatives, and `apply`, which is a map
// of one item.
#pragma once

#include <multiprocessing/pickle/message.hpp>
#include <multiprocessing/result.hpp>
#include <multiprocessing/runtime/pool/async.hpp>
#include <multiprocessing/runtime/pool/job.hpp>

#include <algorithm>
#include <atomic>
#include <concepts>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

namespace multiprocessing::runtime::pool {

/// One call: its value or its exception.
template <class R>
class ApplyJob final : public JobOf<R> {
public:
    explicit ApplyJob(std::shared_ptr<AsyncState<R>> state) : state_(std::move(state)) {}

    void put(std::uint64_t, R value) override { state_->complete(std::move(value)); }
    void error(std::uint64_t, std::exception_ptr exception) override {
        state_->fail(std::move(exception));
    }
    void task_done(std::uint64_t) override {}
    bool fail(std::exception_ptr exception) override { return state_->fail(std::move(exception)); }

private:
    std::shared_ptr<AsyncState<R>> state_;
};

/// What many calls are gathered into: all values in the order of the items, or the first exception in
/// that order.
template <class R>
struct AllValues {
    using type = std::vector<R>;
};
/// … or each its value or its exception.
template <class R>
struct AllResults {
    using type = std::vector<Result<R>>;
};

template <class R, class Gathering>
class MapJob final : public JobOf<R> {
    using Gathered = typename Gathering::type;

public:
    explicit MapJob(std::shared_ptr<AsyncState<Gathered>> state) : state_(std::move(state)) {}

    // The caller's side.

    /// A task of so many bytes is about to be submitted.
    void giving(std::uint64_t bytes) {
        const std::lock_guard lock(mutex_);
        ++tasks_out_;
        bytes_out_ += bytes;
    }
    /// Waits until fewer than these many tasks, or bytes, are under way. False when no more are wanted.
    bool wait_for_room(Engine& engine, std::uint64_t tasks, std::uint64_t bytes) {
        Room room(*this, tasks, bytes);
        if (!room.ready()) engine.wait(room, os::Deadline::never());
        const std::lock_guard lock(mutex_);
        return !failed_;
    }
    /// There will be this many items in all.
    void all_given(std::uint64_t items) {
        this->show_total(items);
        std::unique_lock lock(mutex_);
        items_ = items;
        if (done_ == items) finish(lock);
    }
    /// How many there will be at least.
    void expect(std::uint64_t items) {
        this->show_total(items);
        const std::lock_guard lock(mutex_);
        if constexpr (direct) values_.reserve(static_cast<std::size_t>(items));
    }

    // The pool's side.

    inline void array(std::uint64_t item, const std::byte* array, std::uint32_t from,
                      std::uint32_t count) override;
    void put(std::uint64_t item, R value) override {
        this->show_more(1);
        std::unique_lock lock(mutex_);
        make_place(item + 1);
        values_[static_cast<std::size_t>(item)] = std::move(value);
        done(1, lock);
    }
    void error(std::uint64_t item, std::exception_ptr exception) override {
        this->show_more(1);
        std::unique_lock lock(mutex_);
        errors_.emplace(item, std::move(exception));
        done(1, lock);
    }
    void task_done(std::uint64_t bytes) override {
        const std::lock_guard lock(mutex_);
        --tasks_out_;
        bytes_out_ -= std::min(bytes, bytes_out_);
        changed_.notify_all();
    }
    bool fail(std::exception_ptr exception) override {
        {
            const std::lock_guard lock(mutex_);
            failed_ = true;
            changed_.notify_all();
        }
        this->show_end();
        return state_->fail(std::move(exception));
    }

private:
    // Results are put in their place as they come, where a place can be made before.
    static constexpr bool direct = std::default_initializable<R> && !std::same_as<R, bool> &&
                                   std::same_as<Gathered, std::vector<R>>;
    using Values = std::conditional_t<direct, std::vector<R>, std::vector<std::optional<R>>>;

    class Room final : public Awaited {
    public:
        Room(const MapJob& job, std::uint64_t tasks, std::uint64_t bytes) noexcept
            : job_(job), tasks_(tasks), bytes_(bytes) {}
        [[nodiscard]] bool ready() const noexcept override {
            const std::lock_guard lock(job_.mutex_);
            return there_is();
        }
        bool sleep(os::Deadline deadline) const override {
            std::unique_lock lock(job_.mutex_);
            return wait_until(job_.changed_, lock, deadline, [this] { return there_is(); });
        }

    private:
        [[nodiscard]] bool there_is() const noexcept {
            return job_.tasks_out_ < tasks_ || job_.bytes_out_ < bytes_ || job_.failed_;
        }
        const MapJob& job_;
        const std::uint64_t tasks_;
        const std::uint64_t bytes_;
    };

    void make_place(std::uint64_t last) {
        if (values_.size() < last) values_.resize(static_cast<std::size_t>(last));
    }
    /// So many more items have their outcomes. The task of the last need not be over: a worker may be at
    /// an item that has been given up.
    void done(std::uint64_t items, std::unique_lock<std::mutex>& lock) {
        done_ += items;
        if (items_ && done_ == *items_) finish(lock);
    }
    /// All outcomes are there. With the mutex, which it lets go.
    void finish(std::unique_lock<std::mutex>& lock);

    std::shared_ptr<AsyncState<Gathered>> state_;
    mutable std::mutex mutex_;
    mutable std::condition_variable changed_;
    Values values_;
    std::map<std::uint64_t, std::exception_ptr> errors_;
    std::uint64_t done_ = 0;
    std::optional<std::uint64_t> items_;
    std::uint64_t tasks_out_ = 0;
    std::uint64_t bytes_out_ = 0;
    bool failed_ = false;
    bool finished_ = false;
};

template <class R, class Gathering>
void MapJob<R, Gathering>::array(std::uint64_t item, const std::byte* array, std::uint32_t from,
                                 std::uint32_t count) {
    if constexpr (direct && pickle::BitwiseElement<R>) {
        this->show_more(count);
        std::unique_lock lock(mutex_);
        make_place(item + count);
        std::memcpy(static_cast<void*>(values_.data() + item), array + from * sizeof(R),
                    count * sizeof(R));
        done(count, lock);
    } else {
        JobOf<R>::array(item, array, from, count);
    }
}

template <class R, class Gathering>
void MapJob<R, Gathering>::finish(std::unique_lock<std::mutex>& lock) {
    if (std::exchange(finished_, true)) return;
    this->show_end();
    if constexpr (std::same_as<Gathering, AllResults<R>>) {
        Gathered results;
        results.reserve(static_cast<std::size_t>(done_));
        make_place(done_);
        for (std::size_t i = 0; i < values_.size(); ++i) {
            if (values_[i]) {
                results.emplace_back(std::move(*values_[i]));
            } else {
                results.emplace_back(errors_.at(i));
            }
        }
        lock.unlock();
        state_->complete(std::move(results));
    } else {
        if (!errors_.empty()) {
            const std::exception_ptr first = errors_.begin()->second;
            lock.unlock();
            state_->fail(first);
            return;
        }
        Values values = std::move(values_);
        lock.unlock();
        if constexpr (direct) {
            state_->complete(std::move(values));
        } else {
            std::vector<R> results;
            results.reserve(values.size());
            for (std::optional<R>& each : values) results.push_back(std::move(*each));
            state_->complete(std::move(results));
        }
    }
}

}  // namespace multiprocessing::runtime::pool
