// SPDX-License-Identifier: BSL-1.0
//
// Strings and sequences of the standard library. Contiguous elements that are nothing but their
// bytes are one memcpy.
#pragma once

#include <multiprocessing/bytes.hpp>
#include <multiprocessing/os/memory.hpp>
#include <multiprocessing/pickle/value.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <forward_list>
#include <iterator>
#include <list>
#include <string>
#include <type_traits>
#include <utility>
#include <valarray>
#include <vector>

namespace multiprocessing::pickle {

namespace elements {

// Every element is worth a byte of the message at least, an empty one too: a count can then be
// checked against what remains.
template <class T>
void save(OArchive& archive, const T& element) {
    const auto before = archive.position();
    save_new(archive, element);
    if (archive.position() == before) archive.put(std::uint8_t{0});
}

template <class T>
void load(IArchive& archive, T& element) {
    const auto before = archive.position();
    load_value(archive, element);
    if (archive.position() == before) static_cast<void>(archive.take(1));
}

/// Reads an element and calls `place`, which moves it to its place and returns that.
template <class T, class Place>
void load_and_place(IArchive& archive, Place place) {
    const auto before = archive.position();
    const auto objects = archive.objects();
    load_new_into<T>(archive, [&](T& element) {
        if (archive.position() == before) static_cast<void>(archive.take(1));
        archive.relocated(objects, element, static_cast<const T&>(place(std::move(element))));
    });
}

/// Reads an element at the end of a sequence.
template <class Sequence>
void load_back(IArchive& archive, Sequence& sequence) {
    using T = typename Sequence::value_type;
    if constexpr (is_made_empty<T>) {
        load(archive, sequence.emplace_back());
    } else {
        load_and_place<T>(archive, [&](T&& element) -> const T& {
            return sequence.emplace_back(std::move(element));
        });
    }
}

/// How many of `count` elements to make room for at once: no more bytes than the message has left.
/// The rest comes as the elements do.
template <class T>
[[nodiscard]] std::size_t room_for(const IArchive& archive, std::size_t count) noexcept {
    return std::min(count, 16 + archive.remaining() / sizeof(T));
}

/// Reads elements that were written by one memcpy.
template <class T, class Container>
void load_contiguous(IArchive& archive, Container& container) {
    const std::size_t count = archive.load_size(sizeof(T));
    const std::byte* const from = archive.take(count * sizeof(T));
    container.clear();
    container.reserve(count);
    os::before_filling(container.data(), count * sizeof(T));
    if (reinterpret_cast<std::uintptr_t>(from) % alignof(T) == 0) {
        const auto* const first = reinterpret_cast<const T*>(from);
        container.assign(first, first + count);  // no zeros first
    } else {
        container.resize(count);
        if (count != 0) std::memcpy(static_cast<void*>(container.data()), from, count * sizeof(T));
    }
}

}  // namespace elements

template <class Char, class Traits, class Allocator>
struct Codec<std::basic_string<Char, Traits, Allocator>> {
    using String = std::basic_string<Char, Traits, Allocator>;
    static constexpr bool picklable = Bitwise<Char>;
    static std::size_t size(const String& s) {
        return sizeof(std::uint64_t) + s.size() * sizeof(Char);
    }
    static void save(OArchive& archive, const String& s) {
        archive.save_size(s.size());
        archive.save_binary(s.data(), s.size() * sizeof(Char));
    }
    static void load(IArchive& archive, String& s) {
        elements::load_contiguous<Char>(archive, s);
    }
};

template <class T, class Allocator>
    requires BitwiseElement<T>
struct Codec<std::vector<T, Allocator>> {
    using Vector = std::vector<T, Allocator>;
    static constexpr bool picklable = true;
    static std::size_t size(const Vector& v) {
        return sizeof(std::uint64_t) + v.size() * sizeof(T);
    }
    static void save(OArchive& archive, const Vector& v) {
        archive.save_size(v.size());
        archive.save_binary(v.data(), v.size() * sizeof(T));
    }
    static void load(IArchive& archive, Vector& v) { elements::load_contiguous<T>(archive, v); }
};

template <>
struct Codec<bytes> : Codec<std::vector<std::byte>> {
    static void load(IArchive& archive, bytes& v) {
        Codec<std::vector<std::byte>>::load(archive, v);
    }
};

template <class T, class Allocator>
    requires(!BitwiseElement<T>)
struct Codec<std::vector<T, Allocator>> {
    using Vector = std::vector<T, Allocator>;
    static constexpr bool picklable = Picklable<T>;
    static void save(OArchive& archive, const Vector& v) {
        archive.save_size(v.size());
        for (const auto& element : v) elements::save(archive, element);
    }
    static void load(IArchive& archive, Vector& v) {
        v.clear();
        const std::size_t count = archive.load_size();
        v.reserve(elements::room_for<T>(archive, count));
        const auto objects = archive.objects();
        for (std::size_t i = 0; i < count; ++i) {
            if (v.size() == v.capacity()) grow(archive, v, objects);
            elements::load_back(archive, v);
        }
    }

private:
    // Pointers to the elements may have been read already.
    static void grow(IArchive& archive, Vector& v, std::size_t objects) {
        const T* const before = v.data();
        v.reserve(v.size() * 2);
        if (archive.objects() != objects)
            archive.read().relocate(objects, before, v.size() * sizeof(T), v.data());
    }
};

template <class Allocator>
struct Codec<std::vector<bool, Allocator>> {
    using Vector = std::vector<bool, Allocator>;
    static constexpr bool picklable = true;
    static void save(OArchive& archive, const Vector& v) {
        archive.save_size(v.size());
        std::byte* const to = archive.buffer().grow((v.size() + 7) / 8);
        std::fill_n(to, (v.size() + 7) / 8, std::byte{0});
        for (std::size_t i = 0; i < v.size(); ++i)
            if (v[i]) to[i / 8] |= std::byte{1} << (i % 8);
    }
    static void load(IArchive& archive, Vector& v) {
        const auto count = archive.get<std::uint64_t>();
        const std::byte* const from = archive.take(static_cast<std::size_t>(
            count / 8 + static_cast<std::uint64_t>(count % 8 != 0)));
        v.assign(static_cast<std::size_t>(count), false);
        for (std::size_t i = 0; i < v.size(); ++i)
            v[i] = (from[i / 8] & (std::byte{1} << (i % 8))) != std::byte{0};
    }
};

namespace elements {

/// Sequences whose elements stay where they are once made.
template <class Sequence>
struct NodeSequence {
    using T = typename Sequence::value_type;
    static constexpr bool picklable = Picklable<T>;
    static void save(OArchive& archive, const Sequence& sequence) {
        archive.save_size(sequence.size());
        for (const auto& element : sequence) elements::save(archive, element);
    }
    static void load(IArchive& archive, Sequence& sequence) {
        sequence.clear();
        for (std::size_t left = archive.load_size(); left > 0; --left) load_back(archive, sequence);
    }
};

}  // namespace elements

template <class T, class Allocator>
struct Codec<std::list<T, Allocator>> : elements::NodeSequence<std::list<T, Allocator>> {};
template <class T, class Allocator>
struct Codec<std::deque<T, Allocator>> : elements::NodeSequence<std::deque<T, Allocator>> {};

template <class T, class Allocator>
struct Codec<std::forward_list<T, Allocator>> {
    using List = std::forward_list<T, Allocator>;
    static constexpr bool picklable = Picklable<T>;
    static void save(OArchive& archive, const List& list) {
        archive.save_size(static_cast<std::size_t>(std::distance(list.begin(), list.end())));
        for (const auto& element : list) elements::save(archive, element);
    }
    static void load(IArchive& archive, List& list) {
        list.clear();
        auto last = list.before_begin();
        for (std::size_t left = archive.load_size(); left > 0; --left) {
            elements::load_and_place<T>(archive, [&](T&& element) -> const T& {
                last = list.insert_after(last, std::move(element));
                return *last;
            });
        }
    }
};

template <class T, std::size_t N>
struct Codec<std::array<T, N>> {
    using Array = std::array<T, N>;
    static constexpr bool picklable = Picklable<T>;
    static void save(OArchive& archive, const Array& array) {
        for (const auto& element : array) {
            if constexpr (is_made_empty<T>) {
                save_value(archive, element);
            } else {
                save_new(archive, element);
            }
        }
    }
    static void load(IArchive& archive, Array& array) {
        if constexpr (is_made_empty<T>) {
            for (auto& element : array) load_value(archive, element);
        } else {
            array = load_new(archive);
        }
    }
    static Array load_new(IArchive& archive) {
        return [&]<std::size_t... I>(std::index_sequence<I...>) {
            return Array{(static_cast<void>(I), pickle::load_new<T>(archive))...};
        }(std::make_index_sequence<N>());
    }
};

template <class T>
struct Codec<std::valarray<T>> {
    static constexpr bool picklable = Picklable<T> && std::default_initializable<T>;
    static void save(OArchive& archive, const std::valarray<T>& array) {
        archive.save_size(array.size());
        for (const auto& element : array) elements::save(archive, element);
    }
    static void load(IArchive& archive, std::valarray<T>& array) {
        array.resize(archive.load_size(BitwiseElement<T> ? sizeof(T) : 1));
        for (auto& element : array) elements::load(archive, element);
    }
};

}  // namespace multiprocessing::pickle
