// SPDX-License-Identifier: BSL-1.0
//
// What `wordcount` finds out, in a form that travels and adds up.
#pragma once

#include "corpus.hpp"
#include "word_table.hpp"

#include <boost/serialization/set.hpp>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <set>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

/// What was found in some pieces: the result of a task, and the sum of all results.
struct Tally {
    WordTable table;
    std::uint64_t words = 0, files = 0, bytes = 0;
    std::set<std::string> complaints;  // one for a file, however many pieces it has

    void count(const Piece& piece, bool ignore_case) {
        try {
            bytes += for_each_word(piece, ignore_case, [this](std::string_view word) {
                table.add(word);
                ++words;
            });
            if (piece.begin == 0) ++files;
        } catch (const std::system_error& error) {
            complaints.insert(piece.path + ": " + error.code().message());
        }
    }

    void merge(const Tally& other) {
        table.merge(other.table);
        words += other.words;
        files += other.files;
        bytes += other.bytes;
        complaints.insert(other.complaints.begin(), other.complaints.end());
    }

    template <class Archive>
    void serialize(Archive& archive, unsigned /*version*/) {
        archive & table & words & files & bytes & complaints;
    }
};

/// What was found, and how long it took.
struct Run {
    Tally tally;
    double seconds = 0;
};

/// Runs `count`, which returns a Tally, against the clock.
template <class Count>
Run timed(Count count) {
    const auto start = std::chrono::steady_clock::now();
    Tally tally = count();
    const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;
    return {std::move(tally), time.count()};
}

inline void print_speed(const std::string& workers, const Run& run) {
    std::printf("%s: %.3f s, %.0f files/s, %.1f MB/s\n", workers.c_str(), run.seconds,
                static_cast<double>(run.tally.files) / run.seconds,
                static_cast<double>(run.tally.bytes) / run.seconds / 1e6);
}
