// SPDX-License-Identifier: BSL-1.0
//
// C++ objects as Python's pickle, protocol 4: what every Python since 3.4 reads. Without frames and
// memo, which it may do without.
#pragma once

#include <multiprocessing/bytes.hpp>
#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/pickle/buffer.hpp>
#include <multiprocessing/python/bounds.hpp>
#include <multiprocessing/python/numbers.hpp>
#include <multiprocessing/python/object.hpp>
#include <multiprocessing/python/opcodes.hpp>
#include <multiprocessing/python/shape.hpp>
#include <multiprocessing/python/text.hpp>

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <ranges>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <variant>

namespace multiprocessing::python::writing {

using machine::op;

/// Writes to the end of a buffer.
class Writer {
public:
    explicit Writer(pickle::Buffer& out) noexcept : out_(out) {}

    template <class T>
    void write_pickle(T& value) {
        put(op("PROTO"));
        put(4);
        write(value);
        put(op("STOP"));
    }

private:
    template <class T>
    void write(T& value);
    void write_text(std::string_view text);
    void write_raw(std::string_view raw);
    void write_counted(std::string_view bytes, unsigned char code_8, unsigned char code_32,
                       unsigned char code_64);
    template <class T>
    void write_scalar(T value);
    template <class Range>
    void write_scalars(Range& range);
    template <class Range>
    void write_sequence(Range& range);
    template <class Tuple>
    void write_tuple(Tuple& elements);
    template <class Map>
    void write_dict(Map& map);
    template <class Set>
    void write_set(Set& set);

    void put(unsigned char code) { *out_.grow(1) = std::byte{code}; }

    // A key, or an element of a set. Python must be able to hash it, so within it a list is written
    // as a tuple and a set as a frozenset.
    template <class T>
    void write_key(T& key) {
        const bool frozen = std::exchange(frozen_, true);
        write(key);
        frozen_ = frozen;
    }
    // What is filled after it was made gets its items in batches, as Python's own pickler has them:
    // its reader keeps a batch on its stack.
    template <class Range, class WriteItem>
    void write_batches(Range& range, unsigned char add, const WriteItem& write_item) {
        std::size_t count = 0;
        for (auto&& item : range) {
            if (count == 0) put(op("MARK"));
            write_item(item);
            if (++count == batch) {
                put(add);
                count = 0;
            }
        }
        if (count != 0) put(add);
    }

    // As deep as it can be read back.
    void enter() {
        if (++levels_ > most_levels_)
            throw PicklingError("python::dumps: the object " + too_deep(most_levels_));
    }
    void leave() noexcept { --levels_; }

    static constexpr std::size_t batch = 1000;

    pickle::Buffer& out_;
    std::size_t levels_ = 0;
    std::size_t most_levels_ = most_levels_here();
    bool frozen_ = false;
};

// -------------------------------------------------------------------------------------------------

template <class T>
void Writer::write(T& value) {
    constexpr Shape shape = shape_of<T>;
    if constexpr (shape == Shape::none) {
        put(op("NONE"));
    } else if constexpr (is_scalar<T>) {
        write_scalar(value);
    } else if constexpr (shape == Shape::character) {
        write_text({&value, 1});
    } else if constexpr (shape == Shape::text) {
        write_text(shapes::text_of<PicklingError>(value));
    } else if constexpr (shape == Shape::raw) {
        write_raw(
            {reinterpret_cast<const char*>(std::ranges::data(value)), std::ranges::size(value)});
    } else if constexpr (shape == Shape::optional) {
        if (value)
            write(*value);
        else
            put(op("NONE"));
    } else if constexpr (shape == Shape::variant) {
        if (value.valueless_by_exception())
            throw PicklingError("python::dumps: a std::variant holds nothing, by an exception");
        std::visit([&](auto& held) { write(held); }, value);
    } else if constexpr (shape == Shape::object) {
        std::visit([&](auto& held) { write(held); }, value.variant());
    } else {
        enter();
        if constexpr (shape == Shape::dict)
            write_dict(value);
        else if constexpr (shape == Shape::set)
            write_set(value);
        else if constexpr (shape == Shape::tuple)
            write_tuple(value);
        else
            write_sequence(value);
        leave();
    }
}

template <class T>
void Writer::write_scalar(T value) {
    const std::size_t size = out_.size();
    std::byte* const begin = out_.grow(most_bytes<T>);
    const std::byte* const end = encode_scalar(value, begin);
    out_.truncate(size + static_cast<std::size_t>(end - begin));
}

inline void Writer::write_text(std::string_view text) {
    if (!text::is_ascii(text)) {
        if (const auto fault = text::fault(text); !fault.empty())
            throw PicklingError("python::dumps: a string " + fault + ": send mp::bytes instead");
    }
    write_counted(text, op("SHORT_BINUNICODE"), op("BINUNICODE"), op("BINUNICODE8"));
}
inline void Writer::write_raw(std::string_view raw) {
    write_counted(raw, op("SHORT_BINBYTES"), op("BINBYTES"), op("BINBYTES8"));
}
inline void Writer::write_counted(std::string_view bytes, unsigned char code_8,
                                  unsigned char code_32, unsigned char code_64) {
    std::byte head[9];
    const std::size_t size = bytes.size();
    const std::byte* const end =
        size <= UINT8_MAX    ? encode(code_8, static_cast<std::uint8_t>(size), head)
        : size <= UINT32_MAX ? encode(code_32, static_cast<std::uint32_t>(size), head)
                             : encode(code_64, static_cast<std::uint64_t>(size), head);
    const auto head_size = static_cast<std::size_t>(end - head);
    std::byte* const out = out_.grow(head_size + size);
    std::memcpy(out, head, head_size);
    if (size != 0) std::memcpy(out + head_size, bytes.data(), size);
}

template <class Range>
void Writer::write_sequence(Range& sequence) {
    auto&& range = shapes::iterable(sequence);
    using Item = std::ranges::range_value_t<Range>;
    if (frozen_) {
        put(op("MARK"));
        for (auto&& item : range) write(static_cast<const Item&>(item));
        put(op("TUPLE"));
    } else if constexpr (is_scalar<Item>) {
        put(op("EMPTY_LIST"));
        write_scalars(range);
    } else {
        put(op("EMPTY_LIST"));
        write_batches(range, op("APPENDS"),
                      [&](auto&& item) { write(static_cast<const Item&>(item)); });
    }
}

// Straight into memory: numbers come in large numbers.
template <class Range>
void Writer::write_scalars(Range& range) {
    using Item = std::ranges::range_value_t<Range>;
    auto next = std::ranges::begin(range);
    const auto end = std::ranges::end(range);
    while (next != end) {
        std::size_t room = batch;
        if constexpr (requires { end - next; })
            room = std::min(room, static_cast<std::size_t>(end - next));
        const std::size_t size = out_.size();
        std::byte* const begin = out_.grow(2 + room * most_bytes<Item>);
        std::byte* out = begin;
        *out++ = std::byte{op("MARK")};
        for (std::size_t i = 0; i < room && next != end; ++i, ++next)
            out = encode_scalar<Item>(*next, out);
        *out++ = std::byte{op("APPENDS")};
        out_.truncate(size + static_cast<std::size_t>(out - begin));
    }
}

template <class Tuple>
void Writer::write_tuple(Tuple& elements) {
    if constexpr (std::same_as<std::remove_const_t<Tuple>, tuple>) {
        put(op("MARK"));
        for (const object& element : elements) write(element);
        put(op("TUPLE"));
    } else {
        constexpr std::size_t size = std::tuple_size_v<std::remove_const_t<Tuple>>;
        constexpr unsigned char small[] = {op("EMPTY_TUPLE"), op("TUPLE1"), op("TUPLE2"),
                                           op("TUPLE3")};
        if (size > 3) put(op("MARK"));
        std::apply([&](auto&... element) { (write(element), ...); }, elements);
        put(size > 3 ? op("TUPLE") : small[size > 3 ? 0 : size]);
    }
}

template <class Map>
void Writer::write_dict(Map& map) {
    put(op("EMPTY_DICT"));
    write_batches(map, op("SETITEMS"), [&](auto&& entry) {
        write_key(entry.first);
        write(entry.second);
    });
}

template <class Set>
void Writer::write_set(Set& set) {
    const bool frozen = frozen_;
    put(frozen ? op("MARK") : op("EMPTY_SET"));
    if (frozen) {
        for (auto&& element : set) write_key(element);
        put(op("FROZENSET"));
    } else {
        write_batches(set, op("ADDITEMS"), [&](auto&& element) { write_key(element); });
    }
}

}  // namespace multiprocessing::python::writing
