// SPDX-License-Identifier: BSL-1.0
//
// `Value`, `Array`, `RawValue` and `RawArray`: objects that several processes see in place. Answers
// Python's `multiprocessing.sharedctypes`.
#pragma once

#include <multiprocessing/sharedctypes/array.hpp>
#include <multiprocessing/sharedctypes/data.hpp>
#include <multiprocessing/sharedctypes/value.hpp>

namespace multiprocessing {

struct SharedDataAccess {
    template <class Data, class Lock>
    [[nodiscard]] static Data with(const Data& same, const Lock& lock) {
        return Data(SharedDataTag{}, same, lock);
    }
};

/// What Python has in its module of this name alone.
namespace sharedctypes {

using multiprocessing::Array;
using multiprocessing::RawArray;
using multiprocessing::RawValue;
using multiprocessing::Value;

/// A copy in shared memory of its own, without a lock. *Python*: `sharedctypes.copy`.
template <class T>
[[nodiscard]] RawValue<T> copy(const Value<T>& value) {
    return RawValue<T>(value.value());
}
template <class T>
[[nodiscard]] RawArray<T> copy(const Array<T>& array) {
    return RawArray<T>(array.span());
}

/// The same object with a lock: this one, or one of its own, which is the same for all who ask.
/// *Python*: `sharedctypes.synchronized`.
template <class T>
[[nodiscard]] Value<T> synchronized(const Value<T>& value) {
    return SharedDataAccess::with(value, OwnLock{});
}
template <class T>
[[nodiscard]] Value<T> synchronized(const Value<T>& value, const AnyLock& lock) {
    return SharedDataAccess::with(value, lock);
}
template <class T>
[[nodiscard]] Array<T> synchronized(const Array<T>& array) {
    return SharedDataAccess::with(array, OwnLock{});
}
template <class T>
[[nodiscard]] Array<T> synchronized(const Array<T>& array, const AnyLock& lock) {
    return SharedDataAccess::with(array, lock);
}

}  // namespace sharedctypes

}  // namespace multiprocessing
