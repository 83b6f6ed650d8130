// SPDX-License-Identifier: BSL-1.0
//
// Which of Python's types answers which of C++'s, decided at compile time: what `python::dumps`
// takes and what `python::loads` makes.
#pragma once

#include <multiprocessing/bytes.hpp>
#include <multiprocessing/none.hpp>

#include <array>
#include <concepts>
#include <cstddef>
#include <forward_list>
#include <iterator>
#include <optional>
#include <ranges>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <variant>

namespace multiprocessing::python {

class object;
class list;
class tuple;
class dict;
class set;

__extension__ typedef __int128 int128;
__extension__ typedef unsigned __int128 uint128;

/// What a C++ type is in Python.
enum class Shape {
    unknown,
    none,
    boolean,
    integer,
    real,
    character,
    text,
    raw,
    sequence,
    tuple,
    dict,
    set,
    optional,
    variant,
    object
};

namespace shapes {

template <class T>
concept Character = std::same_as<T, wchar_t> || std::same_as<T, char8_t> ||
    std::same_as<T, char16_t> || std::same_as<T, char32_t>;

template <class T>
concept Integer =
    (std::integral<T> && !Character<T>) || std::same_as<T, int128> || std::same_as<T, uint128>;

template <class T>
concept None = std::same_as<T, none_t> || std::same_as<T, std::monostate> ||
    std::same_as<T, std::nullptr_t> || std::same_as<T, std::nullopt_t>;

template <class T>
concept Raw = std::ranges::contiguous_range<T> && std::ranges::sized_range<T> &&
    std::same_as<std::ranges::range_value_t<T>, std::byte>;

template <class T>
concept Text = std::convertible_to<const T&, std::string_view> && !Raw<T>;

// A std::filesystem::path is a range of paths.
template <class T>
concept Range = std::ranges::input_range<T> && !std::same_as<std::ranges::range_value_t<T>, T>;

// To be iterated over once. A view that changes as it is read is copied where it may not change.
template <class T>
[[nodiscard]] decltype(auto) iterable(T& range) {
    if constexpr (std::ranges::input_range<T&>)
        return (range);
    else
        return std::remove_const_t<T>(range);
}

// An array of characters is text up to its NUL, as a literal and std::string are, or all of it.
template <class Error, class T>
[[nodiscard]] std::string_view text_of(const T& text) {
    if constexpr (std::is_array_v<T>) {
        const std::string_view all(text, std::size(text));
        return all.substr(0, all.find('\0'));
    } else {
        if constexpr (std::is_pointer_v<T>)
            if (text == nullptr) throw Error("a null pointer is no text");
        return text;
    }
}

// Those that may hold a key more than once are no dict and no set.
template <class T>
concept Map = Range<T> &&
    requires(T& map, typename T::key_type key, typename T::mapped_type value) {
    map.insert_or_assign(std::move(key), std::move(value));
};
template <class T>
concept Set = Range<T> && requires(T& set, typename T::key_type key) {
    { set.insert(std::move(key)).second } -> std::convertible_to<bool>;
};
template <class T>
concept Keyed = requires {
    typename T::key_type;
};

template <class T>
inline constexpr bool is_tuple = std::same_as<T, tuple>;
template <class... Ts>
inline constexpr bool is_tuple<std::tuple<Ts...>> = true;
template <class A, class B>
inline constexpr bool is_tuple<std::pair<A, B>> = true;
template <class T>
inline constexpr bool is_optional = false;
template <class T>
inline constexpr bool is_optional<std::optional<T>> = true;
template <class T>
inline constexpr bool is_variant = false;
template <class... Ts>
inline constexpr bool is_variant<std::variant<Ts...>> = true;
template <class T>
inline constexpr bool is_string = false;
template <class Traits, class Allocator>
inline constexpr bool is_string<std::basic_string<char, Traits, Allocator>> = true;
template <class T>
inline constexpr bool is_forward_list = false;
template <class T, class Allocator>
inline constexpr bool is_forward_list<std::forward_list<T, Allocator>> = true;
template <class T>
inline constexpr bool is_array = false;
template <class T, std::size_t N>
inline constexpr bool is_array<std::array<T, N>> = true;

template <class T>
[[nodiscard]] consteval Shape shape() {
    // Those of ours come first: nothing is asked of a class that is not complete yet.
    if constexpr (std::same_as<T, object>)
        return Shape::object;
    else if constexpr (std::same_as<T, list>)
        return Shape::sequence;
    else if constexpr (is_tuple<T>)
        return Shape::tuple;
    else if constexpr (std::same_as<T, dict>)
        return Shape::dict;
    else if constexpr (std::same_as<T, set>)
        return Shape::set;
    else if constexpr (is_optional<T>)
        return Shape::optional;
    else if constexpr (is_variant<T>)
        return Shape::variant;
    else if constexpr (None<T>)
        return Shape::none;
    else if constexpr (std::same_as<T, bool>)
        return Shape::boolean;
    else if constexpr (std::same_as<T, char>)
        return Shape::character;
    else if constexpr (Integer<T>)
        return Shape::integer;
    else if constexpr (std::floating_point<T>)
        return Shape::real;
    else if constexpr (Raw<T>)
        return Shape::raw;
    else if constexpr (Text<T>)
        return Shape::text;
    else if constexpr (Map<T>)
        return Shape::dict;
    else if constexpr (Set<T>)
        return Shape::set;
    else if constexpr (Range<T> && !Keyed<T>)
        return Shape::sequence;
    else
        return Shape::unknown;
}

// What a container holds: all of them, or none where they are not for all.
template <class T>
struct Parts {
    template <template <class> class>
    static constexpr bool all = true;
};
template <class T>
    requires(shape<T>() == Shape::sequence && !std::same_as<T, list>)
struct Parts<T> {
    template <template <class> class Is>
    static constexpr bool all = Is<std::ranges::range_value_t<T>>::value;
};
template <class... Ts>
struct Parts<std::tuple<Ts...>> {
    template <template <class> class Is>
    static constexpr bool all = (Is<std::remove_cvref_t<Ts>>::value && ...);
};
template <class A, class B>
struct Parts<std::pair<A, B>> : Parts<std::tuple<A, B>> {};
template <class... Ts>
struct Parts<std::variant<Ts...>> : Parts<std::tuple<Ts...>> {};
template <class T>
struct Parts<std::optional<T>> : Parts<std::tuple<T>> {};

// Python's dict cannot be hashed. What else cannot is written as what can: a tuple, a frozenset.
template <class T>
struct IsKey : std::bool_constant<shape<T>() != Shape::dict && Parts<T>::template all<IsKey>> {};

template <class T>
    requires(shape<T>() == Shape::dict && !std::same_as<T, dict>)
struct Parts<T> {
    template <template <class> class Is>
    static constexpr bool all = IsKey<typename T::key_type>::value&&
        Is<typename T::key_type>::value&& Is<typename T::mapped_type>::value;
};
template <class T>
    requires(shape<T>() == Shape::set && !std::same_as<T, set>)
struct Parts<T> {
    template <template <class> class Is>
    static constexpr bool all =
        IsKey<typename T::key_type>::value&& Is<typename T::key_type>::value;
};

template <class T>
struct IsDumpable
    : std::bool_constant<shape<T>() != Shape::unknown && Parts<T>::template all<IsDumpable>> {};

template <class T>
concept Growable = std::default_initializable<T> &&
    requires(T& container, std::ranges::range_value_t<T> element) {
    container.push_back(std::move(element));
};

// It owns what it holds, and there is a way to fill it.
template <class T>
[[nodiscard]] consteval bool can_be_filled() {
    constexpr Shape what = shape<T>();
    if constexpr (what == Shape::unknown)
        return false;
    else if constexpr (std::same_as<T, list> || std::same_as<T, object>)
        return true;
    else if constexpr (what == Shape::none)
        return std::default_initializable<T>;
    else if constexpr (what == Shape::text)
        return is_string<T>;
    else if constexpr (what == Shape::raw)
        return Growable<T> || is_array<T>;
    else if constexpr (what == Shape::sequence)
        return Growable<T> || is_array<T> || is_forward_list<T>;
    else
        return true;
}
template <class T>
struct IsLoadable : std::bool_constant<can_be_filled<T>() && Parts<T>::template all<IsLoadable>> {};

}  // namespace shapes

template <class T>
inline constexpr Shape shape_of = shapes::shape<std::remove_cvref_t<T>>();

/// What `python::dumps` takes: None and its like, bool, numbers, char, text, bytes, ranges, pairs
/// and tuples, maps and sets (each key once, and one that Python can hash), optional and variant of
/// these, and `python::object`.
template <class T>
concept Dumpable = shapes::IsDumpable<std::remove_cvref_t<T>>::value;

/// What `python::loads` makes: the same, as far as they own what they hold.
template <class T>
concept Loadable = std::same_as<T, std::remove_cvref_t<T>> && shapes::IsLoadable<T>::value;

}  // namespace multiprocessing::python
