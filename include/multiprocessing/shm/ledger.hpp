// SPDX-License-Identifier: BSL-1.0
//
// What a process has handles of, twice: in the arena, so that somebody else can drop them when the
// process is dead, and beside it in private memory how many copies of each handle there are.
#pragma once

#include <multiprocessing/os/fork.hpp>
#include <multiprocessing/shm/arena.hpp>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>

namespace multiprocessing::shm {

/// A part of the list that is in the arena: where the Counted of each thing is, or 0.
struct LedgerChunk {
    static constexpr std::size_t capacity = 119;  // a block of 1 KiB with its header
    Offset next;
    std::array<Offset, capacity> entries;
};

/// How many copies of a handle this process has.
using CopyCount = std::atomic<std::uint32_t>;

/// The private side. Its owner has a mutex for all of this; the counts themselves are raised and
/// lowered without it. A forked child inherits a true copy of the counts: those handles that other
/// threads had in their hands at the fork stay for as long as the child lives, as a shared_ptr's
/// object would.
class Ledger {
public:
    /// Notes a handle of which there is one copy, in the list of `process`. The object's count must
    /// have been raised in the same transaction.
    CopyCount& enter(Transaction& tx, Counted& object, ProcessSlot& process);
    /// Where in the arena the handle is noted that has this count; null if it is another process's,
    /// from which this one was forked.
    [[nodiscard]] static Offset* entry_of(const CopyCount& count) noexcept;
    /// The entry of a dropped handle may be used again. Commits.
    void give_back(Transaction& tx, CopyCount& count, ProcessSlot& process) noexcept;

    /// Notes all handles for a process that will have a copy of this one's memory.
    void copy_for(Transaction& tx, ProcessSlot& process) const;
    /// This is that copy: its own list takes the place of its parent's.
    void adopt(Offset ledger) noexcept;
    /// The handles that there are mean nothing in this process. They may have been caught by the
    /// fork in the middle of a change.
    void forget() noexcept { room_ = nullptr; }

private:
    struct Chunk {
        // One of eight words says where in the chunk it is, for a way from each count to its chunk
        // that wants no alignment: malloc takes twice the memory for that.
        static constexpr std::uint32_t marker = std::uint32_t{1} << 31;
        static constexpr std::size_t words_size = LedgerChunk::capacity / 7 * 8;
        static_assert(LedgerChunk::capacity % 7 == 0);

        std::array<CopyCount, words_size> words;  // first, for of()
        LedgerChunk* shared = nullptr;
        Chunk* older;  // in the order of the list in the arena
        Chunk* next;   // with free entries
        std::uint32_t epoch =
            os::fork_epoch();    // another: it is of a process that this was forked from
        std::uint16_t free = 0;  // the first free entry; the count of each is the next one
        std::uint16_t used = 0;

        Chunk(Chunk* before, Chunk* with_room) noexcept : older(before), next(with_room) {
            for (std::uint32_t i = 0; i < words_size; i += 8)
                words[i].store(marker | i, std::memory_order_relaxed);
            for (std::uint32_t i = 0; i < LedgerChunk::capacity; ++i)
                count(i).store(i + 1, std::memory_order_relaxed);
        }
        [[nodiscard]] static Chunk& of(const CopyCount& count) noexcept {
            const CopyCount* word = &count;
            std::uint32_t value = 0;
            while (((value = word->load(std::memory_order_relaxed)) & marker) == 0) --word;
            return *reinterpret_cast<Chunk*>(const_cast<CopyCount*>(word - (value & ~marker)));
        }
        [[nodiscard]] CopyCount& count(std::size_t entry) noexcept {
            return words[entry + entry / 7 + 1];
        }
        [[nodiscard]] std::uint16_t entry(const CopyCount& count) const noexcept {
            const auto word = &count - words.data();
            return static_cast<std::uint16_t>(word - word / 8 - 1);
        }
        [[nodiscard]] bool is_mine() const noexcept { return epoch == os::fork_epoch(); }
    };

    void add_chunk(Transaction& tx, ProcessSlot& process);
    void remove_chunk(Transaction& tx, Chunk& chunk, ProcessSlot& process) noexcept;

    Chunk* newest_ = nullptr;  // behind those of this process are those of its parents, never freed
    Chunk* room_ = nullptr;    // those with free entries; an empty one only if it is alone
};

inline CopyCount& Ledger::enter(Transaction& tx, Counted& object, ProcessSlot& process) {
    if (room_ == nullptr) add_chunk(tx, process);
    Chunk& chunk = *room_;
    CopyCount& count = chunk.count(chunk.free);
    tx.set(chunk.shared->entries[chunk.free], Arena::instance().offset_of(&object));
    chunk.free = static_cast<std::uint16_t>(count.exchange(1, std::memory_order_relaxed));
    if (++chunk.used == LedgerChunk::capacity) room_ = chunk.next;
    return count;
}

inline void Ledger::add_chunk(Transaction& tx, ProcessSlot& process) {
    // What throws comes first: the private side changes as a whole or not at all.
    auto chunk = std::make_unique<Chunk>(newest_, room_);
    const Arena& arena = Arena::instance();
    Block& room = arena.allocate(tx, sizeof(LedgerChunk), process.owned);
    chunk->shared = new (Arena::payload(room)) LedgerChunk{};
    chunk->shared->next = process.ledger;
    tx.set(process.ledger, arena.offset_of(chunk->shared));
    newest_ = room_ = chunk.release();
}

inline Offset* Ledger::entry_of(const CopyCount& count) noexcept {
    const Chunk& chunk = Chunk::of(count);
    return chunk.is_mine() ? &chunk.shared->entries[chunk.entry(count)] : nullptr;
}

inline void Ledger::give_back(Transaction& tx, CopyCount& count, ProcessSlot& process) noexcept {
    Chunk& chunk = Chunk::of(count);
    count.store(chunk.free, std::memory_order_relaxed);
    chunk.free = chunk.entry(count);
    Chunk* superfluous = nullptr;
    if (chunk.used-- == LedgerChunk::capacity) {
        if (room_ != nullptr && room_->used == 0) superfluous = room_;
        chunk.next = room_;
        room_ = &chunk;
    } else if (chunk.used == 0 && (room_ != &chunk || chunk.next != nullptr)) {
        superfluous = &chunk;
    }
    if (superfluous != nullptr) remove_chunk(tx, *superfluous, process);
}

inline void Ledger::remove_chunk(Transaction& tx, Chunk& chunk, ProcessSlot& process) noexcept {
    Chunk** room = &room_;
    while (*room != &chunk) room = &(*room)->next;
    *room = chunk.next;
    Chunk** link = &newest_;
    Offset* shared_link = &process.ledger;
    for (; *link != &chunk; link = &(*link)->older) shared_link = &(*link)->shared->next;
    tx.set(*shared_link, chunk.shared->next);
    Arena::instance().destroy(tx, Arena::block_of(chunk.shared));
    *link = chunk.older;
    delete &chunk;
}

inline void Ledger::copy_for(Transaction& tx, ProcessSlot& process) const {
    const Arena& arena = Arena::instance();
    // In this process's order, so that a count means the same handle in the other.
    Offset* link = &process.ledger;
    for (const Chunk* chunk = newest_; chunk != nullptr && chunk->is_mine(); chunk = chunk->older) {
        Block& room = arena.allocate(tx, sizeof(LedgerChunk), process.owned);
        auto* copy = new (Arena::payload(room)) LedgerChunk{};
        tx.set(*link, arena.offset_of(copy));
        link = &copy->next;
        tx.commit();
        for (std::size_t i = 0; i < LedgerChunk::capacity; ++i) {
            const Offset object = chunk->shared->entries[i];
            if (object == 0) continue;
            if (tx.room() < 2) tx.commit();
            std::uint64_t& counts = arena.at<Counted>(object)->counts;
            tx.set(counts, counts + 1);
            tx.set(copy->entries[i], object);
        }
        tx.commit();
    }
}

inline void Ledger::adopt(Offset ledger) noexcept {
    Chunk* chunk = newest_;
    for (Offset at = ledger; at != 0; at = chunk->shared->next, chunk = chunk->older) {
        chunk->shared = Arena::instance().at<LedgerChunk>(at);
        chunk->epoch = os::fork_epoch();
    }
}

}  // namespace multiprocessing::shm
