// SPDX-License-Identifier: BSL-1.0
//
// `Value`, `Array`, `RawValue` and `RawArray`: objects that several processes see in place. Answers
// Python's `multiprocessing.sharedctypes`.
#pragma once

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/pickle/handle.hpp>
#include <multiprocessing/shm/ref.hpp>
#include <multiprocessing/shm/user_lock.hpp>
#include <multiprocessing/synchronize.hpp>

#include <atomic>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <initializer_list>
#include <iterator>
#include <mutex>
#include <new>
#include <ranges>
#include <span>
#include <stdexcept>
#include <string>
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
concept Shareable =
    std::is_trivially_copyable_v<T> && std::copyable<std::remove_all_extents_t<T>> &&
    !pickle::is_view<T> && !pickle::has_pointer_member<T> && !std::is_pointer_v<T> && !std::is_const_v<T>;

/// A block of shared memory for `T` objects, and the lock that goes with it. The common part of
/// `Value` and `Array`; not made by users.
template <class T>
class SharedData : public Acquirable<SharedData<T>> {
    static_assert(Shareable<T>,
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

    [[nodiscard]] T* data() const noexcept { return data_; }
    [[nodiscard]] std::size_t count() const noexcept { return static_cast<std::size_t>(head_->count); }

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

/// One object in shared memory. *Python*: `multiprocessing.Value`.
///
///     mp::Value<int> n(0);
///     {
///         std::lock_guard guard(n.get_lock());
///         n.value() += 1;          // not atomic by itself
///     }
///     n.fetch_add(1);              // atomic by itself
///
/// A handle: copies are the same object, in whatever process they are.
template <class T>
class Value : public SharedData<T> {
public:
    using value_type = T;

    /// With a recursive lock of its own.
    explicit Value(const T& initial = T()) : SharedData<T>(1) { value() = initial; }
    Value(const T& initial, no_lock_t none) : SharedData<T>(1, none) { value() = initial; }
    Value(const T& initial, const AnyLock& lock) : SharedData<T>(1, lock) { value() = initial; }

    [[nodiscard]] T& value() const noexcept { return *this->data(); }
    [[nodiscard]] T& get_obj() const noexcept { return value(); }
    /// Runs `f(T&)` with the lock held and returns what it returns.
    template <std::invocable<T&> F>
    decltype(auto) synchronized(F&& f) const {
        const std::lock_guard guard(this->get_lock());
        return std::invoke(std::forward<F>(f), value());
    }

    // Atomic, without the lock, for types that the processor can treat so.
    [[nodiscard]] T load() const noexcept { return atomic().load(); }
    void store(T desired) const noexcept { atomic().store(desired); }
    T exchange(T desired) const noexcept { return atomic().exchange(desired); }
    /// As std::atomic's compare_exchange_strong.
    bool compare_exchange(T& expected, T desired) const noexcept {
        return atomic().compare_exchange_strong(expected, desired);
    }
    /// Returns the value before.
    T fetch_add(T operand) const noexcept
        requires std::integral<T> || std::floating_point<T>
    {
        return atomic().fetch_add(operand);
    }
    T fetch_sub(T operand) const noexcept
        requires std::integral<T> || std::floating_point<T>
    {
        return atomic().fetch_sub(operand);
    }

protected:
    explicit Value(pickle::Unread unread) noexcept : SharedData<T>(unread) {}

private:
    friend struct pickle::HandleAccess;
    [[nodiscard]] auto atomic() const noexcept {
        static_assert(std::atomic_ref<T>::is_always_lock_free,
                      "the processor has no atomic operations for this type: use synchronized(f)");
        return std::atomic_ref<T>(value());
    }
};

/// A fixed number of objects in shared memory. *Python*: `multiprocessing.Array`.
///
///     mp::Array<double> a(10);       // ten zeros
///     mp::Array<double> b({1, 2});   // two elements
///
/// A handle: copies are the same array, in whatever process they are.
template <class T>
class Array : public SharedData<T> {
public:
    using value_type = T;

    /// `size` zeros. *Throws* ValueError for a negative size.
    template <std::integral Size>
    explicit Array(Size size) : SharedData<T>(checked(size)) {}
    template <std::integral Size>
    Array(Size size, no_lock_t none) : SharedData<T>(checked(size), none) {}
    template <std::integral Size>
    Array(Size size, const AnyLock& lock) : SharedData<T>(checked(size), lock) {}
    /// A copy of the elements; of a string literal without its final NUL.
    Array(std::initializer_list<T> elements) : SharedData<T>(elements.size()) { fill(elements); }
    Array(std::initializer_list<T> elements, no_lock_t none) : SharedData<T>(elements.size(), none) {
        fill(elements);
    }
    Array(std::initializer_list<T> elements, const AnyLock& lock) : SharedData<T>(elements.size(), lock) {
        fill(elements);
    }
    template <std::ranges::sized_range Range>
        requires std::convertible_to<std::ranges::range_reference_t<Range>, T> &&
                 (!std::derived_from<std::remove_cvref_t<Range>, Array>)
    explicit Array(Range&& elements) : SharedData<T>(std::ranges::size(of(elements))) {
        fill(of(elements));
    }
    template <std::ranges::sized_range Range>
        requires std::convertible_to<std::ranges::range_reference_t<Range>, T>
    Array(Range&& elements, no_lock_t none) : SharedData<T>(std::ranges::size(of(elements)), none) {
        fill(of(elements));
    }
    template <std::ranges::sized_range Range>
        requires std::convertible_to<std::ranges::range_reference_t<Range>, T>
    Array(Range&& elements, const AnyLock& lock) : SharedData<T>(std::ranges::size(of(elements)), lock) {
        fill(of(elements));
    }

    [[nodiscard]] std::size_t size() const noexcept { return this->count(); }
    [[nodiscard]] bool empty() const noexcept { return size() == 0; }
    /// No look at the bounds.
    [[nodiscard]] T& operator[](std::size_t index) const noexcept { return this->data()[index]; }
    /// *Throws* std::out_of_range.
    T& at(std::size_t index) const;
    [[nodiscard]] std::span<T> span() const noexcept { return {this->data(), size()}; }
    [[nodiscard]] std::span<T> get_obj() const noexcept { return span(); }
    [[nodiscard]] T* begin() const noexcept { return this->data(); }
    [[nodiscard]] T* end() const noexcept { return this->data() + size(); }
    /// Runs `f(std::span<T>)` with the lock held and returns what it returns.
    template <std::invocable<std::span<T>> F>
    decltype(auto) synchronized(F&& f) const {
        const std::lock_guard guard(this->get_lock());
        return std::invoke(std::forward<F>(f), span());
    }

protected:
    explicit Array(pickle::Unread unread) noexcept : SharedData<T>(unread) {}

private:
    friend struct pickle::HandleAccess;
    template <std::integral Size>
    [[nodiscard]] static std::size_t checked(Size size) {
        if (std::cmp_less(size, 0)) {
            throw ValueError("Array: the size is " + std::to_string(size) + ", but must be 0 or more");
        }
        return static_cast<std::size_t>(size);
    }
    template <class Range>
    [[nodiscard]] static decltype(auto) of(Range& elements) noexcept {
        if constexpr (std::is_array_v<Range> && std::is_const_v<Range> && pickle::is_character<T>) {
            const std::size_t size = std::size(elements);
            return std::span(elements, elements[size - 1] == 0 ? size - 1 : size);
        } else {
            return (elements);
        }
    }
    template <class Range>
    void fill(const Range& elements) {
        T* next = this->data();
        for (const auto& element : elements) *next++ = static_cast<T>(element);
    }
};

/// A Value without a lock. *Python*: `multiprocessing.sharedctypes.RawValue`.
template <class T>
class RawValue : public Value<T> {
public:
    explicit RawValue(const T& initial = T()) : Value<T>(initial, no_lock) {}
    void get_lock() const = delete;

private:
    friend struct pickle::HandleAccess;
    explicit RawValue(pickle::Unread unread) noexcept : Value<T>(unread) {}
};

/// An Array without a lock. *Python*: `multiprocessing.sharedctypes.RawArray`.
template <class T>
class RawArray : public Array<T> {
public:
    template <std::integral Size>
    explicit RawArray(Size size) : Array<T>(size, no_lock) {}
    RawArray(std::initializer_list<T> elements) : Array<T>(elements, no_lock) {}
    template <std::ranges::sized_range Range>
        requires std::convertible_to<std::ranges::range_reference_t<Range>, T> &&
                 (!std::derived_from<std::remove_cvref_t<Range>, Array<T>>)
    explicit RawArray(Range&& elements) : Array<T>(std::forward<Range>(elements), no_lock) {}
    void get_lock() const = delete;

private:
    friend struct pickle::HandleAccess;
    explicit RawArray(pickle::Unread unread) noexcept : Array<T>(unread) {}
};

// ---------------------------------------------------------------------------------------------------

template <class T>
SharedData<T>::SharedData(std::size_t count, no_lock_t) {
    constexpr std::size_t most = (std::size_t{1} << 48) / sizeof(T);
    if (count > most) throw std::bad_alloc();
    head_ = shm::Shared<Head>::make(place_of(count) - sizeof(Head) + count * sizeof(T), count);
    find_data();
    // The block may have served before. Zeros are what trivially copyable objects begin as in Python.
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

template <class T>
T& Array<T>::at(std::size_t index) const {
    if (index >= size()) {
        throw std::out_of_range("Array: index " + std::to_string(index) + " is not in an array of " +
                                std::to_string(size()));
    }
    return (*this)[index];
}

}  // namespace multiprocessing
