// SPDX-License-Identifier: BSL-1.0
//
// Running slices of tasks in a rank itself. The function is read once, not once a task.
#pragma once

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/mpi/answers.hpp>
#include <multiprocessing/mpi/messages.hpp>
#include <multiprocessing/os/backtrace.hpp>
#include <multiprocessing/os/clock.hpp>
#include <multiprocessing/pickle/callable.hpp>
#include <multiprocessing/runtime/pool/item_call.hpp>
#include <multiprocessing/runtime/pool/local_task.hpp>

#include <algorithm>
#include <atomic>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <memory>
#include <optional>
#include <span>
#include <utility>

namespace multiprocessing::mpi {

using runtime::pool::Calling;

/// A slice of a task, with the rank that is to run it. Its grains are claimed one by one, so that they
/// can be given back until the last moment.
class SliceInHand {
public:
    using Message = std::shared_ptr<const pickle::Buffer>;

    SliceInHand(std::uint64_t in_pool, const Slice& what, std::span<const std::byte> where,
                std::span<const std::byte> items, Message of) noexcept
        : pool(in_pool), slice(what), places_(where), items_(items), message_(std::move(of)) {}

    const std::uint64_t pool;
    const Slice slice;
    std::atomic<bool> cancelled{false};  // nobody wants the outcomes

    /// The next grain, to be run now.
    [[nodiscard]] std::optional<std::uint32_t> claim() noexcept {
        const std::uint32_t grain = next_.load(std::memory_order_relaxed);
        if (grain >= slice.grains()) return std::nullopt;
        const std::uint32_t claimed = next_.fetch_add(1, std::memory_order_seq_cst);
        return claimed < slice.grains() ? std::optional(claimed) : std::nullopt;
    }
    /// Those that nobody has claimed, and nobody will: the first of them, and how many.
    [[nodiscard]] std::pair<std::uint32_t, std::uint32_t> claim_rest() noexcept {
        const std::uint32_t first =
            std::min(next_.exchange(slice.grains(), std::memory_order_seq_cst), slice.grains());
        return {first, slice.grains() - first};
    }
    /// Of the task's items: the first of a grain, and one past its last.
    [[nodiscard]] std::uint32_t first_of(std::uint32_t grain) const noexcept {
        return slice.first + grain * slice.grain;
    }
    [[nodiscard]] std::uint32_t end_of(std::uint32_t grain) const noexcept {
        return slice.first + std::min((grain + 1) * slice.grain, slice.count);
    }
    /// Items that are nothing but their bytes, from the first of the slice on.
    [[nodiscard]] std::span<const std::byte> items() const noexcept { return items_; }
    /// Others, from the first of a grain on.
    [[nodiscard]] std::span<const std::byte> items_from(std::uint32_t grain) const {
        const std::uint64_t place = place_of(grain);
        if (place > items_.size()) throw UnpicklingError("a slice of a task names a place outside of it");
        return items_.subspan(static_cast<std::size_t>(place));
    }
    /// Where that is.
    [[nodiscard]] std::uint64_t place_of(std::uint32_t grain) const noexcept {
        std::uint64_t place;
        std::memcpy(&place, places_.data() + grain * sizeof place, sizeof place);
        return place;
    }

private:
    const std::span<const std::byte> places_;
    const std::span<const std::byte> items_;
    const Message message_;
    std::atomic<std::uint32_t> next_{0};
};

/// What a rank is at, for all of its threads to see.
class RankState {
public:
    explicit RankState(Answers& answers) noexcept : answers_(answers) {}

    [[nodiscard]] Answers& answers() noexcept { return answers_; }
    /// As a WorkerSlot's.
    [[nodiscard]] std::atomic<std::uint64_t>& run() noexcept { return run_; }
    [[nodiscard]] std::uint32_t item() const noexcept { return item_.load(std::memory_order_relaxed); }
    [[nodiscard]] std::uint64_t started() const noexcept { return started_.load(std::memory_order_relaxed); }
    /// The item that runs is to stop: its outcome is not wanted. False if it has ended.
    bool ask_to_stop() noexcept {
        std::uint64_t now = run_.load();
        return (now & runtime::pool::WorkerSlot::run_mask) == runtime::pool::WorkerSlot::running &&
               ask_to_stop(now);
    }
    bool ask_to_stop(std::uint64_t of_run) noexcept {
        using runtime::pool::WorkerSlot;
        return run_.compare_exchange_strong(of_run, (of_run & ~WorkerSlot::run_mask) | WorkerSlot::asked);
    }
    void begin(std::uint32_t item, bool is_timed) noexcept {
        item_.store(item, std::memory_order_relaxed);
        if (is_timed) started_.store(os::nanoseconds_now(), std::memory_order_relaxed);
    }

private:
    Answers& answers_;
    std::atomic<std::uint64_t> run_{0};
    std::atomic<std::uint32_t> item_{0};
    std::atomic<std::uint64_t> started_{0};
};

/// A function that a rank can run slices of tasks with.
class RankFunction {
public:
    RankFunction() = default;
    RankFunction(const RankFunction&) = delete;
    RankFunction& operator=(const RankFunction&) = delete;
    virtual ~RankFunction() = default;
    virtual void run(SliceInHand& slice, RankState& rank) = 0;
};
/// Makes one from the bytes of its callable, which it keeps.
using Maker = std::unique_ptr<RankFunction> (*)(SliceInHand::Message message,
                                                std::span<const std::byte> callable);

template <Calling calling, class F, class Item>
class RankWork final : public RankFunction {
    using TheCall = runtime::pool::TravellingCall<calling, F, Item>;
    using R = typename TheCall::R;

    // One that calls leave as it was serves for all of them. Another is read anew for each slice, as it
    // would be for each task of a local pool.
    template <class Const>
    static constexpr bool can_stay() {
        if constexpr (runtime::pool::Invoke<calling, Const, Item>::possible) {
            return std::same_as<typename runtime::pool::Call<calling, Const, Item>::R, R>;
        } else {
            return false;
        }
    }
    static constexpr bool stays = can_stay<const F>();
    using Called = std::conditional_t<stays, const F, F>;

public:
    static std::unique_ptr<RankFunction> make(SliceInHand::Message message,
                                              std::span<const std::byte> callable) {
        return std::make_unique<RankWork>(std::move(message), callable);
    }
    RankWork(SliceInHand::Message message, std::span<const std::byte> callable)
        : message_(std::move(message)), callable_(callable) {
        if constexpr (stays) read();
    }

    void run(SliceInHand& slice, RankState& rank) override {
        const os::WatchedFrame traces_end_here;
        if constexpr (!stays) read();
        while (const auto grain = slice.claim()) {
            if (unreadable_) {
                fail(slice, rank, slice.first_of(*grain), slice.end_of(*grain), unreadable_);
            } else {
                run_grain(slice, rank, *grain);
            }
        }
    }

private:
    /// Where the outcome of one item goes.
    class Answer {
    public:
        Answer(SliceInHand& slice, RankState& rank, std::uint32_t item,
               runtime::pool::Delivery& delivery) noexcept
            : slice_(slice), rank_(rank), delivery_(delivery), item_(item) {}
        template <class Result>
        void value(const Result& result) {
            if (is_wanted()) rank_.answers().value(slice_.pool, slice_.slice.task, item_, result);
        }
        void error(const std::exception_ptr& exception, const os::Backtrace& thrown) {
            if (is_wanted()) {
                rank_.answers().error(slice_.pool, slice_.slice.task, item_, exception, thrown);
            }
        }

    private:
        [[nodiscard]] bool is_wanted() {
            if (!wanted_) {
                wanted_ = delivery_.is_wanted();
                if (!*wanted_) free(slice_, rank_, item_, 1);
            }
            return *wanted_;
        }
        SliceInHand& slice_;
        RankState& rank_;
        runtime::pool::Delivery& delivery_;
        const std::uint32_t item_;
        std::optional<bool> wanted_;
    };

    void read() {
        f_.reset();
        unreadable_ = nullptr;
        try {
            pickle::IArchive archive(callable_, nullptr);
            pickle::while_unpickling(archive, [&] { f_.emplace(pickle::load_callable<F>(archive)); });
        } catch (...) {
            unreadable_ = std::current_exception();
        }
    }
    void run_grain(SliceInHand& slice, RankState& rank, std::uint32_t grain) {
        runtime::pool::Delivery delivery(rank.run());
        const std::uint32_t end = slice.end_of(grain);
        std::uint32_t item = slice.first_of(grain);
        if constexpr (TheCall::plain) {
            const std::byte* next = slice.items().data() + (item - slice.slice.first) * sizeof(Item);
            for (; item != end && !slice.cancelled; ++item, next += sizeof(Item)) {
                alignas(Item) std::byte bytes[sizeof(Item)];
                std::memcpy(bytes, next, sizeof(Item));
                step(slice, rank, delivery, item, *reinterpret_cast<Item*>(bytes));
            }
        } else {
            std::span<const std::byte> rest = slice.items_from(grain);
            for (; item != end && !slice.cancelled; ++item) {
                std::optional<Item> value;
                try {
                    pickle::IArchive archive(rest, nullptr);
                    pickle::while_unpickling(
                        archive, [&] { value.emplace(pickle::load_new<Item>(archive)); });
                    rest = rest.subspan(archive.position());
                } catch (...) {
                    // Where one item cannot be read, nobody knows where the next begins.
                    return fail(slice, rank, item, end, std::current_exception());
                }
                step(slice, rank, delivery, item, *value);
            }
        }
        if (item != end) free(slice, rank, item, end - item);
    }
    void step(SliceInHand& slice, RankState& rank, runtime::pool::Delivery& delivery, std::uint32_t item,
              Item& value) {
        rank.begin(item, slice.slice.timeout != 0);
        delivery.begin();
        // It may have been cancelled before anybody could see that it runs.
        if (slice.cancelled) rank.ask_to_stop();
        Answer answer(slice, rank, item, delivery);
        runtime::pool::ItemCall<calling, Called, Item>::run(*f_, value, answer, true);
    }
    static void free(SliceInHand& slice, RankState& rank, std::uint32_t item, std::uint32_t count) {
        rank.answers().add(slice.pool,
                           Outcome{slice.slice.task, Outcome::What::freed, item, count, 0, 0});
    }
    static void fail(SliceInHand& slice, RankState& rank, std::uint32_t first, std::uint32_t end,
                     const std::exception_ptr& why) {
        for (std::uint32_t item = first; item != end; ++item) {
            rank.answers().error(slice.pool, slice.slice.task, item, why);
        }
    }

    const SliceInHand::Message message_;
    const std::span<const std::byte> callable_;
    std::optional<F> f_;
    std::exception_ptr unreadable_;
};

}  // namespace multiprocessing::mpi
