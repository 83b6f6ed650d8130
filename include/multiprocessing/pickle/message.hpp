// SPDX-License-Identifier: BSL-1.0
//
// Whole messages: a hash of the type, then the object. Whoever reads asks for a type and gets that
// or an UnpicklingError, whatever the bytes are.
#pragma once

#include <multiprocessing/pickle/pointer.hpp>
#include <multiprocessing/pickle/std/associative.hpp>
#include <multiprocessing/pickle/std/memory.hpp>
#include <multiprocessing/pickle/std/sequence.hpp>
#include <multiprocessing/pickle/std/utility.hpp>

#include <boost/archive/archive_exception.hpp>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <new>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>

namespace multiprocessing::pickle {

/// Runs `write`, which writes to an archive, and turns Boost's exceptions into PicklingError.
template <class Write>
decltype(auto) while_pickling(Write&& write) {
    try {
        return std::forward<Write>(write)();
    } catch (const boost::archive::archive_exception& error) {
        throw PicklingError(std::string("the object cannot be pickled: ") + error.what());
    }
}

/// Runs `read`, which reads from `archive`, and turns what code that believes its input throws for
/// corrupt bytes into UnpicklingError.
template <class Read>
decltype(auto) while_unpickling(const IArchive& archive, Read&& read) {
    const auto fail = [](const std::exception& error) -> UnpicklingError {
        return UnpicklingError(std::string("the bytes are corrupt or of another type: ") +
                               error.what());
    };
    try {
        return std::forward<Read>(read)();
    } catch (const boost::archive::archive_exception& error) {
        throw fail(error);
    } catch (const std::length_error& error) {
        throw fail(error);
    } catch (const std::bad_alloc& error) {
        // Ours asks for no more than the input is worth: then memory really is short.
        if (!archive.ran_user_code) throw;
        throw fail(error);
    }
}

/// Writes the object without the hash of its type.
template <Picklable T>
void save_payload(const T& value, Buffer& buffer, Cargo* cargo = nullptr) {
    OArchive archive(buffer, cargo);
    while_pickling([&] { save_new(archive, value); });
}

using TypeName = const std::string& (*)();

inline void check_all_read(const IArchive& archive, TypeName name) {
    if (archive.remaining() != 0)
        throw UnpicklingError(std::to_string(archive.remaining()) + " bytes are left over after " +
                              name() + ": the bytes are corrupt or hold something else");
}

/// Reads what `save_payload` wrote. Throws UnpicklingError, for bytes left over too.
template <Picklable T>
[[nodiscard]] T load_payload(std::span<const std::byte> bytes, Cargo* cargo = nullptr) {
    IArchive archive(bytes, cargo);
    return while_unpickling(archive, [&] {
        return load_new<T>(archive, [&] { check_all_read(archive, type_name<T>); });
    });
}

/// Appends the message of `value`: 8 bytes of hash, then the object.
template <Picklable T>
void dump(const T& value, Buffer& buffer, Cargo* cargo = nullptr) {
    static_cast<void>(KnowType<T>::done);
    const std::uint64_t hash = type_hash<T>();
    const std::size_t before = buffer.size();
    buffer.append(&hash, sizeof hash);
    try {
        save_payload(value, buffer, cargo);
    } catch (...) {
        buffer.truncate(before);
        throw;
    }
}

[[noreturn]] inline void throw_other_type(std::uint64_t held, TypeName expected) {
    throw UnpicklingError("expected " + expected() + " but the message holds " +
                          name_of_hash(held));
}

/// The object of a message. Throws UnpicklingError where the bytes are no whole T.
template <Picklable T>
[[nodiscard]] T load(std::span<const std::byte> bytes, Cargo* cargo = nullptr) {
    static_cast<void>(KnowType<T>::done);
    std::uint64_t hash;
    if (bytes.size() < sizeof hash)
        throw UnpicklingError("expected " + type_name<T>() + " but there are only " +
                              std::to_string(bytes.size()) + " bytes, no whole message");
    std::memcpy(&hash, bytes.data(), sizeof hash);
    if (hash != type_hash<T>()) throw_other_type(hash, type_name<T>);
    return load_payload<T>(bytes.subspan(sizeof hash), cargo);
}

/// The size of a message where it can be known before it is written: of what is nothing but its
/// bytes, of strings and vectors of that.
template <class T>
inline constexpr bool has_exact_size =
    Bitwise<T> || Stateless<T> || requires(const T& value) { Codec<T>::size(value); };

/// The same without the hash of the type.
template <Picklable T>
    requires has_exact_size<T>
[[nodiscard]] std::size_t payload_size(const T& value) {
    if constexpr (Stateless<T>) {
        return 0;
    } else if constexpr (Bitwise<T>) {
        return sizeof(T);
    } else {
        return Codec<T>::size(value);
    }
}

template <Picklable T>
[[nodiscard]] std::optional<std::size_t> exact_size(const T& value) {
    if constexpr (has_exact_size<T>) {
        return sizeof(std::uint64_t) + payload_size(value);
    } else {
        return std::nullopt;
    }
}

/// Writes a message of `exact_size(value)` bytes to `out`.
template <Picklable T>
    requires has_exact_size<T>
void dump_to(const T& value, std::byte* out) {
    Buffer buffer(std::span<std::byte>(out, *exact_size(value)));
    dump(value, buffer);
}

namespace travel {

template <class T>
struct Decay {
    using type = std::decay_t<T>;
};
template <class T>
struct Decay<std::reference_wrapper<T>> {
    using type = std::remove_const_t<T>;
};
template <>
struct Decay<const char*> {
    using type = std::string;
};
template <>
struct Decay<char*> {
    using type = std::string;
};

}  // namespace travel

/// As what an argument travels: decayed; a literal as a std::string, a std::ref as a copy.
template <class T>
using travel_decay_t = typename travel::Decay<std::decay_t<T>>::type;

}  // namespace multiprocessing::pickle
