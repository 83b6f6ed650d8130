// SPDX-License-Identifier: BSL-1.0
//
// The allocator of the arena: buddies of 128 bytes to the whole, freed memory reused first (fresh
// pages cost twenty times as much as warm ones), what is free in excess given back to the system.
// Every change is part of a Transaction, so a death inside leaves nothing half done. Answers
// CPython's `multiprocessing.heap`.
#pragma once

#include <multiprocessing/shm/journal.hpp>
#include <multiprocessing/shm/segment.hpp>

#include <array>
#include <bit>
#include <cstdint>
#include <new>

namespace multiprocessing::shm {

/// What stands right before each payload, that of a block as that of a cell (shm/cells.hpp), and
/// what tickets name. Which of the two it is shows from its place: that of a cell is a multiple
/// of 32.
struct Counted {
    std::uint64_t serial;  // unique in the arena for ever; 0 while it is free
    std::uint64_t counts;  // handles: of processes (low half) and inside messages (high half)
};

/// What only blocks have. `owner` is the list that frees this block with its own end: a process's,
/// another block's, or that of the doomed; 0 for blocks that live by their counts.
struct BlockLinks {
    std::uint64_t size;       // of the payload, in bytes
    Offset owner;             // the list head (a word of the arena) this block hangs on
    Offset next;              // in the owner's list, or in a list of free blocks
    Offset previous;
    Offset owned;             // head of the list of blocks that go when this one goes
    std::uint64_t tickets;    // how many handles the payload, a message, ends with
};

struct alignas(64) Block : BlockLinks, Counted {};
static_assert(sizeof(Block) == 64, "payloads start at a cache line");
static_assert(sizeof(BlockLinks) == 48, "what is counted stands right before the payload");

/// The shared part of the allocator.
struct HeapState {
    static constexpr int least_order = 7;   // 128 bytes: a header and a line of payload
    static constexpr int orders = 48;

    Offset start = 0;       // of block memory; blocks are aligned relative to it
    Offset tags = 0;        // a byte for each 128 bytes of block memory
    Offset pages = 0;       // a bit for each page of the segment: it has memory
    std::uint64_t capacity = 0;
    std::uint64_t frontier = 0;   // block memory beyond has never been used
    std::uint64_t next_serial = 1;
    std::uint64_t allocated = 0;  // bytes in blocks that are in use
    std::uint64_t large = 0;      // how large blocks have been of late, for the policy only
    std::atomic<std::uint64_t> committed{0};  // bytes that have memory, for the policy only
    std::array<Offset, orders> free{};
};

/// The allocator itself: a view of the state, with a transaction to work in.
class Heap {
public:
    Heap(const Segment& segment, HeapState& state) : segment_(segment), state_(state) {}

    /// Lays out the memory after `first`, in a new segment.
    void format(Offset first);

    /// A block for `size` bytes, not zeroed. Throws std::bad_alloc; then the transaction has changed
    /// nothing that its roll-back does not undo.
    [[nodiscard]] Block& allocate(Transaction& tx, std::uint64_t size);
    /// Takes a block back. The caller has taken it off its owner's list. Call trim() after commit().
    void free(Transaction& tx, Block& block);
    /// Gives what is in use a new serial number: tickets of the old one name nothing any more.
    void renew(Transaction& tx, Counted& object) {
        tx.set(object.serial, state_.next_serial);
        tx.set(state_.next_serial, state_.next_serial + 1);
    }
    /// Gives memory that is free in excess back to the system.
    void trim(Offset block) noexcept;

    /// The block whose Counted is at `offset`, if there is one in use and it bears `serial`, else
    /// null: the way to look at an offset that came in a message.
    [[nodiscard]] Block* find(Offset offset, std::uint64_t serial) const noexcept;

    /// Puts a block on the list `list`, a word of the arena, and takes it off.
    void hang(Transaction& tx, Offset& list, Block& block) const;
    void unhang(Transaction& tx, Block& block) const;

    /// Makes a block in use one that find() does not know and find_slab() does.
    void make_slab(Transaction& tx, Block& block);
    /// The slab of `size` bytes in all, a power of two, that the place is in; null if it is in
    /// none.
    [[nodiscard]] Block* find_slab(Offset place, std::uint64_t size) const noexcept;

    /// Makes sure that [offset, offset + size) has memory.
    void commit(Offset offset, std::uint64_t size);

    /// Whether a block for `size` bytes would be one that has memory already.
    [[nodiscard]] bool is_warm(std::uint64_t size) const noexcept;

private:
    static constexpr std::uint8_t in_use = 0x80;
    static constexpr std::uint8_t is_free = 0x40;
    static constexpr std::uint8_t slab = in_use | is_free;
    static constexpr std::uint8_t order_mask = 0x3f;
    // Blocks come from beyond the frontier in pieces of at least this much.
    static constexpr int frontier_order = 16;
    // What is free and has memory stays so up to this much, and some more where the blocks are large:
    // the price of giving it back is paid again by whoever needs it next.
    static constexpr std::uint64_t slack = std::uint64_t{64} << 20;
    static constexpr std::uint64_t most_slack = std::uint64_t{256} << 20;
    static constexpr int trim_order = 18;

    [[nodiscard]] static std::uint64_t bytes_of(int order) { return std::uint64_t{1} << order; }
    /// The memory that a block keeps: a large one is given less than its address space.
    [[nodiscard]] static std::uint64_t charge(const Block& block, int order) {
        const std::uint64_t whole = (block.size + sizeof(Block) + page_bytes - 1) & ~(page_bytes - 1);
        return std::min(whole, bytes_of(order));
    }
    [[nodiscard]] static int order_of(std::uint64_t whole) noexcept {
        return std::max(HeapState::least_order, static_cast<int>(std::bit_width(whole - 1)));
    }
    /// The order of the free block that one of `order` would be cut from; HeapState::orders if none.
    [[nodiscard]] int smallest_free(int order) const noexcept {
        while (order < HeapState::orders && state_.free[static_cast<std::size_t>(order)] == 0) ++order;
        return order;
    }
    [[nodiscard]] std::uint8_t tag(std::uint64_t relative) const noexcept {
        return *segment_.at<std::uint8_t>(tag_offset(relative));
    }
    [[nodiscard]] Offset tag_offset(std::uint64_t relative) const noexcept {
        return state_.tags + (relative >> HeapState::least_order);
    }
    void set_tag(Transaction& tx, std::uint64_t relative, std::uint8_t value) noexcept;
    void push(Transaction& tx, std::uint64_t relative, int order);
    void remove(Transaction& tx, Block& block, int order);
    [[nodiscard]] std::uint64_t take(Transaction& tx, int order);
    [[nodiscard]] std::uint64_t advance_frontier(Transaction& tx, int order);
    [[nodiscard]] Block& block_at(std::uint64_t relative) const noexcept {
        return *segment_.at<Block>(state_.start + relative);
    }
    [[nodiscard]] std::uint64_t* page_word(std::uint64_t page) const noexcept {
        return segment_.at<std::uint64_t>(state_.pages) + page / 64;
    }
    template <bool present, class Action>
    void for_runs(Offset offset, std::uint64_t size, Action action) const;

    const Segment& segment_;
    HeapState& state_;
};

inline void Heap::format(Offset first) {
    const auto round = [](std::uint64_t bytes) { return (bytes + page_bytes - 1) & ~(page_bytes - 1); };
    const std::uint64_t total = segment_.size();
    state_.pages = round(first);
    state_.tags = state_.pages + round(total / page_bytes / 8);
    state_.start = state_.tags + round(total >> HeapState::least_order);
    state_.capacity = std::bit_floor(total - state_.start);
}

inline Block& Heap::allocate(Transaction& tx, std::uint64_t size) {
    if (size > state_.capacity - sizeof(Block)) throw std::bad_alloc();
    const std::uint64_t whole = size + sizeof(Block);
    const int order = order_of(whole);
    const std::uint64_t relative = take(tx, order);
    commit(state_.start + relative, whole);
    commit(tag_offset(relative), 1);
    set_tag(tx, relative, static_cast<std::uint8_t>(in_use | order));
    Block& block = block_at(relative);
    renew(tx, block);
    // The block is nobody's yet, so what its header held needs no journal; but its links are those of
    // the list of free blocks, to which a roll-back gives it back.
    block.size = size;
    block.owner = block.owned = 0;
    block.counts = block.tickets = 0;
    tx.set(state_.allocated, state_.allocated + charge(block, order));
    return block;
}

inline void Heap::free(Transaction& tx, Block& block) {
    std::uint64_t relative = segment_.offset_of(&block) - state_.start;
    int order = tag(relative) & order_mask;
    tx.set(block.serial, 0);
    const std::uint64_t given_back = charge(block, order);
    tx.set(state_.allocated, state_.allocated - given_back);
    if (given_back >= bytes_of(trim_order)) {
        state_.large = std::max(given_back, state_.large - state_.large / 16);
    }
    set_tag(tx, relative, 0);
    while (bytes_of(order) < state_.capacity) {
        const std::uint64_t buddy = relative ^ bytes_of(order);
        if (buddy >= state_.frontier || tag(buddy) != (is_free | order)) break;
        remove(tx, block_at(buddy), order);
        set_tag(tx, buddy, 0);
        relative = std::min(relative, buddy);
        ++order;
    }
    push(tx, relative, order);
}

inline std::uint64_t Heap::take(Transaction& tx, int order) {
    int found = smallest_free(order);
    std::uint64_t relative;
    if (found < HeapState::orders) {
        Block& block = *segment_.at<Block>(state_.free[static_cast<std::size_t>(found)]);
        relative = segment_.offset_of(&block) - state_.start;
        remove(tx, block, found);
    } else {
        found = std::max(order, frontier_order);
        relative = advance_frontier(tx, found);
    }
    // The upper halves go back, so that neighbours in time become neighbours in space.
    while (found > order) {
        --found;
        push(tx, relative + bytes_of(found), found);
    }
    return relative;
}

inline std::uint64_t Heap::advance_frontier(Transaction& tx, int order) {
    const std::uint64_t relative = (state_.frontier + bytes_of(order) - 1) & ~(bytes_of(order) - 1);
    if (relative + bytes_of(order) > state_.capacity) throw std::bad_alloc();
    // What alignment skips becomes free blocks, each the largest that fits its place.
    for (std::uint64_t gap = state_.frontier; gap < relative;) {
        const int fits = std::countr_zero(gap);
        push(tx, gap, fits);
        gap += bytes_of(fits);
    }
    tx.set(state_.frontier, relative + bytes_of(order));
    return relative;
}

inline void Heap::push(Transaction& tx, std::uint64_t relative, int order) {
    Block& block = block_at(relative);
    commit(state_.start + relative, sizeof(Block));
    commit(tag_offset(relative), 1);
    Offset& head = state_.free[static_cast<std::size_t>(order)];
    const Offset offset = segment_.offset_of(&block);
    tx.set(block.serial, 0);
    tx.set(block.next, head);
    tx.set(block.previous, 0);
    if (head != 0) tx.set(segment_.at<Block>(head)->previous, offset);
    tx.set(head, offset);
    set_tag(tx, relative, static_cast<std::uint8_t>(is_free | order));
}

inline void Heap::remove(Transaction& tx, Block& block, int order) {
    if (block.previous != 0) {
        tx.set(segment_.at<Block>(block.previous)->next, block.next);
    } else {
        tx.set(state_.free[static_cast<std::size_t>(order)], block.next);
    }
    if (block.next != 0) tx.set(segment_.at<Block>(block.next)->previous, block.previous);
}

inline void Heap::set_tag(Transaction& tx, std::uint64_t relative, std::uint8_t value) noexcept {
    const Offset at = tag_offset(relative);
    auto& word = *segment_.at<std::uint64_t>(at & ~std::uint64_t{7});
    const auto bytes = std::bit_cast<std::array<std::uint8_t, 8>>(word);
    auto changed = bytes;
    changed[at & 7] = value;
    tx.set(word, std::bit_cast<std::uint64_t>(changed));
}

inline Block* Heap::find(Offset offset, std::uint64_t serial) const noexcept {
    const Offset begin = offset - sizeof(BlockLinks);
    if (offset < state_.start + sizeof(BlockLinks) || begin - state_.start >= state_.frontier)
        return nullptr;
    const std::uint64_t relative = begin - state_.start;
    if (relative % bytes_of(HeapState::least_order) != 0) return nullptr;
    if ((tag(relative) & slab) != in_use) return nullptr;
    Block& block = block_at(relative);
    return serial != 0 && block.serial == serial ? &block : nullptr;
}

inline void Heap::hang(Transaction& tx, Offset& list, Block& block) const {
    const Offset offset = segment_.offset_of(&block);
    tx.set(block.owner, segment_.offset_of(&list));
    tx.set(block.next, list);
    tx.set(block.previous, 0);
    if (list != 0) tx.set(segment_.at<Block>(list)->previous, offset);
    tx.set(list, offset);
}

inline void Heap::unhang(Transaction& tx, Block& block) const {
    if (block.previous != 0) {
        tx.set(segment_.at<Block>(block.previous)->next, block.next);
    } else {
        tx.set(*segment_.at<Offset>(block.owner), block.next);
    }
    if (block.next != 0) tx.set(segment_.at<Block>(block.next)->previous, block.previous);
    tx.set(block.owner, 0);
}

inline void Heap::make_slab(Transaction& tx, Block& block) {
    const std::uint64_t relative = segment_.offset_of(&block) - state_.start;
    set_tag(tx, relative, static_cast<std::uint8_t>(tag(relative) | slab));
}

inline Block* Heap::find_slab(Offset place, std::uint64_t size) const noexcept {
    if (place < state_.start || place - state_.start >= state_.frontier) return nullptr;
    const std::uint64_t relative = (place - state_.start) & ~(size - 1);
    return tag(relative) == (slab | order_of(size)) ? &block_at(relative) : nullptr;
}

/// Calls action(first page, count) for each run of pages in the range that have memory, or have none.
template <bool present, class Action>
void Heap::for_runs(Offset offset, std::uint64_t size, Action action) const {
    const std::uint64_t last = (offset + size + page_bytes - 1) / page_bytes;
    for (std::uint64_t page = offset / page_bytes; page < last;) {
        const auto ahead = [&](bool set) {  // pages from here on whose bit is `set`
            std::uint64_t count = 0;
            while (page + count < last) {
                const std::uint64_t at = page + count;
                std::uint64_t word = *page_word(at) >> (at % 64);
                if (set) word = ~word;
                const auto run = static_cast<std::uint64_t>(std::countr_zero(word));
                const std::uint64_t left = 64 - at % 64;
                count += std::min(run, left);
                if (run < left) break;
            }
            return std::min(count, last - page);
        };
        page += ahead(!present);
        if (page >= last) return;
        const std::uint64_t count = ahead(present);
        action(page, count);
        page += count;
    }
}

inline void Heap::commit(Offset offset, std::uint64_t size) {
    for_runs<false>(offset, size, [&](std::uint64_t page, std::uint64_t count) {
        os::commit(segment_.descriptor(), page * page_bytes, count * page_bytes);
        // Set outside the journal: whether a page has memory is true whatever becomes of the block.
        for (std::uint64_t at = page; at < page + count;) {
            const std::uint64_t bits = std::min(64 - at % 64, page + count - at);
            *page_word(at) |= (bits == 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << bits) - 1)
                              << (at % 64);
            at += bits;
        }
        state_.committed.fetch_add(count * page_bytes, std::memory_order_relaxed);
    });
}

inline bool Heap::is_warm(std::uint64_t size) const noexcept {
    const int found = smallest_free(order_of(size + sizeof(Block)));
    if (found >= HeapState::orders) return false;
    bool warm = true;
    for_runs<false>(state_.free[static_cast<std::size_t>(found)], size + sizeof(Block),
                    [&](std::uint64_t, std::uint64_t) { warm = false; });
    return warm;
}

inline void Heap::trim(Offset freed) noexcept {
    // The block may have been swallowed by its buddies: look for the free block that holds it.
    std::uint64_t relative = freed - state_.start;
    int order = HeapState::least_order;
    while (order < HeapState::orders) {
        relative &= ~(bytes_of(order) - 1);
        if (tag(relative) == (is_free | order)) break;
        ++order;
    }
    if (order < trim_order || order == HeapState::orders) return;
    const std::uint64_t kept = std::min(slack + 2 * state_.large, most_slack);
    if (state_.committed.load(std::memory_order_relaxed) < state_.allocated + kept) return;
    // The first page stays: it holds the links of the free list.
    const Offset begin = state_.start + relative + page_bytes;
    for_runs<true>(begin, bytes_of(order) - page_bytes, [&](std::uint64_t page, std::uint64_t count) {
        for (std::uint64_t at = page; at < page + count;) {
            const std::uint64_t bits = std::min(64 - at % 64, page + count - at);
            *page_word(at) &= ~((bits == 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << bits) - 1)
                                << (at % 64));
            at += bits;
        }
        state_.committed.fetch_sub(count * page_bytes, std::memory_order_relaxed);
        os::punch(segment_.descriptor(), page * page_bytes, count * page_bytes);
    });
}

}  // namespace multiprocessing::shm
