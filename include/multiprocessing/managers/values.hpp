// SPDX-License-Identifier: BSL-1.0
//
// `manager.Namespace()`, `manager.Value<T>(x)` and `manager.Array<T>(…)`. Answers Python's
// `NamespaceProxy`, `ValueProxy` and `ArrayProxy`.
#pragma once

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/managers/copied.hpp>
#include <multiprocessing/managers/item.hpp>
#include <multiprocessing/managers/list.hpp>
#include <multiprocessing/managers/proxy.hpp>
#include <multiprocessing/pickle/message.hpp>
#include <multiprocessing/pickle/type_name.hpp>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <map>
#include <memory>
#include <optional>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

namespace multiprocessing::managers {

/// The attributes of a Namespace: what they are, as messages that say of what type they are.
struct Attributes {
    std::map<std::string, std::vector<std::byte>> all;

    static void set(Attributes& attributes, const std::string& name, std::vector<std::byte> value) {
        attributes.all.insert_or_assign(name, std::move(value));
    }
    static const std::vector<std::byte>& get(Attributes& attributes, const std::string& name) {
        const auto found = attributes.all.find(name);
        if (found == attributes.all.end()) {
            throw KeyError("the Namespace has no attribute '" + name + "'");
        }
        return found->second;
    }
    static bool has(Attributes& attributes, const std::string& name) {
        return attributes.all.contains(name);
    }
    static void erase(Attributes& attributes, const std::string& name) {
        if (attributes.all.erase(name) == 0) {
            throw KeyError("the Namespace has no attribute '" + name + "'");
        }
    }
    static std::vector<std::string> names(Attributes& attributes) {
        std::vector<std::string> names;
        for (const auto& each : attributes.all) names.push_back(each.first);
        return names;
    }
};

/// Attributes of any types, by name.
///
///     auto ns = manager.Namespace();
///     ns.set("x", 3);
///     int x = ns.get<int>("x");      // UnpicklingError, naming both, if it is of another type
///
/// See BaseProxy for what a call throws. *Python*: `multiprocessing.managers.Namespace`; an attribute
/// whose name begins with an underscore is one like the others here.
class NamespaceProxy : public BaseProxy {
public:
    using Referent = Attributes;

    template <class T, class S = Attributes>
    void set(const std::string& name, const T& value) const {
        using Kept = pickle::travel_decay_t<const T&>;
        static_assert(pickle::Picklable<Kept>, "an attribute of a Namespace must be picklable: give the "
                                               "type a serialize() as Boost.Serialization asks for");
        pickle::Scratch scratch;
        if constexpr (std::same_as<Kept, T>) {
            pickle::dump(value, *scratch);
        } else {
            pickle::dump(Kept(value), *scratch);
        }
        const auto bytes = scratch->span();
        call<S, &S::set>(name, std::vector<std::byte>(bytes.begin(), bytes.end()));
    }
    /// *Throws* KeyError if there is none of that name.
    template <class T, class S = Attributes>
    [[nodiscard]] T get(const std::string& name) const {
        const std::vector<std::byte> kept = call<S, &S::get>(name);
        try {
            return pickle::load<T>(kept);
        } catch (const UnpicklingError& error) {
            throw UnpicklingError("the attribute '" + name + "' of the Namespace: " + error.what());
        }
    }
    template <class T>
    [[nodiscard]] T get(const std::string& name, const T& otherwise) const {
        return has(name) ? get<T>(name) : otherwise;
    }
    template <class S = Attributes>
    [[nodiscard]] bool has(const std::string& name) const {
        return call<S, &S::has>(name);
    }
    /// `del ns.x`. *Throws* KeyError.
    template <class S = Attributes>
    void erase(const std::string& name) const { call<S, &S::erase>(name); }
    template <class S = Attributes>
    [[nodiscard]] std::vector<std::string> names() const {
        return call<S, &S::names>();
    }

    using BaseProxy::BaseProxy;
};

/// One value in the server.
template <class T>
struct Cell {
    T value{};

    static const T& get(Cell& cell) { return cell.value; }
    static void set(Cell& cell, T value) { cell.value = std::move(value); }
    template <class X>
    static T add(Cell& cell, const X& x) {
        cell.value += x;
        return cell.value;
    }
    template <class F, class... Args>
    static auto apply(Cell& cell, F f, Args... args) {
        return std::invoke(f, cell.value, std::move(args)...);
    }
};

/// A value of any type that can be pickled.
///
///     auto v = manager.Value<int>(1);
///     v.set_value(v.value() + 1);      // two steps; v.fetch_add(1) is one
///
/// See BaseProxy for what a call throws. *Python*: `multiprocessing.managers.ValueProxy`.
template <class T>
class ValueProxy : public BaseProxy {
    using Held = Cell<T>;

public:
    using Referent = Held;

    [[nodiscard]] T value() const { return this->template call<Held, &Held::get>(); }
    [[nodiscard]] T get() const { return value(); }
    void set_value(const T& value) const { this->template call<Held, &Held::set>(value); }
    void set(const T& value) const { set_value(value); }
    /// Adds in the server, in one step; what it was before.
    template <class X>
        requires requires(T& v, const X& x) { v += x; }
    T fetch_add(const X& x) const {
        return apply(
            [](T& held, const X& by) {
                T before = held;
                held += by;
                return before;
            },
            x);
    }
    /// Runs `f(value, args...)` in the server, with no other call in between.
    template <class F, class... Args>
    auto apply(F f, const Args&... args) const {
        static_assert(pickle::require_travelling_callable<F>);
        return this->template call<
            Held, &Held::template apply<
                      F, typename signature::Travelling<const Args&>::type...>>(f, args...);
    }

    using BaseProxy::BaseProxy;
};

/// Elements whose number does not change.
template <class T>
struct FixedArray {
    std::vector<T> elements;

    explicit FixedArray(std::vector<T> all) : elements(std::move(all)) {}
    static FixedArray zeros(std::size_t size) { return FixedArray(std::vector<T>(size)); }

    static T at(FixedArray& array, std::int64_t index) {
        return array.elements[checked_index(index, array.elements.size(), "array")];
    }
    static void set(FixedArray& array, std::int64_t index, T value) {
        array.elements[checked_index(index, array.elements.size(), "array")] = std::move(value);
    }
    static std::uint64_t size(FixedArray& array) { return array.elements.size(); }
    static const std::vector<T>& copy(FixedArray& array) { return array.elements; }
    static std::vector<T> slice(FixedArray& array, const std::optional<std::int64_t>& begin,
                                const std::optional<std::int64_t>& end) {
        return ListMethods<T>::slice(array.elements, begin, end);
    }
    static void set_slice(FixedArray& array, std::int64_t begin, const std::vector<T>& values) {
        const auto first = static_cast<std::size_t>(clamped_index(begin, array.elements.size()));
        if (values.size() > array.elements.size() - first) {
            throw ValueError("Array: " + std::to_string(values.size()) + " elements from " +
                             std::to_string(first) + " on are more than there are: " +
                             std::to_string(array.elements.size()));
        }
        std::copy(values.begin(), values.end(),
                  array.elements.begin() + static_cast<std::ptrdiff_t>(first));
    }
    template <class X>
    static void add(FixedArray& array, std::int64_t index, const X& x) {
        array.elements[checked_index(index, array.elements.size(), "array")] += x;
    }
    template <class X>
    static void subtract(FixedArray& array, std::int64_t index, const X& x) {
        array.elements[checked_index(index, array.elements.size(), "array")] -= x;
    }
};

/// Elements in the server whose number does not change. Indices count from the end if negative.
///
///     auto a = manager.Array<int>({1, 2, 3});
///     a[0] = a[2];
///
/// See BaseProxy for what a call throws. *Python*: `multiprocessing.managers.ArrayProxy`.
template <class T>
class ArrayProxy : public BaseProxy {
    using Held = FixedArray<T>;
    using Index = std::int64_t;

public:
    using Referent = Held;
    using value_type = T;

    /// What `a[i]` is: reading it reads from the server, assigning sets there.
    using Item = managers::Item<ArrayProxy, Index, T>;

    [[nodiscard]] Item operator[](Index index) const { return Item(*this, index); }
    /// *Throws* std::out_of_range.
    [[nodiscard]] T at(Index index) const { return this->template call<Held, &Held::at>(index); }
    void set(Index index, const T& value) const {
        this->template call<Held, &Held::set>(index, value);
    }
    [[nodiscard]] std::size_t size() const {
        return static_cast<std::size_t>(this->template call<Held, &Held::size>());
    }
    [[nodiscard]] std::vector<T> copy() const { return this->template call<Held, &Held::copy>(); }
    [[nodiscard]] std::vector<T> slice(std::optional<Index> begin,
                                       std::optional<Index> end = std::nullopt) const {
        return this->template call<Held, &Held::slice>(begin, end);
    }
    /// Sets elements from `begin` on. *Throws* ValueError when these are more than there are.
    void set_slice(Index begin, const std::vector<T>& values) const {
        this->template call<Held, &Held::set_slice>(begin, values);
    }

    /// Over a copy.
    using iterator = CopyIterator<T>;
    [[nodiscard]] iterator begin() const { return iterator(copy()); }
    [[nodiscard]] iterator end() const { return iterator(); }

    using BaseProxy::BaseProxy;

private:
    friend Item;
    template <class X>
    void add_to(Index index, const X& x) const {
        this->template call<Held, &Held::template add<X>>(index, x);
    }
    template <class X>
    void subtract_from(Index index, const X& x) const {
        this->template call<Held, &Held::template subtract<X>>(index, x);
    }
};

}  // namespace multiprocessing::managers
