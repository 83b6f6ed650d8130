// SPDX-License-Identifier: BSL-1.0
//
// Python's integers, which have as many bits as they need: in the bytes of pickles, in decimal, and
// as the C++ types that are large enough.
#pragma once

#include <multiprocessing/python/shape.hpp>
#include <multiprocessing/python/text.hpp>
#include <multiprocessing/python/value.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>

namespace multiprocessing::python::integers {

// std::numeric_limits does not know the numbers of 128 bits under -std=c++20.
template <class T>
inline constexpr bool has_sign = static_cast<T>(-1) < static_cast<T>(0);
template <class T>
inline constexpr unsigned bits = 8 * sizeof(T) - (has_sign<T> ? 1 : 0);
template <class T>
inline constexpr T highest = static_cast<T>(static_cast<uint128>(-1) >> (128 - bits<T>));
template <class T>
inline constexpr T lowest = has_sign<T> ? static_cast<T>(-highest<T> - 1) : T{0};

/// A number of 128 bits and a sign besides: all that any C++ type holds.
struct Number {
    uint128 size = 0;  // without the sign
    bool negative = false;

    template <class T>
    [[nodiscard]] static constexpr Number of(T number) noexcept {
        const bool below = number < T{0};
        return {below ? -static_cast<uint128>(number) : static_cast<uint128>(number), below};
    }
    template <class T>
    [[nodiscard]] constexpr std::optional<T> as() const noexcept {
        const uint128 most =
            static_cast<uint128>(highest<T>) + (negative && has_sign<T> ? uint128{1} : uint128{0});
        if (negative && !has_sign<T> && size != 0) return std::nullopt;
        if (size > most) return std::nullopt;
        return static_cast<T>(negative ? -size : size);
    }
};

[[nodiscard]] inline std::string to_decimal(Number number) {
    std::array<char, 41> text;
    std::size_t at = text.size();
    do {
        text[--at] = static_cast<char>('0' + static_cast<int>(number.size % 10));
        number.size /= 10;
    } while (number.size != 0);
    if (number.negative) text[--at] = '-';
    return std::string(text.data() + at, text.size() - at);
}

/// Two's complement, the lowest byte first, without bytes that only repeat the sign.
[[nodiscard]] inline std::string_view shortest(std::string_view bytes) noexcept {
    const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(bytes[i]); };
    std::size_t size = bytes.size();
    while (size > 1 && (byte(size - 1) == 0 || byte(size - 1) == 0xff) &&
           (byte(size - 1) & 0x80) == (byte(size - 2) & 0x80)) {
        --size;
    }
    return size == 1 && byte(0) == 0 ? std::string_view() : bytes.substr(0, size);
}

/// Of shortest bytes; nothing when they are more than Number holds.
[[nodiscard]] inline std::optional<Number> from_bytes(std::string_view bytes) noexcept {
    if (bytes.empty()) return Number{};
    const auto top = static_cast<unsigned char>(bytes.back());
    if (bytes.size() > 17 || (bytes.size() == 17 && top != 0 && top != 0xff)) return std::nullopt;
    const bool negative = (top & 0x80) != 0;
    uint128 pattern = negative ? ~uint128{0} : uint128{0};
    for (std::size_t i = std::min<std::size_t>(bytes.size(), 16); i-- != 0;)
        pattern = pattern << 8 | static_cast<unsigned char>(bytes[i]);
    // -2**128 has no size of 128 bits.
    if (negative && pattern == 0) return std::nullopt;
    return Number{negative ? -pattern : pattern, negative};
}

/// How many bits it takes beside the sign.
[[nodiscard]] inline std::size_t bit_length(std::string_view bytes) noexcept {
    if (bytes.empty()) return 0;
    const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(bytes[i]); };
    const unsigned sign = (byte(bytes.size() - 1) & 0x80) != 0 ? 0xff : 0;
    std::size_t size = bytes.size();
    while (size != 0 && byte(size - 1) == sign) --size;
    if (size == 0) return 0;
    return 8 * (size - 1) + static_cast<std::size_t>(std::bit_width(byte(size - 1) ^ sign));
}

/// From the bytes of a LONG1 or LONG4.
[[nodiscard]] inline machine::Value of_bytes(std::string_view bytes) noexcept {
    bytes = shortest(bytes);
    if (bytes.size() <= 8) {
        const bool negative =
            !bytes.empty() && (static_cast<unsigned char>(bytes.back()) & 0x80) != 0;
        std::uint64_t pattern = negative ? ~std::uint64_t{0} : 0;
        for (std::size_t i = bytes.size(); i-- != 0;)
            pattern = pattern << 8 | static_cast<unsigned char>(bytes[i]);
        return machine::Value::integer(static_cast<std::int64_t>(pattern));
    }
    if (const auto number = from_bytes(bytes))
        if (const auto natural = number->as<std::uint64_t>())
            return machine::Value::natural(*natural);
    return machine::Value(machine::Kind::wide, bytes);
}

/// From decimal digits with or without a sign. Nothing where they are none.
[[nodiscard]] inline std::optional<machine::Value> of_text(std::string_view text,
                                                           machine::Arena& arena) {
    if (const auto small = text::number<std::int64_t>(text)) return machine::Value::integer(*small);
    const std::string_view all = text;
    Number number{0, text.starts_with('-')};
    if (number.negative || text.starts_with('+')) text.remove_prefix(1);
    if (text.empty()) return std::nullopt;
    bool fits = true;
    for (const char c : text) {
        if (c < '0' || c > '9') return std::nullopt;
        const auto digit = static_cast<unsigned>(c - '0');
        fits = fits && number.size <= (~uint128{0} - digit) / 10;
        if (fits) number.size = 10 * number.size + digit;
    }
    if (!fits) return machine::Value(machine::Kind::digits, all);
    if (const auto natural = number.as<std::uint64_t>()) return machine::Value::natural(*natural);
    if (const auto small = number.as<std::int64_t>()) return machine::Value::integer(*small);
    char* const bytes = arena.allocate<char>(17);
    uint128 pattern = number.negative ? -number.size : number.size;
    for (std::size_t i = 0; i < 16; ++i, pattern >>= 8)
        bytes[i] = static_cast<char>(pattern & 0xff);
    bytes[16] = number.negative ? '\xff' : '\0';
    return machine::Value(machine::Kind::wide, shortest(std::string_view(bytes, 17)));
}

/// The number, of a value that is an int; nothing when it is larger than any C++ type.
[[nodiscard]] inline std::optional<Number> number_of(const machine::Value& value) noexcept {
    switch (value.kind()) {
    case machine::Kind::integer: return Number::of(value.integer());
    case machine::Kind::natural: return Number::of(value.natural());
    case machine::Kind::wide: return from_bytes(value.text());
    default: return std::nullopt;
    }
}

}  // namespace multiprocessing::python::integers
