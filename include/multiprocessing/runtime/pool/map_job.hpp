// SPDX-License-Identifier: BSL-1.0
//
// The jobs whose outcomes are gathered into one: `map` and its relatives, and `apply`, which is a map
// of one item.
#pragma once

#include <multiprocessing/pickle/message.hpp>
#include <multiprocessing/runtime/pool/async.hpp>
#include <multiprocessing/runtime/pool/job.hpp>

#include <algorithm>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

namespace multiprocessing::runtime::pool {

/// Bytes of one value of an array of outcomes.
template <class R>
[[nodiscard]] R element_of(const std::byte* array, std::size_t place) {
    return pickle::load_payload<R>({array + place * sizeof(R), sizeof(R)});
}

/// One call: its value or its exception.
template <class R>
class ApplyJob final : public Job {
public:
    explicit ApplyJob(std::shared_ptr<AsyncState<R>> state) : state_(std::move(state)) {}

    void array(std::uint64_t, const std::byte* array, std::uint32_t from, std::uint32_t) override {
        if constexpr (pickle::Bitwise<R>) state_->complete(element_of<R>(array, from));
    }
    void value(std::uint64_t, std::span<const std::byte> bytes, pickle::Cargo& cargo) override {
        try {
            state_->complete(pickle::load_payload<R>(bytes, &cargo));
        } catch (...) {
            state_->fail(std::current_exception());
        }
    }
    void error(std::uint64_t, std::exception_ptr exception) override {
        state_->fail(std::move(exception));
    }
    void task_done(std::uint64_t) override {}
    bool fail(std::exception_ptr exception) override { return state_->fail(std::move(exception)); }

private:
    std::shared_ptr<AsyncState<R>> state_;
};

/// Many calls: all values in the order of the items, or the first exception in that order.
template <class R>
class MapJob final : public Job {
public:
    explicit MapJob(std::shared_ptr<AsyncState<std::vector<R>>> state) : state_(std::move(state)) {}

    // The caller's side.

    /// A task of so many bytes is about to be submitted.
    void giving(std::uint64_t bytes) {
        const std::lock_guard lock(mutex_);
        ++tasks_out_;
        bytes_out_ += bytes;
    }
    /// Waits until fewer than these many tasks, or bytes, are under way. False when no more are wanted.
    bool wait_for_room(std::uint64_t tasks, std::uint64_t bytes) {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [&] { return tasks_out_ < tasks || bytes_out_ < bytes || failed_; });
        return !failed_;
    }
    /// There will be this many items in all.
    void all_given(std::uint64_t items) {
        std::unique_lock lock(mutex_);
        items_ = items;
        if (done_ == items) finish(lock);
    }
    /// How many there will be at least.
    void expect(std::uint64_t items) {
        const std::lock_guard lock(mutex_);
        if constexpr (direct) values_.reserve(static_cast<std::size_t>(items));
    }

    // The pool's side.

    void array(std::uint64_t item, const std::byte* array, std::uint32_t from,
               std::uint32_t count) override;
    void value(std::uint64_t item, std::span<const std::byte> bytes, pickle::Cargo& cargo) override;
    void error(std::uint64_t item, std::exception_ptr exception) override {
        const std::lock_guard lock(mutex_);
        errors_.emplace(item, std::move(exception));
        ++done_;
    }
    void task_done(std::uint64_t bytes) override {
        std::unique_lock lock(mutex_);
        --tasks_out_;
        bytes_out_ -= std::min(bytes, bytes_out_);
        changed_.notify_all();
        if (items_ && done_ == *items_) finish(lock);
    }
    bool fail(std::exception_ptr exception) override {
        {
            const std::lock_guard lock(mutex_);
            failed_ = true;
            changed_.notify_all();
        }
        return state_->fail(std::move(exception));
    }

private:
    // Results are put in their place as they come, where a place can be made before.
    static constexpr bool direct = std::default_initializable<R> && !std::same_as<R, bool>;
    using Values = std::conditional_t<direct, std::vector<R>, std::vector<std::optional<R>>>;

    void make_place(std::uint64_t last) {
        if (values_.size() < last) values_.resize(static_cast<std::size_t>(last));
    }
    void finish(std::unique_lock<std::mutex>& lock);

    std::shared_ptr<AsyncState<std::vector<R>>> state_;
    std::mutex mutex_;
    std::condition_variable changed_;
    Values values_;
    std::map<std::uint64_t, std::exception_ptr> errors_;
    std::uint64_t done_ = 0;
    std::optional<std::uint64_t> items_;
    std::uint64_t tasks_out_ = 0;
    std::uint64_t bytes_out_ = 0;
    bool failed_ = false;
};

template <class R>
void MapJob<R>::array(std::uint64_t item, const std::byte* array, std::uint32_t from,
                      std::uint32_t count) {
    if constexpr (pickle::Bitwise<R>) {
        const std::lock_guard lock(mutex_);
        make_place(item + count);
        if constexpr (direct && pickle::BitwiseElement<R>) {
            std::memcpy(static_cast<void*>(values_.data() + item), array + from * sizeof(R),
                        count * sizeof(R));
        } else {
            for (std::uint32_t i = 0; i < count; ++i) values_[item + i] = element_of<R>(array, from + i);
        }
        done_ += count;
    }
}

template <class R>
void MapJob<R>::value(std::uint64_t item, std::span<const std::byte> bytes, pickle::Cargo& cargo) {
    try {
        R result = pickle::load_payload<R>(bytes, &cargo);
        const std::lock_guard lock(mutex_);
        make_place(item + 1);
        values_[static_cast<std::size_t>(item)] = std::move(result);
        ++done_;
    } catch (...) {
        error(item, std::current_exception());
    }
}

template <class R>
void MapJob<R>::finish(std::unique_lock<std::mutex>& lock) {
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

}  // namespace multiprocessing::runtime::pool
