// SPDX-License-Identifier: BSL-1.0
//
// Bools and numbers as pickles hold them: into memory that has room for them, for there may be
// many.
#pragma once

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/python/integer.hpp>
#include <multiprocessing/python/opcodes.hpp>
#include <multiprocessing/python/shape.hpp>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace multiprocessing::python::writing {

using machine::op;

template <class T>
inline constexpr bool is_scalar =
    shape_of<T> == Shape::boolean || shape_of<T> == Shape::integer || shape_of<T> == Shape::real;
/// No number takes more: an opcode with 8 bytes, or with a length and an integer with a byte for
/// its sign.
template <class T>
inline constexpr std::size_t most_bytes = std::max<std::size_t>(1 + 8, 2 + sizeof(T) + 1);

template <class Number>
[[nodiscard]] std::byte* encode(unsigned char code, Number argument, std::byte* out) noexcept {
    *out++ = std::byte{code};
    std::memcpy(out, &argument, sizeof argument);
    return out + sizeof argument;
}
template <class T>
[[nodiscard]] std::byte* encode_integer(T value, std::byte* out) noexcept {
    if (value >= T{0} && value <= T{0x7f})
        return encode(op("BININT1"), static_cast<std::uint8_t>(value), out);
    const auto fits = [&]<class Small>(Small) {
        return integers::Number::of(value).template as<Small>().has_value();
    };
    if (fits(std::uint8_t{})) return encode(op("BININT1"), static_cast<std::uint8_t>(value), out);
    if (fits(std::uint16_t{})) return encode(op("BININT2"), static_cast<std::uint16_t>(value), out);
    if (fits(std::int32_t{})) return encode(op("BININT"), static_cast<std::int32_t>(value), out);
    // Two's complement, and a byte for the sign where there is none.
    char bytes[sizeof(T) + 1];
    std::memcpy(bytes, &value, sizeof value);
    bytes[sizeof value] = static_cast<char>(value < T{0} ? 0xff : 0);
    const auto needed = integers::shortest({bytes, sizeof bytes});
    out = encode(op("LONG1"), static_cast<std::uint8_t>(needed.size()), out);
    std::memcpy(out, needed.data(), needed.size());
    return out + needed.size();
}

/// Writes a bool or number to memory that has room for it and returns the end.
template <class T>
[[nodiscard]] std::byte* encode_scalar(T value, std::byte* out) {
    if constexpr (shape_of<T> == Shape::boolean) {
        *out = std::byte{value ? op("NEWTRUE") : op("NEWFALSE")};
        return out + 1;
    } else if constexpr (shape_of<T> == Shape::real) {
        const auto number = static_cast<double>(value);
        if (std::isinf(number) && !std::isinf(value))
            throw PicklingError("python::dumps: a long double is too large for Python's float");
        return encode(op("BINFLOAT"), __builtin_bswap64(std::bit_cast<std::uint64_t>(number)), out);
    } else {
        return encode_integer(value, out);
    }
}

}  // namespace multiprocessing::python::writing
