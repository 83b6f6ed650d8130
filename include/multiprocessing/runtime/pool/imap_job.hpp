// SPDX-License-Identifier: BSL-1.0
//
// The job whose outcomes are taken one by one, while its input is read as far ahead as room allows.
#pragma once

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/runtime/pool/async.hpp>
#include <multiprocessing/runtime/pool/feed.hpp>
#include <multiprocessing/runtime/pool/job.hpp>
#include <multiprocessing/runtime/pool/map_job.hpp>

#include <condition_variable>
#include <cstdint>
#include <exception>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <ranges>
#include <span>
#include <type_traits>
#include <utility>
#include <variant>

namespace multiprocessing::runtime::pool {

template <class R>
class ImapJob : public Job, public std::enable_shared_from_this<ImapJob<R>> {
public:
    using Outcome = std::variant<R, std::exception_ptr>;

    explicit ImapJob(bool ordered) : ordered_(ordered) {}

    /// Gives the first tasks. Throws ValueError if the pool is not running.
    virtual void begin() { read_on(); }
    /// The next outcome. Nothing at the end. Throws TimeoutError at the deadline, and may be called
    /// again.
    [[nodiscard]] std::optional<Outcome> next(os::Deadline deadline);

    void array(std::uint64_t item, const std::byte* array, std::uint32_t from,
               std::uint32_t count) override {
        if constexpr (pickle::Bitwise<R>) {
            for (std::uint32_t i = 0; i < count; ++i) {
                add(item + i, Outcome(std::in_place_index<0>, element_of<R>(array, from + i)));
            }
        }
    }
    void value(std::uint64_t item, std::span<const std::byte> bytes, pickle::Cargo& cargo) override {
        std::optional<Outcome> outcome;
        try {
            outcome.emplace(std::in_place_index<0>, pickle::load_payload<R>(bytes, &cargo));
        } catch (...) {
            outcome.emplace(std::in_place_index<1>, std::current_exception());
        }
        add(item, std::move(*outcome));
    }
    void error(std::uint64_t item, std::exception_ptr exception) override {
        add(item, Outcome(std::in_place_index<1>, std::move(exception)));
    }
    void task_done(std::uint64_t) override {}
    bool fail(std::exception_ptr exception) override {
        const std::lock_guard lock(mutex_);
        if (failure_) return false;
        failure_ = std::move(exception);
        changed_.notify_all();
        return true;
    }

protected:
    /// Reads items and submits them as one task; false when the input has ended. What it throws is
    /// the outcome of the item that could not be read, and the last. Called by one thread at a time.
    virtual bool give() = 0;
    [[nodiscard]] virtual std::uint64_t given() const noexcept = 0;
    /// The input has ended or is not wanted any more.
    virtual void end_input() noexcept = 0;
    /// Throws AssertionError for who may not ask for outcomes, or may not wait for them.
    virtual void check_may_take() const = 0;
    virtual void check_may_wait() const = 0;
    void read_everything() {
        {
            const std::lock_guard lock(mutex_);
            read_ahead_ = std::numeric_limits<std::uint64_t>::max() / 2;
        }
        read_on();
    }

    std::uint64_t read_ahead_ = 1;  // items that may be under way or waiting to be taken

private:
    void add(std::uint64_t item, Outcome outcome) {
        const std::lock_guard lock(mutex_);
        if (ordered_) {
            outcomes_.emplace(item, std::move(outcome));
        } else {
            outcomes_.emplace(arrived_++, std::move(outcome));
        }
        changed_.notify_all();
    }
    void read_on();

    const bool ordered_;
    std::mutex input_;  // held by who reads the input; before mutex_
    bool input_ended_ = false;
    std::mutex mutex_;
    std::condition_variable changed_;
    std::map<std::uint64_t, Outcome> outcomes_;
    std::uint64_t arrived_ = 0;
    std::uint64_t taken_ = 0;
    std::optional<std::uint64_t> total_;
    std::exception_ptr failure_;
};

template <class R>
void ImapJob<R>::read_on() {
    const std::lock_guard reading(input_);
    while (!input_ended_) {
        {
            const std::lock_guard lock(mutex_);
            if (failure_ || given() >= taken_ + read_ahead_) return;
        }
        std::exception_ptr unreadable;
        try {
            if (give()) continue;
        } catch (...) {
            unreadable = std::current_exception();
        }
        input_ended_ = true;
        const std::uint64_t items = given();
        end_input();
        if (unreadable) error(items, unreadable);
        const std::lock_guard lock(mutex_);
        total_ = items + (unreadable ? 1 : 0);
        changed_.notify_all();
    }
}

template <class R>
std::optional<typename ImapJob<R>::Outcome> ImapJob<R>::next(os::Deadline deadline) {
    check_may_take();
    read_on();
    std::unique_lock lock(mutex_);
    const auto first = [this] {
        return !outcomes_.empty() && outcomes_.begin()->first == taken_ ? outcomes_.begin()
                                                                          : outcomes_.end();
    };
    const auto ready = [&] {
        return first() != outcomes_.end() || failure_ || (total_ && taken_ >= *total_);
    };
    if (deadline.is_never() && !ready()) check_may_wait();
    if (!wait_until(changed_, lock, deadline, ready)) {
        throw TimeoutError("IMapIterator.next(): no result in the time given");
    }
    if (const auto found = first(); found != outcomes_.end()) {
        Outcome outcome = std::move(found->second);
        outcomes_.erase(found);
        ++taken_;
        return outcome;
    }
    if (total_ && taken_ >= *total_) return std::nullopt;
    // The pool's end is the last outcome.
    total_ = taken_;
    return Outcome(std::in_place_index<1>, failure_);
}

/// The job of a call of `imap`: the input range, and how it is cut.
template <class TheWork, class F, class Range>
class StreamJob final : public ImapJob<typename TheWork::R> {
    using Item = ItemOf<Range>;
    // An lvalue stays where it is.
    using Kept = std::conditional_t<std::is_lvalue_reference_v<Range>, Range,
                                    std::remove_cvref_t<Range>>;

public:
    template <class Given>
    StreamJob(std::shared_ptr<Engine> engine, F f, Given&& range, std::uint32_t chunk, bool ordered)
        : ImapJob<typename TheWork::R>(ordered), engine_(std::move(engine)),
          range_(std::forward<Given>(range)), feed_(*engine_, std::move(f)), chunk_(chunk) {
        this->read_ahead_ = std::uint64_t{4} * engine_->size() * chunk;
    }
    ~StreamJob() override { end_input(); }

    void begin() override {
        engine_->begin_stream(this->shared_from_this());
        open_ = true;
        ImapJob<typename TheWork::R>::begin();
    }
    void read_to_the_end() override {
        if constexpr (Finite<Source>) this->read_everything();
    }

protected:
    bool give() override {
        if (!next_) {
            next_.emplace(std::ranges::begin(range_));
            end_.emplace(std::ranges::end(range_));
        }
        return feed_.give(this->shared_from_this(), *next_, *end_, chunk_);
    }
    [[nodiscard]] std::uint64_t given() const noexcept override { return feed_.given(); }
    void end_input() noexcept override {
        if (std::exchange(open_, false)) engine_->end_stream(*this);
    }
    void check_may_take() const override { engine_->check_own(); }
    void check_may_wait() const override { engine_->check_may_wait(); }

private:
    using Source = std::remove_reference_t<Kept>;

    std::shared_ptr<Engine> engine_;
    Kept range_;
    Feed<TheWork, F, Item> feed_;
    std::uint32_t chunk_;
    bool open_ = false;  // the pool counts it as one that may give more
    std::optional<std::ranges::iterator_t<Source>> next_;
    std::optional<std::ranges::sentinel_t<Source>> end_;
};

}  // namespace multiprocessing::runtime::pool
