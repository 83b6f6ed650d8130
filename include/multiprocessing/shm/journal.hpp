// SPDX-License-Identifier: BSL-1.0
//
// Changes to the arena's own records that happen whole or not at all, whoever is killed wherever: an
// undo journal. Before a word is changed its old value is written down; a transaction that does not
// reach its end, because of an exception or because its process died, is rolled back from there, in
// the second case by the next process to take the mutex.
#pragma once

#include <multiprocessing/os/fault.hpp>
#include <multiprocessing/shm/robust_mutex.hpp>
#include <multiprocessing/shm/segment.hpp>

#include <array>
#include <atomic>
#include <cassert>
#include <cstddef>
#include <cstdint>

namespace multiprocessing::shm {

/// The shared part: lives at a fixed place in the arena.
struct Journal {
    // The longest transaction splits a block from the largest order to the smallest: 5 words each.
    static constexpr std::size_t capacity = 512;
    struct Entry {
        Offset where;
        std::uint64_t before;
    };

    RobustMutex mutex;
    std::uint64_t length = 0;
    std::array<Entry, capacity> entries{};

    // A killed process has executed a prefix of its instructions, so the compiler's order is the only
    // one to keep: the processor's is kept by the kernel's switch away from the dead.
    static void order() noexcept { std::atomic_signal_fence(std::memory_order_seq_cst); }
};

/// Undoes what a transaction has set and not committed, in the arena that is mapped at `base`. With the
/// mutex, or where nobody else is left.
void roll_back(std::byte* base, Journal& journal) noexcept;

/// Holds the arena's mutex; what is set through it is undone unless commit() is called.
class Transaction {
public:
    Transaction(const Segment& segment, Journal& journal) : segment_(segment), journal_(journal) {
        if (journal_.mutex.lock()) roll_back();
        MULTIPROCESSING_FAULT_POINT("transaction: begun");
    }
    Transaction(const Transaction&) = delete;
    Transaction& operator=(const Transaction&) = delete;
    ~Transaction() { unlock(); }

    /// Changes one word of the arena.
    void set(std::uint64_t& word, std::uint64_t value) noexcept {
        assert(journal_.length < Journal::capacity);
        journal_.entries[journal_.length] = {segment_.offset_of(&word), word};
        Journal::order();
        journal_.length = journal_.length + 1;
        Journal::order();
        MULTIPROCESSING_FAULT_POINT("transaction: word noted, not changed");
        // Atomic for those who look at single words without the mutex.
        std::atomic_ref(word).store(value, std::memory_order_release);
        MULTIPROCESSING_FAULT_POINT("transaction: word changed");
    }
    /// From here on everything set so far stands. The transaction may go on with a new unit.
    void commit() noexcept {
        Journal::order();
        MULTIPROCESSING_FAULT_POINT("transaction: not committed");
        journal_.length = 0;
        Journal::order();
        MULTIPROCESSING_FAULT_POINT("transaction: committed");
    }
    /// Undoes what has been set since the last commit().
    void roll_back() noexcept { shm::roll_back(segment_.at(0), journal_); }
    /// Rolls back and lets others in; what the destructor does otherwise.
    void unlock() noexcept;
    /// How many more words can be set before commit().
    [[nodiscard]] std::size_t room() const noexcept { return Journal::capacity - journal_.length; }

private:
    const Segment& segment_;
    Journal& journal_;
    bool locked_ = true;
};

inline void roll_back(std::byte* base, Journal& journal) noexcept {
    while (journal.length != 0) {
        const Journal::Entry& entry = journal.entries[journal.length - 1];
        std::atomic_ref(*reinterpret_cast<std::uint64_t*>(base + entry.where))
            .store(entry.before, std::memory_order_release);
        Journal::order();
        journal.length = journal.length - 1;
        Journal::order();
        MULTIPROCESSING_FAULT_POINT("transaction: word restored");
    }
}

inline void Transaction::unlock() noexcept {
    if (!locked_) return;
    roll_back();
    locked_ = false;
    journal_.mutex.unlock();
    MULTIPROCESSING_FAULT_POINT("transaction: ended");
}

}  // namespace multiprocessing::shm
