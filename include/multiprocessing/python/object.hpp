// SPDX-License-Identifier: BSL-1.0
//
// `mp::python::object`: any of the types that travel to Python and back.
#pragma once

#include <multiprocessing/bytes.hpp>
#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/none.hpp>
#include <multiprocessing/python/containers.hpp>
#include <multiprocessing/python/integer.hpp>
#include <multiprocessing/python/shape.hpp>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <ostream>
#include <ranges>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <variant>

namespace multiprocessing::python {

/// None, a bool, an int of 64 bits, a float, a str, bytes, a list, tuple, dict or set.
///
///     mp::python::object o = mp::python::dict{{"a", 1}, {"b", mp::python::list{2.5, mp::None}}};
///     o["b"][0].get<double>();
///     o == mp::python::loads(mp::python::dumps(o));
///
/// *Python*: an int is as large as it likes; one of more than 64 bits is an error here.
class object {
public:
    /// An int is a std::uint64_t only where it is too large for a std::int64_t.
    using Variant = std::variant<none_t, bool, std::int64_t, std::uint64_t, double, std::string,
                                 bytes, list, tuple, dict, set>;

    object() noexcept = default;
    /// From whatever `dumps` takes. *Throws* ValueError for an integer of more than 64 bits, and
    /// for a key that cannot be hashed.
    template <class T>
        requires(!std::same_as<std::remove_cvref_t<T>, object> && Dumpable<T>)
    object(T&& value) : value_(made_of(std::forward<T>(value))) {}

    /// As a T, by the rules of `loads`. *Throws* ValueError, which says what is there instead.
    template <class T>
    [[nodiscard]] T get() const;
    [[nodiscard]] bool is_none() const noexcept { return std::holds_alternative<none_t>(value_); }
    /// Python's name of its type.
    [[nodiscard]] const char* type_name() const noexcept {
        constexpr const char* names[] = {"NoneType", "bool", "int",   "int",  "float", "str",
                                         "bytes",    "list", "tuple", "dict", "set"};
        return names[value_.index()];
    }
    /// For std::visit and std::get.
    [[nodiscard]] const Variant& variant() const& noexcept { return value_; }
    [[nodiscard]] Variant& variant() & noexcept { return value_; }
    [[nodiscard]] Variant&& variant() && noexcept { return std::move(value_); }

    /// *Python*: `len()`, so the characters of a str.
    [[nodiscard]] std::size_t size() const;
    /// An item of a list or tuple (a negative index counts from the end), or the value of a dict's
    /// key. *Throws* std::out_of_range where there is none (of a key it is a KeyError), ValueError
    /// for what has no items.
    [[nodiscard]] const object& at(const object& key) const;
    [[nodiscard]] const object& operator[](const object& key) const { return at(key); }
    /// Over the items of a list, tuple or set. *Throws* ValueError for what has none; a dict is
    /// iterated over as one, `o.get<mp::python::dict>()`.
    [[nodiscard]] const object* begin() const;
    [[nodiscard]] const object* end() const;

    /// As Python's: numbers are equal whatever their types are, and no list is equal to a tuple.
    friend bool operator==(const object& a, const object& b) { return tables::equal(a, b); }
    /// As Python's repr() writes it.
    friend std::ostream& operator<<(std::ostream& out, const object& value) {
        return tables::write(out, value);
    }

private:
    template <class T>
    [[nodiscard]] static Variant made_of(T&& value);
    template <class Container, class Range, class Add>
    [[nodiscard]] static Container filled(Container container, Range& from, const Add& add);
    [[nodiscard]] std::span<const object> items() const;

    Variant value_;
};

// -------------------------------------------------------------------------------------------------

template <class T>
object::Variant object::made_of(T&& value) {
    using Made = std::remove_cvref_t<T>;
    constexpr Shape shape = shape_of<T>;
    if constexpr (shape == Shape::integer) {
        const auto number = integers::Number::of(value);
        if (const auto with_sign = number.template as<std::int64_t>()) return *with_sign;
        if (const auto natural = number.template as<std::uint64_t>()) return *natural;
        throw ValueError("python::object: " + integers::to_decimal(number) +
                         " is too large for an object, which has 64 bits");
    } else if constexpr (requires { Variant(std::in_place_type<Made>, std::forward<T>(value)); }) {
        return Variant(std::in_place_type<Made>, std::forward<T>(value));
    } else if constexpr (shape == Shape::none) {
        return none_t();
    } else if constexpr (shape == Shape::real) {
        return static_cast<double>(value);
    } else if constexpr (shape == Shape::character) {
        return std::string(1, value);
    } else if constexpr (shape == Shape::text) {
        return std::string(shapes::text_of<ValueError>(value));
    } else if constexpr (shape == Shape::raw) {
        return bytes(std::span<const std::byte>(value));
    } else if constexpr (shape == Shape::sequence) {
        using Element = std::ranges::range_value_t<Made>;
        return filled(list(), value,
                      [](list& to, const Element& element) { to.emplace_back(element); });
    } else if constexpr (shape == Shape::tuple) {
        return std::apply([](const auto&... elements) { return tuple{object(elements)...}; },
                          value);
    } else if constexpr (shape == Shape::dict) {
        return filled(dict(), value, [](dict& to, const auto& entry) {
            to.insert_or_assign(object(entry.first), object(entry.second));
        });
    } else if constexpr (shape == Shape::set) {
        return filled(set(), value,
                      [](set& to, const auto& element) { to.insert(object(element)); });
    } else if constexpr (shape == Shape::optional) {
        return value ? object(*value).value_ : Variant();
    } else {
        static_assert(shape == Shape::variant);
        return std::visit([](const auto& held) { return object(held).value_; }, value);
    }
}

template <class Container, class Range, class Add>
Container object::filled(Container container, Range& from, const Add& add) {
    auto&& range = shapes::iterable(from);
    if constexpr (requires { std::ranges::size(range); })
        container.reserve(std::ranges::size(range));
    for (auto&& element : range) add(container, element);
    return container;
}

}  // namespace multiprocessing::python
