// SPDX-License-Identifier: BSL-1.0
//
// `Value` and `RawValue`: one object that several processes see in place.
#pragma once

#include <multiprocessing/sharedctypes/data.hpp>

#include <atomic>
#include <concepts>
#include <functional>
#include <mutex>
#include <utility>

namespace multiprocessing {

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

    // Atomic, without the lock, for types that the processor can treat so; where order matters, as
    // std::memory_order_seq_cst.
    [[nodiscard]] T load() const noexcept { return atomic().load(); }
    void store(T desired) const noexcept { atomic().store(desired); }
    T exchange(T desired) const noexcept { return atomic().exchange(desired); }
    /// As std::atomic's compare_exchange_strong.
    bool compare_exchange(T& expected, T desired) const noexcept {
        return atomic().compare_exchange_strong(expected, desired);
    }
    /// Returns the value before.
    T fetch_add(T operand) const noexcept requires Number<T> { return atomic().fetch_add(operand); }
    T fetch_sub(T operand) const noexcept requires Number<T> { return atomic().fetch_sub(operand); }
    T fetch_and(T operand) const noexcept requires Number<T> && std::integral<T> {
        return atomic().fetch_and(operand);
    }
    T fetch_or(T operand) const noexcept requires Number<T> && std::integral<T> {
        return atomic().fetch_or(operand);
    }
    T fetch_xor(T operand) const noexcept requires Number<T> && std::integral<T> {
        return atomic().fetch_xor(operand);
    }

protected:
    explicit Value(pickle::Unread unread) noexcept : SharedData<T>(unread) {}

private:
    friend struct pickle::HandleAccess;
    friend struct SharedDataAccess;
    template <class Lock>
    Value(SharedDataTag, const Value& same, const Lock& lock) : SharedData<T>(same, lock) {}
    [[nodiscard]] auto atomic() const noexcept {
        static_assert(std::atomic_ref<T>::is_always_lock_free,
                      "the processor has no atomic operations for this type: use synchronized(f)");
        return std::atomic_ref<T>(value());
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

}  // namespace multiprocessing
