// SPDX-License-Identifier: BSL-1.0
//
// An object as what a pickle of it would be read into, for `get` to convert by the same rules.
#pragma once

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/python/containers.hpp>
#include <multiprocessing/python/convert.hpp>
#include <multiprocessing/python/mismatch.hpp>
#include <multiprocessing/python/object.hpp>
#include <multiprocessing/python/shape.hpp>
#include <multiprocessing/python/value.hpp>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

namespace multiprocessing::python {

namespace machine {

/// It refers to the object's strings.
[[nodiscard]] inline Value view(const object& value, Arena& arena) {
    const auto fill = [&](Kind kind, std::size_t room, auto& items, const auto& add) {
        const Value container = make_container(arena, kind, room);
        for (const auto& item : items) add(container.node(), item);
        return container;
    };
    const auto add = [&](Node& node, const object& item) {
        const Value viewed = view(item, arena);
        append(arena, node, {&viewed, 1});
    };
    return std::visit(
        [&]<class T>(const T& held) -> Value {
            if constexpr (std::same_as<T, none_t>)
                return Value(Kind::none);
            else if constexpr (std::same_as<T, bool>)
                return Value::boolean(held);
            else if constexpr (std::same_as<T, std::int64_t>)
                return Value::integer(held);
            else if constexpr (std::same_as<T, std::uint64_t>)
                return Value::natural(held);
            else if constexpr (std::same_as<T, double>)
                return Value::real(held);
            else if constexpr (std::same_as<T, std::string>)
                return Value(Kind::text, held);
            else if constexpr (std::same_as<T, bytes>) {
                const auto* const text = reinterpret_cast<const char*>(held.data());
                return Value(Kind::raw, std::string_view(text, held.size()));
            } else if constexpr (std::same_as<T, dict>) {
                return fill(Kind::dict, 2 * held.size(), held, [&](Node& node, const auto& entry) {
                    add(node, entry.first);
                    add(node, entry.second);
                });
            } else {
                constexpr Kind kind = std::same_as<T, list>    ? Kind::list
                                      : std::same_as<T, tuple> ? Kind::tuple
                                                               : Kind::set;
                return fill(kind, held.size(), held, add);
            }
        },
        value.variant());
}

}  // namespace machine

template <class T>
T object::get() const {
    static_assert(Loadable<T>, "no object is of this type: see python::loads");
    if constexpr (std::constructible_from<Variant, std::in_place_type_t<T>>) {
        if (const T* const held = std::get_if<T>(&value_)) return *held;
    }
    machine::Arena arena;
    T made{};
    Mismatch why;
    if (!conversion::convert(machine::view(*this, arena), made, why))
        throw ValueError("python::object: " + why.text());
    return made;
}

}  // namespace multiprocessing::python
