// SPDX-License-Identifier: BSL-1.0
//
// `manager.set<T>()`: a set in a manager's server. Answers Python's `SetProxy`.
#pragma once

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/managers/copied.hpp>
#include <multiprocessing/managers/proxy.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <ranges>
#include <set>
#include <utility>
#include <vector>

namespace multiprocessing::managers {

/// What is done in the server.
template <class T>
struct SetMethods {
    using Set = std::set<T>;

    static bool add(Set& set, T value) { return set.insert(std::move(value)).second; }
    static bool discard(Set& set, const T& value) { return set.erase(value) != 0; }
    static void remove(Set& set, const T& value) {
        if (set.erase(value) == 0) {
            throw KeyError("the managed set has no such element" + in_quotes(value));
        }
    }
    static T pop(Set& set) {
        if (set.empty()) throw KeyError("pop from an empty managed set");
        return std::move(set.extract(set.begin()).value());
    }
    static bool contains(Set& set, const T& value) { return set.contains(value); }
    static std::uint64_t size(Set& set) { return set.size(); }
    static void clear(Set& set) { set.clear(); }
    static const Set& copy(Set& set) { return set; }
    static void update(Set& set, Set other) { set.merge(other); }
    static void intersection_update(Set& set, const Set& other) {
        std::erase_if(set, [&](const T& value) { return !other.contains(value); });
    }
    static void difference_update(Set& set, const Set& other) {
        std::erase_if(set, [&](const T& value) { return other.contains(value); });
    }
    static void symmetric_difference_update(Set& set, const Set& other) {
        for (const T& value : other) {
            if (set.erase(value) == 0) set.insert(value);
        }
    }
    static bool includes(Set& set, const Set& other) {
        return std::includes(set.begin(), set.end(), other.begin(), other.end());
    }
    static bool is_included(Set& set, const Set& other) {
        return std::includes(other.begin(), other.end(), set.begin(), set.end());
    }
    static bool isdisjoint(Set& set, const Set& other) {
        return std::none_of(set.begin(), set.end(),
                            [&](const T& value) { return other.contains(value); });
    }
};

/// A set in the server of a manager. See BaseProxy for what a call throws.
///
///     auto s = manager.set<int>({1, 2});
///     s.add(3);
///     s.update({4, 5});
///     std::set<int> both = s.intersection({2, 3, 9});   // a copy; s.intersection_update changes s
///
/// *Python*: `multiprocessing.managers.SetProxy`.
template <class T>
class SetProxy : public BaseProxy {
    using Methods = SetMethods<T>;
    using Set = typename Methods::Set;

public:
    using Referent = Set;
    using value_type = T;

    /// Whether it was not there before.
    bool add(const T& value) const { return this->template call<Set, &Methods::add>(value); }
    /// Whether it was there.
    bool discard(const T& value) const { return this->template call<Set, &Methods::discard>(value); }
    /// *Throws* KeyError if it is not there.
    void remove(const T& value) const { this->template call<Set, &Methods::remove>(value); }
    /// Takes one out. *Throws* KeyError when there is none.
    T pop() const { return this->template call<Set, &Methods::pop>(); }
    [[nodiscard]] bool contains(const T& value) const {
        return this->template call<Set, &Methods::contains>(value);
    }
    [[nodiscard]] std::size_t size() const {
        return static_cast<std::size_t>(this->template call<Set, &Methods::size>());
    }
    [[nodiscard]] bool empty() const { return size() == 0; }
    void clear() const { this->template call<Set, &Methods::clear>(); }
    [[nodiscard]] Set copy() const { return this->template call<Set, &Methods::copy>(); }

    // With another set; each in one request, those that change this one in one step.
    void update(const Set& other) const { this->template call<Set, &Methods::update>(other); }
    void intersection_update(const Set& other) const {
        this->template call<Set, &Methods::intersection_update>(other);
    }
    void difference_update(const Set& other) const {
        this->template call<Set, &Methods::difference_update>(other);
    }
    void symmetric_difference_update(const Set& other) const {
        this->template call<Set, &Methods::symmetric_difference_update>(other);
    }
    const SetProxy& operator|=(const Set& other) const { return update(other), *this; }
    const SetProxy& operator&=(const Set& other) const { return intersection_update(other), *this; }
    const SetProxy& operator-=(const Set& other) const { return difference_update(other), *this; }
    const SetProxy& operator^=(const Set& other) const {
        return symmetric_difference_update(other), *this;
    }
    [[nodiscard]] bool issuperset(const Set& other) const {
        return this->template call<Set, &Methods::includes>(other);
    }
    [[nodiscard]] bool issubset(const Set& other) const {
        return this->template call<Set, &Methods::is_included>(other);
    }
    [[nodiscard]] bool isdisjoint(const Set& other) const {
        return this->template call<Set, &Methods::isdisjoint>(other);
    }
    // New sets, here.
    [[nodiscard]] Set union_with(const Set& other) const {
        Set result = copy();
        Methods::update(result, other);
        return result;
    }
    [[nodiscard]] Set intersection(const Set& other) const {
        Set result = copy();
        Methods::intersection_update(result, other);
        return result;
    }
    [[nodiscard]] Set difference(const Set& other) const {
        Set result = copy();
        Methods::difference_update(result, other);
        return result;
    }
    [[nodiscard]] Set symmetric_difference(const Set& other) const {
        Set result = copy();
        Methods::symmetric_difference_update(result, other);
        return result;
    }
    [[nodiscard]] friend Set operator|(const SetProxy& a, const Set& b) { return a.union_with(b); }
    [[nodiscard]] friend Set operator&(const SetProxy& a, const Set& b) { return a.intersection(b); }
    [[nodiscard]] friend Set operator-(const SetProxy& a, const Set& b) { return a.difference(b); }
    [[nodiscard]] friend Set operator^(const SetProxy& a, const Set& b) {
        return a.symmetric_difference(b);
    }

    /// Over a copy.
    using iterator = CopyIterator<T>;
    [[nodiscard]] iterator begin() const {
        const Set all = copy();
        return iterator(std::vector<T>(all.begin(), all.end()));
    }
    [[nodiscard]] iterator end() const { return iterator(); }

    /// Has servers of this program know all that clients of others may call.
    static void expose_all() {
        expose<Set, &Methods::add, &Methods::discard, &Methods::remove, &Methods::pop,
               &Methods::contains, &Methods::size, &Methods::clear, &Methods::copy,
               &Methods::update, &Methods::intersection_update, &Methods::difference_update,
               &Methods::symmetric_difference_update, &Methods::includes, &Methods::is_included,
               &Methods::isdisjoint>();
    }

    using BaseProxy::BaseProxy;
};

}  // namespace multiprocessing::managers
