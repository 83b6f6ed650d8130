// SPDX-License-Identifier: BSL-1.0
//
// The identity of a type in a message: a hash of its ABI name, which g++ and clang agree on, and a
// name for people. The program's own types can be named from their hash, so that an error about a
// message of another type names both.
#pragma once

#include <multiprocessing/os/fork.hpp>

#include <boost/core/demangle.hpp>

#include <array>
#include <atomic>
#include <cstdint>
#include <string>
#include <string_view>
#include <typeinfo>
#include <utility>

namespace multiprocessing::pickle {

/// `name` as a person would write it: without inline namespaces and default arguments.
[[nodiscard]] std::string tidy_type_name(std::string name);

/// FNV-1a, 64 bits.
[[nodiscard]] constexpr std::uint64_t hash_text(std::string_view text) noexcept {
    std::uint64_t hash = 0xcbf29ce484222325u;
    for (const char c : text) {
        hash ^= static_cast<unsigned char>(c);
        hash *= 0x100000001b3u;
    }
    return hash;
}

/// The same number in every program that is built with the same ABI.
template <class T>
[[nodiscard]] std::uint64_t type_hash() noexcept {
    static constinit std::atomic<std::uint64_t> known{0};  // who finds 0 looks for itself
    std::uint64_t hash = known.load(std::memory_order_relaxed);
    if (hash == 0) [[unlikely]] {
        hash = hash_text(typeid(T).name());
        known.store(hash, std::memory_order_relaxed);
    }
    return hash;
}

/// `std::vector<int>` and the like.
[[nodiscard]] inline std::string type_name(const std::type_info& type) {
    return tidy_type_name(boost::core::demangle(type.name()));
}
template <class T>
[[nodiscard]] const std::string& type_name() {
    static constinit os::Lazy<const std::string> name;
    return name.get([] { return new const std::string(type_name(typeid(T))); });
}

/// The types this program writes or reads: a list that static initialisers prepend to, so that it
/// needs no lock and no order among them.
struct KnownType {
    std::uint64_t (*hash)() noexcept;
    const std::string& (*name)();
    const KnownType* next;

    static inline constinit std::atomic<const KnownType*> first{nullptr};
};

template <class T>
struct KnowType {
    static bool add() noexcept {
        static KnownType entry{&type_hash<T>, &type_name<T>, nullptr};
        entry.next = KnownType::first.load(std::memory_order_relaxed);
        // release: who finds the entry sees its fields.
        while (!KnownType::first.compare_exchange_weak(entry.next, &entry,
                                                       std::memory_order_release,
                                                       std::memory_order_relaxed)) {}
        return true;
    }
    static inline const bool done = add();
};

/// The name behind a hash, or "a type unknown to this program (…)".
[[nodiscard]] inline std::string name_of_hash(std::uint64_t hash) {
    for (auto* type = KnownType::first.load(std::memory_order_acquire); type != nullptr;
         type = type->next)
        if (type->hash() == hash) return type->name();
    constexpr std::string_view digits = "0123456789abcdef";
    std::string text;
    for (int shift = 60; shift >= 0; shift -= 4) text += digits[(hash >> shift) & 15u];
    return "a type unknown to this program (hash " + text + ")";
}

namespace type_names {

// Copied piece by piece: of std::string::replace g++ 12 believes that it may overflow.
inline void replace_all(std::string& text, std::string_view from, std::string_view to) {
    std::string result;
    std::size_t begin = 0;
    for (std::size_t at; (at = text.find(from, begin)) != std::string::npos; begin = at + from.size())
        result.append(text, begin, at - begin).append(to);
    result.append(text, begin);
    text = std::move(result);
}

/// Removes every `, name<…>`, a default argument that nobody writes.
inline void remove_argument(std::string& text, std::string_view opening) {
    for (std::size_t at = 0; (at = text.find(opening, at)) != std::string::npos;) {
        std::size_t end = at + opening.size();
        for (int depth = 1; depth > 0 && end < text.size(); ++end) {
            if (text[end] == '<') ++depth;
            // The arrow of a lambda's result closes nothing.
            if (text[end] == '>' && text[end - 1] != '-') --depth;
        }
        text.erase(at, end - at);
        while (at < text.size() && text[at] == ' ') text.erase(at, 1);
    }
}

}  // namespace type_names

inline std::string tidy_type_name(std::string name) {
    using namespace type_names;
    replace_all(name, "__cxx11::", "");
    replace_all(name, "[abi:cxx11]", "");
    replace_all(name, "std::__1::", "std::");
    constexpr std::array<std::string_view, 7> defaults = {
        ", std::allocator<", ", std::char_traits<", ", std::less<", ", std::hash<",
        ", std::equal_to<", ", std::default_delete<",
        ", boost::container::scoped_allocator_adaptor<"};  // of a SharedHeap's containers
    for (const auto argument : defaults) remove_argument(name, argument);
    replace_all(name, "std::basic_string<char>", "std::string");
    replace_all(name, "std::basic_string<wchar_t>", "std::wstring");
    replace_all(name, "> >", ">>");
    replace_all(name, " >", ">");
    return name;
}

}  // namespace multiprocessing::pickle
