// SPDX-License-Identifier: BSL-1.0
//
// `mp::range`, Python's `range`: numbers from a start to before a stop, in steps.
#pragma once

#include <multiprocessing/exceptions.hpp>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <iterator>

namespace multiprocessing {

/// The numbers start, start + step, … before stop. *Python*: `range`.
template <std::signed_integral T>
class Range {
public:
    class iterator;

    /// *Throws* ValueError for a step of 0.
    Range(T start, T stop, T step) : start_(start), step_(step) {
        if (step == 0) throw ValueError("range(): the step must not be 0");
        // In unsigned numbers, where differences cannot overflow.
        using U = std::make_unsigned_t<T>;
        const U distance = step > 0 ? (stop > start ? U(stop) - U(start) : U(0))
                                    : (start > stop ? U(start) - U(stop) : U(0));
        const U stride = step > 0 ? U(step) : U(0) - U(step);
        size_ = distance / stride + (distance % stride != 0 ? 1 : 0);
    }
    [[nodiscard]] iterator begin() const noexcept { return iterator(start_, step_, 0); }
    [[nodiscard]] iterator end() const noexcept {
        return iterator(start_, step_, static_cast<std::ptrdiff_t>(size_));
    }
    [[nodiscard]] std::size_t size() const noexcept { return static_cast<std::size_t>(size_); }
    [[nodiscard]] bool empty() const noexcept { return size_ == 0; }

private:
    T start_;
    T step_;
    std::uint64_t size_ = 0;
};

template <std::signed_integral T>
class Range<T>::iterator {
public:
    using value_type = T;
    using difference_type = std::ptrdiff_t;
    using iterator_category = std::input_iterator_tag;
    using iterator_concept = std::forward_iterator_tag;

    iterator() = default;
    iterator(T start, T step, std::ptrdiff_t at) noexcept : start_(start), step_(step), at_(at) {}
    [[nodiscard]] T operator*() const noexcept {
        using U = std::make_unsigned_t<T>;
        return static_cast<T>(static_cast<U>(U(start_) + static_cast<U>(U(at_) * U(step_))));
    }
    iterator& operator++() noexcept {
        ++at_;
        return *this;
    }
    iterator operator++(int) noexcept {
        iterator before = *this;
        ++at_;
        return before;
    }
    friend bool operator==(const iterator& a, const iterator& b) noexcept { return a.at_ == b.at_; }
    friend std::ptrdiff_t operator-(const iterator& a, const iterator& b) noexcept {
        return a.at_ - b.at_;
    }

private:
    T start_ = 0;
    T step_ = 1;
    std::ptrdiff_t at_ = 0;
};

template <std::signed_integral T>
[[nodiscard]] Range<T> range(T stop) {
    return Range<T>(0, stop, 1);
}
template <std::signed_integral T>
[[nodiscard]] Range<T> range(T start, std::type_identity_t<T> stop, std::type_identity_t<T> step = 1) {
    return Range<T>(start, stop, step);
}

}  // namespace multiprocessing
