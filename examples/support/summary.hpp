// SPDX-License-Identifier: BSL-1.0
//
// What `pipeline` finds out about the lines of a text, in a form that travels and adds up.
#pragma once

#include "word_table.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iomanip>
#include <iostream>
#include <string>
#include <string_view>

/// What was found in some lines.
struct Summary {
    std::uint64_t lines = 0, words = 0, bytes = 0, longest = 0;
    WordTable commonest, days, events;

    template <class Archive>
    void serialize(Archive& archive, unsigned /*version*/) {
        archive & lines & words & bytes & longest & commonest & days & events;
    }

    void merge(const Summary& other) {
        lines += other.lines;
        words += other.words;
        bytes += other.bytes;
        longest = std::max(longest, other.longest);
        commonest.merge(other.commonest);
        days.merge(other.days);
        events.merge(other.events);
    }
};

inline bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

inline bool is_date(std::string_view word) {
    constexpr std::string_view form = "dddd-dd-dd";
    return word.size() >= form.size() &&
           std::equal(form.begin(), form.end(), word.begin(), [](char wanted, char c) {
               return wanted == 'd' ? c >= '0' && c <= '9' : c == wanted;
           });
}

/// Takes the first word off `line`; it is empty when there is none left.
inline std::string_view next_word(std::string_view& line) {
    const auto begin = std::find_if_not(line.begin(), line.end(), is_space);
    const auto end = std::find_if(begin, line.end(), is_space);
    line = std::string_view(end, line.end());
    return std::string_view(begin, end);
}

inline void add_line(Summary& summary, std::string_view line) {
    summary.lines += 1;
    summary.longest = std::max<std::uint64_t>(summary.longest, line.size());
    std::uint64_t number = 0;
    std::string_view day, event;
    for (auto word = next_word(line); !word.empty(); word = next_word(line)) {
        summary.commonest.add(word);
        number += 1;
        if (number == 1 && is_date(word)) day = word.substr(0, 10);
        if (number == 3) event = word;
        if (number == 4 && event == "status") event = std::string_view(event.begin(), word.end());
    }
    summary.words += number;
    if (!day.empty()) summary.days.add(day);
    if (!day.empty() && !event.empty()) summary.events.add(event);
}

inline void print(const char* title, const WordTable& table, std::size_t top) {
    if (table.size() != 0) std::cout << '\n' << title << '\n';
    for (const auto& [word, count] : table.commonest(top)) {
        std::cout << std::setw(9) << count << ' ' << word << '\n';
    }
}
