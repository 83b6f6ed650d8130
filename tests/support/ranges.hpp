// SPDX-License-Identifier: BSL-1.0
//
// Input ranges that are made as they are read.
#pragma once

#include <cstddef>
#include <functional>
#include <iterator>
#include <optional>
#include <utility>

namespace support {

/// make(0), make(1) and so on, single-pass: `count` of them, which is known only when the end is
/// reached, or without an end. (What std::views::iota and transform would be, which clang 14 cannot
/// instantiate from the library of g++ 12.)
class Generated {
public:
    using Make = std::function<int(int)>;
    explicit Generated(Make make = [](int x) { return x; }, std::optional<int> count = std::nullopt)
        : make_(std::move(make)), count_(count) {}

    class iterator {
    public:
        using value_type = int;
        using difference_type = std::ptrdiff_t;
        using iterator_concept = std::input_iterator_tag;
        iterator(const Make* make, std::optional<int> count) : make_(make), count_(count) {}
        int operator*() const { return (*make_)(at_); }
        iterator& operator++() {
            ++at_;
            return *this;
        }
        void operator++(int) { ++*this; }
        friend bool operator==(const iterator& it, std::default_sentinel_t) {
            return it.at_ == it.count_;
        }

    private:
        const Make* make_;
        std::optional<int> count_;
        int at_ = 0;
    };
    [[nodiscard]] iterator begin() const { return {&make_, count_}; }
    [[nodiscard]] std::default_sentinel_t end() const { return {}; }

private:
    Make make_;
    std::optional<int> count_;
};

}  // namespace support
