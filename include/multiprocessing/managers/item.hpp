// SPDX-License-Identifier: BSL-1.0
//
// What `d["key"]` and `l[3]` are of a proxy: reading reads from the server, assigning sets there.
#pragma once

#include <multiprocessing/managers/object.hpp>

#include <concepts>
#include <memory>
#include <ostream>
#include <type_traits>
#include <utility>

namespace multiprocessing::managers {

/// As what the right side of `+=` travels: as a V where that makes no difference, for which servers of
/// other programs have the function.
template <class V, class X>
struct Addend : signature::Travelling<const X&> {};
template <class V, std::integral X>
    requires(std::floating_point<V> || (std::integral<V> && !std::same_as<V, bool>))
struct Addend<V, X> {
    using type = V;
};

/// An element of a proxy P, which has at(key), set(key, value), and for friends add_to(key, x) and
/// subtract_from(key, x).
template <class P, class Key, class V>
class Item {
public:
    Item(const P& proxy, Key key) : proxy_(proxy), key_(std::move(key)) {}
    Item(const Item&) = default;
    ~Item() = default;

    /// A copy. *Throws* as the proxy's at().
    [[nodiscard]] V get() const { return proxy_.at(key_); }
    operator V() const { return get(); }
    /// For what can be called on a value: that of a proxy acts on its object.
    [[nodiscard]] std::unique_ptr<const V> operator->() const {
        return std::make_unique<const V>(get());
    }
    const Item& operator=(const V& value) const {
        proxy_.set(key_, value);
        return *this;
    }
    // As with references: the value is assigned.
    const Item& operator=(const Item& other) const { return *this = other.get(); }
    Item& operator=(const Item& other) {
        proxy_.set(key_, other.get());
        return *this;
    }
    /// In the server, in one step.
    template <class X>
        requires requires(V& v, const X& x) { v += x; }
    const Item& operator+=(const X& x) const {
        proxy_.add_to(key_, static_cast<typename Addend<V, X>::type>(x));
        return *this;
    }
    template <class X>
        requires requires(V& v, const X& x) { v -= x; }
    const Item& operator-=(const X& x) const {
        proxy_.subtract_from(key_, static_cast<typename Addend<V, X>::type>(x));
        return *this;
    }
    friend bool operator==(const Item& a, const V& b)
        requires std::equality_comparable<V>
    {
        return a.get() == b;
    }
    friend bool operator==(const Item& a, const Item& b)
        requires std::equality_comparable<V>
    {
        return a.get() == b.get();
    }
    /// Numbers of other types: else the conversions would be ambiguous.
    template <class X>
        requires(std::is_arithmetic_v<V> && std::is_arithmetic_v<X> && !std::same_as<X, V>)
    friend bool operator==(const Item& a, X b) {
        return a.get() == b;
    }
    friend std::ostream& operator<<(std::ostream& out, const Item& item)
        requires requires(std::ostream& o, const V& v) { o << v; }
    {
        return out << item.get();
    }

private:
    const P proxy_;
    const Key key_;
};

}  // namespace multiprocessing::managers
