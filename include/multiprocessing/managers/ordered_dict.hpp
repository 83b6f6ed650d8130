// SPDX-License-Identifier: BSL-1.0
//
// A map that keeps the order in which its keys were added, as Python's dict does: what a manager's
// server has for each `dict`.
#pragma once

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/managers/object.hpp>

#include <list>
#include <map>
#include <ranges>
#include <utility>

namespace multiprocessing::managers {

template <class K, class V>
class OrderedDict {
public:
    using Items = std::list<std::pair<K, V>>;

    OrderedDict() = default;
    template <std::ranges::input_range Range>
    explicit OrderedDict(Range&& items) {
        for (auto&& item : items) set(item.first, item.second);
    }
    // The index points into the list.
    OrderedDict(const OrderedDict& other) : OrderedDict(other.items_) {}
    OrderedDict(OrderedDict&&) noexcept = default;
    OrderedDict& operator=(OrderedDict&&) noexcept = default;
    OrderedDict& operator=(const OrderedDict& other) { return *this = OrderedDict(other); }
    ~OrderedDict() = default;

    [[nodiscard]] const Items& items() const noexcept { return items_; }
    /// Null if there is no such key.
    [[nodiscard]] V* find(const K& key) {
        const auto found = index_.find(key);
        return found == index_.end() ? nullptr : &found->second->second;
    }
    /// Throws KeyError.
    [[nodiscard]] V& at(const K& key) {
        if (V* const value = find(key)) return *value;
        throw_missing(key);
    }
    /// A key that is there keeps its place.
    void set(K key, V value) {
        if (V* const there = find(key)) {
            *there = std::move(value);
            return;
        }
        items_.emplace_back(key, std::move(value));
        try {
            index_.emplace(std::move(key), std::prev(items_.end()));
        } catch (...) {
            items_.pop_back();
            throw;
        }
    }
    V pop(const K& key) {
        const auto found = index_.find(key);
        if (found == index_.end()) throw_missing(key);
        V value = std::move(found->second->second);
        remove(found);
        return value;
    }
    std::pair<K, V> popitem() {
        if (items_.empty()) throw KeyError("popitem(): dictionary is empty");
        std::pair<K, V> item = items_.back();
        remove(index_.find(item.first));
        return item;
    }
    bool erase(const K& key) {
        const auto found = index_.find(key);
        if (found == index_.end()) return false;
        remove(found);
        return true;
    }
    void clear() noexcept {
        index_.clear();
        items_.clear();
    }

private:
    using Index = std::map<K, typename Items::iterator>;

    void remove(typename Index::iterator at) {
        items_.erase(at->second);
        index_.erase(at);
    }
    [[noreturn]] static void throw_missing(const K& key) {
        throw KeyError("the managed dict has no such key" + in_quotes(key) +
                       ": set it first, or ask with get() or setdefault()");
    }

    Items items_;
    Index index_;
};

}  // namespace multiprocessing::managers
