// SPDX-License-Identifier: BSL-1.0
//
// Pairs, tuples, optionals, variants, paths and bit sets. Boost 1.74 has no serialization for most
// of them and later versions have some; these serve on all.
#pragma once

#include <multiprocessing/pickle/value.hpp>

#include <bitset>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <tuple>
#include <type_traits>
#include <utility>
#include <variant>

namespace multiprocessing::pickle {

namespace elements {

/// Pairs and tuples: element by element. Braces keep the order of evaluation.
template <class Tuple, class... Ts>
struct TupleCodec {
    static constexpr bool picklable = (Picklable<Ts> && ...);
    static void save(OArchive& archive, const Tuple& tuple) {
        std::apply(
            [&](const auto&... element) {
                if constexpr (is_made_empty<Tuple>) {
                    (save_value(archive, element), ...);
                } else {
                    (save_new(archive, element), ...);
                }
            },
            tuple);
    }
    static void load(IArchive& archive, Tuple& tuple) {
        if constexpr (is_made_empty<Tuple>) {
            std::apply([&](auto&... element) { (load_value(archive, element), ...); }, tuple);
        } else {
            tuple = load_new(archive);
        }
    }
    static Tuple load_new(IArchive& archive) { return Tuple{pickle::load_new<Ts>(archive)...}; }
};

}  // namespace elements

template <class A, class B>
struct Codec<std::pair<A, B>> : elements::TupleCodec<std::pair<A, B>, A, B> {};
template <class... Ts>
struct Codec<std::tuple<Ts...>> : elements::TupleCodec<std::tuple<Ts...>, Ts...> {};

template <class T>
struct Codec<std::optional<T>> {
    static constexpr bool picklable = Picklable<T>;
    static void save(OArchive& archive, const std::optional<T>& optional) {
        save_value(archive, optional.has_value());
        if (optional) save_new(archive, *optional);
    }
    static void load(IArchive& archive, std::optional<T>& optional) {
        bool has_value = false;
        load_value(archive, has_value);
        optional.reset();
        if (!has_value) return;
        if constexpr (is_made_empty<T>) {
            load_value(archive, optional.emplace());
        } else {
            const auto objects = archive.objects();
            load_new_into<T>(archive, [&](T& value) {
                archive.relocated(objects, value, optional.emplace(std::move(value)));
            });
        }
    }
};

template <class... Ts>
struct Codec<std::variant<Ts...>> {
    using Variant = std::variant<Ts...>;
    static constexpr bool picklable = (Picklable<Ts> && ...);
    static void save(OArchive& archive, const Variant& variant) {
        if (variant.valueless_by_exception())
            throw PicklingError("a std::variant that an exception left without a value");
        archive.put(static_cast<std::uint16_t>(variant.index()));
        std::visit([&](const auto& value) { save_new(archive, value); }, variant);
    }
    static void load(IArchive& archive, Variant& variant) {
        const auto index = archive.get<std::uint16_t>();
        if (index >= sizeof...(Ts))
            throw UnpicklingError("the bytes hold alternative " + std::to_string(index) + " of " +
                                  type_name<Variant>());
        [&]<std::size_t... I>(std::index_sequence<I...>) {
            ((I == index ? load_alternative<I>(archive, variant) : void()), ...);
        }(std::index_sequence_for<Ts...>());
    }

private:
    template <std::size_t I>
    static void load_alternative(IArchive& archive, Variant& variant) {
        using T = std::variant_alternative_t<I, Variant>;
        if constexpr (is_made_empty<T>) {
            load_value(archive, variant.template emplace<I>());
        } else {
            const auto objects = archive.objects();
            load_new_into<T>(archive, [&](T& value) {
                archive.relocated(objects, value, variant.template emplace<I>(std::move(value)));
            });
        }
    }
};

template <>
struct Codec<std::filesystem::path> {
    static constexpr bool picklable = true;
    static void save(OArchive& archive, const std::filesystem::path& path) {
        archive.save_size(path.native().size());
        archive.save_binary(path.native().data(), path.native().size());
    }
    static void load(IArchive& archive, std::filesystem::path& path) {
        const std::size_t size = archive.load_size();
        const auto* const from = reinterpret_cast<const char*>(archive.take(size));
        path.assign(from, from + size);
    }
};

template <std::size_t N>
struct Codec<std::bitset<N>> {
    static constexpr bool picklable = true;
    static void save(OArchive& archive, const std::bitset<N>& bits) {
        archive.save_binary(&bits, sizeof bits);
    }
    static void load(IArchive& archive, std::bitset<N>& bits) {
        archive.load_binary(static_cast<void*>(&bits), sizeof bits);
        bits.flip().flip();  // which clears what lies beyond the N bits
    }
};

}  // namespace multiprocessing::pickle
