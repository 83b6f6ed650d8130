// SPDX-License-Identifier: BSL-1.0
//
// How one value is written and read: the one place that chooses between a memcpy, a Codec, a
// pointer and a class's `serialize`.
#pragma once

#include <multiprocessing/pickle/archive.hpp>
#include <multiprocessing/pickle/type_name.hpp>

#include <boost/serialization/array_wrapper.hpp>
#include <boost/serialization/collection_size_type.hpp>
#include <boost/serialization/level.hpp>
#include <boost/serialization/tracking.hpp>
#include <boost/serialization/version.hpp>
#include <boost/serialization/wrapper.hpp>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>

namespace multiprocessing::pickle {

template <class T>
void save_pointer(OArchive& archive, const T* pointer);
template <class T>
[[nodiscard]] T* load_pointer(IArchive& archive, Owner owner, std::shared_ptr<void>* shared);

/// What Boost puts around an object on its way into an archive: make_nvp and the like.
template <class T>
inline constexpr bool is_wrapper = boost::serialization::is_wrapper<T>::type::value;

namespace objects {

template <class T>
inline constexpr unsigned version = boost::serialization::version<T>::value;

// A class's version comes first, so that every object has a position of its own. It is a byte, for
// Boost allows no more.
template <class T>
void save_version(OArchive& archive) {
    static_assert(version<T> < 256);
    archive.put(static_cast<std::uint8_t>(version<T>));
}

template <class T>
[[nodiscard]] unsigned load_version(IArchive& archive) {
    const unsigned found = archive.get<std::uint8_t>();
    if (found > version<T>)
        throw UnpicklingError("the bytes hold version " + std::to_string(found) + " of " +
                              type_name<T>() + ", but this program knows it up to version " +
                              std::to_string(version<T>));
    return found;
}

// The construct data of a class that no one can make without arguments is written where the object
// is read into fresh memory.
template <class T>
inline constexpr bool has_construct_data = !is_made_empty<T> && HasSerialize<T> && !HasCodec<T>;

/// A Codec that makes its objects from the bytes.
template <class T>
concept MadeByCodec = !is_made_empty<T> && HasCodec<T> && requires(IArchive& archive) {
    Codec<T>::load_new(archive);
};

template <class T>
void save_content(OArchive& archive, const T& object) {
    boost::serialization::serialize_adl(archive, const_cast<T&>(object), version<T>);
}

template <class T>
void load_content(IArchive& archive, T& object, unsigned found) {
    archive.ran_user_code = true;
    boost::serialization::serialize_adl(archive, object, found);
}

template <class T>
void save(OArchive& archive, const T& object) {
    archive.check_depth();
    if (BehindPointers<T>::flag)
        archive.written().objects.try_emplace({std::addressof(object), typeid(T)},
                                              archive.position());
    save_version<T>(archive);
    save_content(archive, object);
}

template <class T>
void load(IArchive& archive, T& object) {
    archive.check_depth();
    if (BehindPointers<T>::flag)
        archive.read().add(archive.position(), std::addressof(object), value_type<T>(),
                           Owner::value);
    const unsigned found = load_version<T>(archive);
    load_content(archive, object, found);
}

}  // namespace objects

template <class T>
void save_value(OArchive& archive, const T& value) {
    if constexpr (is_wrapper<T> && !HasCodec<T>) {
        boost::serialization::serialize_adl(archive, const_cast<T&>(value), 0u);
    } else if constexpr (Stateless<T>) {
        // Nothing to say: the type is known.
    } else if constexpr (Bitwise<T>) {
        archive.save_binary(std::addressof(value), sizeof(T));
    } else if constexpr (HasCodec<T>) {
        Codec<T>::save(archive, value);
    } else if constexpr (std::is_bounded_array_v<T>) {
        for (const auto& element : value) save_value(archive, element);
    } else if constexpr (std::is_pointer_v<T>) {
        save_pointer(archive, value);
    } else {
        static_assert(HasSerialize<T>,
                      "this type cannot be pickled: give it a `serialize` member as "
                      "Boost.Serialization asks for, or a free one in its namespace");
        objects::save(archive, value);
    }
}

template <class T>
void load_value(IArchive& archive, T& value) {
    using Value = std::remove_const_t<T>;
    auto& target = const_cast<Value&>(value);
    if constexpr (is_wrapper<Value> && !HasCodec<Value>) {
        boost::serialization::serialize_adl(archive, target, 0u);
    } else if constexpr (std::is_const_v<T> && !is_wrapper<Value>) {
        static_assert(!std::is_const_v<T>, "a const object cannot be read into");
    } else if constexpr (Stateless<T>) {
    } else if constexpr (std::same_as<T, bool>) {
        const auto byte = archive.get<std::uint8_t>();
        if (byte > 1) throw UnpicklingError("the bytes hold no bool where one is expected");
        value = byte != 0;
    } else if constexpr (std::same_as<T, boost::serialization::collection_size_type>) {
        // Boost's own code for containers reserves what it reads here, be it a number of elements
        // or of buckets.
        constexpr std::size_t harmless = 1 << 16;
        const auto size = archive.get<std::size_t>();
        if (size > harmless && size > archive.remaining())
            throw UnpicklingError("the bytes claim more elements than they can hold");
        value = T(size);
    } else if constexpr (Bitwise<T>) {
        archive.load_binary(static_cast<void*>(std::addressof(value)), sizeof(T));
    } else if constexpr (HasCodec<Value>) {
        Codec<Value>::load(archive, target);
    } else if constexpr (std::is_bounded_array_v<T>) {
        for (auto& element : value) load_value(archive, element);
    } else if constexpr (std::is_pointer_v<T>) {
        value = load_pointer<std::remove_pointer_t<T>>(archive, Owner::raw, nullptr);
    } else {
        static_assert(HasSerialize<T>,
                      "this type cannot be unpickled: give it a `serialize` member as "
                      "Boost.Serialization asks for, or a free one in its namespace");
        objects::load(archive, value);
    }
}

/// Writes what `load_new` reads: the same as a value, and construct data where there must be some.
template <class T>
void save_new(OArchive& archive, const T& value) {
    if constexpr (objects::has_construct_data<T>)
        boost::serialization::save_construct_data_adl(archive, std::addressof(value),
                                                      objects::version<T>);
    save_value(archive, value);
}

/// Calls `use` with a new T that was read, in memory of its own. A class without a default
/// constructor needs Boost's `load_construct_data`, one with a private default constructor
/// `friend class boost::serialization::access`.
template <class T, class Use>
decltype(auto) load_new_into(IArchive& archive, Use&& use) {
    if constexpr (is_made_empty<T>) {
        T value{};
        load_value(archive, value);
        return std::forward<Use>(use)(value);
    } else if constexpr (objects::MadeByCodec<T>) {
        T value = Codec<T>::load_new(archive);
        return std::forward<Use>(use)(value);
    } else {
        union Memory {
            Memory() {}
            ~Memory() {}
            T value;
        } memory;
        boost::serialization::load_construct_data_adl(archive, std::addressof(memory.value),
                                                      objects::version<T>);
        struct Destroy {
            T& value;
            ~Destroy() { value.~T(); }
        } const destroy{memory.value};
        load_value(archive, memory.value);
        return std::forward<Use>(use)(memory.value);
    }
}

/// A new T, read, which `check` may still refuse. It is returned in place, so that pointers into it
/// stay good: its declaration is not in a block, where g++ 12 would move it.
template <class T, class Check>
    requires is_made_empty<T>
[[nodiscard]] T load_new(IArchive& archive, Check check) {
    T value{};
    load_value(archive, value);
    check();
    return value;
}
template <class T, class Check>
    requires(!is_made_empty<T>)
[[nodiscard]] T load_new(IArchive& archive, Check check) {
    return load_new_into<T>(archive, [&](T& value) -> T {
        check();
        return std::move(value);
    });
}
template <class T>
[[nodiscard]] T load_new(IArchive& archive) {
    return load_new<T>(archive, [] {});
}

// Contiguous elements that somebody wraps for the archive: one memcpy where possible.
template <class T>
struct Codec<boost::serialization::array_wrapper<T>> {
    static constexpr bool picklable = true;
    using Wrapper = boost::serialization::array_wrapper<T>;
    static void save(OArchive& archive, const Wrapper& wrapped) {
        if constexpr (BitwiseElement<T>) {
            archive.save_binary(wrapped.address(), wrapped.count() * sizeof(T));
        } else {
            for (std::size_t i = 0; i < wrapped.count(); ++i)
                save_value<std::remove_const_t<T>>(archive, wrapped.address()[i]);
        }
    }
    static void load(IArchive& archive, Wrapper& wrapped) {
        if constexpr (BitwiseElement<T>) {
            archive.load_binary(static_cast<void*>(wrapped.address()),
                                wrapped.count() * sizeof(T));
        } else {
            for (std::size_t i = 0; i < wrapped.count(); ++i)
                load_value(archive, wrapped.address()[i]);
        }
    }
};

}  // namespace multiprocessing::pickle
