// SPDX-License-Identifier: BSL-1.0
//
// Counts words: a hash table made for many additions, cheap to send to another process and to
// merge there. It shows how a class of one's own travels: by Boost's `serialize`.
#pragma once

#include <boost/serialization/string.hpp>
#include <boost/serialization/vector.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

/// How often each word was seen. Open addressing over the entries, whose letters stand in one
/// string: what travels is two pieces of memory, not a node for every word.
class WordTable {
public:
    /// The words and their counts, sorted by count downwards, then alphabetically.
    using Ranking = std::vector<std::pair<std::string_view, std::uint64_t>>;

    void add(std::string_view word, std::uint64_t count = 1) {
        add(word, std::hash<std::string_view>()(word), count);
    }

    /// Adds the counts of `other` to these.
    void merge(const WordTable& other) {
        for (const Entry& entry : other.entries_)
            add(other.text_of(entry), entry.hash, entry.count);
    }

    [[nodiscard]] std::size_t size() const noexcept { return entries_.size(); }

    /// The `most` commonest words (fewer if there are not as many); valid while the table is.
    [[nodiscard]] Ranking commonest(std::size_t most) const {
        Ranking ranking;
        ranking.reserve(entries_.size());
        for (const Entry& entry : entries_) ranking.emplace_back(text_of(entry), entry.count);
        const auto middle =
            ranking.begin() + static_cast<std::ptrdiff_t>(std::min(most, ranking.size()));
        std::partial_sort(ranking.begin(), middle, ranking.end(), [](const auto& a, const auto& b) {
            return a.second != b.second ? a.second > b.second : a.first < b.first;
        });
        ranking.erase(middle, ranking.end());
        return ranking;
    }

    /// The slots do not travel: whoever adds to a table that has just arrived makes them anew.
    template <class Archive>
    void serialize(Archive& archive, unsigned /*version*/) {
        archive & letters_ & entries_;
    }

private:
    struct Entry {
        std::uint64_t hash, count, start, length;

        template <class Archive>
        void serialize(Archive& archive, unsigned /*version*/) {
            archive & hash & count & start & length;
        }
    };

    [[nodiscard]] std::string_view text_of(const Entry& entry) const {
        return std::string_view(letters_).substr(entry.start, entry.length);
    }

    void add(std::string_view word, std::uint64_t hash, std::uint64_t count) {
        if (2 * entries_.size() >= slots_.size()) rehash();
        std::size_t slot = hash & (slots_.size() - 1);
        for (; slots_[slot] != 0; slot = (slot + 1) & (slots_.size() - 1)) {
            Entry& entry = entries_[slots_[slot] - 1];
            if (entry.hash == hash && text_of(entry) == word) {
                entry.count += count;
                return;
            }
        }
        if (entries_.size() == std::numeric_limits<std::uint32_t>::max()) {
            throw std::length_error("WordTable: more than four thousand million different words");
        }
        entries_.push_back({hash, count, letters_.size(), word.size()});
        letters_ += word;
        slots_[slot] = static_cast<std::uint32_t>(entries_.size());
    }

    void rehash() {
        std::size_t size = 1024;
        while (size < 4 * entries_.size()) size *= 2;
        slots_.assign(size, 0);
        for (std::size_t i = 0; i < entries_.size(); ++i) {
            std::size_t slot = entries_[i].hash & (size - 1);
            while (slots_[slot] != 0) slot = (slot + 1) & (size - 1);
            slots_[slot] = static_cast<std::uint32_t>(i + 1);
        }
    }

    std::string letters_;
    std::vector<Entry> entries_;
    std::vector<std::uint32_t> slots_;  // 1 + the entry's index; 0 is free
};
