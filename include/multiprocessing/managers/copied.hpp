// SPDX-License-Identifier: BSL-1.0
//
// What a loop over a proxy goes over: a copy, taken when it begins.
#pragma once

#include <cstddef>
#include <iterator>
#include <memory>
#include <utility>
#include <vector>

namespace multiprocessing::managers {

/// Over elements that it owns together with its copies. One that was made of none is at the end.
template <class T>
class CopyIterator {
public:
    using value_type = T;
    using difference_type = std::ptrdiff_t;
    using iterator_category = std::forward_iterator_tag;
    using pointer = typename std::vector<T>::const_pointer;
    using reference = typename std::vector<T>::const_reference;

    CopyIterator() = default;
    explicit CopyIterator(std::vector<T> elements)
        : elements_(std::make_shared<const std::vector<T>>(std::move(elements))) {}

    [[nodiscard]] reference operator*() const { return (*elements_)[at_]; }
    [[nodiscard]] pointer operator->() const { return &(*elements_)[at_]; }
    CopyIterator& operator++() {
        ++at_;
        return *this;
    }
    CopyIterator operator++(int) {
        CopyIterator before = *this;
        ++at_;
        return before;
    }
    friend bool operator==(const CopyIterator& a, const CopyIterator& b) noexcept {
        return a.left() == b.left();
    }

private:
    [[nodiscard]] std::size_t left() const noexcept {
        return elements_ == nullptr ? 0 : elements_->size() - at_;
    }

    std::shared_ptr<const std::vector<T>> elements_;
    std::size_t at_ = 0;
};

}  // namespace multiprocessing::managers
