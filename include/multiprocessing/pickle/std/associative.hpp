// SPDX-License-Identifier: BSL-1.0
//
// Sets and maps of the standard library, ordered and not, single and multi.
#pragma once

#include <multiprocessing/pickle/std/sequence.hpp>

#include <cstddef>
#include <map>
#include <set>
#include <type_traits>
#include <unordered_map>
#include <unordered_set>
#include <utility>

namespace multiprocessing::pickle {

namespace elements {

template <class Container>
void make_room(const IArchive& archive, Container& container, std::size_t count) {
    container.clear();
    if constexpr (requires { container.reserve(count); })
        container.reserve(room_for<typename Container::value_type>(archive, count));
}

template <class Set>
struct SetCodec {
    using Key = typename Set::key_type;
    static constexpr bool picklable = Picklable<Key>;
    static void save(OArchive& archive, const Set& set) {
        archive.save_size(set.size());
        for (const auto& key : set) elements::save(archive, key);
    }
    static void load(IArchive& archive, Set& set) {
        const std::size_t count = archive.load_size();
        make_room(archive, set, count);
        for (std::size_t i = 0; i < count; ++i)
            load_and_place<Key>(archive, [&](Key&& key) -> const Key& {
                return *set.emplace_hint(set.end(), std::move(key));
            });
    }
};

template <class Map>
struct MapCodec {
    using Key = typename Map::key_type;
    using Value = typename Map::mapped_type;
    static constexpr bool picklable = Picklable<Key> && Picklable<Value>;
    static void save(OArchive& archive, const Map& map) {
        archive.save_size(map.size());
        for (const auto& [key, value] : map) {
            elements::save(archive, key);
            save_new(archive, value);
        }
    }
    static void load(IArchive& archive, Map& map) {
        const std::size_t count = archive.load_size();
        make_room(archive, map, count);
        for (std::size_t i = 0; i < count; ++i) load_entry(archive, map);
    }

private:
    static void load_entry(IArchive& archive, Map& map) {
        if constexpr (is_made_empty<Value>) {
            Value* value = nullptr;
            load_and_place<Key>(archive, [&](Key&& key) -> const Key& {
                const auto entry = map.emplace_hint(map.end(), std::piecewise_construct,
                                                    std::forward_as_tuple(std::move(key)),
                                                    std::forward_as_tuple());
                value = std::addressof(entry->second);
                return entry->first;
            });
            load_value(archive, *value);
        } else {
            load_and_place<Key>(archive, [&](Key&& key) -> const Key& {
                const auto objects = archive.objects();
                return load_new_into<Value>(archive, [&](Value& value) -> const Key& {
                    const auto entry =
                        map.emplace_hint(map.end(), std::move(key), std::move(value));
                    archive.relocated(objects, value, entry->second);
                    return entry->first;
                });
            });
        }
    }
};

}  // namespace elements

template <class... Ts>
struct Codec<std::set<Ts...>> : elements::SetCodec<std::set<Ts...>> {};
template <class... Ts>
struct Codec<std::multiset<Ts...>> : elements::SetCodec<std::multiset<Ts...>> {};
template <class... Ts>
struct Codec<std::unordered_set<Ts...>> : elements::SetCodec<std::unordered_set<Ts...>> {};
template <class... Ts>
struct Codec<std::unordered_multiset<Ts...>>
    : elements::SetCodec<std::unordered_multiset<Ts...>> {};
template <class... Ts>
struct Codec<std::map<Ts...>> : elements::MapCodec<std::map<Ts...>> {};
template <class... Ts>
struct Codec<std::multimap<Ts...>> : elements::MapCodec<std::multimap<Ts...>> {};
template <class... Ts>
struct Codec<std::unordered_map<Ts...>> : elements::MapCodec<std::unordered_map<Ts...>> {};
template <class... Ts>
struct Codec<std::unordered_multimap<Ts...>>
    : elements::MapCodec<std::unordered_multimap<Ts...>> {};

}  // namespace multiprocessing::pickle
