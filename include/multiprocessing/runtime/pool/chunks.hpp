// SPDX-License-Identifier: BSL-1.0
//
// What the items of a range are to a pool, and how many of them go together.
#pragma once

#include <multiprocessing/pickle/message.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
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

/// As what a range is kept that is read later: an lvalue stays where it is, and must; but of a handle,
/// an Array, there is a copy, so that what it refers to stays.
template <class Range>
using KeptRange =
    std::conditional_t<std::is_lvalue_reference_v<Range> && !pickle::Handle<std::remove_cvref_t<Range>>,
                       Range, std::remove_cvref_t<Range>>;

/// What can be counted before it is read. An endless range has no size, and what stands for its end
/// is not an iterator.
template <class Range>
concept Finite = std::ranges::sized_range<Range> ||
                 (std::ranges::forward_range<Range> && std::ranges::common_range<Range>);

/// How the items of a `map` are cut: how many are run together, and how many are given at once.
class Chunks {
public:
    /// `fixed` 0: as many as make about four chunks for each worker, if it is known how many items
    /// there will be, and no more than make a task large.
    Chunks(std::uint32_t workers, int fixed, std::size_t item_bytes) noexcept
        : workers_(workers), fixed_(static_cast<std::uint32_t>(fixed)),
          most_(static_cast<std::uint32_t>(std::clamp<std::size_t>(large / item_bytes, 1, large))) {}

    void expect(std::uint64_t items) noexcept {
        const std::uint64_t parts = std::uint64_t{4} * workers_;
        next_ = static_cast<std::uint32_t>(std::clamp<std::uint64_t>((items + parts - 1) / parts, 1, most_));
        growing_ = false;
    }
    struct Step {
        std::uint32_t items;
        std::uint32_t grain;
    };
    [[nodiscard]] Step next() noexcept {
        if (fixed_ != 0) {
            // Small chunks go by the dozen. They are claimed one by one all the same.
            batch_ = std::min(batch_ * 2, std::max(some_items / fixed_, std::uint32_t{1}));
            return {batch_ * fixed_, fixed_};
        }
        if (growing_) {
            const auto grain = std::exchange(next_, std::min({next_ * 2, most_, std::uint32_t{1024}}));
            return {grain, grain};
        }
        return {next_, next_};
    }

private:
    static constexpr std::size_t large = std::size_t{1} << 20;
    static constexpr std::uint32_t some_items = 256;

    std::uint32_t workers_;
    std::uint32_t fixed_;
    std::uint32_t most_;
    std::uint32_t next_ = 1;
    std::uint32_t batch_ = 1;  // chunks given at once
    bool growing_ = true;
};

}  // namespace multiprocessing::runtime::pool
