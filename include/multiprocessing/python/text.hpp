// SPDX-License-Identifier: BSL-1.0
//
// Text as pickles hold it: UTF-8, the escapes of protocol 0, Latin-1, and numbers in decimal.
#pragma once

#include <multiprocessing/python/value.hpp>

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>

namespace multiprocessing::python::text {

/// How many of its bytes come before the first that is not ASCII.
[[nodiscard]] inline std::size_t ascii_prefix(std::string_view text) noexcept {
    std::size_t at = 0;
    for (std::uint64_t word; text.size() - at >= sizeof word; at += sizeof word) {
        std::memcpy(&word, text.data() + at, sizeof word);
        if ((word & 0x8080808080808080u) != 0) break;
    }
    while (at < text.size() && static_cast<unsigned char>(text[at]) < 0x80) ++at;
    return at;
}
[[nodiscard]] inline bool is_ascii(std::string_view text) noexcept {
    return ascii_prefix(text) == text.size();
}

struct CodePoint {
    char32_t code = 0;
    std::size_t length = 0;  // in bytes; 0 where it is no UTF-8
};

/// The first one. Surrogates are read too, as Python's "surrogatepass" does.
[[nodiscard]] inline CodePoint decode(std::string_view text) noexcept {
    const auto byte = [&](std::size_t i) {
        return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u;
    };
    const unsigned first = byte(0);
    if (first < 0x80) return {first, 1};
    const std::size_t length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
    if (first < 0xc2 || first > 0xf4) return {};
    char32_t code = first & (0x7fu >> length);
    for (std::size_t i = 1; i < length; ++i) {
        if ((byte(i) & 0xc0) != 0x80) return {};
        code = code << 6 | (byte(i) & 0x3f);
    }
    constexpr char32_t least[] = {0x80, 0x800, 0x10000};
    if (code < least[length - 2] || code > 0x10ffff) return {};
    return {code, length};
}

[[nodiscard]] constexpr bool is_surrogate(char32_t code) noexcept {
    return code >= 0xd800 && code <= 0xdfff;
}

/// What keeps it from being text that is valid in UTF-8; empty if nothing does.
[[nodiscard]] inline std::string fault(std::string_view text) {
    std::size_t at = ascii_prefix(text);
    while (at < text.size()) {
        const CodePoint next = decode(text.substr(at));
        if (next.length == 0) return "is no UTF-8 from byte " + std::to_string(at) + " on";
        if (is_surrogate(next.code)) {
            return "has half of a surrogate pair at byte " + std::to_string(at) +
                   ", which UTF-8 does not have";
        }
        at += next.length;
        at += ascii_prefix(text.substr(at));
    }
    return {};
}

/// Writes to memory that has room for it (4 bytes) and returns the end.
inline char* encode(char32_t code, char* out) noexcept {
    const auto put = [&](char32_t byte) { *out++ = static_cast<char>(byte); };
    if (code < 0x80) {
        put(code);
    } else if (code < 0x800) {
        put(0xc0 | code >> 6);
        put(0x80 | (code & 0x3f));
    } else if (code < 0x10000) {
        put(0xe0 | code >> 12);
        put(0x80 | (code >> 6 & 0x3f));
        put(0x80 | (code & 0x3f));
    } else {
        put(0xf0 | code >> 18);
        put(0x80 | (code >> 12 & 0x3f));
        put(0x80 | (code >> 6 & 0x3f));
        put(0x80 | (code & 0x3f));
    }
    return out;
}

/// Text as Latin-1; nothing where it has other characters.
[[nodiscard]] inline std::optional<std::string_view> to_latin1(std::string_view text,
                                                               machine::Arena& arena) {
    if (is_ascii(text)) return text;
    char* const begin = arena.allocate<char>(text.size());
    char* out = begin;
    for (std::size_t at = 0; at < text.size();) {
        const CodePoint next = decode(text.substr(at));
        if (next.code > 0xff) return std::nullopt;
        *out++ = static_cast<char>(next.code);
        at += next.length;
    }
    return std::string_view(begin, static_cast<std::size_t>(out - begin));
}

/// A number of hexadecimal digits and of no other; nothing where it is none.
[[nodiscard]] inline std::optional<char32_t> hexadecimal(std::string_view digits) noexcept {
    std::uint32_t number = 0;
    const auto* const end = digits.data() + digits.size();
    const auto read = std::from_chars(digits.data(), end, number, 16);
    if (digits.empty() || read.ec != std::errc() || read.ptr != end) return std::nullopt;
    return number;
}

/// Python's "raw-unicode-escape": Latin-1 with \uXXXX and \UXXXXXXXX. Nothing where it is none.
[[nodiscard]] inline std::optional<std::string_view> from_raw_unicode_escape(
    std::string_view raw, machine::Arena& arena) {
    if (is_ascii(raw) && raw.find('\\') == std::string_view::npos) return raw;
    // A byte becomes two at most; an escape becomes less than it is.
    char* const begin = arena.allocate<char>(2 * raw.size());
    char* out = begin;
    for (std::size_t at = 0; at < raw.size(); ++at) {
        if (raw[at] != '\\' || at + 1 == raw.size()) {
            out = encode(static_cast<unsigned char>(raw[at]), out);
            continue;
        }
        const char kind = raw[++at];
        if (kind != 'u' && kind != 'U') {  // a backslash and what is after it, be it another one
            *out++ = '\\';
            out = encode(static_cast<unsigned char>(kind), out);
            continue;
        }
        const std::size_t count = kind == 'u' ? 4 : 8;
        const auto code = hexadecimal(raw.substr(at + 1, count));
        if (raw.size() - at - 1 < count || !code || *code > 0x10ffff) return std::nullopt;
        out = encode(*code, out);
        at += count;
    }
    return std::string_view(begin, static_cast<std::size_t>(out - begin));
}

/// What Python 2's repr() of a str has between its quotes. Nothing where it is none.
[[nodiscard]] inline std::optional<std::string_view> from_escapes(std::string_view quoted,
                                                                  machine::Arena& arena) {
    if (quoted.find('\\') == std::string_view::npos) return quoted;
    char* const begin = arena.allocate<char>(quoted.size());
    char* out = begin;
    for (std::size_t at = 0; at < quoted.size(); ++at) {
        if (quoted[at] != '\\') {
            *out++ = quoted[at];
            continue;
        }
        if (++at == quoted.size()) return std::nullopt;
        constexpr std::string_view letters = "abfnrtv\\'\"";
        constexpr std::string_view meanings = "\a\b\f\n\r\t\v\\'\"";
        const char letter = quoted[at];
        if (const auto which = letters.find(letter); which != std::string_view::npos) {
            *out++ = meanings[which];
        } else if (letter == 'x') {
            const auto code = hexadecimal(quoted.substr(at + 1, 2));
            if (quoted.size() - at - 1 < 2 || !code) return std::nullopt;
            *out++ = static_cast<char>(*code);
            at += 2;
        } else if (letter >= '0' && letter <= '7') {
            unsigned code = 0;
            const std::size_t end = std::min(at + 3, quoted.size());
            for (; at < end && quoted[at] >= '0' && quoted[at] <= '7'; ++at)
                code = 8 * code + static_cast<unsigned>(quoted[at] - '0');
            *out++ = static_cast<char>(code);
            --at;
        } else {  // no escape, as Python has it
            *out++ = '\\';
            *out++ = letter;
        }
    }
    return std::string_view(begin, static_cast<std::size_t>(out - begin));
}

/// A decimal number with or without a sign. Nothing where it is none.
template <class Number>
[[nodiscard]] std::optional<Number> number(std::string_view text) noexcept {
    Number result{};
    if (text.starts_with('+') && !text.starts_with("+-")) text.remove_prefix(1);
    const auto* const end = text.data() + text.size();
    const auto read = std::from_chars(text.data(), end, result);
    if (read.ec != std::errc() || read.ptr != end) return std::nullopt;
    return result;
}

}  // namespace multiprocessing::python::text
