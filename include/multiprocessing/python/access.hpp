// SPDX-License-Identifier: BSL-1.0
//
// What is in an object: Python's len() and [], and iteration.
#pragma once

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/python/containers.hpp>
#include <multiprocessing/python/equality.hpp>
#include <multiprocessing/python/object.hpp>

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <variant>

namespace multiprocessing::python {

inline std::size_t object::size() const {
    return std::visit(
        [&]<class T>(const T& held) -> std::size_t {
            if constexpr (std::same_as<T, std::string>) {
                const auto begins = [](char c) { return (c & 0xc0) != 0x80; };
                return static_cast<std::size_t>(std::ranges::count_if(held, begins));
            } else if constexpr (requires { held.size(); }) {
                return held.size();
            } else {
                throw ValueError(std::string("python::object: an object of type '") + type_name() +
                                 "' has no size");
            }
        },
        value_);
}

inline std::span<const object> object::items() const {
    if (const auto* const items = std::get_if<list>(&value_)) return *items;
    if (const auto* const items = std::get_if<tuple>(&value_)) return *items;
    if (const auto* const items = std::get_if<set>(&value_)) return {items->data(), items->size()};
    throw ValueError(std::string("python::object: an object of type '") + type_name() +
                     "' has no items to iterate over");
}
inline const object* object::begin() const { return items().data(); }
inline const object* object::end() const { return items().data() + items().size(); }

inline const object& object::at(const object& key) const {
    if (const auto* const entries = std::get_if<dict>(&value_)) return entries->at(key);
    if (!std::holds_alternative<list>(value_) && !std::holds_alternative<tuple>(value_)) {
        throw ValueError(std::string("python::object: an object of type '") + type_name() +
                         "' has nothing under an index or key");
    }
    const auto index =
        std::holds_alternative<double>(key.value_) ? std::nullopt : tables::whole(key);
    if (!index) {
        throw ValueError(std::string("python::object: a ") + type_name() + " has indices, no '" +
                         key.type_name() + "'");
    }
    const auto items = this->items();
    const auto count = static_cast<int128>(items.size());
    if (*index < -count || *index >= count) {
        throw std::out_of_range(
            "python::object: index " + integers::to_decimal(integers::Number::of(*index)) +
            " is out of range in a " + type_name() + " of " + std::to_string(items.size()));
    }
    return items[static_cast<std::size_t>(*index < 0 ? *index + count : *index)];
}

}  // namespace multiprocessing::python
