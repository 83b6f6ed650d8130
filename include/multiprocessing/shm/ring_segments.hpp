// SPDX-License-Identifier: BSL-1.0
//
// The memory of a ring: segments linked as it grows, put away as it drains, and how long to wait for
// memory that has been used before fresh memory is taken.
#pragma once

#include <multiprocessing/os/fault.hpp>
#include <multiprocessing/shm/arena.hpp>
#include <multiprocessing/shm/ring.hpp>
#include <multiprocessing/shm/wait.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <thread>

namespace multiprocessing::shm {

inline Shared<Ring> Ring::make(std::uint64_t bound) {
    auto ring = Shared<Ring>::make(0, bound);
    MULTIPROCESSING_FAULT_POINT("make: ring without segments");
    const Offset first = ring->add_segment(0, 0);
    for (End* end : {&ring->put_, &ring->get_}) {
        for (Cursor& cursor : end->cursors) cursor.segment = first;
    }
    return ring;
}

/// Links a segment with room for `record` bytes behind `last` (none: the first), the spare one if it
/// will do. One transaction, so a death leaves it linked and found by the next, or not taken at all.
inline Offset Ring::add_segment(Offset last, std::uint64_t record) {
    const auto segments = std::atomic_ref(segments_).load(std::memory_order_relaxed);
    if (segments >= enough_segments) await_used_memory(last_capacity_, os::Deadline::never());
    const Arena& arena = Arena::instance();
    Transaction tx = arena.transaction();
    Block* block = spare_ != 0 ? arena.at<Block>(spare_) : nullptr;
    if (block != nullptr && Arena::payload<RingSegment>(*block)->capacity >= record) {
        tx.set(spare_, 0);
    } else {
        // Each twice the last: a queue of a few items is small, a busy one seldom changes segments.
        std::uint64_t bytes = last_capacity_ == 0 ? least_segment : last_capacity_ * 2;
        bytes = std::clamp(bytes, least_segment, most_segment);
        while (bytes < record + sizeof(RingSegment) + sizeof(Block)) bytes *= 2;
        block = &arena.allocate(tx, bytes - sizeof(Block), owned());
        Arena::payload<RingSegment>(*block)->capacity = block->size - sizeof(RingSegment);
        tx.set(last_capacity_, bytes);
    }
    auto* segment = Arena::payload<RingSegment>(*block);
    segment->next = 0;
    MULTIPROCESSING_FAULT_POINT("add_segment: made, not linked");
    const Offset offset = arena.offset_of(block);
    if (last != 0) tx.set(Arena::payload<RingSegment>(*arena.at<Block>(last))->next, offset);
    tx.set(segments_, segments_ + 1);
    MULTIPROCESSING_FAULT_POINT("add_segment: linked, not committed");
    tx.commit();
    MULTIPROCESSING_FAULT_POINT("add_segment: committed");
    return offset;
}

inline void Ring::put_away(Cursor& cursor) {
    const Arena& arena = Arena::instance();
    Transaction tx = arena.transaction();
    Block& block = *arena.at<Block>(cursor.retired);
    const Block* spare = spare_ != 0 ? arena.at<Block>(spare_) : nullptr;
    tx.set(cursor.retired, 0);
    tx.set(segments_, segments_ - 1);
    if (spare == nullptr) {
        tx.set(spare_, arena.offset_of(&block));
        MULTIPROCESSING_FAULT_POINT("put_away: noted as spare, not committed");
        tx.commit();
    } else {
        MULTIPROCESSING_FAULT_POINT("put_away: to be freed, not committed");
        arena.destroy(tx, block);
    }
    MULTIPROCESSING_FAULT_POINT("put_away: committed, arena held");
}

/// From a place in a segment with no room for the record to one in the next that has.
inline Ring::Cursor Ring::leave_segment(Cursor from, std::uint64_t record) {
    for (;;) {
        RingSegment* segment = segment_at(from.segment);
        if (from.position + record <= segment->capacity) return from;
        if (from.position + sizeof(RecordHeader) <= segment->capacity) {
            const RecordHeader skip(RecordHeader::skip, 0);
            std::memcpy(segment->data() + from.position, &skip, sizeof skip);
        }
        MULTIPROCESSING_FAULT_POINT("reserve: segment full");
        // There is a next one already if somebody died after linking it; it may be too small.
        const Offset next = segment->next;
        from = {next != 0 ? next : add_segment(from.segment, record), 0, 0};
        MULTIPROCESSING_FAULT_POINT("reserve: in the next segment");
    }
}

inline void Ring::Putter::put_run(Block& run, std::uint64_t size) {
    const Arena& arena = Arena::instance();
    End& end = ring_.put_;
    const RunRecord record{arena.ticket(run), size};
    std::memcpy(reserve(RecordHeader(RecordHeader::run, sizeof record)), &record, sizeof record);
    {
        Transaction tx = arena.transaction();
        arena.unhang(tx, run);
        arena.hang(tx, ring_.owned(), run);
        tx.set(end.pending_at, end.count() + reserved_ - 1);
        tx.set(end.pending.offset, record.block.offset);
        tx.set(end.pending.serial, record.block.serial);
        MULTIPROCESSING_FAULT_POINT("put_run: handed over, not committed");
        tx.commit();
    }
    MULTIPROCESSING_FAULT_POINT("put_run: handed over, not published");
    publish();
    MULTIPROCESSING_FAULT_POINT("put_run: published, note stands");
    // A release store lets later ones go before it, but for this.
    std::atomic_signal_fence(std::memory_order_seq_cst);
    end.pending = {};
    MULTIPROCESSING_FAULT_POINT("put_run: note gone");
}

/// Is there a segment to spare, or a free block of that size that has memory?
inline bool Ring::has_used_memory(std::uint64_t bytes) {
    if (bytes <= most_segment && std::atomic_ref(spare_).load(std::memory_order_relaxed) != 0) {
        return true;
    }
    const Arena& arena = Arena::instance();
    const Transaction tx = arena.transaction();
    return arena.heap().is_warm(bytes);
}

inline void Ring::await_used_memory(std::uint64_t bytes, os::Deadline deadline) {
    if (one_processor() || deadline.is_passed() || has_used_memory(bytes)) return;
    deadline.begin();
    const std::uint64_t gets = this->gets();
    if (gets_at_growth_.exchange(gets, std::memory_order_relaxed) == gets) return;
    // Half a nanosecond a byte is what the kernel takes to find and clear it.
    const auto until = os::Deadline::after(std::chrono::nanoseconds(bytes / 2)).earlier(deadline);
    constexpr std::chrono::microseconds nap{50};
    while (!until.expired() && !has_used_memory(bytes)) {
        if (until.remaining() > 2 * nap) {
            std::this_thread::sleep_for(nap);
        } else {
            for (int pause = 0; pause < 32; ++pause) os::spin_pause();
        }
    }
}

}  // namespace multiprocessing::shm
