// SPDX-License-Identifier: BSL-1.0
//
// Several ranges side by side, as long as the shortest: what Python's `zip` is, and C++20 lacks.
#pragma once

#include <multiprocessing/runtime/pool/chunks.hpp>

#include <cstddef>
#include <iterator>
#include <ranges>
#include <tuple>
#include <type_traits>
#include <utility>

namespace multiprocessing::concurrent::futures {

/// An input range of tuples. An lvalue is kept by reference, which must outlive it.
template <class... Ranges>
class Zip {
    template <class Range>
    using Kept = runtime::pool::KeptRange<Range>;
    template <class Range>
    using Source = std::remove_reference_t<Kept<Range>>;

public:
    class iterator {
    public:
        using value_type = std::tuple<std::ranges::range_value_t<Source<Ranges>>...>;
        using difference_type = std::ptrdiff_t;
        using iterator_concept = std::input_iterator_tag;

        explicit iterator(std::tuple<Kept<Ranges>...>& ranges)
            : at_(std::apply([](auto&... each) { return std::tuple(std::ranges::begin(each)...); },
                             ranges)),
              end_(std::apply([](auto&... each) { return std::tuple(std::ranges::end(each)...); },
                              ranges)) {}
        [[nodiscard]] value_type operator*() const {
            return std::apply([](const auto&... each) { return value_type(*each...); }, at_);
        }
        iterator& operator++() {
            std::apply([](auto&... each) { (static_cast<void>(++each), ...); }, at_);
            return *this;
        }
        void operator++(int) { ++*this; }
        friend bool operator==(const iterator& it, std::default_sentinel_t) {
            return it.ended(std::index_sequence_for<Ranges...>());
        }

    private:
        template <std::size_t... I>
        [[nodiscard]] bool ended(std::index_sequence<I...>) const {
            return ((std::get<I>(at_) == std::get<I>(end_)) || ...);
        }

        std::tuple<std::ranges::iterator_t<Source<Ranges>>...> at_;
        std::tuple<std::ranges::sentinel_t<Source<Ranges>>...> end_;
    };

    template <class... Given>
    explicit Zip(std::in_place_t, Given&&... ranges) : ranges_(std::forward<Given>(ranges)...) {}

    [[nodiscard]] iterator begin() { return iterator(ranges_); }
    [[nodiscard]] std::default_sentinel_t end() const noexcept { return {}; }

private:
    std::tuple<Kept<Ranges>...> ranges_;
};

}  // namespace multiprocessing::concurrent::futures
