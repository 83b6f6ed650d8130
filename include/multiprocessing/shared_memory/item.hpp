// SPDX-License-Identifier: BSL-1.0
//
// What a `ShareableList` holds: one of the six types that Python's does.
#pragma once

#include <multiprocessing/bytes.hpp>
#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/none.hpp>

#include <charconv>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <ostream>
#include <sstream>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>

namespace multiprocessing::shared_memory {

namespace item_detail {

template <class T>
inline constexpr bool is_character =
    std::same_as<T, char> || std::same_as<T, wchar_t> || std::same_as<T, char8_t> ||
    std::same_as<T, char16_t> || std::same_as<T, char32_t>;

/// As Python writes a string: in single quotes, unless it holds these alone.
[[nodiscard]] std::string quoted(std::string_view text, bool is_text);

}  // namespace item_detail

/// None, a bool, an integer of 64 bits, a double, a string or bytes.
class ShareableItem {
public:
    using Variant = std::variant<none_t, bool, std::int64_t, double, std::string, bytes>;

    ShareableItem() noexcept = default;
    ShareableItem(none_t) noexcept {}
    template <std::same_as<bool> Bool>
    ShareableItem(Bool value) noexcept : value_(value) {}
    /// *Throws* ValueError for what does not fit 64 bits with a sign.
    template <std::integral Integer>
        requires(!std::same_as<Integer, bool> && !item_detail::is_character<Integer>)
    ShareableItem(Integer value) : value_(checked(value)) {}
    template <std::floating_point Real>
    ShareableItem(Real value) noexcept : value_(static_cast<double>(value)) {}
    template <class Text>
        requires std::convertible_to<const Text&, std::string_view> &&
            (!std::same_as<Text, bytes>)&&(!std::same_as<Text, std::nullptr_t>)
                ShareableItem(const Text& text)
            : value_(std::string(std::string_view(text))) {}
        ShareableItem(bytes value) : value_(std::move(value)) {}

        ShareableItem(const ShareableItem&) = default;
        ShareableItem(ShareableItem&&) = default;
        // Of one that has a name: `list[0] = 1` changes no list, and is list.set(0, 1).
        ShareableItem& operator=(const ShareableItem&) & = default;
        ShareableItem& operator=(ShareableItem&&) & = default;
        ~ShareableItem() = default;

        /// As a T: bool, a number, std::string or mp::bytes. *Throws* ValueError, naming both
        /// types, if it is not one, nor a number that T can hold.
        template <class T>
        [[nodiscard]] T get() const;
        [[nodiscard]] bool is_none() const noexcept {
            return std::holds_alternative<none_t>(value_);
        }
        /// Python's name of its type.
        [[nodiscard]] const char* type_name() const noexcept {
            constexpr const char* names[] = {"NoneType", "bool", "int", "float", "str", "bytes"};
            return names[value_.index()];
        }
        [[nodiscard]] const Variant& variant() const noexcept { return value_; }

        /// As in Python, where numbers are equal whatever their types are: True is 1, and 1 is 1.0.
        friend bool operator==(const ShareableItem& a, const ShareableItem& b) noexcept;
        /// As Python's repr() writes it.
        friend std::ostream& operator<<(std::ostream& out, const ShareableItem& item);

    private:
        template <class Integer>
        [[nodiscard]] static std::int64_t checked(Integer value) {
            if (!std::in_range<std::int64_t>(value)) {
                throw ValueError("ShareableList: " + std::to_string(value) +
                                 " is too large for an item, which has 64 bits with a sign");
            }
            return static_cast<std::int64_t>(value);
        }
        template <class T>
        [[noreturn]] void throw_other_type(const char* asked) const {
            std::ostringstream text;
            text << "ShareableList: the item is " << *this << ", of type " << type_name()
                 << ", and not " << asked;
            throw ValueError(text.str());
        }

        Variant value_;
};

// ---------------------------------------------------------------------------------------------------

template <class T>
T ShareableItem::get() const {
    static_assert(
        std::is_arithmetic_v<T> || std::same_as<T, std::string> || std::same_as<T, bytes> ||
            std::same_as<T, none_t>,
        "an item of a ShareableList is a bool, a number, a std::string, mp::bytes or mp::None");
    if constexpr (std::same_as<T, bool> || std::same_as<T, std::string> || std::same_as<T, bytes> ||
                  std::same_as<T, none_t>) {
        if (const T* value = std::get_if<T>(&value_)) return *value;
        throw_other_type<T>(std::same_as<T, bool>          ? "a bool"
                            : std::same_as<T, std::string> ? "a str"
                            : std::same_as<T, bytes>       ? "bytes"
                                                           : "None");
    } else {
        const bool* truth = std::get_if<bool>(&value_);
        const std::int64_t* whole = std::get_if<std::int64_t>(&value_);
        if constexpr (std::integral<T>) {
            if (truth != nullptr) return static_cast<T>(*truth);
            if (whole != nullptr && *whole == static_cast<std::int64_t>(static_cast<T>(*whole)) &&
                (*whole < 0) == (static_cast<T>(*whole) < T{})) {
                return static_cast<T>(*whole);
            }
            throw_other_type<T>("an integer of that size");
        } else {
            if (truth != nullptr) return static_cast<T>(*truth);
            if (whole != nullptr) return static_cast<T>(*whole);
            if (const double* real = std::get_if<double>(&value_)) return static_cast<T>(*real);
            throw_other_type<T>("a number");
        }
    }
}

inline bool operator==(const ShareableItem& a, const ShareableItem& b) noexcept {
    const auto whole = [](const ShareableItem& item, std::int64_t& value) {
        if (const bool* truth = std::get_if<bool>(&item.value_)) {
            value = *truth ? 1 : 0;
        } else if (const auto* number = std::get_if<std::int64_t>(&item.value_)) {
            value = *number;
        } else {
            return false;
        }
        return true;
    };
    // By value, not by what the integer becomes as a double.
    const auto same = [](std::int64_t number, double real) {
        constexpr double limit = 0x1p63;
        return std::trunc(real) == real && real >= -limit && real < limit &&
               static_cast<std::int64_t>(real) == number;
    };
    std::int64_t i = 0;
    std::int64_t j = 0;
    const bool a_is_whole = whole(a, i);
    const bool b_is_whole = whole(b, j);
    if (a_is_whole && b_is_whole) return i == j;
    if (const double* real = std::get_if<double>(&b.value_); real != nullptr && a_is_whole)
        return same(i, *real);
    if (const double* real = std::get_if<double>(&a.value_); real != nullptr && b_is_whole)
        return same(j, *real);
    return a.value_ == b.value_;
}

inline std::ostream& operator<<(std::ostream& out, const ShareableItem& item) {
    struct Writer {
        std::ostream& out;
        void operator()(none_t) const { out << "None"; }
        void operator()(bool value) const { out << (value ? "True" : "False"); }
        void operator()(std::int64_t value) const { out << std::to_string(value); }
        void operator()(double value) const {
            if (!std::isfinite(value)) {
                out << (std::isnan(value) ? "nan" : value < 0 ? "-inf" : "inf");
                return;
            }
            // The shortest that is read as the same number, as repr() has it.
            char text[32];
            const double size = std::fabs(value);
            const bool plain = size == 0 || (size >= 1e-4 && size < 1e16);
            const auto end =
                std::to_chars(text, text + sizeof text, value,
                              plain ? std::chars_format::fixed : std::chars_format::scientific);
            const std::string_view digits(text, static_cast<std::size_t>(end.ptr - text));
            out << digits << (plain && digits.find('.') == std::string_view::npos ? ".0" : "");
        }
        void operator()(const std::string& value) const { out << item_detail::quoted(value, true); }
        void operator()(const bytes& value) const {
            out << 'b' << item_detail::quoted(value.str(), false);
        }
    };
    std::visit(Writer{out}, item.value_);
    return out;
}

namespace item_detail {

inline std::string quoted(std::string_view text, bool is_text) {
    const char quote =
        text.find('\'') != std::string_view::npos && text.find('"') == std::string_view::npos
            ? '"'
            : '\'';
    std::string result(1, quote);
    for (const char c : text) {
        const auto code = static_cast<unsigned char>(c);
        if (c == quote || c == '\\') {
            result += '\\';
            result += c;
        } else if (c == '\n' || c == '\r' || c == '\t') {
            result += c == '\n' ? "\\n" : c == '\r' ? "\\r" : "\\t";
        } else if (code < 0x20 || code == 0x7f || (code > 0x7f && !is_text)) {
            constexpr char digits[] = "0123456789abcdef";
            result += "\\x";
            result += digits[code / 16];
            result += digits[code % 16];
        } else {
            result += c;
        }
    }
    return result += quote;
}

}  // namespace item_detail

}  // namespace multiprocessing::shared_memory
