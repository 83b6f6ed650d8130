// SPDX-License-Identifier: BSL-1.0
//
// `manager.list<T>()`: a list in a manager's server. Answers Python's `ListProxy`.
#pragma once

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/managers/copied.hpp>
#include <multiprocessing/managers/item.hpp>
#include <multiprocessing/managers/proxy.hpp>

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <iterator>
#include <memory>
#include <optional>
#include <ostream>
#include <ranges>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace multiprocessing::managers {

/// Python's index, which counts from the end if it is negative, in a sequence of that size. Throws
/// std::out_of_range.
[[nodiscard]] inline std::size_t checked_index(std::int64_t index, std::size_t size,
                                               const char* what) {
    const auto count = static_cast<std::int64_t>(size);
    const std::int64_t place = index < 0 ? index + count : index;
    if (place < 0 || place >= count) {
        throw std::out_of_range(std::string(what) + " index out of range: " + std::to_string(index) +
                                ", of " + std::to_string(count));
    }
    return static_cast<std::size_t>(place);
}

/// The same for where a slice begins or ends: cut to what there is.
[[nodiscard]] inline std::ptrdiff_t clamped_index(std::int64_t index, std::size_t size) noexcept {
    const auto count = static_cast<std::int64_t>(size);
    if (index < 0) index = std::max<std::int64_t>(index + count, 0);
    return static_cast<std::ptrdiff_t>(std::min(index, count));
}

/// What is done in the server.
template <class T>
struct ListMethods {
    using List = std::vector<T>;
    using Index = std::int64_t;
    // Of std::vector<bool>, too.
    using Element = std::conditional_t<std::same_as<T, bool>, bool, const T&>;

    static std::size_t place(const List& list, Index index) {
        return checked_index(index, list.size(), "list");
    }
    static std::ptrdiff_t bound(const List& list, const std::optional<Index>& index, Index otherwise) {
        return clamped_index(index.value_or(otherwise), list.size());
    }
    static Element at(List& list, Index index) { return list[place(list, index)]; }
    static void set(List& list, Index index, T value) {
        list[place(list, index)] = std::move(value);
    }
    static void append(List& list, T value) { list.push_back(std::move(value)); }
    static void extend(List& list, List values) {
        list.insert(list.end(), std::make_move_iterator(values.begin()),
                    std::make_move_iterator(values.end()));
    }
    static void insert(List& list, Index index, T value) {
        list.insert(list.begin() + bound(list, index, 0), std::move(value));
    }
    static T pop(List& list, Index index) {
        if (list.empty()) throw std::out_of_range("pop from an empty managed list");
        const auto at = list.begin() + static_cast<std::ptrdiff_t>(place(list, index));
        T value = std::move(*at);
        list.erase(at);
        return value;
    }
    static void erase(List& list, Index index) {
        list.erase(list.begin() + static_cast<std::ptrdiff_t>(place(list, index)));
    }
    static void remove(List& list, const T& value) {
        list.erase(list.begin() + static_cast<std::ptrdiff_t>(index_of(list, value, 0, {})));
    }
    static std::uint64_t index_of(List& list, const T& value, Index begin,
                                  const std::optional<Index>& end) {
        const auto first = list.begin() + bound(list, begin, 0);
        const auto last =
            list.begin() + std::max<std::ptrdiff_t>(
                               first - list.begin(),
                               bound(list, end, static_cast<Index>(list.size())));
        const auto found = std::find(first, last, value);
        if (found == last) throw ValueError("the managed list has no such value" + in_quotes(value));
        return static_cast<std::uint64_t>(found - list.begin());
    }
    static std::uint64_t count(List& list, const T& value) {
        return static_cast<std::uint64_t>(std::count(list.begin(), list.end(), value));
    }
    static bool contains(List& list, const T& value) {
        return std::find(list.begin(), list.end(), value) != list.end();
    }
    static void sort(List& list, bool reverse) {
        if (reverse) {
            std::stable_sort(list.begin(), list.end(), [](const T& a, const T& b) { return b < a; });
        } else {
            std::stable_sort(list.begin(), list.end());
        }
    }
    template <class Less>
    static void sort_by(List& list, Less less) {
        std::stable_sort(list.begin(), list.end(),
                         [&](const T& a, const T& b) { return std::invoke(less, a, b); });
    }
    static void reverse(List& list) { std::reverse(list.begin(), list.end()); }
    static void repeat(List& list, Index times) {
        const List once = list;
        if (times <= 0) list.clear();
        for (Index i = 1; i < times; ++i) list.insert(list.end(), once.begin(), once.end());
    }
    static std::uint64_t size(List& list) { return list.size(); }
    static void clear(List& list) { list.clear(); }
    static const List& copy(List& list) { return list; }
    static List slice(List& list, const std::optional<Index>& begin, const std::optional<Index>& end) {
        const std::ptrdiff_t first = bound(list, begin, 0);
        const std::ptrdiff_t last =
            std::max(first, bound(list, end, static_cast<Index>(list.size())));
        return List(list.begin() + first, list.begin() + last);
    }
    static void set_slice(List& list, const std::optional<Index>& begin,
                          const std::optional<Index>& end, List values) {
        const std::ptrdiff_t first = bound(list, begin, 0);
        const std::ptrdiff_t last =
            std::max(first, bound(list, end, static_cast<Index>(list.size())));
        List result(list.begin(), list.begin() + first);
        result.insert(result.end(), values.begin(), values.end());
        result.insert(result.end(), list.begin() + last, list.end());
        list = std::move(result);
    }
    template <class F, class... Args>
    static auto apply(List& list, Index index, F f, Args... args) {
        return std::invoke(f, list[place(list, index)], std::move(args)...);
    }
    template <class X>
    static void add(List& list, Index index, const X& x) {
        list[place(list, index)] += x;
    }
    template <class X>
    static void subtract(List& list, Index index, const X& x) {
        list[place(list, index)] -= x;
    }
};

/// A list in the server of a manager. Indices count from the end if they are negative.
///
///     auto l = manager.list<int>({1, 2, 3});
///     l.append(4);
///     l[-1] += 10;                    // one step, whoever else does the same
///     int last = l[-1];               // std::out_of_range if there is none
///     std::vector<int> two = l.slice(0, 2);
///     for (int x : l) …               // over a copy
///
/// What is read is a copy: change it and set it again, or have `apply` change it where it is; or keep
/// proxies as elements. See BaseProxy for what a call throws.
/// *Python*: `multiprocessing.managers.ListProxy`.
template <class T>
class ListProxy : public BaseProxy {
    using Methods = ListMethods<T>;
    using List = typename Methods::List;
    using Index = typename Methods::Index;

public:
    using Referent = List;
    using value_type = T;

    /// What `l[i]` is: reading it reads from the server, assigning sets there.
    using Item = managers::Item<ListProxy, Index, T>;

    [[nodiscard]] Item operator[](Index index) const { return Item(*this, index); }
    /// *Throws* std::out_of_range.
    [[nodiscard]] T at(Index index) const { return this->template call<List, &Methods::at>(index); }
    void set(Index index, const T& value) const {
        this->template call<List, &Methods::set>(index, value);
    }
    void append(const T& value) const { this->template call<List, &Methods::append>(value); }
    /// All of a range, in one request and one step.
    template <std::ranges::input_range Range>
        requires std::constructible_from<T, std::ranges::range_reference_t<Range>>
    void extend(Range&& values) const {
        this->template call<List, &Methods::extend>(gather(std::forward<Range>(values)));
    }
    void extend(std::initializer_list<T> values) const {
        this->template call<List, &Methods::extend>(List(values));
    }
    /// Before the element at an index, or at one of the ends.
    void insert(Index index, const T& value) const {
        this->template call<List, &Methods::insert>(index, value);
    }
    /// Takes one out, the last if it is not said which. *Throws* std::out_of_range.
    T pop(Index index = -1) const { return this->template call<List, &Methods::pop>(index); }
    /// `del l[i]`. *Throws* std::out_of_range.
    void erase(Index index) const { this->template call<List, &Methods::erase>(index); }
    /// The first that is equal. *Throws* ValueError if there is none.
    void remove(const T& value) const { this->template call<List, &Methods::remove>(value); }
    /// Where the first that is equal is, from one index up to another. *Throws* ValueError if nowhere.
    [[nodiscard]] std::size_t index(const T& value, Index begin = 0,
                                    std::optional<Index> end = std::nullopt) const {
        return static_cast<std::size_t>(
            this->template call<List, &Methods::index_of>(value, begin, end));
    }
    [[nodiscard]] std::size_t count(const T& value) const {
        return static_cast<std::size_t>(this->template call<List, &Methods::count>(value));
    }
    [[nodiscard]] bool contains(const T& value) const {
        return this->template call<List, &Methods::contains>(value);
    }
    /// By `<`; equal elements keep their order.
    void sort(bool reverse = false) const { this->template call<List, &Methods::sort>(reverse); }
    /// By `less(a, b)`, a callable that travels.
    template <class Less>
        requires std::predicate<Less&, const T&, const T&>
    void sort(Less less) const {
        static_assert(pickle::require_travelling_callable<Less>);
        this->template call<List, &Methods::template sort_by<Less>>(less);
    }
    void reverse() const { this->template call<List, &Methods::reverse>(); }
    [[nodiscard]] std::size_t size() const {
        return static_cast<std::size_t>(this->template call<List, &Methods::size>());
    }
    [[nodiscard]] bool empty() const { return size() == 0; }
    void clear() const { this->template call<List, &Methods::clear>(); }
    [[nodiscard]] std::vector<T> copy() const {
        return this->template call<List, &Methods::copy>();
    }
    /// `l[begin:end]`, a copy; what is left out is the end of the list.
    [[nodiscard]] std::vector<T> slice(std::optional<Index> begin,
                                       std::optional<Index> end = std::nullopt) const {
        return this->template call<List, &Methods::slice>(begin, end);
    }
    /// `l[begin:end] = values`: of any number.
    template <std::ranges::input_range Range>
    void set_slice(std::optional<Index> begin, std::optional<Index> end, Range&& values) const {
        this->template call<List, &Methods::set_slice>(begin, end,
                                                       gather(std::forward<Range>(values)));
    }
    void set_slice(std::optional<Index> begin, std::optional<Index> end,
                   std::initializer_list<T> values) const {
        this->template call<List, &Methods::set_slice>(begin, end, List(values));
    }
    /// `l *= times`.
    const ListProxy& operator*=(Index times) const {
        this->template call<List, &Methods::repeat>(times);
        return *this;
    }
    /// `l += values`: extend.
    template <std::ranges::input_range Range>
    const ListProxy& operator+=(Range&& values) const {
        extend(std::forward<Range>(values));
        return *this;
    }
    /// `l + values`: a new vector.
    template <std::ranges::input_range Range>
    [[nodiscard]] friend std::vector<T> operator+(const ListProxy& list, Range&& values) {
        std::vector<T> all = list.copy();
        for (auto&& value : values) all.emplace_back(value);
        return all;
    }

    /// Runs `f(element, args...)` in the server, on the element where it is and with no other call in
    /// between; what it returns. `f` is a callable that travels.
    template <class F, class... Args>
    auto apply(Index index, F f, const Args&... args) const {
        static_assert(pickle::require_travelling_callable<F>);
        return this->template call<
            List, &Methods::template apply<
                      F, typename signature::Travelling<const Args&>::type...>>(index, f, args...);
    }

    /// Over a copy.
    using iterator = CopyIterator<T>;
    [[nodiscard]] iterator begin() const { return iterator(copy()); }
    [[nodiscard]] iterator end() const { return iterator(); }

    /// Has servers of this program know all that clients of others may call.
    static void expose_all() {
        expose<List, &Methods::at, &Methods::set, &Methods::append, &Methods::extend,
               &Methods::insert, &Methods::pop, &Methods::erase, &Methods::reverse,
               &Methods::repeat, &Methods::size, &Methods::clear, &Methods::copy, &Methods::slice,
               &Methods::set_slice>();
        if constexpr (std::equality_comparable<T>) {
            expose<List, &Methods::remove, &Methods::index_of, &Methods::count,
                   &Methods::contains>();
        }
        if constexpr (std::totally_ordered<T>) expose<List, &Methods::sort>();
        if constexpr (requires(T& value, const T& x) { value += x; }) {
            expose<List, &Methods::template add<T>>();
        }
        if constexpr (requires(T& value, const T& x) { value -= x; }) {
            expose<List, &Methods::template subtract<T>>();
        }
    }

    using BaseProxy::BaseProxy;

private:
    friend Item;
    template <class X>
    void add_to(Index index, const X& x) const {
        this->template call<List, &Methods::template add<X>>(index, x);
    }
    template <class X>
    void subtract_from(Index index, const X& x) const {
        this->template call<List, &Methods::template subtract<X>>(index, x);
    }

    template <class Range>
    [[nodiscard]] static List gather(Range&& values) {
        if constexpr (std::same_as<std::remove_cvref_t<Range>, List>) {
            return std::forward<Range>(values);
        } else {
            List all;
            for (auto&& value : values) all.emplace_back(value);
            return all;
        }
    }
};

}  // namespace multiprocessing::managers
