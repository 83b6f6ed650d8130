// SPDX-License-Identifier: BSL-1.0
//
// From what a pickle was read into to C++ objects. Strict: what is not quite what was asked for is
// an error, and no number changes its value.
#pragma once

#include <multiprocessing/bytes.hpp>
#include <multiprocessing/os/memory.hpp>
#include <multiprocessing/python/integer.hpp>
#include <multiprocessing/python/mismatch.hpp>
#include <multiprocessing/python/object.hpp>
#include <multiprocessing/python/shape.hpp>
#include <multiprocessing/python/value.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <ranges>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <variant>

namespace multiprocessing::python::conversion {

using machine::Kind;
using machine::Value;

template <class T>
[[nodiscard]] bool convert(const Value& value, T& out, Mismatch& why);

[[nodiscard]] inline Value place(std::size_t index) {
    return Value::integer(static_cast<std::int64_t>(index));
}

template <class T>
[[nodiscard]] bool to_integer(const Value& value, T& out, Mismatch& why) {
    if constexpr (sizeof(T) <= 8) {
        if (value.kind() == Kind::integer && std::in_range<T>(value.integer())) {
            out = static_cast<T>(value.integer());
            return true;
        }
    }
    const auto number = integers::number_of(value);
    const auto fitting = number ? number->as<T>() : std::nullopt;
    if (!fitting) return why.expected<T>(value);
    out = *fitting;
    return true;
}

template <class T>
[[nodiscard]] bool to_real(const Value& value, T& out, Mismatch& why) {
    if (value.kind() == Kind::real) {
        const double number = value.real();
        if constexpr (sizeof(T) < sizeof(double)) {
            if (std::isfinite(number) && std::abs(number) > double{std::numeric_limits<T>::max()})
                return why.expected<T>(value, "which is too large for the C++ type");
        }
        out = static_cast<T>(number);
        return true;
    }
    const auto number = integers::number_of(value);
    if (!number || why.exact) return why.expected<T>(value);
    // What is larger might be rounded up to what cannot be turned back.
    const uint128 size = number->size >> 127 == 0 ? number->size : 0;
    const T rounded = static_cast<T>(size);
    if (static_cast<uint128>(rounded) != number->size)
        return why.expected<T>(value, "which the C++ type does not hold exactly");
    out = number->negative ? -rounded : rounded;
    return true;
}

template <class T>
[[nodiscard]] bool to_raw(const Value& value, T& out, Mismatch& why) {
    if (value.kind() != Kind::raw) return why.expected<T>(value);
    const auto raw = std::as_bytes(std::span(value.text()));
    if constexpr (shapes::is_array<T>) {
        if (raw.size() != out.size()) return why.expected<T>(value);
        std::ranges::copy(raw, out.begin());
    } else {
        out.assign(raw.begin(), raw.end());
    }
    return true;
}

template <class T>
[[nodiscard]] bool to_sequence(const Value& value, T& out, Mismatch& why) {
    constexpr Kind mine = shape_of<T> == Shape::tuple ? Kind::tuple : Kind::list;
    if (value.kind() != mine && (why.exact || !value.is(Kind::list, Kind::tuple)))
        return why.expected<T>(value);
    const auto items = value.items();
    if constexpr (shapes::is_array<T>) {
        if (items.size() != out.size()) return why.expected<T>(value);
        for (std::size_t i = 0; i < items.size(); ++i)
            if (!convert(items[i], out[i], why)) return why.in(place(i));
    } else if constexpr (shapes::is_forward_list<T>) {
        out.clear();
        auto last = out.before_begin();
        for (std::size_t i = 0; i < items.size(); ++i) {
            last = out.emplace_after(last);
            if (!convert(items[i], *last, why)) return why.in(place(i));
        }
    } else {
        out.clear();
        if constexpr (requires { out.reserve(items.size()); }) out.reserve(items.size());
        if constexpr (requires { out.data(); })
            os::before_filling(out.data(), items.size() * sizeof(*out.data()));
        for (std::size_t i = 0; i < items.size(); ++i) {
            using Element = std::ranges::range_value_t<T>;
            if constexpr (requires { static_cast<Element&>(out.emplace_back()); }) {
                if (!convert(items[i], static_cast<Element&>(out.emplace_back()), why))
                    return why.in(place(i));
            } else {
                Element element{};
                if (!convert(items[i], element, why)) return why.in(place(i));
                out.push_back(std::move(element));
            }
        }
    }
    return true;
}

template <class T>
[[nodiscard]] bool to_tuple(const Value& value, T& out, Mismatch& why) {
    constexpr std::size_t size = std::tuple_size_v<T>;
    if (value.kind() != Kind::tuple && (why.exact || value.kind() != Kind::list))
        return why.expected<T>(value);
    const auto items = value.items();
    if (items.size() != size) return why.expected<T>(value);
    const auto element = [&](std::size_t i, auto& to) {
        return convert(items[i], to, why) || why.in(place(i));
    };
    return [&]<std::size_t... I>(std::index_sequence<I...>) {
        return (element(I, std::get<I>(out)) && ...);
    }
    (std::make_index_sequence<size>());
}

// Each level of sets in sets is hashed again with the next: with few of them it is soon done.
inline constexpr std::uint32_t most_levels_in_key = 16;

[[nodiscard]] inline bool is_hashable(const Value& value) noexcept {
    if (value.is_container() && value.node().height > most_levels_in_key) return false;
    return value.kind() == Kind::tuple ? std::ranges::all_of(value.items(), is_hashable)
                                       : !value.is(Kind::list, Kind::dict);
}
template <class T>
[[nodiscard]] bool to_key(const Value& value, T& out, Mismatch& why) {
    if constexpr (std::same_as<T, object>)
        if (!is_hashable(value)) return why.expected<mismatch::Hashable>(value);
    return convert(value, out, why);
}

template <class T>
[[nodiscard]] bool to_dict(const Value& value, T& out, Mismatch& why) {
    if (value.kind() != Kind::dict) return why.expected<T>(value);
    const auto items = value.items();
    out.clear();
    if constexpr (requires { out.reserve(items.size()); }) out.reserve(items.size() / 2);
    for (std::size_t i = 0; i < items.size(); i += 2) {
        typename T::key_type key{};
        if (!to_key(items[i], key, why)) return why.in(items[i], "key ");
        typename T::mapped_type mapped{};
        if (!convert(items[i + 1], mapped, why)) return why.in(items[i]);
        // What another std::map wrote comes in its order.
        if constexpr (requires {
                          out.insert_or_assign(out.end(), std::move(key), std::move(mapped));
                      })
            out.insert_or_assign(out.end(), std::move(key), std::move(mapped));
        else
            out.insert_or_assign(std::move(key), std::move(mapped));
    }
    return true;
}

template <class T>
[[nodiscard]] bool to_set(const Value& value, T& out, Mismatch& why) {
    if (value.kind() != Kind::set) return why.expected<T>(value);
    const auto items = value.items();
    out.clear();
    if constexpr (requires { out.reserve(items.size()); }) out.reserve(items.size());
    for (std::size_t i = 0; i < items.size(); ++i) {
        typename T::key_type key{};
        if (!to_key(items[i], key, why)) return why.in(place(i), "item ");
        if constexpr (requires { out.insert(out.end(), std::move(key)); })
            out.insert(out.end(), std::move(key));
        else
            out.insert(std::move(key));
    }
    return true;
}

template <class T>
[[nodiscard]] bool to_variant(const Value& value, T& out, Mismatch& why) {
    const auto alternative = [&]<std::size_t I>(bool exact, std::in_place_index_t<I>) {
        std::variant_alternative_t<I, T> made{};
        Mismatch unfit;
        unfit.exact = exact;
        if (!convert(value, made, unfit)) return false;
        out.template emplace<I>(std::move(made));
        return true;
    };
    const auto any = [&](bool exact) {
        return [&]<std::size_t... I>(std::index_sequence<I...>) {
            return (alternative(exact, std::in_place_index<I>) || ...);
        }
        (std::make_index_sequence<std::variant_size_v<T>>());
    };
    // An int is no double where there is an alternative for it.
    return any(true) || (!why.exact && any(false)) || why.expected<T>(value);
}

[[nodiscard]] inline bool to_object(const Value& value, object& out, Mismatch& why) {
    object::Variant& made = out.variant();
    switch (value.kind()) {
    case Kind::none: made.emplace<none_t>(); return true;
    case Kind::boolean: made.emplace<bool>(value.truth()); return true;
    case Kind::integer: made.emplace<std::int64_t>(value.integer()); return true;
    case Kind::natural: made.emplace<std::uint64_t>(value.natural()); return true;
    case Kind::real: made.emplace<double>(value.real()); return true;
    case Kind::text: return convert(value, made.emplace<std::string>(), why);
    case Kind::raw: return convert(value, made.emplace<bytes>(), why);
    case Kind::list: return convert(value, made.emplace<list>(), why);
    case Kind::tuple: return convert(value, made.emplace<tuple>(), why);
    case Kind::dict: return convert(value, made.emplace<dict>(), why);
    case Kind::set: return convert(value, made.emplace<set>(), why);
    default: return why.expected<object>(value);
    }
}

template <class T>
bool convert(const Value& value, T& out, Mismatch& why) {
    constexpr Shape shape = shape_of<T>;
    if constexpr (shape == Shape::none) {
        return value.kind() == Kind::none || why.expected<T>(value);
    } else if constexpr (shape == Shape::boolean) {
        out = value.truth();
        return value.kind() == Kind::boolean || why.expected<T>(value);
    } else if constexpr (shape == Shape::integer) {
        return to_integer(value, out, why);
    } else if constexpr (shape == Shape::real) {
        return to_real(value, out, why);
    } else if constexpr (shape == Shape::character) {
        if (value.kind() != Kind::text || value.length() != 1) return why.expected<T>(value);
        out = value.text().front();
        return true;
    } else if constexpr (shape == Shape::text) {
        if (value.kind() != Kind::text) return why.expected<T>(value);
        out.assign(value.text());
        return true;
    } else if constexpr (shape == Shape::raw) {
        return to_raw(value, out, why);
    } else if constexpr (shape == Shape::sequence || std::same_as<T, tuple>) {
        return to_sequence(value, out, why);
    } else if constexpr (shape == Shape::tuple) {
        return to_tuple(value, out, why);
    } else if constexpr (shape == Shape::dict) {
        return to_dict(value, out, why);
    } else if constexpr (shape == Shape::set) {
        return to_set(value, out, why);
    } else if constexpr (shape == Shape::optional) {
        if (value.kind() != Kind::none)
            return convert(value, out.emplace(), why) || why.expected_instead<T>();
        out.reset();
        return true;
    } else if constexpr (shape == Shape::variant) {
        return to_variant(value, out, why);
    } else {
        return to_object(value, out, why);
    }
}

}  // namespace multiprocessing::python::conversion
