// SPDX-License-Identifier: BSL-1.0
//
// What a server registers under a name, and which proxy is that of which type.
#pragma once

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/managers/dict.hpp>
#include <multiprocessing/managers/list.hpp>
#include <multiprocessing/managers/locks.hpp>
#include <multiprocessing/managers/meetings.hpp>
#include <multiprocessing/managers/object.hpp>
#include <multiprocessing/managers/proxy.hpp>
#include <multiprocessing/managers/queue.hpp>
#include <multiprocessing/managers/set.hpp>
#include <multiprocessing/pickle/callable.hpp>
#include <multiprocessing/queues.hpp>
#include <multiprocessing/runtime/action.hpp>
#include <multiprocessing/synchronize/event.hpp>
#include <multiprocessing/synchronize/lock.hpp>
#include <multiprocessing/synchronize/semaphore.hpp>

#include <concepts>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <vector>

namespace multiprocessing::managers {

/// The proxy of a T: `Proxy<T>`, and for what Python has a proxy of its own for, that.
template <class T>
struct ProxyFor : std::type_identity<Proxy<T>> {};
template <std::derived_from<BaseProxy> P>
struct ProxyFor<P> : std::type_identity<P> {};
template <class K, class V>
struct ProxyFor<std::map<K, V>> : std::type_identity<DictProxy<K, V>> {};
template <class K, class V>
struct ProxyFor<std::unordered_map<K, V>> : std::type_identity<DictProxy<K, V>> {};
template <class T>
struct ProxyFor<std::vector<T>> : std::type_identity<ListProxy<T>> {};
template <class T>
struct ProxyFor<std::set<T>> : std::type_identity<SetProxy<T>> {};
template <class T>
struct ProxyFor<Queue<T>> : std::type_identity<QueueProxy<T>> {};
template <class T>
struct ProxyFor<JoinableQueue<T>> : std::type_identity<JoinableQueueProxy<T>> {};
template <>
struct ProxyFor<Lock> : std::type_identity<LockProxy> {};
template <>
struct ProxyFor<RLock> : std::type_identity<RLockProxy> {};
template <>
struct ProxyFor<Semaphore> : std::type_identity<SemaphoreProxy> {};
template <>
struct ProxyFor<BoundedSemaphore> : std::type_identity<SemaphoreProxy> {};
template <>
struct ProxyFor<Event> : std::type_identity<EventProxy> {};
template <class T>
using proxy_for_t = typename ProxyFor<T>::type;

/// An object that the server's program has, too.
template <class T>
class Pointed final : public Object {
public:
    explicit Pointed(std::shared_ptr<T> pointer) : pointer_(std::move(pointer)) {
        if (pointer_ == nullptr) throw ValueError("a factory of a managed object gave a null pointer");
    }
    [[nodiscard]] std::uint64_t type() const noexcept override { return pickle::type_hash<T>(); }
    [[nodiscard]] const std::string& type_name() const override { return pickle::type_name<T>(); }
    [[nodiscard]] void* target() noexcept override { return pointer_.get(); }

private:
    std::shared_ptr<T> pointer_;
};

template <class T>
inline constexpr bool is_shared_pointer = false;
template <class T>
inline constexpr bool is_shared_pointer<std::shared_ptr<T>> = true;

/// Makes the object, from what the program's factory gives.
template <class F>
std::shared_ptr<Object> make_registered(const F& factory) {
    using T = std::remove_cvref_t<std::invoke_result_t<const F&>>;
    if constexpr (is_shared_pointer<T>) {
        return std::make_shared<Pointed<typename T::element_type>>(std::invoke(factory));
    } else {
        using Referent = typename proxy_for_t<T>::Referent;
        if constexpr (std::same_as<T, Referent>) {
            return std::make_shared<Managed<T>>(
                [&]() -> decltype(auto) { return std::invoke(factory); });
        } else {
            return std::make_shared<Managed<Referent>>(std::in_place, std::invoke(factory));
        }
    }
}

/// A factory under its name, which may travel to the server's process.
struct Registered {
    std::string name;
    runtime::Thunk<std::shared_ptr<Object>> factory;

    template <class Archive>
    void serialize(Archive& archive, unsigned) {
        archive& name& factory;
    }
};

}  // namespace multiprocessing::managers
