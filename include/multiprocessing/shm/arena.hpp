// SPDX-License-Identifier: BSL-1.0
//
// The arena: the shared memory of a tree of processes, made before the first child starts and known
// to all of them. It has no name, so nothing is left in the system when the last process of the tree
// ends, however it ends. This header is about blocks and who frees them; handles that are counted are
// in shm/ref.hpp, processes in shm/processes.hpp.
#pragma once

#include <multiprocessing/os/fork.hpp>
#include <multiprocessing/os/random.hpp>
#include <multiprocessing/os/spawn.hpp>
#include <multiprocessing/shm/cells.hpp>
#include <multiprocessing/shm/heap.hpp>
#include <multiprocessing/shm/journal.hpp>
#include <multiprocessing/shm/robust_mutex.hpp>
#include <multiprocessing/shm/segment.hpp>
#include <multiprocessing/shm/wait.hpp>

#include <array>
#include <cstdint>
#include <cstring>
#include <new>
#include <span>
#include <stdexcept>
#include <utility>

namespace multiprocessing::shm {

/// A block or a cell inside a message: where its Counted is. `serial` 0: nothing, or not any more.
struct Ticket {
    Offset offset = 0;
    std::uint64_t serial = 0;
};

/// One process of the tree. Its place in the arena's table of processes.
struct alignas(64) ProcessSlot {
    std::uint64_t holder;      // its id; 0: the slot is free
    std::uint64_t pid;         // 0: not started yet
    std::uint64_t lived_at;    // os::ticks_since_boot(): who has its number and began later is another
    std::uint64_t parent;      // id
    Offset owned;              // blocks that are freed with it
    Offset ledger;             // the first chunk of the list of what it has handles of
    std::uint64_t exit_note;   // 1 and the exit code that it was about to leave with
};

/// Where those wait who wait for several rings at once: each at one of these, and every ring knows at
/// which of them somebody waits for it.
using SelectorWords = std::array<WaitWord, 64>;

/// The process that outlives the tree (see runtime/resource_tracker.hpp): which one, and who may start
/// it.
struct TrackerState {
    RobustMutex mutex;       // held by who starts one
    std::uint64_t pid;       // 0: there has been none
    std::uint64_t lived_at;  // os::ticks_since_boot(), as a ProcessSlot's

    // Who died in the middle has at most started one that nobody knows of, which does no harm.
    void lock() { static_cast<void>(mutex.lock()); }
    void unlock() noexcept { mutex.unlock(); }
};

/// What stands at the start of the arena.
struct ArenaHeader {
    static constexpr std::uint64_t layout = 0x6d70'6172'656e'6104;  // "mparena", version 4
    static constexpr std::size_t slots = 1 << 15;

    std::uint64_t magic;
    std::uint64_t id;      // random: an arena's handles mean nothing in another
    Journal journal;
    HeapState heap;
    CellState cells;
    SelectorWords selectors;
    Offset doomed;         // blocks that nobody can reach any more, freed piece by piece
    std::uint64_t next_slot;
    Offset tracked_names;  // shm/tracked_names.hpp: what is to be taken away after the tree
    TrackerState tracker;
};

/// The arena of this process. *Fork and spawn*: forked children have it by inheritance, spawned ones
/// by descriptor.
class Arena {
public:
    static Arena& instance();

    [[nodiscard]] const Segment& segment() const noexcept { return segment_; }
    [[nodiscard]] ArenaHeader& header() const noexcept { return header_; }
    [[nodiscard]] ProcessSlot& slot(std::size_t index) const noexcept {
        return segment_.at<ProcessSlot>(slots_start())[index];
    }
    template <class T>
    [[nodiscard]] T* at(Offset offset) const noexcept {
        return segment_.at<T>(offset);
    }
    [[nodiscard]] Offset offset_of(const void* address) const noexcept {
        return segment_.offset_of(address);
    }
    [[nodiscard]] bool contains(const void* address) const noexcept {
        return segment_.offset_of(address) < segment_.size();
    }

    [[nodiscard]] Transaction transaction() const { return {segment_, header_.journal}; }
    [[nodiscard]] Heap heap() const { return {segment_, header_.heap}; }
    [[nodiscard]] Cells cells() const { return {segment_, header_.heap, header_.cells}; }

    /// A block on the list `owner`, a word of the arena.
    Block& allocate(Transaction& tx, std::uint64_t size, Offset& owner) const;
    /// Gives a block to another list, if it is still the block that is meant and still on `from`.
    bool transfer(Transaction& tx, Ticket block, Offset& from, Offset& to) const;
    /// Frees a block and everything that hangs on it; in steps, each of which stands by itself. The
    /// transaction is committed on the way.
    void destroy(Transaction& tx, Block& block) const;
    /// Goes on with what a death interrupted.
    void sweep(Transaction& tx) const;

    void hang(Transaction& tx, Offset& list, Block& block) const { heap().hang(tx, list, block); }
    void unhang(Transaction& tx, Block& block) const { heap().unhang(tx, block); }

    /// What is counted, in a cell or a block, as is best for `size` bytes. Its counts are 0.
    Counted& allocate_counted(Transaction& tx, std::uint64_t size) const;
    /// What a ticket names, null if that is not there any more.
    [[nodiscard]] Counted* find(Ticket ticket) const noexcept {
        return Cells::is_cell(ticket.offset) ? cells().find(ticket.offset, ticket.serial)
                                             : heap().find(ticket.offset, ticket.serial);
    }
    /// The same where it is known to be there.
    [[nodiscard]] Counted& named(Ticket ticket) const noexcept { return *at<Counted>(ticket.offset); }
    /// Frees it, and commits.
    void destroy(Transaction& tx, Counted& object) const;

    [[nodiscard]] static Counted& counted_of(void* payload) noexcept {
        return *(static_cast<Counted*>(payload) - 1);
    }
    /// The block whose payload begins with this object.
    template <class T>
    [[nodiscard]] static Block& block_of(T* payload) noexcept {
        static_assert(sizeof(T) > Cells::payload_bytes, "so small an object may stand in a cell");
        return *(reinterpret_cast<Block*>(payload) - 1);
    }
    template <class T>
    [[nodiscard]] static const Block& block_of(const T* payload) noexcept {
        return block_of(const_cast<T*>(payload));
    }
    template <class T = std::byte>
    [[nodiscard]] static T* payload(Counted& object) noexcept {
        return reinterpret_cast<T*>(&object + 1);
    }
    [[nodiscard]] std::uint64_t size_of(const Counted& object) const noexcept {
        return Cells::is_cell(offset_of(&object)) ? Cells::payload_bytes
                                                  : static_cast<const Block&>(object).size;
    }
    /// The handles at the end of a message's payload.
    [[nodiscard]] static std::span<Ticket> tickets(Block& block) noexcept {
        auto* end = reinterpret_cast<Ticket*>(payload(block) + block.size);
        return {end - block.tickets, block.tickets};
    }
    [[nodiscard]] Ticket ticket(const Counted& object) const noexcept {
        return {offset_of(&object), object.serial};
    }

private:
    /// Has nobody reach it any more: a block waits for sweep(), a cell is free at once.
    void doom(Transaction& tx, Counted& object) const;

    // Address space costs nothing; half of it at most is block memory.
    static constexpr std::uint64_t reserved_bytes = std::uint64_t{64} << 30;

    explicit Arena(Segment segment) : segment_(std::move(segment)), header_(*segment_.at<ArenaHeader>(0)) {}
    static Arena* make();
    [[nodiscard]] static constexpr Offset slots_start() noexcept {
        return (sizeof(ArenaHeader) + 63) & ~std::uint64_t{63};
    }

    Segment segment_;
    ArenaHeader& header_;
};

inline Arena& Arena::instance() {
    // Never destroyed: handles in static storage may be the last to go.
    static constinit os::Lazy<Arena> arena;
    return arena.get([] { return make(); });
}

inline Arena* Arena::make() {
    if (const auto& inherited = os::spawn_environment()) {
        auto* arena = new Arena(Segment::attach(os::Fd(inherited->arena_fd)));
        if (arena->header_.magic != ArenaHeader::layout) {
            throw std::runtime_error("the parent's shared memory has another layout: it was compiled "
                                     "with another version of multiprocessing");
        }
        return arena;
    }
    auto* arena = new Arena(Segment::create(reserved_bytes));
    auto* header = new (&arena->header_) ArenaHeader{};
    header->magic = ArenaHeader::layout;
    header->id = os::random_number();
    arena->heap().format(slots_start() + ArenaHeader::slots * sizeof(ProcessSlot));
    return arena;
}

inline Block& Arena::allocate(Transaction& tx, std::uint64_t size, Offset& owner) const {
    Block& block = heap().allocate(tx, size);
    hang(tx, owner, block);
    return block;
}

inline bool Arena::transfer(Transaction& tx, Ticket ticket, Offset& from, Offset& to) const {
    Block* block = heap().find(ticket.offset, ticket.serial);
    if (block == nullptr || block->owner != offset_of(&from)) return false;
    unhang(tx, *block);
    hang(tx, to, *block);
    return true;
}

inline Counted& Arena::allocate_counted(Transaction& tx, std::uint64_t size) const {
    if (size <= Cells::payload_bytes) return cells().allocate(tx);
    return heap().allocate(tx, size);
}

inline void Arena::destroy(Transaction& tx, Counted& object) const {
    if (!Cells::is_cell(offset_of(&object))) return destroy(tx, static_cast<Block&>(object));
    const Offset slab = cells().free(tx, object);
    tx.commit();
    if (slab != 0) heap().trim(slab);
}

inline void Arena::destroy(Transaction& tx, Block& block) const {
    if (block.owned == 0 && block.tickets == 0) {  // the usual case needs no detour
        if (block.owner != 0) unhang(tx, block);
        heap().free(tx, block);
        tx.commit();
        heap().trim(offset_of(&block));
        return;
    }
    if (block.owner != 0) unhang(tx, block);
    hang(tx, header_.doomed, block);
    tx.commit();
    sweep(tx);
}

inline void Arena::doom(Transaction& tx, Counted& object) const {
    if (Cells::is_cell(offset_of(&object))) {
        cells().free(tx, object);
    } else {
        hang(tx, header_.doomed, static_cast<Block&>(object));
    }
}

inline void Arena::sweep(Transaction& tx) const {
    while (header_.doomed != 0) {
        Block& block = *at<Block>(header_.doomed);
        if (block.owned != 0) {  // what it owns goes first
            Block& inner = *at<Block>(block.owned);
            unhang(tx, inner);
            hang(tx, header_.doomed, inner);
        } else if (block.tickets != 0) {  // handles in a message that nobody will read
            const Ticket first = tickets(block).front();
            tx.set(block.tickets, block.tickets - 1);
            Counted* object = find(first);
            if (object != nullptr && (object->counts >> 32) != 0) {
                tx.set(object->counts, object->counts - (std::uint64_t{1} << 32));
                if (object->counts == 0) doom(tx, *object);
            }
        } else {
            unhang(tx, block);
            heap().free(tx, block);
            tx.commit();
            heap().trim(offset_of(&block));
            continue;
        }
        tx.commit();
    }
}

}  // namespace multiprocessing::shm
