// SPDX-License-Identifier: BSL-1.0
//
// The names that a pickle of plain data refers to: up to protocol 3 Python writes sets, and up to
// protocol 4 bytearrays, as calls of these. They are read as the data that they stand for; nothing
// is imported or called, and nothing else is let in.
#pragma once

#include <multiprocessing/python/text.hpp>
#include <multiprocessing/python/value.hpp>

#include <algorithm>
#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace multiprocessing::python::machine {

enum class Constructor { set, bytes, bytearray, encode };

[[nodiscard]] inline std::optional<Constructor> find_constructor(std::string_view module,
                                                                 std::string_view name) noexcept {
    if (module == "_codecs" && name == "encode") return Constructor::encode;
    if (module != "builtins" && module != "__builtin__") return std::nullopt;
    if (name == "set" || name == "frozenset") return Constructor::set;
    if (name == "bytes") return Constructor::bytes;
    if (name == "bytearray") return Constructor::bytearray;
    return std::nullopt;
}

[[nodiscard]] constexpr const char* name_of(Constructor which) noexcept {
    switch (which) {
    case Constructor::set: return "set";
    case Constructor::bytes: return "bytes";
    case Constructor::bytearray: return "bytearray";
    default: return "_codecs.encode";
    }
}

/// What the call stands for; nothing where Python's pickler writes no such call.
[[nodiscard]] inline std::optional<Value> construct(Constructor which, std::span<const Value> args,
                                                    Arena& arena) {
    const auto latin1 = [&]() -> std::optional<Value> {
        const std::string_view encoding = args[1].kind() == Kind::text ? args[1].text() : "";
        if (args[0].kind() != Kind::text || (encoding != "latin1" && encoding != "latin-1"))
            return std::nullopt;
        const auto raw = text::to_latin1(args[0].text(), arena);
        return raw ? std::optional(Value(Kind::raw, *raw)) : std::nullopt;
    };
    switch (which) {
    case Constructor::set:
        if (args.size() == 1 && args[0].kind() == Kind::list)
            return share_items(arena, Kind::set, args[0].node());
        return std::nullopt;
    case Constructor::bytearray:
        if (args.size() == 1 && args[0].kind() == Kind::raw) return args[0];
        if (args.size() == 2) return latin1();
        [[fallthrough]];
    case Constructor::bytes:
        if (args.empty()) return Value(Kind::raw, std::string_view());
        return std::nullopt;
    case Constructor::encode:
        if (args.size() == 2) return latin1();
        return std::nullopt;
    }
    return std::nullopt;
}

/// A name out of a pickle, for a message: at most so long, and nothing in it that a terminal obeys.
[[nodiscard]] inline std::string printable(std::string_view name) {
    constexpr std::size_t longest = 60;
    std::string result(name.substr(0, longest));
    std::ranges::replace_if(
        result, [](char c) { return c < 0x20 || c > 0x7e; }, '?');
    if (name.size() > longest) result += "...";
    return result;
}

}  // namespace multiprocessing::python::machine
