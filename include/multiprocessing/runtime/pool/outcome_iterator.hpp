// SPDX-License-Identifier: BSL-1.0
//
// Going through results that come one by one, each a value or an exception.
#pragma once

#include <cstddef>
#include <exception>
#include <iterator>
#include <optional>
#include <utility>
#include <variant>

namespace multiprocessing::runtime::pool {

template <class R>
using Outcome = std::variant<R, std::exception_ptr>;

/// The value of an outcome. Throws its exception.
template <class R>
[[nodiscard]] R& value_of(Outcome<R>& outcome) {
    if (const auto* error = std::get_if<1>(&outcome)) std::rethrow_exception(*error);
    return std::get<0>(outcome);
}

/// An input iterator over what `take()` gives until that is nothing. It takes when it is moved on, and
/// throws, where there was an exception, when it is looked at.
template <class R, class Take>
class OutcomeIterator {
public:
    using value_type = R;
    using difference_type = std::ptrdiff_t;
    using iterator_concept = std::input_iterator_tag;

    explicit OutcomeIterator(Take take) : take_(std::move(take)) { ++*this; }
    [[nodiscard]] R& operator*() const { return value_of<R>(*outcome_); }
    OutcomeIterator& operator++() {
        outcome_.reset();  // gone before the next is waited for
        if (std::optional<Outcome<R>> next = take_()) outcome_.emplace(std::move(*next));
        return *this;
    }
    void operator++(int) { ++*this; }
    friend bool operator==(const OutcomeIterator& it, std::default_sentinel_t) noexcept {
        return !it.outcome_;
    }

private:
    Take take_;
    mutable std::optional<Outcome<R>> outcome_;
};

}  // namespace multiprocessing::runtime::pool
