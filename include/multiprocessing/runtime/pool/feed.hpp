// SPDX-License-Identifier: BSL-1.0
//
// Cutting an input range into tasks, as it is read.
#pragma once

#include <multiprocessing/runtime/pool/engine.hpp>
#include <multiprocessing/runtime/pool/job.hpp>
#include <multiprocessing/runtime/pool/work.hpp>

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <limits>
#include <memory>
#include <optional>
#include <ranges>
#include <type_traits>
#include <utility>

namespace multiprocessing::runtime::pool {

// The elements of a map have const keys, which could not be read into.
template <class T>
struct Assignable {
    using type = T;
};
template <class Key, class T>
struct Assignable<std::pair<const Key, T>> {
    using type = std::pair<Key, T>;
};

/// As what the elements of a range travel.
template <class Range>
using ItemOf = typename Assignable<pickle::travel_decay_t<std::ranges::range_value_t<Range>>>::type;

/// What can be counted before it is read. An endless range has no size, and what stands for its end
/// is not an iterator.
template <class Range>
concept Finite = std::ranges::sized_range<Range> ||
                 (std::ranges::forward_range<Range> && std::ranges::common_range<Range>);

/// While it lives the pool does not stop for lack of work. After Engine::begin_feeding().
class EndFeeding {
public:
    explicit EndFeeding(Engine& engine) noexcept : engine_(engine) {}
    EndFeeding(const EndFeeding&) = delete;
    EndFeeding& operator=(const EndFeeding&) = delete;
    ~EndFeeding() { engine_.end_feeding(); }

private:
    Engine& engine_;
};

/// How many items go into each task.
class Chunks {
public:
    /// A caller that may block has so many bytes of tasks under way at most.
    static constexpr std::uint64_t bytes_ahead = std::uint64_t{16} << 20;

    /// `fixed` 0: as many as make about four tasks for each worker, if it is known how many items
    /// there will be, and no more than make a task large.
    Chunks(std::uint32_t workers, int fixed, std::size_t item_bytes) noexcept
        : workers_(workers), fixed_(static_cast<std::uint32_t>(fixed)),
          most_(static_cast<std::uint32_t>(std::clamp<std::size_t>(large / item_bytes, 1, large))) {}

    void expect(std::uint64_t items) noexcept {
        const std::uint64_t parts = std::uint64_t{4} * workers_;
        next_ = static_cast<std::uint32_t>(std::clamp<std::uint64_t>((items + parts - 1) / parts, 1, most_));
        growing_ = false;
    }
    [[nodiscard]] std::uint32_t next() noexcept {
        if (fixed_ != 0) return fixed_;
        if (!growing_) return next_;
        return std::exchange(next_, std::min({next_ * 2, most_, std::uint32_t{1024}}));
    }

private:
    static constexpr std::size_t large = std::size_t{1} << 20;

    std::uint32_t workers_;
    std::uint32_t fixed_;
    std::uint32_t most_;
    std::uint32_t next_ = 1;
    bool growing_ = true;
};

/// Gives one task after the other, each of at most so many items.
template <class TheWork, class F, class Item>
class Feed {
public:
    Feed(Engine& engine, F f) : engine_(engine), f_(std::move(f)) {}

    /// Reads at most `most` items from [next, end) and submits them as one task, of which it says
    /// `about_to_give(bytes)` before. False if there was no item. What the range throws is thrown
    /// before anything is submitted.
    template <class Iterator, class Sentinel, class Tell>
    bool give(const std::shared_ptr<Job>& job, Iterator& next, const Sentinel& end, std::uint32_t most,
              Tell about_to_give);
    template <class Iterator, class Sentinel>
    bool give(const std::shared_ptr<Job>& job, Iterator& next, const Sentinel& end,
              std::uint32_t most) {
        return give(job, next, end, most, [](std::uint64_t) {});
    }

    /// Items submitted so far.
    [[nodiscard]] std::uint64_t given() const noexcept { return given_; }

private:
    template <class Tell>
    void submit(const std::shared_ptr<Job>& job, Task& task, std::uint32_t count, Tell& about_to_give) {
        about_to_give(shm::Arena::block_of(&task).size);
        engine_.submit(job, given_, task);
        given_ += count;
    }

    Engine& engine_;
    F f_;
    std::uint64_t given_ = 0;
    bool passed_ = false;  // the item that the iterator stands at has been read
};

template <class TheWork, class F, class Item>
template <class Iterator, class Sentinel, class Tell>
bool Feed<TheWork, F, Item>::give(const std::shared_ptr<Job>& job, Iterator& next,
                                  const Sentinel& end, std::uint32_t most, Tell about_to_give) {
    if (std::exchange(passed_, false)) ++next;
    if (next == end) return false;
    pickle::Scratch scratch;
    pickle::Cargo cargo(false, "a pool's task");
    TheWork::write_callable(*scratch, cargo, f_);
    if constexpr (TheWork::plain && std::contiguous_iterator<Iterator> &&
                  std::sized_sentinel_for<Sentinel, Iterator> &&
                  std::same_as<std::iter_value_t<Iterator>, Item>) {
        const auto count =
            static_cast<std::uint32_t>(std::min<std::uint64_t>(most, static_cast<std::uint64_t>(end - next)));
        const std::size_t head = scratch->size();
        const std::size_t bytes = count * sizeof(Item);
        Task& task = engine_.make_task(&TheWork::run, count, head + bytes, cargo.tickets());
        cargo.ship();
        scratch->copy_to(task.payload());
        std::memcpy(task.payload() + head, std::to_address(next), bytes);
        next += static_cast<std::iter_difference_t<Iterator>>(count);
        submit(job, task, count, about_to_give);
        return true;
    } else {
        const auto write = [&](const Item& item) {
            if constexpr (TheWork::plain) {
                scratch->append(std::addressof(item), sizeof item);
            } else {
                TheWork::write_item(*scratch, cargo, item);
            }
        };
        std::uint32_t count = 0;
        for (; next != end; ++next) {
            if constexpr (std::same_as<std::remove_cvref_t<std::iter_reference_t<Iterator>>, Item>) {
                write(*next);
            } else {
                write(static_cast<Item>(*next));
            }
            if (++count == most) {
                // The step to the next item, which may block, is for when it is wanted.
                passed_ = true;
                break;
            }
        }
        Task& task = engine_.make_task(&TheWork::run, count, scratch->size(), cargo.tickets());
        cargo.ship();
        scratch->copy_to(task.payload());
        submit(job, task, count, about_to_give);
        return true;
    }
}

}  // namespace multiprocessing::runtime::pool
