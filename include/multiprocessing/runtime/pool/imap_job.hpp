// SPDX-License-Identifier: BSL-1.0
//
// The job whose outcomes are taken one by one, while its input is read as far ahead as room allows.
#pragma once

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/runtime/pool/chunks.hpp>
#include <multiprocessing/runtime/pool/engine.hpp>
#include <multiprocessing/runtime/pool/job.hpp>
#include <multiprocessing/runtime/pool/outcome_iterator.hpp>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <limits>
#include <memory>
#include <mutex>
#include <optional>
#include <ranges>
#include <type_traits>
#include <utility>
#include <variant>

namespace multiprocessing::runtime::pool {

/// How far ahead of the results that have been taken the input is read, in items. If nobody says, it
/// grows where workers wait for who takes: but no further ahead than in proportion to what has been
/// taken, so that who takes ten results of an endless input has not had a thousand items read.
class ReadAhead {
public:
    explicit ReadAhead(std::uint64_t items, bool is_fixed) noexcept
        : first_(items), items_(items), is_fixed_(is_fixed) {}

    [[nodiscard]] std::uint64_t items() const noexcept { return items_; }
    /// How many may be under way before there is no room for a batch. A fixed one is kept full.
    [[nodiscard]] std::uint64_t enough() const noexcept { return is_fixed_ ? items_ : items_ / 2 + 1; }
    void starved(std::uint64_t taken, std::uint64_t bytes_an_item) noexcept {
        if (is_fixed_) return;
        const std::uint64_t most = std::min({first_ + taken / 16, std::max(first_, most_items),
                                             std::max(first_, most_bytes / (bytes_an_item + 1))});
        items_ = std::clamp(items_ * 2, first_, most);
    }
    void lift() noexcept {
        items_ = std::numeric_limits<std::uint64_t>::max() / 2;
        is_fixed_ = true;
    }

private:
    static constexpr std::uint64_t most_items = 1024;
    static constexpr std::uint64_t most_bytes = std::uint64_t{4} << 20;

    std::uint64_t first_;
    std::uint64_t items_;
    bool is_fixed_;
};

template <class R>
class ImapJob : public JobOf<R>, public Awaited, public std::enable_shared_from_this<ImapJob<R>> {
public:
    using Outcome = pool::Outcome<R>;

    ImapJob(bool ordered, ReadAhead ahead) : ordered_(ordered), ahead_(ahead) {}

    /// Gives the first tasks. Throws ValueError if the pool is not running.
    virtual void begin() { read_on(); }
    /// The next outcome. Nothing at the end. Throws TimeoutError at the deadline, and may be called
    /// again.
    [[nodiscard]] std::optional<Outcome> next(os::Deadline deadline);

    /// Nobody will take any more: the input, which may be gone soon, is not read any further. What has
    /// been given is run.
    void give_no_more() noexcept {
        try {
            check_may_take(os::Deadline::passed());
        } catch (const AssertionError&) {  // a forked child's copy: a thread it has not may hold the lock
            return;
        }
        const std::lock_guard reading(input_);
        if (std::exchange(input_ended_, true)) return;
        end_input();
        const std::lock_guard lock(mutex_);
        total_ = given();
    }

    void put(std::uint64_t item, R value) override {
        add(item, Outcome(std::in_place_index<0>, std::move(value)));
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

    [[nodiscard]] bool ready() const noexcept override {
        const std::lock_guard lock(mutex_);
        return is_ready();
    }
    bool sleep(os::Deadline deadline) const override {
        std::unique_lock lock(mutex_);
        return wait_until(changed_, lock, deadline, [this] { return is_ready(); });
    }

protected:
    /// Reads at most `most` items and submits them; false when the input has ended. What it throws is
    /// the outcome of the item that could not be read, and the last. Called by one thread at a time.
    virtual bool give(std::uint64_t most) = 0;
    [[nodiscard]] virtual std::uint64_t given() const noexcept = 0;
    [[nodiscard]] virtual std::uint64_t bytes_an_item() const noexcept = 0;
    /// The input has ended or is not wanted any more.
    virtual void end_input() noexcept = 0;
    /// Throws AssertionError for who may not ask for outcomes, or not wait for them.
    virtual void check_may_take(os::Deadline deadline) const = 0;
    virtual bool await_outcome(os::Deadline deadline) const = 0;
    void read_everything() {
        {
            const std::lock_guard lock(mutex_);
            ahead_.lift();
        }
        read_on();
    }

private:
    void add(std::uint64_t item, Outcome outcome) {
        this->show_more(1);
        const std::lock_guard lock(mutex_);
        if (ordered_) {
            const auto place = static_cast<std::size_t>(item - taken_);
            if (outcomes_.size() <= place) outcomes_.resize(place + 1);
            outcomes_[place].emplace(std::move(outcome));
        } else {
            outcomes_.emplace_back(std::move(outcome));
        }
        ++arrived_;
        changed_.notify_all();
    }
    [[nodiscard]] bool has_outcome() const noexcept { return !outcomes_.empty() && outcomes_.front(); }
    [[nodiscard]] bool is_ready() const noexcept {
        return has_outcome() || failure_ || (total_ && taken_ + (unreadable_ ? 1 : 0) >= *total_);
    }
    void read_on();
    [[nodiscard]] std::uint64_t room();

    const bool ordered_;
    std::mutex input_;  // held by who reads the input; before mutex_
    bool input_ended_ = false;
    mutable std::mutex mutex_;
    mutable std::condition_variable changed_;
    ReadAhead ahead_;
    std::deque<std::optional<Outcome>> outcomes_;  // of the items from taken_ on, if they are in order
    std::uint64_t arrived_ = 0;
    std::uint64_t taken_ = 0;
    bool waited_ = false;  // somebody had to, since input was read
    std::optional<std::uint64_t> total_;
    std::exception_ptr unreadable_;  // the input: the last outcome, where they have no order
    std::exception_ptr failure_;
};

/// How many items may be given now.
template <class R>
std::uint64_t ImapJob<R>::room() {
    const std::lock_guard lock(mutex_);
    if (failure_) return 0;
    const std::uint64_t items = given();
    // All that was given is done, and somebody waited for it: the workers could have done more.
    if (std::exchange(waited_, false) && arrived_ == items) {
        ahead_.starved(taken_, bytes_an_item() + this->most_bytes());
    }
    const std::uint64_t ahead = items - taken_;
    return ahead < ahead_.enough() ? ahead_.items() - ahead : 0;
}

template <class R>
void ImapJob<R>::read_on() {
    const std::lock_guard reading(input_);
    if (input_ended_) return;
    for (std::uint64_t more = room(); more != 0; more = room()) {
        std::exception_ptr unreadable;
        try {
            if (give(more)) continue;
        } catch (...) {
            unreadable = std::current_exception();
        }
        input_ended_ = true;
        const std::uint64_t items = given();
        end_input();
        if (unreadable && ordered_) this->error(items, unreadable);
        const std::lock_guard lock(mutex_);
        if (!ordered_) unreadable_ = unreadable;
        total_ = items + (unreadable ? 1 : 0);
        changed_.notify_all();
        return;
    }
}

template <class R>
std::optional<typename ImapJob<R>::Outcome> ImapJob<R>::next(os::Deadline deadline) {
    check_may_take(deadline);
    read_on();
    for (;;) {
        {
            const std::lock_guard lock(mutex_);
            if (has_outcome()) {
                std::optional<Outcome> outcome = std::move(outcomes_.front());
                outcomes_.pop_front();
                ++taken_;
                return outcome;
            }
            if (unreadable_ && total_ && taken_ + 1 == *total_) {
                ++taken_;
                return Outcome(std::in_place_index<1>, std::exchange(unreadable_, nullptr));
            }
            if (total_ && taken_ >= *total_) {
                this->show_end();
                return std::nullopt;
            }
            if (failure_) {
                // The pool's end is the last outcome.
                total_ = taken_;
                return Outcome(std::in_place_index<1>, failure_);
            }
            waited_ = true;
        }
        if (!await_outcome(deadline)) {
            throw TimeoutError("IMapIterator.next(): no result in the time given");
        }
    }
}

/// The job of a call of `imap`: the input range, and how it is cut.
template <class Feeder, class Range>
class StreamJob final : public ImapJob<typename Feeder::R> {
    using Base = ImapJob<typename Feeder::R>;
    using Kept = KeptRange<Range>;

public:
    template <class Given>
    StreamJob(std::shared_ptr<typename Feeder::Engine> engine, Feeder feeder, Given&& range,
              std::uint32_t chunk, bool ordered, ReadAhead ahead)
        : Base(ordered, ahead), engine_(std::move(engine)), range_(std::forward<Given>(range)),
          feeder_(std::move(feeder)), chunk_(chunk), batch_(chunk) {}
    ~StreamJob() override { end_input(); }

    void begin() override {
        if constexpr (std::ranges::sized_range<Source>) {
            this->show_total(static_cast<std::uint64_t>(std::ranges::size(range_)));
        }
        engine_->begin_stream(this->shared_from_this());
        open_ = true;
        Base::begin();
    }
    void read_to_the_end() override {
        if constexpr (Finite<Source>) this->read_everything();
    }

protected:
    bool give(std::uint64_t most) override {
        if (!next_) {
            next_.emplace(std::ranges::begin(range_));
            end_.emplace(std::ranges::end(range_));
        }
        const auto items = static_cast<std::uint32_t>(std::min<std::uint64_t>(most, batch_));
        const auto before = os::Clock::now();
        const bool given =
            feeder_.give(this->shared_from_this(), *next_, *end_,
                         items > chunk_ ? items - items % chunk_ : items, chunk_, [](std::uint64_t) {});
        // Items that are slow to come are not kept back until there are many.
        const bool was_quick = os::Clock::now() - before < quick;
        batch_ = was_quick ? std::min(batch_ * 2, std::max(most_together, chunk_)) : chunk_;
        return given;
    }
    [[nodiscard]] std::uint64_t given() const noexcept override { return feeder_.given(); }
    [[nodiscard]] std::uint64_t bytes_an_item() const noexcept override {
        return feeder_.bytes_an_item();
    }
    void end_input() noexcept override {
        if (std::exchange(open_, false)) engine_->end_stream(*this);
    }
    void check_may_take(os::Deadline deadline) const override {
        deadline.is_never() ? engine_->check_may_wait() : engine_->check_own();
    }
    bool await_outcome(os::Deadline deadline) const override { return engine_->wait(*this, deadline); }

private:
    using Source = std::remove_reference_t<Kept>;
    static constexpr std::uint32_t most_together = 256;
    static constexpr std::chrono::microseconds quick{100};

    std::shared_ptr<typename Feeder::Engine> engine_;
    Kept range_;
    Feeder feeder_;
    const std::uint32_t chunk_;
    std::uint32_t batch_;  // items given at once
    bool open_ = false;  // the pool counts it as one that may give more
    std::optional<std::ranges::iterator_t<Source>> next_;
    std::optional<std::ranges::sentinel_t<Source>> end_;
};

}  // namespace multiprocessing::runtime::pool
