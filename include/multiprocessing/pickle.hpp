// SPDX-License-Identifier: BSL-1.0
//
// Objects as bytes. Answers Python's `pickle` as far as multiprocessing needs it: what can be sent
// to another process can be written down, and read again by the same program.
#pragma once

#include <multiprocessing/bytes.hpp>
#include <multiprocessing/pickle/message.hpp>

namespace multiprocessing::pickle {

/// The object as bytes. A type is Picklable when it is nothing but its bytes, a std type of such,
/// or has Boost.Serialization's `serialize`.
///
/// *Throws*: PicklingError for what only travels between processes (a queue, a connection).
template <class T>
[[nodiscard]] bytes dumps(const T& value) {
    using Travelling = travel_decay_t<const T&>;
    static_assert(Picklable<Travelling>,
                  "this type cannot be pickled: give it a `serialize` member as "
                  "Boost.Serialization asks for, or a free one in its namespace");
    Scratch scratch;
    if constexpr (std::is_same_v<Travelling, T>) {
        dump(value, *scratch);
    } else {
        dump(Travelling(value), *scratch);
    }
    return bytes(scratch->span());
}

/// The object again.
///
/// *Throws*: UnpicklingError for bytes that are truncated, corrupt, of another type (both are
/// named) or have more after them.
template <class T>
[[nodiscard]] T loads(std::span<const std::byte> pickled) {
    static_assert(Picklable<T>, "this type cannot be unpickled: give it a `serialize` member as "
                                "Boost.Serialization asks for, or a free one in its namespace");
    return load<T>(pickled);
}
template <class T>
[[nodiscard]] T loads(const bytes& pickled) {
    return loads<T>(pickled.span());
}

}  // namespace multiprocessing::pickle
