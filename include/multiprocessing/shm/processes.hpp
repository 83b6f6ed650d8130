// SPDX-License-Identifier: BSL-1.0
//
// The processes of the tree as the arena knows them: an id for each that is not used again, what each
// holds (so that its death can give it back), and whether it lives.
#pragma once

#include <multiprocessing/os/fork.hpp>
#include <multiprocessing/os/process.hpp>
#include <multiprocessing/shm/arena.hpp>
#include <multiprocessing/shm/ledger.hpp>

#include <atomic>
#include <cstdint>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>

namespace multiprocessing::shm {

/// Names a process of the tree: the slot it has (low 15 bits) and how often slots have gone round. It
/// fits a futex word beside one flag. 0 is nobody.
using HolderId = std::uint32_t;

inline constexpr HolderId holder_mask = 0x7fff'ffff;

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

    /// Notes a handle: the object's count must have been raised in the same transaction.
    CopyCount& enter(Transaction& tx, Counted& object) {
        return ledger_.enter(tx, object, slot(self_.load()));
    }
    /// Drops a handle of which there is no copy any more, and the object with its last handle.
    /// Handles from before mean nothing in a child that the library did not fork.
    void drop(CopyCount& count) noexcept;

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

    static void drop_entry(Transaction& tx, Offset& entry);
    static void set_started(Transaction& tx, ProcessSlot& slot, int pid);

    std::atomic<HolderId> self_{0};
    std::atomic<std::uint32_t> epoch_{0};
    Ledger ledger_;
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
    ledger_.forget();
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

inline void Processes::drop(CopyCount& count) noexcept {
    const std::scoped_lock lock(mutex);
    if (epoch_.load() != os::fork_epoch()) return;
    Offset* const entry = ledger_.entry_of(count);
    if (entry == nullptr) return;
    const Arena& arena = Arena::instance();
    Transaction tx = arena.transaction();
    drop_entry(tx, *entry);
    ledger_.give_back(tx, count, slot(self_.load()));
}

inline void Processes::drop_entry(Transaction& tx, Offset& entry) {
    const Arena& arena = Arena::instance();
    Counted& object = *arena.at<Counted>(entry);
    tx.set(entry, 0);
    tx.set(object.counts, object.counts - 1);
    if (object.counts == 0) {
        arena.destroy(tx, object);
    } else {
        tx.commit();
    }
}

inline HolderId Processes::reserve() {
    sweep_one();
    Transaction tx = Arena::instance().transaction();
    const HolderId id = claim_slot(tx, self_.load());
    tx.commit();
    return id;
}

inline void Processes::bequeath(HolderId id) {
    const Arena& arena = Arena::instance();
    Transaction tx = arena.transaction();
    if (slot(id).holder != id) return;  // its parent was killed, and somebody has swept up
    ledger_.copy_for(tx, slot(id));
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
    ledger_.adopt(slot(id).ledger);
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
            if (entry != 0) drop_entry(tx, entry);
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
