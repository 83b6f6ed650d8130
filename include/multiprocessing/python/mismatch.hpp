// SPDX-License-Identifier: BSL-1.0
//
// What is said when there is something else than was asked for: what, where, and what is there.
#pragma once

#include <multiprocessing/python/integer.hpp>
#include <multiprocessing/python/shape.hpp>
#include <multiprocessing/python/value.hpp>
#include <multiprocessing/shared_memory/item.hpp>

#include <concepts>
#include <cstddef>
#include <sstream>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <variant>
#include <vector>

namespace multiprocessing::python {

namespace mismatch {

/// As Python's repr() has it, where it is short; what is longer is cut.
[[nodiscard]] inline std::string repr(const machine::Value& value) {
    using machine::Kind;
    constexpr std::size_t longest = 40;
    const auto of_item = [](const shared_memory::ShareableItem& item) {
        std::ostringstream text;
        text << item;
        return std::move(text).str();
    };
    switch (value.kind()) {
    case Kind::none: return "None";
    case Kind::boolean: return value.truth() ? "True" : "False";
    case Kind::real: return of_item(value.real());
    case Kind::text:
    case Kind::raw: {
        std::string_view part = value.text().substr(0, longest);
        const bool is_text = value.kind() == Kind::text;
        // Not within a character.
        while (is_text && part.size() < value.length() && !part.empty() &&
               (static_cast<unsigned char>(value.text()[part.size()]) & 0xc0) == 0x80) {
            part.remove_suffix(1);
        }
        const auto whole = is_text ? of_item(std::string(part)) : of_item(bytes(part));
        return part.size() < value.length() ? whole + "..." : whole;
    }
    default:
        if (const auto number = integers::number_of(value)) return integers::to_decimal(*number);
        return "...";
    }
}

/// With its type.
[[nodiscard]] inline std::string description(const machine::Value& value) {
    using machine::Kind;
    const auto items = [&](const char* name, std::size_t each) {
        return name + std::to_string(value.node().size / each);
    };
    switch (value.kind()) {
    case Kind::none: return "None";
    case Kind::boolean: return "the bool " + repr(value);
    case Kind::wide:
        return "an int of " + std::to_string(integers::bit_length(value.text())) + " bits";
    case Kind::digits: return "an int of " + std::to_string(value.length()) + " digits";
    case Kind::real: return "the float " + repr(value);
    case Kind::text: return "the str " + repr(value);
    case Kind::raw: return "the bytes " + repr(value);
    case Kind::list: return items("a list of ", 1);
    case Kind::tuple: return items("a tuple of ", 1);
    case Kind::dict: return items("a dict of ", 2);
    case Kind::set: return items("a set of ", 1);
    case Kind::constructor: return "a type";
    default: return "the int " + repr(value);
    }
}

/// What a key of a dict or an element of a set must be.
struct Hashable {};

template <class T>
[[nodiscard]] std::string name_of();

template <class... Ts>
[[nodiscard]] std::string alternatives() {
    std::string names;
    ((names += (names.empty() ? "" : " or ") + name_of<Ts>()), ...);
    return names;
}
template <class T>
struct Alternatives;
template <class... Ts>
struct Alternatives<std::variant<Ts...>> {
    static std::string names() { return alternatives<Ts...>(); }
};

/// What is asked for, in Python's words.
template <class T>
std::string name_of() {
    constexpr Shape shape = shape_of<T>;
    if constexpr (std::same_as<T, Hashable>) {
        return "something that can be hashed (no list, no dict, nothing nested deeply)";
    } else if constexpr (shape == Shape::none) {
        return "None";
    } else if constexpr (shape == Shape::boolean) {
        return "bool";
    } else if constexpr (shape == Shape::integer) {
        return "int from " + integers::to_decimal(integers::Number::of(integers::lowest<T>)) +
               " to " + integers::to_decimal(integers::Number::of(integers::highest<T>));
    } else if constexpr (shape == Shape::real) {
        return "float";
    } else if constexpr (shape == Shape::character) {
        return "str of one ASCII character";
    } else if constexpr (shape == Shape::text) {
        return "str";
    } else if constexpr (shape == Shape::raw || shape == Shape::sequence || shape == Shape::tuple) {
        std::string name = shape == Shape::raw ? "bytes" : "list or tuple";
        if constexpr (requires { std::tuple_size<T>::value; })
            name += " of " + std::to_string(std::tuple_size<T>::value);
        return name;
    } else if constexpr (shape == Shape::dict) {
        return "dict";
    } else if constexpr (shape == Shape::set) {
        return "set";
    } else if constexpr (shape == Shape::optional) {
        return name_of<typename T::value_type>() + " or None";
    } else if constexpr (shape == Shape::variant) {
        return Alternatives<T>::names();
    } else {
        return "None, bool, int of 64 bits, float, str, bytes, list, tuple, dict or set";
    }
}

}  // namespace mismatch

/// Why a value could not become a T: filled in from the inside out, and put into words only when
/// nothing else fits.
class Mismatch {
public:
    /// Whether only what T is written as will do: no int for a double, no list for a tuple.
    bool exact = false;

    template <class T>
    bool expected(const machine::Value& value) {
        expected_ = &mismatch::name_of<T>;
        found_ = value;
        path_.clear();
        why_ = nullptr;
        return false;
    }
    /// With a reason of its own.
    template <class T>
    bool expected(const machine::Value& value, const char* why) {
        expected<T>(value);
        why_ = why;
        return false;
    }
    /// The same with more that would have fitted.
    template <class T>
    bool expected_instead() {
        if (path_.empty()) expected_ = &mismatch::name_of<T>;
        return false;
    }
    /// It happened in an item; `role` says in what of it, if not in the value.
    bool in(const machine::Value& where, const char* role = "") {
        path_.push_back({role, where});
        return false;
    }
    [[nodiscard]] std::string text() const {
        std::string text = "expected " + expected_();
        if (!path_.empty()) text += " at ";
        for (auto step = path_.rbegin(); step != path_.rend(); ++step)
            text += std::string("[") + step->role + mismatch::repr(step->where) + "]";
        text += ", but there is " + mismatch::description(found_);
        if (why_ != nullptr) text += std::string(", ") + why_;
        return text;
    }

private:
    struct Step {
        const char* role;
        machine::Value where;
    };
    std::string (*expected_)() = nullptr;
    const char* why_ = nullptr;
    machine::Value found_{machine::Kind::none};
    std::vector<Step> path_;
};

}  // namespace multiprocessing::python
