// SPDX-License-Identifier: BSL-1.0
//
// Cells: places of 32 bytes for counted objects of up to 16, in slabs of 16 KiB, because most locks
// and events need no more and there may be tens of thousands of them. All changes are part of a
// Transaction.
#pragma once

#include <multiprocessing/shm/heap.hpp>
#include <multiprocessing/shm/journal.hpp>
#include <multiprocessing/shm/segment.hpp>

#include <cstdint>

namespace multiprocessing::shm {

/// The shared part.
struct CellState {
    Offset slabs = 0;        // those with free cells; an empty one only if it is the only one
    std::uint64_t used = 0;  // cells in use
};

/// A view of the slabs, as Heap is of the blocks.
class Cells {
public:
    static constexpr std::uint64_t payload_bytes = 16;

    Cells(const Segment& segment, HeapState& heap, CellState& state)
        : segment_(segment), heap_(segment, heap), state_(state) {}

    /// Whether what is counted at that place can be a cell; if not it is a block.
    [[nodiscard]] static bool is_cell(Offset offset) noexcept { return offset % cell_bytes == 0; }

    /// A cell with a new serial number and no handles, not zeroed. Throws std::bad_alloc.
    [[nodiscard]] Counted& allocate(Transaction& tx);
    /// Takes one back. If a slab is free now, too, that is the result, for Heap::trim() after
    /// commit().
    Offset free(Transaction& tx, Counted& cell);
    /// As Heap::find().
    [[nodiscard]] Counted* find(Offset offset, std::uint64_t serial) const noexcept;

private:
    static constexpr std::uint64_t cell_bytes = sizeof(Counted) + payload_bytes;
    static constexpr std::uint64_t slab_bytes = 16 << 10;

    // At the start of a slab's payload, on a cache line of its own; the cells follow.
    struct Slab {
        Offset free;  // the list of cells that have been used and are not; linked by `counts`
        std::uint64_t fresh;  // so many have ever been used
        std::uint64_t used;   // so many are
    };
    static constexpr std::uint64_t first_cell = 2 * sizeof(Block);
    static constexpr std::uint64_t cells = (slab_bytes - first_cell) / cell_bytes;
    static_assert(sizeof(Slab) <= first_cell - sizeof(Block) && cells % 2 == 0);

    // Two cells share a cache line. The first half of a slab's come to have one of their own: few
    // locks are not slowed down by each other, and many cost no more.
    [[nodiscard]] static std::uint64_t place_of(std::uint64_t number) noexcept {
        return first_cell +
               cell_bytes * (number < cells / 2 ? 2 * number : 2 * (number - cells / 2) + 1);
    }
    [[nodiscard]] static std::uint64_t number_of(std::uint64_t place) noexcept {
        const std::uint64_t at = (place - first_cell) / cell_bytes;
        return at / 2 + (at % 2 == 0 ? 0 : cells / 2);
    }
    [[nodiscard]] static Slab& slab(Block& block) noexcept {
        return *reinterpret_cast<Slab*>(&block + 1);
    }
    [[nodiscard]] Block& make_slab(Transaction& tx);

    const Segment& segment_;
    Heap heap_;
    CellState& state_;
};

inline Block& Cells::make_slab(Transaction& tx) {
    Block& block = heap_.allocate(tx, slab_bytes - sizeof(Block));
    heap_.make_slab(tx, block);
    slab(block) = {};  // nobody's yet, so without the journal
    heap_.hang(tx, state_.slabs, block);
    return block;
}

inline Counted& Cells::allocate(Transaction& tx) {
    Block& block = state_.slabs != 0 ? *segment_.at<Block>(state_.slabs) : make_slab(tx);
    Slab& home = slab(block);
    Offset place = home.free;
    if (place != 0) {
        tx.set(home.free, segment_.at<Counted>(place)->counts);
    } else {
        place = segment_.offset_of(&block) + place_of(home.fresh);
        tx.set(home.fresh, home.fresh + 1);
    }
    auto& cell = *segment_.at<Counted>(place);
    heap_.renew(tx, cell);
    tx.set(cell.counts, 0);
    tx.set(home.used, home.used + 1);
    tx.set(state_.used, state_.used + 1);
    if (home.used == cells) heap_.unhang(tx, block);
    return cell;
}

inline Offset Cells::free(Transaction& tx, Counted& cell) {
    const Offset place = segment_.offset_of(&cell);
    Block& block = *heap_.find_slab(place, slab_bytes);
    Slab& home = slab(block);
    Block* superfluous = nullptr;
    if (home.used == cells) {
        Block* const first = state_.slabs != 0 ? segment_.at<Block>(state_.slabs) : nullptr;
        if (first != nullptr && slab(*first).used == 0) superfluous = first;
        heap_.hang(tx, state_.slabs, block);
    } else if (home.used == 1 && (block.next != 0 || block.previous != 0)) {
        superfluous = &block;
    }
    tx.set(cell.serial, 0);
    tx.set(cell.counts, home.free);
    tx.set(home.free, place);
    tx.set(home.used, home.used - 1);
    tx.set(state_.used, state_.used - 1);
    if (superfluous == nullptr) return 0;
    heap_.unhang(tx, *superfluous);
    heap_.free(tx, *superfluous);
    return segment_.offset_of(superfluous);
}

inline Counted* Cells::find(Offset offset, std::uint64_t serial) const noexcept {
    if (serial == 0 || !is_cell(offset)) return nullptr;
    Block* const block = heap_.find_slab(offset, slab_bytes);
    if (block == nullptr) return nullptr;
    const std::uint64_t place = offset - segment_.offset_of(block);
    if (place < first_cell || number_of(place) >= slab(*block).fresh) return nullptr;
    auto& cell = *segment_.at<Counted>(offset);
    return cell.serial == serial ? &cell : nullptr;
}

}  // namespace multiprocessing::shm
