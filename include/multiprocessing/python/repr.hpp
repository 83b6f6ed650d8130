// SPDX-License-Identifier: BSL-1.0
//
// Objects as Python's repr() writes them.
#pragma once

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/python/containers.hpp>
#include <multiprocessing/python/equality.hpp>
#include <multiprocessing/python/object.hpp>
#include <multiprocessing/shared_memory/item.hpp>

#include <concepts>
#include <cstdint>
#include <ostream>
#include <sstream>
#include <string>
#include <utility>
#include <variant>

namespace multiprocessing::python {

namespace tables {

inline std::ostream& write_items(std::ostream& out, const auto& items) {
    const char* separator = "";
    for (const object& item : items) out << std::exchange(separator, ", ") << item;
    return out;
}

[[noreturn]] inline void throw_no_key(const object& key) {
    std::ostringstream text;
    text << "python::dict: there is no key " << key;
    throw KeyError(std::move(text).str());
}

inline std::ostream& write(std::ostream& out, const list& items) {
    return write_items(out << '[', items) << ']';
}

inline std::ostream& write(std::ostream& out, const tuple& items) {
    return write_items(out << '(', items) << (items.size() == 1 ? ",)" : ")");
}

inline std::ostream& write(std::ostream& out, const dict& entries) {
    out << '{';
    const char* separator = "";
    for (const auto& [key, value] : entries)
        out << std::exchange(separator, ", ") << key << ": " << value;
    return out << '}';
}

inline std::ostream& write(std::ostream& out, const set& elements) {
    if (elements.empty()) return out << "set()";
    return write_items(out << '{', elements) << '}';
}

inline std::ostream& write(std::ostream& out, const object& value) {
    std::visit(
        [&]<class T>(const T& held) {
            if constexpr (requires { typename T::key_type; } || std::same_as<T, list> ||
                          std::same_as<T, tuple>) {
                out << held;
            } else if constexpr (std::same_as<T, std::uint64_t>) {
                out << std::to_string(held);  // whatever the stream's flags are
            } else {
                out << shared_memory::ShareableItem(held);
            }
        },
        value.variant());
    return out;
}

}  // namespace tables

}  // namespace multiprocessing::python
