// SPDX-License-Identifier: BSL-1.0
//
// `manager.dict<K, V>()`: a dict in a manager's server. Answers Python's `DictProxy`.
#pragma once

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/managers/copied.hpp>
#include <multiprocessing/managers/item.hpp>
#include <multiprocessing/managers/ordered_dict.hpp>
#include <multiprocessing/managers/proxy.hpp>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <map>
#include <memory>
#include <optional>
#include <ostream>
#include <ranges>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace multiprocessing::managers {

/// What is done in the server.
template <class K, class V>
struct DictMethods {
    using Dict = OrderedDict<K, V>;
    using Items = std::vector<std::pair<K, V>>;

    static void set(Dict& dict, K key, V value) { dict.set(std::move(key), std::move(value)); }
    static const V& at(Dict& dict, const K& key) { return dict.at(key); }
    static std::optional<V> get(Dict& dict, const K& key) {
        const V* const value = dict.find(key);
        return value == nullptr ? std::nullopt : std::optional<V>(*value);
    }
    static bool contains(Dict& dict, const K& key) { return dict.find(key) != nullptr; }
    static V pop(Dict& dict, const K& key) { return dict.pop(key); }
    static std::optional<V> take(Dict& dict, const K& key) {
        return dict.find(key) == nullptr ? std::nullopt : std::optional<V>(dict.pop(key));
    }
    static std::pair<K, V> popitem(Dict& dict) { return dict.popitem(); }
    static std::uint64_t erase(Dict& dict, const K& key) { return dict.erase(key) ? 1 : 0; }
    static V setdefault(Dict& dict, const K& key, const V& value) {
        if (const V* const there = dict.find(key)) return *there;
        dict.set(key, value);
        return value;
    }
    static void update(Dict& dict, Items items) {
        for (auto& [key, value] : items) dict.set(std::move(key), std::move(value));
    }
    static std::vector<K> keys(Dict& dict) {
        std::vector<K> all;
        for (const auto& item : dict.items()) all.push_back(item.first);
        return all;
    }
    static std::vector<V> values(Dict& dict) {
        std::vector<V> all;
        for (const auto& item : dict.items()) all.push_back(item.second);
        return all;
    }
    static Items items(Dict& dict) { return Items(dict.items().begin(), dict.items().end()); }
    static std::uint64_t size(Dict& dict) { return dict.items().size(); }
    static void clear(Dict& dict) { dict.clear(); }
    static std::map<K, V> copy(Dict& dict) {
        return std::map<K, V>(dict.items().begin(), dict.items().end());
    }
    static std::vector<std::optional<V>> get_many(Dict& dict, const std::vector<K>& keys) {
        std::vector<std::optional<V>> all;
        all.reserve(keys.size());
        for (const K& key : keys) all.push_back(get(dict, key));
        return all;
    }
    template <class F, class... Args>
    static auto apply(Dict& dict, const K& key, F f, Args... args) {
        return std::invoke(f, dict.at(key), std::move(args)...);
    }
    template <class X>
    static void add(Dict& dict, const K& key, const X& x) {
        dict.at(key) += x;
    }
    template <class X>
    static void subtract(Dict& dict, const K& key, const X& x) {
        dict.at(key) -= x;
    }
};

/// A dict in the server of a manager, which keeps the order in which keys were added.
///
///     auto d = manager.dict<std::string, int>({{"a", 1}});
///     d["b"] = 2;
///     d["a"] += 10;                             // one step, whoever else does the same
///     int a = d["a"];                           // KeyError if there is none
///     d.apply("a", [](int& n, int by) { return n *= by; }, 2);
///     for (const auto& [key, value] : d) …      // over a copy
///
/// What is read is a copy: change it and set it again, or have `apply` change it where it is; or keep
/// proxies as values. See BaseProxy for what a call throws.
/// *Python*: `multiprocessing.managers.DictProxy`.
template <class K, class V>
class DictProxy : public BaseProxy {
    using Methods = DictMethods<K, V>;
    using Dict = typename Methods::Dict;

public:
    using Referent = Dict;
    using key_type = K;
    using mapped_type = V;
    using value_type = std::pair<K, V>;

    /// What `d[key]` is: reading it reads from the server, assigning sets there.
    using Item = managers::Item<DictProxy, K, V>;

    [[nodiscard]] Item operator[](K key) const { return Item(*this, std::move(key)); }
    void set(const K& key, const V& value) const {
        this->template call<Dict, &Methods::set>(key, value);
    }
    /// *Throws* KeyError.
    [[nodiscard]] V at(const K& key) const { return this->template call<Dict, &Methods::at>(key); }
    /// Nothing if there is no such key.
    [[nodiscard]] std::optional<V> get(const K& key) const {
        return this->template call<Dict, &Methods::get>(key);
    }
    [[nodiscard]] V get(const K& key, const V& otherwise) const {
        return get(key).value_or(otherwise);
    }
    /// The same for many keys, in one request.
    [[nodiscard]] std::vector<std::optional<V>> get_many(const std::vector<K>& keys) const {
        return this->template call<Dict, &Methods::get_many>(keys);
    }
    [[nodiscard]] bool contains(const K& key) const {
        return this->template call<Dict, &Methods::contains>(key);
    }
    [[nodiscard]] std::size_t count(const K& key) const { return contains(key) ? 1 : 0; }
    /// Takes a value out. *Throws* KeyError.
    V pop(const K& key) const { return this->template call<Dict, &Methods::pop>(key); }
    V pop(const K& key, const V& otherwise) const {
        return this->template call<Dict, &Methods::take>(key).value_or(otherwise);
    }
    /// Takes out what was added last. *Throws* KeyError when there is nothing.
    std::pair<K, V> popitem() const { return this->template call<Dict, &Methods::popitem>(); }
    /// Removes a key; how many there were, 0 or 1.
    std::size_t erase(const K& key) const {
        return static_cast<std::size_t>(this->template call<Dict, &Methods::erase>(key));
    }
    /// The value of a key, which is set to this one if there is none.
    V setdefault(const K& key, const V& value) const {
        return this->template call<Dict, &Methods::setdefault>(key, value);
    }
    /// Sets all items of a range of pairs, a std::map say, in one request and one step.
    template <std::ranges::input_range Range>
        requires std::constructible_from<std::pair<K, V>, std::ranges::range_reference_t<Range>>
    void update(Range&& items) const {
        typename Methods::Items all;
        for (auto&& item : items) all.emplace_back(item);
        this->template call<Dict, &Methods::update>(all);
    }
    void update(std::initializer_list<std::pair<K, V>> items) const {
        this->template call<Dict, &Methods::update>(typename Methods::Items(items));
    }
    void update(const DictProxy& other) const { update(other.items()); }
    [[nodiscard]] std::vector<K> keys() const {
        return this->template call<Dict, &Methods::keys>();
    }
    [[nodiscard]] std::vector<V> values() const {
        return this->template call<Dict, &Methods::values>();
    }
    [[nodiscard]] std::vector<std::pair<K, V>> items() const {
        return this->template call<Dict, &Methods::items>();
    }
    [[nodiscard]] std::size_t size() const {
        return static_cast<std::size_t>(this->template call<Dict, &Methods::size>());
    }
    [[nodiscard]] bool empty() const { return size() == 0; }
    void clear() const { this->template call<Dict, &Methods::clear>(); }
    [[nodiscard]] std::map<K, V> copy() const {
        return this->template call<Dict, &Methods::copy>();
    }

    /// Runs `f(value, args...)` in the server, on the value where it is and with no other call in
    /// between; what it returns. `f` is a callable that travels: a function, a lambda without captures,
    /// `mp::partial`. *Throws* KeyError, and what `f` throws.
    template <class F, class... Args>
    auto apply(const K& key, F f, const Args&... args) const {
        static_assert(pickle::require_travelling_callable<F>);
        return this->template call<
            Dict, &Methods::template apply<
                      F, typename signature::Travelling<const Args&>::type...>>(key, f, args...);
    }

    /// Over a copy of the items.
    using iterator = CopyIterator<value_type>;
    [[nodiscard]] iterator begin() const { return iterator(items()); }
    [[nodiscard]] iterator end() const { return iterator(); }

    /// Has servers of this program know all that clients of others may call.
    static void expose_all() {
        expose<Dict, &Methods::set, &Methods::at, &Methods::get, &Methods::contains, &Methods::pop,
               &Methods::take, &Methods::popitem, &Methods::erase, &Methods::setdefault,
               &Methods::update, &Methods::keys, &Methods::values, &Methods::items, &Methods::size,
               &Methods::clear, &Methods::copy, &Methods::get_many>();
        if constexpr (requires(V& value, const V& x) { value += x; }) {
            expose<Dict, &Methods::template add<V>>();
        }
        if constexpr (requires(V& value, const V& x) { value -= x; }) {
            expose<Dict, &Methods::template subtract<V>>();
        }
    }

    using BaseProxy::BaseProxy;

private:
    friend Item;
    template <class X>
    void add_to(const K& key, const X& x) const {
        this->template call<Dict, &Methods::template add<X>>(key, x);
    }
    template <class X>
    void subtract_from(const K& key, const X& x) const {
        this->template call<Dict, &Methods::template subtract<X>>(key, x);
    }
};

}  // namespace multiprocessing::managers
