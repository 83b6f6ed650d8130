// SPDX-License-Identifier: BSL-1.0
//
// Cutting an input range into tasks for other processes, as it is read.
#pragma once

#include <multiprocessing/runtime/pool/chunks.hpp>
#include <multiprocessing/runtime/pool/input.hpp>
#include <multiprocessing/runtime/pool/process_engine.hpp>
#include <multiprocessing/runtime/pool/work.hpp>
#include <multiprocessing/runtime/pool/written_items.hpp>

#include <algorithm>
#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <memory>
#include <optional>
#include <type_traits>
#include <utility>
#include <vector>

namespace multiprocessing::runtime::pool {

/// Gives one task after the other.
template <Calling calling, class F, class Item>
class ProcessFeeder {
    using TheWork = Work<calling, F, Item>;

public:
    using Engine = ProcessEngine;
    using R = typename TheWork::R;

    ProcessFeeder(Engine& engine, F f, const TaskSettings& settings)
        : engine_(engine), f_(std::move(f)), settings_(settings) {}

    /// Reads at most `most` items from [next, end) and submits them as one task, of which each `grain`
    /// items are run together, and says `about_to_give(bytes)` before. False if there was no item. What
    /// the range throws is thrown after the whole chunks before it have been given.
    template <class Iterator, class Sentinel, class Tell>
    bool give(const std::shared_ptr<Job>& job, Iterator& next, const Sentinel& end, std::uint32_t most,
              std::uint32_t grain, Tell about_to_give);

    /// The number that the engine has given the last task.
    [[nodiscard]] std::uint64_t last_task() const noexcept { return last_; }
    /// Items submitted so far, and what one of them took.
    [[nodiscard]] std::uint64_t given() const noexcept { return given_; }
    [[nodiscard]] std::uint64_t bytes_an_item() const noexcept {
        return given_ != 0 ? bytes_ / given_ : 0;
    }

private:
    /// What is about to be a task: the callable is written, and its handles are counted.
    struct Draft {
        pickle::Cargo cargo{false, "a pool's task"};
        pickle::Scratch callable;
    };
    void begin(Draft& draft);
    [[nodiscard]] Task& make(Draft& draft, std::uint32_t count, std::uint32_t grain, std::size_t items);
    template <class Tell>
    void submit(const std::shared_ptr<Job>& job, Task& task, Tell& about_to_give) {
        const std::uint64_t bytes = shm::Arena::block_of(&task).size;
        about_to_give(bytes);
        const std::uint32_t count = task.count;
        last_ = engine_.submit(job, given_, task, settings_);
        given_ += count;
        bytes_ += bytes;
    }
    template <class Iterator, class Sentinel, class Tell>
    void give_array(const std::shared_ptr<Job>& job, Iterator& next, const Sentinel& end,
                    std::uint32_t most, std::uint32_t grain, Tell& about_to_give);
    template <class Iterator, class Sentinel, class Tell>
    void give_one_by_one(const std::shared_ptr<Job>& job, Iterator& next, const Sentinel& end,
                         std::uint32_t most, std::uint32_t grain, Tell& about_to_give);
    template <class Tell>
    void give_large(const std::shared_ptr<Job>& job, const Item& item, Tell& about_to_give);

    Engine& engine_;
    F f_;
    TaskSettings settings_;
    pickle::Buffer callable_;  // what is written of it, if it has no handles
    std::uint64_t given_ = 0;
    std::uint64_t bytes_ = 0;
    std::uint64_t last_ = 0;
    Input input_;
};

template <Calling calling, class F, class Item>
template <class Iterator, class Sentinel, class Tell>
bool ProcessFeeder<calling, F, Item>::give(const std::shared_ptr<Job>& job, Iterator& next,
                                           const Sentinel& end, std::uint32_t most,
                                           std::uint32_t grain, Tell about_to_give) {
    if (!input_.go_on(next, end)) return false;
    if constexpr (TheWork::plain && std::contiguous_iterator<Iterator> &&
                  std::sized_sentinel_for<Sentinel, Iterator> &&
                  std::same_as<std::iter_value_t<Iterator>, Item>) {
        give_array(job, next, end, most, grain, about_to_give);
    } else {
        give_one_by_one(job, next, end, most, grain, about_to_give);
    }
    return true;
}

template <Calling calling, class F, class Item>
void ProcessFeeder<calling, F, Item>::begin(Draft& draft) {
    if (callable_.size() != 0) {
        draft.callable->append(callable_.data(), callable_.size());
        return;
    }
    TheWork::write_callable(*draft.callable, &draft.cargo, f_);
    if (draft.cargo.tickets().empty()) callable_.append(draft.callable->data(), draft.callable->size());
}

template <Calling calling, class F, class Item>
Task& ProcessFeeder<calling, F, Item>::make(Draft& draft, std::uint32_t count, std::uint32_t grain,
                                            std::size_t items) {
    Task& task = engine_.make_task({&TheWork::run, count, std::min(grain, count), array_element<R>,
                                    draft.callable->size(), items, TheWork::plain,
                                    settings_.timeout.count() != 0},
                                   draft.cargo.tickets());
    draft.cargo.ship();
    draft.callable->copy_to(task.at(task.callable));
    return task;
}

template <Calling calling, class F, class Item>
template <class Iterator, class Sentinel, class Tell>
void ProcessFeeder<calling, F, Item>::give_array(const std::shared_ptr<Job>& job, Iterator& next,
                                                 const Sentinel& end, std::uint32_t most,
                                                 std::uint32_t grain, Tell& about_to_give) {
    const auto count = static_cast<std::uint32_t>(
        std::min<std::uint64_t>(most, static_cast<std::uint64_t>(end - next)));
    const Item* const items = std::to_address(next);
    Draft draft;
    begin(draft);
    // What is in shared memory, and stays there, is read there.
    const shm::Arena& arena = shm::Arena::instance();
    const bool is_shared = settings_.items_stay && arena.contains(items);
    const std::size_t bytes = is_shared ? 0 : count * sizeof(Item);
    Task& task = make(draft, count, grain, bytes);
    if (is_shared) {
        task.items = arena.offset_of(items);
    } else {
        std::memcpy(arena.at<std::byte>(task.items), items, bytes);
    }
    next += static_cast<std::iter_difference_t<Iterator>>(count);
    submit(job, task, about_to_give);
}

template <Calling calling, class F, class Item>
template <class Iterator, class Sentinel, class Tell>
void ProcessFeeder<calling, F, Item>::give_one_by_one(const std::shared_ptr<Job>& job, Iterator& next,
                                                      const Sentinel& end, std::uint32_t most,
                                                      std::uint32_t grain, Tell& about_to_give) {
    Draft draft;
    WrittenItems<TheWork, Item> items(most, grain);
    // True when no more are to come into this task.
    const auto take = [&](const Item& item) {
        if constexpr (TheWork::sized) {
            if (items.count() == 0 && grain == 1 && pickle::payload_size(item) >= items.large) {
                give_large(job, item, about_to_give);
                return true;
            }
        }
        if (items.count() == 0) begin(draft);
        return items.add(item, &draft.cargo);
    };
    input_.read(
        next, end,
        [&](auto&& item) {
            if constexpr (std::same_as<std::remove_cvref_t<decltype(item)>, Item>) {
                return take(item);
            } else {
                return take(static_cast<Item>(std::forward<decltype(item)>(item)));
            }
        },
        // Of the range or of an item that cannot be written.
        [&] { return items.keep_whole(); });
    if (items.count() == 0) return;
    Task& task = make(draft, items.count(), grain, items.bytes().size());
    if constexpr (TheWork::plain) {
        items.bytes().copy_to(shm::Arena::instance().at<std::byte>(task.items));
    } else {
        const std::uint64_t begin_of_items = task.end - items.bytes().size();
        items.bytes().copy_to(task.at(begin_of_items));
        for (std::size_t i = 0; i < items.first_bytes().size(); ++i) {
            task.all_grains()[i].first_byte = begin_of_items + items.first_bytes()[i];
        }
    }
    submit(job, task, about_to_give);
}

/// One item, written once, to where it is read.
template <Calling calling, class F, class Item>
template <class Tell>
void ProcessFeeder<calling, F, Item>::give_large(const std::shared_ptr<Job>& job, const Item& item,
                                                 Tell& about_to_give) {
    if constexpr (TheWork::sized) {
        const std::size_t size = pickle::payload_size(item);
        Draft draft;
        begin(draft);
        Task& task = make(draft, 1, 1, size);
        const std::uint64_t begin_of_item = task.end - size;
        pickle::Buffer place(std::span(task.at(begin_of_item), size));
        TheWork::write_item(place, nullptr, item);
        task.all_grains()[0].first_byte = begin_of_item;
        submit(job, task, about_to_give);
    }
}

}  // namespace multiprocessing::runtime::pool
