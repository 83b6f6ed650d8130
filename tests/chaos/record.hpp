// SPDX-License-Identifier: BSL-1.0
//
// What the processes of a chaos test write down, each for itself and in shared memory, so that it is
// known of the killed too: which items it has put and got. And what must be true of it in the end.
#pragma once

#include <multiprocessing/sharedctypes.hpp>

#include "chaos/items.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace chaos {

namespace mp = multiprocessing;

enum class Role : std::uint64_t { none, producer, consumer };
enum class End : std::uint64_t { runs, in_order, killed };

/// One producer or consumer from its start to its end. Who takes its place is another.
struct Life {
    Role role;
    End end;
    std::uint64_t finished;  // producer: items whose put has returned; consumer: items it has noted
    std::uint64_t under_way; // items of the call that it is in: at most so many may be lost with it,
                             // or have been put without being counted
};

/// All that is written down in a test; zeroed shared memory.
struct Record {
    static constexpr std::size_t most_lives = 1024;
    static constexpr std::uint32_t most_items = 1 << 17;  // of one producer

    std::array<Life, most_lives> lives;
    std::array<std::array<std::uint64_t, most_items / 64>, most_lives> got;
    std::uint64_t progress;  // counts whatever is got on with
    std::uint64_t stop;      // producers: no more items
    std::uint64_t complaints;
    std::array<char, 400> complaint;  // the first one
};

/// How a handle of it travels.
using SharedRecord = mp::RawArray<Record>;

template <class T>
[[nodiscard]] inline T load(T& word) noexcept {
    return std::atomic_ref(word).load(std::memory_order_acquire);
}
template <class T>
inline void store(T& word, T value) noexcept {
    std::atomic_ref(word).store(value, std::memory_order_release);
}

/// Keeps the first complaint, and how many there were.
template <class Book>
void complain(Book& record, std::string_view what) {
    if (std::atomic_ref(record.complaints).fetch_add(1) != 0) return;
    std::memcpy(record.complaint.data(), what.data(),
                std::min(what.size(), record.complaint.size() - 1));
}

[[nodiscard]] inline std::string text_of(Label label) {
    return "item " + std::to_string(label.sequence) + " of producer " + std::to_string(label.producer);
}

/// A producer's pen.
class PutNotes {
public:
    PutNotes(Record& record, std::uint32_t life) noexcept
        : record_(record), life_(record.lives[life]), producer_(life) {}

    /// The next item to be put.
    [[nodiscard]] Label next() const noexcept {
        return {producer_, static_cast<std::uint32_t>(life_.finished)};
    }
    [[nodiscard]] bool stopped() const noexcept {
        return life_.finished + 100 > Record::most_items || load(record_.stop) != 0;
    }
    void begin(std::uint64_t items) noexcept { store(life_.under_way, items); }
    /// The put has returned.
    void done(std::uint64_t items) noexcept {
        store(life_.finished, life_.finished + items);
        store(life_.under_way, std::uint64_t{0});
        std::atomic_ref(record_.progress).fetch_add(1, std::memory_order_relaxed);
    }
    /// The put has thrown: nothing has been put.
    void refused() noexcept { store(life_.under_way, std::uint64_t{0}); }

private:
    Record& record_;
    Life& life_;
    std::uint32_t producer_;
};

/// A consumer's pen: each item once, and those of a producer in its order.
class GetNotes {
public:
    GetNotes(Record& record, std::uint32_t life) noexcept
        : record_(record), life_(record.lives[life]) {}

    void begin(std::uint64_t items) noexcept { store(life_.under_way, items); }
    template <class T>
    void note(const T& item);
    /// The get has returned nothing.
    void refused() noexcept { store(life_.under_way, std::uint64_t{0}); }
    /// The get has returned, and what it returned is noted.
    void done() noexcept {
        store(life_.under_way, std::uint64_t{0});
        std::atomic_ref(record_.progress).fetch_add(1, std::memory_order_relaxed);
    }

private:
    Record& record_;
    Life& life_;
    std::unordered_map<std::uint32_t, std::uint64_t> seen_;  // by producer: one more than the last
};

/// What came of it all.
struct Balance {
    std::uint64_t put = 0;
    std::uint64_t got = 0;
    std::uint64_t lost = 0;      // put and never got
    std::uint64_t may_be_lost = 0;
    std::uint64_t uncounted = 0; // got, though their producers were killed before they had counted them
    std::uint64_t killed = 0;
    std::vector<std::string> errors;
};

/// Every surviving put is got exactly once: of a producer's items the first so many are there, all
/// whose put has returned and at most those of the call it was killed in; and no more are missing
/// than killed consumers had in hand, unless some have been discarded.
[[nodiscard]] Balance balance(Record& record, bool discarded = false);

/// As new, where only the first `lives` have been used.
void clear(Record& record, std::size_t lives);

/// What a queue may keep when it is drained: itself, and of the segments that it has needed the one in
/// use, a spare one, and one that somebody linked before it was killed.
inline constexpr std::int64_t most_memory_of_a_drained_queue = 3 * 65536 + 2048;

// ---------------------------------------------------------------------------------------------------

template <class T>
void GetNotes::note(const T& item) {
    const auto label = Item<T>::read(item);
    if (!label || label->producer >= Record::most_lives || label->sequence >= Record::most_items) {
        complain(record_, "an item is not as it was put");
        return;
    }
    std::uint64_t& seen = seen_[label->producer];
    if (label->sequence < seen) complain(record_, text_of(*label) + " came out of order");
    seen = std::uint64_t{label->sequence} + 1;
    const std::uint64_t bit = std::uint64_t{1} << label->sequence % 64;
    std::uint64_t& word = record_.got[label->producer][label->sequence / 64];
    if ((std::atomic_ref(word).fetch_or(bit) & bit) != 0) {
        complain(record_, text_of(*label) + " was got twice");
    }
    store(life_.finished, life_.finished + 1);
    store(life_.under_way, life_.under_way - 1);
}

inline void clear(Record& record, std::size_t lives) {
    for (std::size_t i = 0; i < lives; ++i) {
        record.lives[i] = {};
        record.got[i] = {};
    }
    record.progress = record.stop = record.complaints = 0;
    record.complaint = {};
}

inline Balance balance(Record& record, bool discarded) {
    Balance sum;
    if (record.complaints != 0) {
        sum.errors.push_back(std::string(record.complaint.data()) + " (" +
                             std::to_string(record.complaints) + " complaints in all)");
    }
    for (std::size_t i = 0; i < Record::most_lives; ++i) {
        const Life& life = record.lives[i];
        if (life.end == End::killed) ++sum.killed;
        if (life.role == Role::consumer && life.end == End::killed) sum.may_be_lost += life.under_way;
        if (life.role != Role::producer) continue;
        std::uint64_t got = 0;
        std::uint64_t past_last = 0;
        for (std::size_t word = 0; word < record.got[i].size(); ++word) {
            const std::uint64_t bits = record.got[i][word];
            if (bits == 0) continue;
            got += static_cast<std::uint64_t>(std::popcount(bits));
            past_last = word * 64 + static_cast<std::uint64_t>(std::bit_width(bits));
        }
        const std::uint64_t extra = life.end == End::killed ? life.under_way : 0;
        if (past_last > life.finished + extra) {
            sum.errors.push_back("of producer " + std::to_string(i) + " item " +
                                 std::to_string(past_last - 1) + " was got, though it has put " +
                                 std::to_string(life.finished) + " and was at " +
                                 std::to_string(extra) + " more");
        }
        const std::uint64_t put = std::max(life.finished, past_last);
        sum.put += put;
        sum.got += got;
        sum.uncounted += put - life.finished;
    }
    sum.lost = sum.put - sum.got;
    if (sum.lost > sum.may_be_lost && !discarded) {
        sum.errors.push_back(std::to_string(sum.lost) + " items are lost, and killed consumers had " +
                             std::to_string(sum.may_be_lost) + " in hand");
    }
    return sum;
}

}  // namespace chaos
