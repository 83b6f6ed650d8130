// SPDX-License-Identifier: BSL-1.0
//
// `Result`: what became of one call among many, a value or an exception. What Elixir's `async_stream`
// calls {:ok, value} and {:exit, reason}; Python has none.
#pragma once

#include <exception>
#include <utility>
#include <variant>

namespace multiprocessing {

/// A value, or the exception that was thrown instead. `Pool::try_map` gives one for each item.
template <class R>
class Result {
public:
    using value_type = R;

    Result(R value) : outcome_(std::in_place_index<0>, std::move(value)) {}
    explicit Result(std::exception_ptr error) noexcept
        : outcome_(std::in_place_index<1>, std::move(error)) {}

    [[nodiscard]] bool has_value() const noexcept { return outcome_.index() == 0; }
    [[nodiscard]] explicit operator bool() const noexcept { return has_value(); }
    /// The value. *Throws* the exception if there is none.
    [[nodiscard]] const R& value() const& {
        check();
        return std::get<0>(outcome_);
    }
    [[nodiscard]] R& value() & {
        check();
        return std::get<0>(outcome_);
    }
    [[nodiscard]] R value() && {
        check();
        return std::move(std::get<0>(outcome_));
    }
    [[nodiscard]] const R& operator*() const& { return value(); }
    [[nodiscard]] const R* operator->() const { return &value(); }
    /// The value, or another in its place.
    template <class Other>
    [[nodiscard]] R value_or(Other&& other) const {
        return has_value() ? std::get<0>(outcome_) : static_cast<R>(std::forward<Other>(other));
    }
    /// The exception; null if there is a value.
    [[nodiscard]] std::exception_ptr error() const noexcept {
        const auto* error = std::get_if<1>(&outcome_);
        return error != nullptr ? *error : nullptr;
    }

private:
    void check() const {
        if (const auto* error = std::get_if<1>(&outcome_)) std::rethrow_exception(*error);
    }

    std::variant<R, std::exception_ptr> outcome_;
};

}  // namespace multiprocessing
