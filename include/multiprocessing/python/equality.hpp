// SPDX-License-Identifier: BSL-1.0
//
// When objects are equal and what they hash to, by Python's rules; and dict and set, which stand on
// that.
#pragma once

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/python/containers.hpp>
#include <multiprocessing/python/hash.hpp>
#include <multiprocessing/python/object.hpp>
#include <multiprocessing/python/table.hpp>

#include <algorithm>
#include <bit>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>

namespace multiprocessing::python {

namespace tables {

[[noreturn]] void throw_no_key(const object& key);

inline const object& key_of(const std::pair<object, object>& entry) noexcept { return entry.first; }

/// A number that is whole, of any type.
[[nodiscard]] inline std::optional<int128> whole(const object& value) noexcept {
    return std::visit(
        []<class T>(const T& held) -> std::optional<int128> {
            if constexpr (std::integral<T>) {
                return int128{held};
            } else if constexpr (std::same_as<T, double>) {
                if (std::trunc(held) == held && std::abs(held) <= 0x1p64)
                    return static_cast<int128>(held);
            }
            return std::nullopt;
        },
        value.variant());
}

inline bool equal(const object& a, const object& b) {
    const auto& left = a.variant();
    const auto& right = b.variant();
    if (left.index() == right.index()) return left == right;
    const auto number = whole(a);
    return number && number == whole(b);
}

inline bool equal(const tuple& a, const tuple& b) {
    return std::equal(a.begin(), a.end(), b.begin(), b.end());
}
inline bool equal(const dict& a, const dict& b) {
    return a.size() == b.size() && std::ranges::all_of(a, [&](const dict::value_type& entry) {
               const auto other = b.find(entry.first);
               return other != b.end() && other->second == entry.second;
           });
}
inline bool equal(const set& a, const set& b) {
    return a.size() == b.size() &&
           std::ranges::all_of(a, [&](const object& element) { return b.contains(element); });
}

inline void check_hashable(const object& key) {
    if (std::holds_alternative<list>(key.variant()) ||
        std::holds_alternative<dict>(key.variant())) {
        throw ValueError(std::string("python::object: unhashable type: '") + key.type_name() +
                         "': a key of a dict and an element of a set cannot be one that changes; a "
                         "tuple can");
    }
    if (const auto* const items = std::get_if<tuple>(&key.variant()))
        std::ranges::for_each(*items, check_hashable);
}

inline std::uint64_t hash_of(const object& key) {
    if (const auto number = whole(key)) {
        return hashes::of(static_cast<std::uint64_t>(*number), 0);
    }
    return std::visit(
        [&]<class T>(const T& held) -> std::uint64_t {
            if constexpr (std::same_as<T, double>) {
                return hashes::of(std::bit_cast<std::uint64_t>(held), 1);
            } else if constexpr (std::same_as<T, std::string>) {
                return hashes::of(held);
            } else if constexpr (std::same_as<T, bytes>) {
                const auto* const text = reinterpret_cast<const char*>(held.data());
                return ~hashes::of(std::string_view(text, held.size()));
            } else if constexpr (std::same_as<T, tuple>) {
                std::uint64_t hash = held.size();
                for (const object& item : held) hash = hashes::of(hash, hash_of(item));
                return hash;
            } else if constexpr (std::same_as<T, set>) {
                std::uint64_t hash = held.size();  // in any order
                for (const object& item : held) hash += hash_of(item);
                return hashes::of(hash, 2);
            } else {
                check_hashable(key);
                return 0;  // None
            }
        },
        key.variant());
}

}  // namespace tables

// -------------------------------------------------------------------------------------------------

inline dict::dict(std::initializer_list<value_type> entries) {
    reserve(entries.size());
    for (const auto& [key, value] : entries) insert_or_assign(key, value);
}
inline const object& dict::at(const object& key) const {
    const auto found = find(key);
    if (found == end()) tables::throw_no_key(key);
    return found->second;
}
inline object& dict::at(const object& key) {
    return const_cast<object&>(std::as_const(*this).at(key));
}
inline object& dict::operator[](object key) {
    return entry(add(key, std::move(key), object()).first).second;
}
inline std::pair<dict::const_iterator, bool> dict::insert_or_assign(object key, object value) {
    const auto [number, is_new] = add(key, std::move(key), std::move(value));
    if (!is_new) entry(number).second = std::move(value);
    return {begin() + static_cast<std::ptrdiff_t>(number), is_new};
}

inline set::set(std::initializer_list<object> elements) {
    reserve(elements.size());
    for (const object& element : elements) insert(element);
}
inline std::pair<set::const_iterator, bool> set::insert(object element) {
    const auto [number, is_new] = add(element, std::move(element));
    return {begin() + static_cast<std::ptrdiff_t>(number), is_new};
}

}  // namespace multiprocessing::python

/// Equal objects have equal hashes. *Throws* ValueError for what cannot be hashed.
template <>
struct std::hash<multiprocessing::python::object> {
    [[nodiscard]] std::size_t operator()(const multiprocessing::python::object& key) const {
        return static_cast<std::size_t>(multiprocessing::python::tables::hash_of(key));
    }
};
