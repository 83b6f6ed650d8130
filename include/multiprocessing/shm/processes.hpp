// SPDX-License-Identifier: BSL-1.0
//
// The processes of the tree as the arena knows them: an id for each that is not used again, what each
// holds (so that its death can give it back), and whether it lives.
#pragma once

#include <multiprocessing/os/fork.hpp>
#include <multiprocessing/os/process.hpp>
#include <multiprocessing/shm/arena.hpp>

#include <array>
#include <atomic>
#include <cstdint>
#include <mutex>
#include <new>
#include <optional>
#include <stdexcept>
#include <vector>

namespace multiprocessing::shm {

/// Names a process of the tree: the slot it has (low 15 bits) and how often slots have gone round. It
/// fits a futex word beside one flag. 0 is nobody.
using HolderId = std::uint32_t;

inline constexpr HolderId holder_mask = 0x7fff'ffff;

/// A list of the counted blocks that a process has handles of, in chunks of shared memory, so that
/// somebody else can drop them when the process is dead.
struct LedgerChunk {
    static constexpr std::size_t capacity = 119;  // a block of 1 KiB with its header
    Offset next;
    std::array<Offset, capacity> entries;
};

/// This process's side of the table. Private memory; a forked child inherits a true copy, because
/// ChildSlot keeps the mutex from the copying of the ledger to the fork.
class Processes {
public:
    static Processes& instance();

    /// This process's id.
    [[nodiscard]] HolderId self();
    /// Whether the process runs: false for zombies and for who has been reaped.
    [[nodiscard]] bool alive(HolderId id) const;
    [[nodiscard]] ProcessSlot& slot(HolderId id) const {
        return Arena::instance().slot(id % ArenaHeader::slots);
    }
    /// The list of blocks that end with this process.
    [[nodiscard]] Offset& owned() { return slot(self()).owned; }

    /// Notes a handle: the block's count must have been raised in the same transaction.
    std::uint32_t enter(Transaction& tx, Block& block);
    /// Drops a handle, and the block with the last one.
    void drop(std::uint32_t entry, std::uint32_t generation) noexcept;
    /// Changes when handles from before mean nothing here, as in a child that the library did not fork.
    [[nodiscard]] std::uint32_t generation() const noexcept { return generation_; }

    /// A place for a child about to be made.
    HolderId reserve();
    /// Notes all handles of this process for that child too, which will have a copy of its memory.
    void bequeath(HolderId child);
    void adopt(HolderId id);
    /// Gives back what a process that has ended held. Idempotent.
    void release(HolderId id);

    /// Before this process leaves in order: with which code, for those who are not told by the kernel.
    void note_exit(int code);
    /// What a process that has ended noted.
    [[nodiscard]] std::optional<int> noted_exit(HolderId id) const;

    /// Guards the private side; held across a fork by ChildSlot.
    os::ForkAwareMutex mutex;

private:
    friend class ChildSlot;

    Processes();
    void join();
    [[nodiscard]] HolderId claim_slot(Transaction& tx, std::uint64_t parent);
    void sweep_one();

    static void set_started(Transaction& tx, ProcessSlot& slot, int pid);

    std::atomic<HolderId> self_{0};
    std::atomic<std::uint32_t> epoch_{0};
    std::uint32_t generation_ = 1;
    std::vector<LedgerChunk*> chunks_;
    std::vector<std::uint32_t> free_entries_;
    std::size_t sweep_cursor_ = 0;
};

/// Whether a child has a copy of the memory of the process that makes it, and so its handles.
enum class Inherits { nothing, handles };

/// A slot that a parent has prepared for a child. Released by the destructor if the child was not
/// started. For a child that inherits, no handle of the process may come or go between this and
/// started(), so make it right before the fork.
class ChildSlot {
public:
    explicit ChildSlot(Inherits inherits);
    /// One that another process has reserved, for a child that inherits this one's handles. It stays
    /// that other's to release.
    explicit ChildSlot(HolderId reserved);
    ChildSlot(const ChildSlot&) = delete;
    ChildSlot& operator=(const ChildSlot&) = delete;
    ~ChildSlot();
    [[nodiscard]] HolderId id() const noexcept { return id_; }
    /// In the parent: the child runs.
    void started(int pid);
    /// In the forked child, before it touches any handle.
    void adopt();

private:
    std::unique_lock<os::ForkAwareMutex> lock_;
    HolderId id_ = 0;
    bool settled_;
};

[[nodiscard]] inline HolderId self() { return Processes::instance().self(); }
[[nodiscard]] inline bool alive(HolderId id) { return Processes::instance().alive(id); }
inline void release_process(HolderId id) { Processes::instance().release(id); }
inline void note_exit(int code) { Processes::instance().note_exit(code); }
[[nodiscard]] inline std::optional<int> noted_exit(HolderId id) {
    return Processes::instance().noted_exit(id);
}
[[nodiscard]] inline int arena_descriptor() { return Arena::instance().segment().descriptor(); }

// ---------------------------------------------------------------------------------------------------

inline Processes& Processes::instance() {
    static constinit os::Lazy<Processes> processes;
    return processes.get([] { return new Processes; });
}

inline Processes::Processes() {
    join();
}

inline HolderId Processes::self() {
    // The usual case: two loads. A child forked by others than the library has its parent's id here
    // and gets one of its own at first use; the handles it inherited stay its parent's.
    // Acquire: the id after the epoch that it belongs to.
    if (epoch_.load(std::memory_order_acquire) != os::fork_epoch()) [[unlikely]] join();
    return self_.load(std::memory_order_relaxed);
}

inline void Processes::join() {
    const std::scoped_lock lock(mutex);
    if (epoch_.load() == os::fork_epoch()) return;
    ++generation_;
    chunks_.clear();
    free_entries_.clear();
    const auto& spawned = os::spawn_environment();
    const Arena& arena = Arena::instance();
    Transaction tx = arena.transaction();
    // The parent has reserved a place, unless it was killed since and somebody has swept up.
    if (self_.load() == 0 && spawned && slot(spawned->holder).holder == spawned->holder) {
        self_.store(spawned->holder);
    } else {
        self_.store(claim_slot(tx, self_.load()));
    }
    set_started(tx, slot(self_.load()), os::this_pid());
    tx.commit();
    epoch_.store(os::fork_epoch());
}

inline HolderId Processes::claim_slot(Transaction& tx, std::uint64_t parent) {
    const Arena& arena = Arena::instance();
    ArenaHeader& header = arena.header();
    std::uint64_t next = header.next_slot;
    for (std::size_t tried = 0; tried < ArenaHeader::slots; ++tried) {
        next = (next + 1) & holder_mask;
        const auto id = static_cast<HolderId>(next);
        ProcessSlot& slot = arena.slot(id % ArenaHeader::slots);
        if (id == 0 || slot.holder != 0) continue;
        arena.heap().commit(arena.offset_of(&slot), sizeof(ProcessSlot));
        tx.set(header.next_slot, next);
        tx.set(slot.pid, 0);
        tx.set(slot.lived_at, 0);
        tx.set(slot.parent, parent);
        tx.set(slot.owned, 0);
        tx.set(slot.ledger, 0);
        tx.set(slot.exit_note, 0);
        tx.set(slot.holder, id);
        return id;
    }
    throw std::runtime_error("too many processes share one arena: all " +
                             std::to_string(ArenaHeader::slots) + " places are taken");
}

inline void Processes::set_started(Transaction& tx, ProcessSlot& slot, int pid) {
    // Not the start time from /proc, which costs a tenth of a start. This comes to the same: a process
    // with this number that began later can only be another.
    tx.set(slot.lived_at, os::ticks_since_boot());
    tx.set(slot.pid, static_cast<std::uint64_t>(pid));
}

inline bool Processes::alive(HolderId id) const {
    if (id == 0) return false;
    ProcessSlot& slot = this->slot(id);
    const auto load = [](std::uint64_t& word) {
        return std::atomic_ref(word).load(std::memory_order_acquire);
    };
    if (load(slot.holder) != id) return false;
    const auto pid = static_cast<int>(load(slot.pid));
    if (pid == 0) {  // not started: it will live if its parent does
        const auto parent = static_cast<HolderId>(load(slot.parent));
        return parent != id && alive(parent);
    }
    const auto lived_at = load(slot.lived_at);
    const auto state = os::process_state(pid);
    if (load(slot.holder) != id) return false;
    return state && !state->ended &&
           (lived_at == 0 || state->start_time <= lived_at);
}

inline std::uint32_t Processes::enter(Transaction& tx, Block& block) {
    const Arena& arena = Arena::instance();
    if (free_entries_.empty()) {
        // First of all, so that nothing below throws once the private side has changed, nor drop().
        const std::size_t chunks = chunks_.size() + 1;
        if (chunks > chunks_.capacity()) {
            chunks_.reserve(2 * chunks);
            free_entries_.reserve(2 * chunks * LedgerChunk::capacity);
        }
        ProcessSlot& mine = slot(self_.load());
        Block& room = arena.allocate(tx, sizeof(LedgerChunk), mine.owned);
        auto* chunk = new (Arena::payload(room)) LedgerChunk{};
        chunk->next = mine.ledger;
        tx.set(mine.ledger, arena.offset_of(chunk));
        const auto first = static_cast<std::uint32_t>(chunks_.size() * LedgerChunk::capacity);
        chunks_.push_back(chunk);
        for (auto entry = static_cast<std::uint32_t>(LedgerChunk::capacity); entry-- > 0;) {
            free_entries_.push_back(first + entry);
        }
    }
    const std::uint32_t entry = free_entries_.back();
    free_entries_.pop_back();
    tx.set(chunks_[entry / LedgerChunk::capacity]->entries[entry % LedgerChunk::capacity],
           arena.offset_of(&block));
    return entry;
}

inline void Processes::drop(std::uint32_t entry, std::uint32_t generation) noexcept {
    const std::scoped_lock lock(mutex);
    if (generation != generation_ || epoch_.load() != os::fork_epoch()) return;
    const Arena& arena = Arena::instance();
    Offset& place = chunks_[entry / LedgerChunk::capacity]->entries[entry % LedgerChunk::capacity];
    Transaction tx = arena.transaction();
    Block& block = *arena.at<Block>(place);
    tx.set(place, 0);
    tx.set(block.counts, block.counts - 1);
    if (block.counts == 0) {
        arena.destroy(tx, block);
    } else {
        tx.commit();
    }
    free_entries_.push_back(entry);
}

inline HolderId Processes::reserve() {
    sweep_one();
    Transaction tx = Arena::instance().transaction();
    const HolderId id = claim_slot(tx, self_.load());
    tx.commit();
    return id;
}

inline void Processes::bequeath(HolderId id) {
    if (chunks_.empty()) return;
    const Arena& arena = Arena::instance();
    ProcessSlot& child = slot(id);
    Transaction tx = arena.transaction();
    if (child.holder != id) return;  // its parent was killed, and somebody has swept up
    // In the parent's order, so that an entry's number means the same handle in the child.
    for (const LedgerChunk* chunk : chunks_) {
        Block& room = arena.allocate(tx, sizeof(LedgerChunk), child.owned);
        auto* copy = new (Arena::payload(room)) LedgerChunk{};
        copy->next = child.ledger;
        tx.set(child.ledger, arena.offset_of(copy));
        tx.commit();
        for (std::size_t i = 0; i < LedgerChunk::capacity; ++i) {
            if (chunk->entries[i] == 0) continue;
            if (tx.room() < 2) tx.commit();
            Block& block = *arena.at<Block>(chunk->entries[i]);
            tx.set(block.counts, block.counts + 1);
            tx.set(copy->entries[i], chunk->entries[i]);
        }
        tx.commit();
    }
}

inline void Processes::note_exit(int code) {
    std::atomic_ref(slot(self()).exit_note)
        .store(1 + static_cast<std::uint64_t>(code & 0xff), std::memory_order_release);
}

inline std::optional<int> Processes::noted_exit(HolderId id) const {
    ProcessSlot& slot = this->slot(id);
    const auto note = std::atomic_ref(slot.exit_note).load(std::memory_order_acquire);
    if (slot.holder != id || note == 0) return std::nullopt;
    return static_cast<int>(note - 1);
}

inline void Processes::adopt(HolderId id) {
    const Arena& arena = Arena::instance();
    {
        Transaction tx = arena.transaction();
        if (slot(id).holder != id) {  // the parent was killed, and somebody has swept up
            tx.unlock();
            join();
            return;
        }
        // The clock is left to its parent: whatever a child calls, it has to bring in first.
        tx.set(slot(id).pid, static_cast<std::uint64_t>(os::this_pid()));
        tx.commit();
    }
    self_.store(id);
    // The child's chunks are other blocks than the parent's, in the same order.
    std::size_t left = chunks_.size();
    for (Offset at = slot(id).ledger; at != 0 && left > 0;) {
        chunks_[--left] = arena.at<LedgerChunk>(at);
        at = chunks_[left]->next;
    }
    epoch_.store(os::fork_epoch());
}

inline void Processes::release(HolderId id) {
    const Arena& arena = Arena::instance();
    ProcessSlot& slot = this->slot(id);
    Transaction tx = arena.transaction();
    if (slot.holder != id) return;
    for (Offset at = slot.ledger; at != 0;) {
        auto* chunk = arena.at<LedgerChunk>(at);
        for (Offset& entry : chunk->entries) {
            if (entry == 0) continue;
            Block& block = *arena.at<Block>(entry);
            tx.set(entry, 0);
            tx.set(block.counts, block.counts - 1);
            if (block.counts == 0) {
                arena.destroy(tx, block);
            } else {
                tx.commit();
            }
        }
        at = chunk->next;
    }
    tx.set(slot.ledger, 0);
    tx.commit();
    while (slot.owned != 0) arena.destroy(tx, *arena.at<Block>(slot.owned));
    tx.set(slot.holder, 0);
    tx.commit();
    arena.sweep(tx);
}

inline void Processes::sweep_one() {
    // Children of dead parents have nobody who reaps them here: every process start looks at one
    // slot, so that none stays for ever and no start pays for all.
    const Arena& arena = Arena::instance();
    const std::size_t used = std::min<std::size_t>(arena.header().next_slot + 1, ArenaHeader::slots);
    for (std::size_t looked = 0; looked < std::min<std::size_t>(used, 64); ++looked) {
        sweep_cursor_ = (sweep_cursor_ + 1) % used;
        const ProcessSlot& candidate = arena.slot(sweep_cursor_);
        const auto holder = static_cast<HolderId>(candidate.holder);
        if (holder == 0 || holder == self_.load() || candidate.parent == self_.load()) continue;
        if (!alive(holder)) release(holder);
        return;
    }
}

inline ChildSlot::ChildSlot(Inherits inherits) : settled_(false) {
    Processes& processes = Processes::instance();
    static_cast<void>(processes.self());
    lock_ = std::unique_lock(processes.mutex);
    id_ = processes.reserve();
    if (inherits == Inherits::nothing) {
        lock_.unlock();
        return;
    }
    try {
        processes.bequeath(id_);
    } catch (...) {
        processes.release(id_);
        throw;
    }
}

inline ChildSlot::ChildSlot(HolderId reserved) : id_(reserved), settled_(true) {
    Processes& processes = Processes::instance();
    static_cast<void>(processes.self());
    lock_ = std::unique_lock(processes.mutex);
    processes.bequeath(id_);
}

inline ChildSlot::~ChildSlot() {
    if (!settled_) Processes::instance().release(id_);
}

inline void ChildSlot::started(int pid) {
    settled_ = true;
    const Arena& arena = Arena::instance();
    ProcessSlot& slot = Processes::instance().slot(id_);
    {
        Transaction tx = arena.transaction();
        // If it is gone already, nobody else can have its number yet.
        if (slot.holder == id_) Processes::set_started(tx, slot, pid);
        tx.commit();
    }
    if (lock_) lock_.unlock();
}

inline void ChildSlot::adopt() {
    settled_ = true;
    Processes::instance().adopt(id_);
    lock_.release();
}

}  // namespace multiprocessing::shm
