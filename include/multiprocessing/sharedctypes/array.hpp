// SPDX-License-Identifier: BSL-1.0
//
// `Array` and `RawArray`: a fixed number of objects that several processes see in place.
#pragma once

#include <multiprocessing/sharedctypes/data.hpp>

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <iterator>
#include <mutex>
#include <optional>
#include <ranges>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace multiprocessing {

/// A fixed number of objects in shared memory. *Python*: `multiprocessing.Array`.
///
///     mp::Array<double> a(10);       // ten zeros
///     mp::Array<double> b({1, 2});   // two elements
///
/// A handle: copies are the same array, in whatever process they are.
template <class T>
class Array : public SharedData<T> {
public:
    using value_type = T;

    /// `size` zeros. *Throws* ValueError for a negative size.
    template <std::integral Size>
    explicit Array(Size size) : SharedData<T>(checked(size)) {}
    template <std::integral Size>
    Array(Size size, no_lock_t none) : SharedData<T>(checked(size), none) {}
    template <std::integral Size>
    Array(Size size, const AnyLock& lock) : SharedData<T>(checked(size), lock) {}
    /// A copy of the elements; of a string literal without its final NUL.
    Array(std::initializer_list<T> elements) : SharedData<T>(elements.size()) { fill(elements); }
    Array(std::initializer_list<T> elements, no_lock_t none)
        : SharedData<T>(elements.size(), none) {
        fill(elements);
    }
    Array(std::initializer_list<T> elements, const AnyLock& lock)
        : SharedData<T>(elements.size(), lock) {
        fill(elements);
    }
    template <std::ranges::sized_range Range>
        requires std::convertible_to<std::ranges::range_reference_t<Range>, T> &&
            (!std::derived_from<std::remove_cvref_t<Range>, Array>)explicit Array(Range&& elements)
            : SharedData<T>(std::ranges::size(of(elements))) {
            fill(of(elements));
        }
        template <std::ranges::sized_range Range>
            requires std::convertible_to<std::ranges::range_reference_t<Range>, T> Array(
                Range&& elements, no_lock_t none)
                : SharedData<T>(std::ranges::size(of(elements)), none) {
                fill(of(elements));
            }
            template <std::ranges::sized_range Range>
                requires std::convertible_to<std::ranges::range_reference_t<Range>, T> Array(
                    Range&& elements, const AnyLock& lock)
                    : SharedData<T>(std::ranges::size(of(elements)), lock) {
                    fill(of(elements));
                }

                [[nodiscard]] std::size_t size() const noexcept { return this->count(); }
                [[nodiscard]] bool empty() const noexcept { return size() == 0; }
                /// No look at the bounds.
                [[nodiscard]] T& operator[](std::size_t index) const noexcept {
                    return this->data()[index];
                }
                /// Counts from the end if it is negative. *Throws* std::out_of_range.
                template <std::integral Index>
                T& at(Index index) const {
                    return (*this)[position(index)];
                }
                [[nodiscard]] std::span<T> span() const noexcept { return {this->data(), size()}; }
                /// The elements from `start` to before `stop`, in place. As in Python, negative
                /// ones count from the end, what is beyond an end is that end, and what is left out
                /// (std::nullopt) is the end.
                [[nodiscard]] std::span<T> slice(
                    std::optional<std::ptrdiff_t> start = std::nullopt,
                    std::optional<std::ptrdiff_t> stop = std::nullopt) const;
                /// A copy of every `step`th of them; backwards from the end if it is negative.
                /// *Throws* ValueError for a step of 0.
                [[nodiscard]] std::vector<T> slice(std::optional<std::ptrdiff_t> start,
                                                   std::optional<std::ptrdiff_t> stop,
                                                   std::ptrdiff_t step) const;
                /// Copies `elements` into a slice. *Throws* ValueError unless there are as many as
                /// it has; then nothing has changed.
                template <std::ranges::sized_range Range>
                    requires std::convertible_to<std::ranges::range_reference_t<Range>, T>
                void set_slice(std::optional<std::ptrdiff_t> start,
                               std::optional<std::ptrdiff_t> stop, Range&& elements) const;
                void set_slice(std::optional<std::ptrdiff_t> start,
                               std::optional<std::ptrdiff_t> stop,
                               std::initializer_list<T> elements) const {
                    set_slice(start, stop, std::span(elements.begin(), elements.size()));
                }
                [[nodiscard]] std::span<T> get_obj() const noexcept { return span(); }
                [[nodiscard]] T* begin() const noexcept { return this->data(); }
                [[nodiscard]] T* end() const noexcept { return this->data() + size(); }
                /// Runs `f(std::span<T>)` with the lock held and returns what it returns.
                template <std::invocable<std::span<T>> F>
                decltype(auto) synchronized(F&& f) const {
                    const std::lock_guard guard(this->get_lock());
                    return std::invoke(std::forward<F>(f), span());
                }

                // Of an Array<char>, as in Python of an Array('c').

                /// The text up to the first NUL.
                [[nodiscard]] std::string value() const requires std::same_as<T, char> {
                    return {begin(), std::find(begin(), end(), '\0')};
                }
                /// Puts a text at its beginning, and a NUL behind it if there is room. *Throws*
                /// ValueError for one that is longer than the array; then nothing has changed.
                void set_value(std::string_view text) const requires std::same_as<T, char>;
                /// All of it.
                [[nodiscard]] std::string raw() const requires std::same_as<T, char> {
                    return {begin(), end()};
                }

            protected:
                explicit Array(pickle::Unread unread) noexcept : SharedData<T>(unread) {}

            private:
                friend struct pickle::HandleAccess;
                friend struct SharedDataAccess;
                template <class Lock>
                Array(SharedDataTag, const Array& same, const Lock& lock)
                    : SharedData<T>(same, lock) {}
                template <std::integral Index>
                [[nodiscard]] std::size_t position(Index index) const;
                template <std::integral Size>
                [[nodiscard]] static std::size_t checked(Size size) {
                    if (std::cmp_less(size, 0)) {
                        throw ValueError("Array: the size is " + std::to_string(size) +
                                         ", but must be 0 or more");
                    }
                    return static_cast<std::size_t>(size);
                }
                template <class Range>
                [[nodiscard]] static decltype(auto) of(Range& elements) noexcept {
                    if constexpr (std::is_array_v<Range> && std::is_const_v<Range> &&
                                  pickle::is_character<T>) {
                        const std::size_t size = std::size(elements);
                        return std::span(elements, elements[size - 1] == 0 ? size - 1 : size);
                    } else {
                        return (elements);
                    }
                }
                template <class Range>
                void fill(const Range& elements) {
                    T* next = this->data();
                    for (const auto& element : elements) *next++ = static_cast<T>(element);
                }
};

/// An Array without a lock. *Python*: `multiprocessing.sharedctypes.RawArray`.
template <class T>
class RawArray : public Array<T> {
public:
    template <std::integral Size>
    explicit RawArray(Size size) : Array<T>(size, no_lock) {}
    RawArray(std::initializer_list<T> elements) : Array<T>(elements, no_lock) {}
    template <std::ranges::sized_range Range>
        requires std::convertible_to<std::ranges::range_reference_t<Range>, T> &&
            (!std::derived_from<std::remove_cvref_t<Range>, Array<T>>)explicit RawArray(
                Range&& elements)
            : Array<T>(std::forward<Range>(elements), no_lock) {}
        void get_lock() const = delete;

    private:
        friend struct pickle::HandleAccess;
        explicit RawArray(pickle::Unread unread) noexcept : Array<T>(unread) {}
};

// ---------------------------------------------------------------------------------------------------

template <class T>
template <std::integral Index>
std::size_t Array<T>::position(Index index) const {
    const bool from_end = std::cmp_less(index, 0);
    if (from_end
            ? std::cmp_less(static_cast<std::int64_t>(index), -static_cast<std::int64_t>(size()))
            : std::cmp_greater_equal(index, size())) {
        throw std::out_of_range("Array: index " + std::to_string(index) +
                                " is not in an array of " + std::to_string(size()));
    }
    return static_cast<std::size_t>(index) + (from_end ? size() : 0);
}

template <class T>
std::span<T> Array<T>::slice(std::optional<std::ptrdiff_t> start,
                             std::optional<std::ptrdiff_t> stop) const {
    const auto place = [this](std::ptrdiff_t index) {
        const auto count = static_cast<std::ptrdiff_t>(size());
        return static_cast<std::size_t>(
            std::clamp(index < 0 ? index + count : index, std::ptrdiff_t{0}, count));
    };
    const std::size_t first = start ? place(*start) : 0;
    const std::size_t last = stop ? place(*stop) : size();
    return span().subspan(first, last > first ? last - first : 0);
}

template <class T>
std::vector<T> Array<T>::slice(std::optional<std::ptrdiff_t> start,
                               std::optional<std::ptrdiff_t> stop, std::ptrdiff_t step) const {
    if (step == 0) throw ValueError("Array: slice step cannot be zero");
    const auto count = static_cast<std::ptrdiff_t>(size());
    // Where a slice can begin and end that runs forwards, and one that runs backwards.
    const std::ptrdiff_t low = step > 0 ? 0 : -1;
    const std::ptrdiff_t high = step > 0 ? count : count - 1;
    const auto place = [&](std::ptrdiff_t index) {
        return std::clamp(index < 0 ? index + count : index, low, high);
    };
    const std::ptrdiff_t first = start ? place(*start) : step > 0 ? low : high;
    const std::ptrdiff_t last = stop ? place(*stop) : step > 0 ? high : low;
    std::vector<T> elements;
    for (std::ptrdiff_t at = first; step > 0 ? at < last : at > last;) {
        elements.push_back((*this)[static_cast<std::size_t>(at)]);
        if (step > 0 ? step >= last - at : step <= last - at)
            break;  // the next would be beyond, or overflow
        at += step;
    }
    return elements;
}

template <class T>
template <std::ranges::sized_range Range>
    requires std::convertible_to<std::ranges::range_reference_t<Range>, T>
void Array<T>::set_slice(std::optional<std::ptrdiff_t> start, std::optional<std::ptrdiff_t> stop,
                         Range&& elements) const {
    const std::span<T> place = slice(start, stop);
    if (std::cmp_not_equal(std::ranges::size(elements), place.size())) {
        throw ValueError("Array: can only assign a sequence of the same size: the slice has " +
                         std::to_string(place.size()) + " elements, not " +
                         std::to_string(std::ranges::size(elements)));
    }
    T* next = place.data();
    for (auto&& element : elements) *next++ = static_cast<T>(element);
}

template <class T>
void Array<T>::set_value(std::string_view text) const requires std::same_as<T, char> {
    if (text.size() > size()) {
        throw ValueError("Array: the byte string is too long: it has " +
                         std::to_string(text.size()) + " bytes, and the array " +
                         std::to_string(size()));
    }
    char* const end_of_text = std::copy(text.begin(), text.end(), begin());
    if (end_of_text != end()) *end_of_text = '\0';
}

}  // namespace multiprocessing
