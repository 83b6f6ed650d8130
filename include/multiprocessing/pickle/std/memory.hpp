// SPDX-License-Identifier: BSL-1.0
//
// The smart pointers of the standard library: what they own travels with them, and what several
// share in one message is shared at the other end.
#pragma once

#include <multiprocessing/pickle/pointer.hpp>

#include <memory>
#include <type_traits>
#include <utility>

namespace multiprocessing::pickle {

template <class T>
struct Codec<std::unique_ptr<T>> {
    static constexpr bool picklable = PicklableObject<T> && !std::is_array_v<T>;
    static void save(OArchive& archive, const std::unique_ptr<T>& pointer) {
        save_pointer<T>(archive, pointer.get());
    }
    static void load(IArchive& archive, std::unique_ptr<T>& pointer) {
        static_assert(!std::is_abstract_v<T> || std::has_virtual_destructor_v<T>,
                      "a base class behind a std::unique_ptr needs a virtual destructor");
        pointer.reset(load_pointer<T>(archive, Owner::unique, nullptr));
    }
};

template <class T>
struct Codec<std::shared_ptr<T>> {
    static constexpr bool picklable = PicklableObject<T> && !std::is_array_v<T>;
    static void save(OArchive& archive, const std::shared_ptr<T>& pointer) {
        save_pointer<T>(archive, pointer.get());
    }
    static void load(IArchive& archive, std::shared_ptr<T>& pointer) {
        std::shared_ptr<void> owner;
        T* const object = load_pointer<T>(archive, Owner::shared, &owner);
        pointer = std::shared_ptr<T>(std::move(owner), object);
    }
};

template <class T>
struct Codec<std::weak_ptr<T>> {
    static constexpr bool picklable = Codec<std::shared_ptr<T>>::picklable;
    static void save(OArchive& archive, const std::weak_ptr<T>& pointer) {
        Codec<std::shared_ptr<T>>::save(archive, pointer.lock());
    }
    static void load(IArchive& archive, std::weak_ptr<T>& pointer) {
        std::shared_ptr<T> shared;
        Codec<std::shared_ptr<T>>::load(archive, shared);
        pointer = shared;
    }
};

}  // namespace multiprocessing::pickle
