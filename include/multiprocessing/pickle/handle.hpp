// SPDX-License-Identifier: BSL-1.0
//
// How handles of shared objects (queues, locks, values) travel: the object goes beside the bytes as a
// ticket, the bytes say which one it is.
#pragma once

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/pickle/archive.hpp>
#include <multiprocessing/pickle/cargo.hpp>
#include <multiprocessing/pickle/concepts.hpp>
#include <multiprocessing/shm/ref.hpp>

#include <cstdint>
#include <new>

namespace multiprocessing::pickle {

/// Given to the constructor of a handle that is about to be read from a message: it makes no object.
struct Unread {};

/// A handle class befriends this; its private `save_handle(OArchive&)` and `load_handle(IArchive&)` do
/// the work, and `using travels_as_handle = void` says so.
struct HandleAccess {
    template <class H>
    static void save(OArchive& archive, const H& handle) {
        handle.save_handle(archive);
    }
    template <class H>
    static void load(IArchive& archive, H& handle) {
        handle.load_handle(archive);
    }
    template <class H>
    static void construct(H* memory) {
        new (memory) H(Unread{});
    }
};

/// What Boost calls where an object is to be made from its bytes: found through the archive.
template <Handle T>
void load_construct_data(IArchive&, T* memory, unsigned) {
    HandleAccess::construct(memory);
}

template <Handle T>
struct Codec<T> {
    static constexpr bool picklable = true;
    static void save(OArchive& archive, const T& handle) { HandleAccess::save(archive, handle); }
    static void load(IArchive& archive, T& handle) { HandleAccess::load(archive, handle); }
};

inline void save_ref(OArchive& archive, const shm::Ref& object) {
    archive.put(static_cast<std::uint32_t>(archive.cargo().add(object)));
}

/// The object, of at least `size` bytes. Throws UnpicklingError when it has ended.
[[nodiscard]] inline shm::Ref load_ref(IArchive& archive, std::uint64_t size) {
    try {
        shm::Ref object = archive.cargo().take(archive.get<std::uint32_t>());
        if (object.size() >= size) return object;
    } catch (const shm::StaleTicket& stale) {
        throw UnpicklingError(stale.what());
    }
    throw UnpicklingError("the message names a shared object of another kind");
}

}  // namespace multiprocessing::pickle
