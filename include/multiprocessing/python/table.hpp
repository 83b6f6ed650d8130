// SPDX-License-Identifier: BSL-1.0
//
// What Python's dict and set are made of: entries in the order in which they came, and an index of
// their keys.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <utility>
#include <vector>

namespace multiprocessing::python {

class object;

namespace tables {

// Defined where object is complete.
void check_hashable(const object& key);
[[nodiscard]] std::uint64_t hash_of(const object& key);
[[nodiscard]] bool equal(const object& a, const object& b);

[[nodiscard]] inline const object& key_of(const object& entry) noexcept { return entry; }
[[nodiscard]] const object& key_of(const std::pair<object, object>& entry) noexcept;

/// An Entry is a key, or a key and its value. A few are compared one by one, without an index.
///
/// *Throws*: ValueError for a key that cannot be hashed.
template <class Entry>
class Table {
public:
    using key_type = object;
    using value_type = Entry;
    using const_iterator = typename std::vector<Entry>::const_iterator;
    using iterator = const_iterator;

    Table() noexcept = default;
    Table(const Table& other)
        : entries_(other.entries_),
          index_(other.index_ ? std::make_unique<Index>(*other.index_) : nullptr) {}
    Table(Table&& other) noexcept
        : entries_(std::exchange(other.entries_, {})), index_(std::move(other.index_)) {}
    Table& operator=(const Table& other) { return *this = Table(other); }
    Table& operator=(Table&& other) noexcept {
        entries_.swap(other.entries_);
        index_.swap(other.index_);
        return *this;
    }
    ~Table() = default;

    [[nodiscard]] const_iterator begin() const noexcept { return entries_.begin(); }
    [[nodiscard]] const_iterator end() const noexcept { return entries_.end(); }
    [[nodiscard]] const Entry* data() const noexcept { return entries_.data(); }
    [[nodiscard]] std::size_t size() const noexcept { return entries_.size(); }
    [[nodiscard]] bool empty() const noexcept { return entries_.empty(); }
    void reserve(std::size_t count) {
        entries_.reserve(count);
        if (count > few && (!index_ || 2 * count > index_->size())) build_index(count);
    }
    void clear() noexcept {
        entries_.clear();
        index_.reset();
    }
    [[nodiscard]] const_iterator find(const object& key) const {
        return begin() + static_cast<std::ptrdiff_t>(number_of(key));
    }
    [[nodiscard]] bool contains(const object& key) const { return number_of(key) != size(); }
    /// Returns whether it was there. Takes time in proportion to the size.
    bool erase(const object& key) {
        const auto found = find(key);
        if (found == end()) return false;
        entries_.erase(found);
        if (std::exchange(index_, nullptr)) build_index(size());
        return true;
    }

protected:
    /// Adds an entry of that key made of `parts`, which the key is one of, unless there is one: its
    /// number, and whether it was added.
    template <class... Parts>
    std::pair<std::size_t, bool> add(const object& key, Parts&&... parts) {
        if (!index_) {
            const std::size_t found = number_of(key);
            if (found != size()) return {found, false};
            if (size() == few) build_index(2 * few);
        } else if (2 * (size() + 1) > index_->size()) {
            build_index(2 * size());
        }
        if (!index_) {
            entries_.emplace_back(std::forward<Parts>(parts)...);
            return {size() - 1, true};
        }
        const std::uint32_t hash = hash_of_key(key);
        Slot& slot = (*index_)[place_of(key, hash)];
        if (slot.entry != 0) return {slot.entry - 1, false};
        entries_.emplace_back(std::forward<Parts>(parts)...);
        slot = {hash, static_cast<std::uint32_t>(size())};
        return {size() - 1, true};
    }
    [[nodiscard]] Entry& entry(std::size_t number) noexcept { return entries_[number]; }

private:
    struct Slot {
        std::uint32_t hash = 0;
        std::uint32_t entry = 0;  // its number, from 1 on
    };
    using Index = std::vector<Slot>;
    static constexpr std::size_t few = 8;

    [[nodiscard]] static std::uint32_t hash_of_key(const object& key) {
        return static_cast<std::uint32_t>(hash_of(key));
    }
    // size() where there is none.
    [[nodiscard]] std::size_t number_of(const object& key) const {
        if (index_) {
            const std::size_t number = (*index_)[place_of(key, hash_of_key(key))].entry;
            return number != 0 ? number - 1 : size();
        }
        check_hashable(key);
        std::size_t number = 0;
        while (number < size() && !equal(key_of(entries_[number]), key)) ++number;
        return number;
    }
    // Where in the index the key is, or would be.
    [[nodiscard]] std::size_t place_of(const object& key, std::uint32_t hash) const {
        const std::size_t mask = index_->size() - 1;
        for (std::size_t place = hash & mask;; place = (place + 1) & mask) {
            const Slot& slot = (*index_)[place];
            if (slot.entry == 0 ||
                (slot.hash == hash && equal(key_of(entries_[slot.entry - 1]), key)))
                return place;
        }
    }
    // For so many entries, at least half of it empty.
    void build_index(std::size_t count) {
        if (count > UINT32_MAX / 4) throw std::length_error("a dict or set of so many entries");
        std::size_t size = 4 * few;
        while (size < 2 * count) size *= 2;
        auto index = std::make_unique<Index>(size);
        const auto enter = [&](Slot slot) {
            std::size_t place = slot.hash & (size - 1);
            while ((*index)[place].entry != 0) place = (place + 1) & (size - 1);
            (*index)[place] = slot;
        };
        if (index_) {
            for (const Slot& slot : *index_)
                if (slot.entry != 0) enter(slot);
        } else {
            for (std::size_t i = 0; i < entries_.size(); ++i)
                enter({hash_of_key(key_of(entries_[i])), static_cast<std::uint32_t>(i + 1)});
        }
        index_ = std::move(index);
    }

    std::vector<Entry> entries_;
    std::unique_ptr<Index> index_;
};

}  // namespace tables

}  // namespace multiprocessing::python
