// SPDX-License-Identifier: BSL-1.0
//
// What can be pickled, decided at compile time and without ever failing to compile: `Bitwise` is
// what one memcpy carries, `Picklable` adds the std types and every class with
// Boost.Serialization's `serialize`. Answers the question that Python's pickle answers by trying.
#pragma once

#include <boost/serialization/is_bitwise_serializable.hpp>
#include <boost/serialization/serialization.hpp>
#include <boost/serialization/wrapper.hpp>

#include <array>
#include <chrono>
#include <complex>
#include <concepts>
#include <cstddef>
#include <functional>
#include <span>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>

namespace multiprocessing::pickle {

class OArchive;
class IArchive;

/// How a type that has no `serialize` of its own is written: specialised for the std types and for
/// what needs more than a class's `serialize` can say. A specialisation has
/// `static constexpr bool picklable`, `save(OArchive&, const T&)` and `load(IArchive&, T&)`.
template <class T>
struct Codec;

/// A handle of something shared, which can be made empty to be read into; see handle.hpp.
template <class T>
concept Handle = requires { typename T::travels_as_handle; };

template <class T>
concept Complete = requires { sizeof(T); };

template <class T>
concept HasCodec = requires { sizeof(Codec<T>); };

namespace serialize_probe {

// Exactly as special as the catch-all of Boost: a call is ambiguous, so invalid, unless somebody
// has written an overload for T, in T's namespace or in Boost's. version_type brings in the latter.
template <class Archive, class T>
void serialize(Archive&, T&, const unsigned int);

template <class T>
concept Free = requires(OArchive& out, T& object,
                        const boost::serialization::version_type version) {
    serialize(out, object, version);
};

struct Name {
    int serialize;
};
template <class T>
struct WithName : T, Name {};

// A member of that name, private or not, makes the inherited one ambiguous.
template <class T>
concept Named = std::is_class_v<T> && !std::is_final_v<T> && !requires {
    &WithName<T>::serialize;
};
template <class T>
concept Callable = requires(OArchive& out, T& object) { object.serialize(out, 0u); };

// A plain function of that name which takes no archive is something else that a class does.
template <class T>
concept Unrelated = requires { &T::serialize; } && !Callable<T>;

}  // namespace serialize_probe

/// A class with Boost.Serialization's `serialize`: a member (private too, given
/// `friend class boost::serialization::access`), or a free function in its namespace or in
/// `boost::serialization`.
template <class T>
concept HasSerialize =
    (std::is_class_v<T> || std::is_union_v<T>) && Complete<T> &&
    (serialize_probe::Free<T> || serialize_probe::Callable<T> ||
     (serialize_probe::Named<T> && !serialize_probe::Unrelated<T>));

/// A class of the standard library, which says nothing about how its objects may be copied: a
/// std::string_view is trivially copyable.
template <class T>
[[nodiscard]] consteval bool is_in_std() {
    std::string_view name = __PRETTY_FUNCTION__;
    name.remove_prefix(name.find("T = ") + 4);
    return (name.starts_with("std::") && !name.starts_with("std::chrono::")) ||
           name.starts_with("__gnu_cxx::");
}

/// A class without state that can be made anew at the other end: a captureless lambda, std::less.
template <class T>
concept Stateless = std::is_class_v<T> && Complete<T> && std::is_empty_v<T> &&
                    std::default_initializable<T> && !HasSerialize<T>;

namespace shape_probe {

struct Anything {
    template <class T>
    operator T() const noexcept;
};
struct Pointer {
    template <class T>
    operator T*() const noexcept;
};
template <class T, std::size_t... I>
[[nodiscard]] consteval bool is_pointer_at(std::index_sequence<I...>) {
    return requires { T{(static_cast<void>(I), Anything{})..., Pointer{}}; };
}
template <class T, std::size_t... Places>
[[nodiscard]] consteval bool is_pointer_at_any(std::index_sequence<Places...>) {
    return (is_pointer_at<T>(std::make_index_sequence<Places>()) || ...);
}

}  // namespace shape_probe

/// An aggregate with a pointer among its first members. Deeper ones cannot be seen from here.
template <class T>
inline constexpr bool has_pointer_member = false;
template <class T>
    requires std::is_aggregate_v<T> && std::is_class_v<T>
inline constexpr bool has_pointer_member<T> =
    shape_probe::is_pointer_at_any<T>(std::make_index_sequence<16>());

/// A class that refers to what is elsewhere, though it is trivially copyable.
template <class T>
inline constexpr bool is_view = false;
template <class C, class Traits>
inline constexpr bool is_view<std::basic_string_view<C, Traits>> = true;
template <class T, std::size_t extent>
inline constexpr bool is_view<std::span<T, extent>> = true;
template <class T>
inline constexpr bool is_view<std::reference_wrapper<T>> = true;

/// A class that is nothing but its bytes, by its shape.
template <class T>
concept PlainClass =
    (std::is_class_v<T> || std::is_union_v<T>) && Complete<T> && !std::is_empty_v<T> &&
    std::is_trivially_copyable_v<T> && std::is_copy_constructible_v<T> &&
    std::default_initializable<T> && !is_in_std<T>() && !HasCodec<T> && !HasSerialize<T> &&
    !has_pointer_member<T>;

template <class T>
struct IsBitwise
    : std::bool_constant<std::is_arithmetic_v<T> || std::is_enum_v<T> ||
                         boost::serialization::is_bitwise_serializable<T>::value || PlainClass<T>> {
};

/// One memcpy carries it.
template <class T>
concept Bitwise = IsBitwise<std::remove_cv_t<T>>::value;

/// Bitwise and no bool, of which not every byte is one: arrays of it need no look at each element.
template <class T>
concept BitwiseElement = Bitwise<T> && !std::same_as<std::remove_cv_t<T>, bool>;

// The std types that are, whatever headers of Boost a program has included besides. A std::bitset
// is not: its unused bits must be 0.
template <class T, std::size_t N>
struct IsBitwise<T[N]> : std::bool_constant<BitwiseElement<T>> {};
template <class T, std::size_t N>
struct IsBitwise<std::array<T, N>> : std::bool_constant<BitwiseElement<T>> {};
template <class A, class B>
struct IsBitwise<std::pair<A, B>> : std::bool_constant<BitwiseElement<A> && BitwiseElement<B>> {};
template <class... Ts>
struct IsBitwise<std::tuple<Ts...>>
    : std::bool_constant<(BitwiseElement<Ts> && ...) && sizeof...(Ts) != 0> {};
template <class Rep, class Period>
struct IsBitwise<std::chrono::duration<Rep, Period>> : IsBitwise<Rep> {};
template <class Clock, class Duration>
struct IsBitwise<std::chrono::time_point<Clock, Duration>> : IsBitwise<Duration> {};
template <class T>
struct IsBitwise<std::complex<T>> : IsBitwise<T> {};

/// To read a T, an empty one is made first. Otherwise it is made from the bytes: what has no
/// default constructor, and handles, whose default constructor makes a new shared object.
template <class T>
inline constexpr bool is_made_empty = std::default_initializable<T> && !Handle<T>;
template <class A, class B>
inline constexpr bool is_made_empty<std::pair<A, B>> = is_made_empty<A> && is_made_empty<B>;
template <class... Ts>
inline constexpr bool is_made_empty<std::tuple<Ts...>> = (is_made_empty<Ts> && ...);
template <class T, std::size_t N>
inline constexpr bool is_made_empty<std::array<T, N>> = is_made_empty<T>;

template <class T>
struct IsPicklable;

/// It can be written by `dump` and read by `load`.
template <class T>
concept Picklable = IsPicklable<std::remove_cv_t<T>>::value;

template <class T>
struct IsPicklable : std::false_type {};
template <class T>
    requires Bitwise<T> || Stateless<T>
struct IsPicklable<T> : std::true_type {};
template <class T>
    requires(!Bitwise<T> && !Stateless<T> && HasCodec<T>)
struct IsPicklable<T> : std::bool_constant<Codec<T>::picklable> {};
template <class T>
    requires(!Bitwise<T> && !Stateless<T> && !HasCodec<T> && HasSerialize<T>)
struct IsPicklable<T> : std::true_type {};
template <class T>
    requires(!Bitwise<T> && std::is_bounded_array_v<T>)
struct IsPicklable<T> : IsPicklable<std::remove_cv_t<std::remove_extent_t<T>>> {};

/// It can stand behind a pointer. A base class stands for any exported class that derives from it.
template <class T>
concept PicklableObject = std::is_object_v<T> && (std::is_abstract_v<T> || Picklable<T>);

template <class T>
inline constexpr bool is_character =
    std::same_as<std::remove_cv_t<T>, char> || std::same_as<std::remove_cv_t<T>, wchar_t> ||
    std::same_as<std::remove_cv_t<T>, char8_t> || std::same_as<std::remove_cv_t<T>, char16_t> ||
    std::same_as<std::remove_cv_t<T>, char32_t>;

// A pointer to characters is more than the one character that it points to.
template <class T>
    requires std::is_object_v<T>
struct IsPicklable<T*> : std::bool_constant<!is_character<T> && PicklableObject<T>> {};

}  // namespace multiprocessing::pickle
