// SPDX-License-Identifier: BSL-1.0
//
// What a `Value` and an `Array` have in common: a block of shared memory, and a lock that goes with
// it.
#pragma once

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/pickle/handle.hpp>
#include <multiprocessing/shm/ref.hpp>
#include <multiprocessing/shm/user_lock.hpp>
#include <multiprocessing/synchronize/lock.hpp>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>
#include <type_traits>
#include <utility>

namespace multiprocessing {

/// Says that a Value or Array has no lock. *Python*: `lock=False`.
struct no_lock_t {
    explicit no_lock_t() = default;
};
inline constexpr no_lock_t no_lock{};

/// What can stand in shared memory and be changed by several processes. (Of pointers deep inside a
/// class nothing can be known.)
template <class T>
concept Shareable = std::is_trivially_copyable_v<T> &&
                    std::copyable<std::remove_all_extents_t<T>> && !pickle::is_view<T> &&
                    !pickle::has_pointer_member<T> && !std::is_pointer_v<T> && !std::is_const_v<T>;

/// What can be added to.
template <class T>
concept Number = (std::integral<T> && !std::same_as<T, bool>) || std::floating_point<T>;

/// Makes handles of the same objects with another lock.
struct SharedDataAccess;
struct SharedDataTag {};
struct OwnLock {};

/// A block of shared memory for `T` objects, and the lock that goes with it. The common part of
/// `Value` and `Array`; not made by users.
template <class T>
class SharedData : public Acquirable<SharedData<T>> {
    static_assert(
        Shareable<T>,
        "what stands in shared memory must be trivially copyable and hold no pointers: they "
        "mean nothing in another process (for containers there is mp::Queue; for a "
        "std::atomic<T> there are mp::Value<T> and its fetch_add)");

public:
    /// The lock, Lockable, whatever lock it is. *Throws* AssertionError if there is none.
    [[nodiscard]] AnyLock& get_lock() const;
    void release() const { get_lock().release(); }

    using travels_as_handle = void;

protected:
    // In the arena, followed by the objects: on the lock's cache line what fits there, so that who
    // takes the lock has them too, and from the next on what does not.
    struct alignas(32) Head {
        shm::UserLock lock{true};  // first, where an AnyLock looks for it
        std::uint64_t count;
        explicit Head(std::uint64_t size) noexcept : count(size) {}
    };
    static constexpr std::size_t line = 64;
    static_assert(alignof(T) <= line, "what stands in shared memory is aligned to 64 bytes");
    static_assert(sizeof(Head) == line / 2);
    [[nodiscard]] static constexpr std::size_t place_of(std::size_t count) noexcept {
        return alignof(T) <= sizeof(Head) && count <= sizeof(Head) / sizeof(T) ? sizeof(Head)
                                                                               : line;
    }

    explicit SharedData(pickle::Unread) noexcept {}
    SharedData(std::size_t count, no_lock_t);
    /// With an RLock of its own.
    explicit SharedData(std::size_t count) : SharedData(count, no_lock) { lock_ = SomeLock(head_); }
    SharedData(std::size_t count, const AnyLock& lock) : SharedData(count, no_lock) {
        lock_ = SomeLock(lock);
    }
    /// The same objects, with this lock; with the one of their own.
    SharedData(const SharedData& same, const AnyLock& lock)
        : head_(same.head_), data_(same.data_), lock_(lock) {}
    SharedData(const SharedData& same, OwnLock)
        : head_(same.head_), data_(same.data_), lock_(same.head_) {}

    [[nodiscard]] T* data() const noexcept { return data_; }
    [[nodiscard]] std::size_t count() const noexcept {
        return static_cast<std::size_t>(head_->count);
    }

private:
    friend struct pickle::HandleAccess;
    friend class Acquirable<SharedData>;
    bool acquire_until(os::Deadline deadline) const { return get_lock().acquire_until(deadline); }
    // A lock, or none.
    struct SomeLock : AnyLock {
        SomeLock() noexcept : AnyLock(pickle::Unread{}) {}
        explicit SomeLock(const AnyLock& lock) noexcept : AnyLock(lock) {}
        explicit SomeLock(const shm::Ref& object) noexcept : AnyLock(object) {}
    };
    [[nodiscard]] bool has_lock() const noexcept { return lock_.exists(); }
    void save_handle(pickle::OArchive& archive) const;
    void load_handle(pickle::IArchive& archive);
    void find_data() noexcept {
        data_ = std::launder(
            reinterpret_cast<T*>(reinterpret_cast<std::byte*>(&*head_) + place_of(count())));
    }

    shm::Shared<Head> head_;
    T* data_ = nullptr;
    mutable SomeLock lock_;
};

// ---------------------------------------------------------------------------------------------------

template <class T>
SharedData<T>::SharedData(std::size_t count, no_lock_t) {
    constexpr std::size_t most = (std::size_t{1} << 48) / sizeof(T);
    if (count > most) throw std::bad_alloc();
    head_ = shm::Shared<Head>::make(place_of(count) - sizeof(Head) + count * sizeof(T), count);
    find_data();
    // The block may have served before. Zeros are what trivially copyable objects begin as in
    // Python.
    std::memset(static_cast<void*>(data_), 0, count * sizeof(T));
}

template <class T>
AnyLock& SharedData<T>::get_lock() const {
    if (!has_lock()) {
        throw AssertionError("this value was made with mp::no_lock: it has no lock to get");
    }
    return lock_;
}

template <class T>
void SharedData<T>::save_handle(pickle::OArchive& archive) const {
    pickle::save_ref(archive, head_);
    archive.put(static_cast<std::uint8_t>(has_lock()));
    if (has_lock()) pickle::HandleAccess::save(archive, static_cast<const AnyLock&>(lock_));
}

template <class T>
void SharedData<T>::load_handle(pickle::IArchive& archive) {
    shm::Shared<Head> head(pickle::load_ref(archive, sizeof(Head)));
    const std::uint64_t before = place_of(static_cast<std::size_t>(head->count));
    if (before > head.size() || head->count > (head.size() - before) / sizeof(T)) {
        throw UnpicklingError("the message names a shared array of another size");
    }
    head_ = std::move(head);
    find_data();
    lock_ = SomeLock();
    if (archive.get<std::uint8_t>() != 0) {
        pickle::HandleAccess::load(archive, static_cast<AnyLock&>(lock_));
    }
}

}  // namespace multiprocessing
