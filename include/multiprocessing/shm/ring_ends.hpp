// SPDX-License-Identifier: BSL-1.0
//
// What is done at the two ends of a ring by who holds them: records written and published, shown and
// taken, and what a killed holder left there put right.
#pragma once

#include <multiprocessing/os/fault.hpp>
#include <multiprocessing/shm/arena.hpp>
#include <multiprocessing/shm/processes.hpp>
#include <multiprocessing/shm/ring.hpp>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

namespace multiprocessing::shm {

/// Whoever gets an end from a holder that was killed there may find it in the middle of a transaction.
/// What that has changed is seen without the arena's mutex (a segment's link, a cursor's note of what
/// is to be put away), and is to be undone before anybody relies on it.
inline void Ring::roll_back_for_the_dead() {
    static_cast<void>(Arena::instance().transaction());  // its first step, if nobody else's was
}

inline Ring::Putter::Putter(Ring& ring) : ring_(ring) {
    End& end = ring_.put_;
    if (end.mutex.lock()) [[unlikely]] roll_back_for_the_dead();
    MULTIPROCESSING_FAULT_POINT("put: end taken");
    cursor_ = end.current();
    if (end.pending.serial != 0) [[unlikely]] {
        MULTIPROCESSING_FAULT_POINT("put: a run that a death left pending");
        // Somebody died between handing a run to the ring and taking note that it is in.
        if (end.count() <= end.pending_at) {
            const Arena& arena = Arena::instance();
            Transaction tx = arena.transaction();
            if (Block* run = arena.heap().find(end.pending.offset, end.pending.serial)) {
                arena.destroy(tx, *run);
            }
        }
        MULTIPROCESSING_FAULT_POINT("put: pending run settled, note stands");
        end.pending = {};
    }
}

inline std::uint64_t Ring::Putter::room() noexcept {
    End& end = ring_.put_;
    const std::uint64_t put = end.count() + reserved_;
    if (put - end.seen_of_other >= ring_.bound_) end.seen_of_other = ring_.gets();
    const std::uint64_t waiting = put - end.seen_of_other;
    return waiting < ring_.bound_ ? ring_.bound_ - waiting : 0;
}

inline std::byte* Ring::Putter::reserve(RecordHeader header) {
    const Arena& arena = Arena::instance();
    const std::uint64_t record = sizeof header + ((header.size + 7u) & ~std::uint64_t{7});
    auto* segment = Arena::payload<RingSegment>(*arena.at<Block>(cursor_.segment));
    if (cursor_.position + record > segment->capacity) {
        if (cursor_.position + sizeof header <= segment->capacity) {
            const RecordHeader skip{0, RecordHeader::skip};
            std::memcpy(segment->data() + cursor_.position, &skip, sizeof skip);
        }
        MULTIPROCESSING_FAULT_POINT("reserve: segment full");
        // There is a next one already if somebody died after linking it; it may be too small.
        do {
            Offset next = segment->next;
            if (next == 0) next = ring_.add_segment(cursor_.segment, record);
            cursor_ = {next, 0, 0};
            segment = Arena::payload<RingSegment>(*arena.at<Block>(next));
            MULTIPROCESSING_FAULT_POINT("reserve: in the next segment");
            if (segment->capacity < record) {
                const RecordHeader skip{0, RecordHeader::skip};
                std::memcpy(segment->data(), &skip, sizeof skip);
            }
        } while (segment->capacity < record);
    }
    std::byte* at = segment->data() + cursor_.position;
    std::memcpy(at, &header, sizeof header);
    MULTIPROCESSING_FAULT_POINT("reserve: header written");
    cursor_.position += record;
    ++reserved_;
    return at + sizeof header;
}

inline void Ring::Putter::put_run(Block& run, std::uint64_t size) {
    const Arena& arena = Arena::instance();
    End& end = ring_.put_;
    const RunRecord record{arena.ticket(run), size};
    std::memcpy(reserve({sizeof record, RecordHeader::run}), &record, sizeof record);
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

inline void Ring::Putter::publish() noexcept {
    if (reserved_ == 0) return;
    advance(ring_.put_, cursor_, std::exchange(reserved_, 0));
}

inline Ring::Getter::Getter(Ring& ring) : ring_(ring) {
    End& end = ring_.get_;
    if (end.mutex.lock()) [[unlikely]] roll_back_for_the_dead();
    MULTIPROCESSING_FAULT_POINT("get: end taken");
    Cursor& current = end.current();
    if (current.retired != 0) [[unlikely]] ring_.put_away(current);
    cursor_ = current;
}

inline bool Ring::Getter::peek(Record& record) {
    const Arena& arena = Arena::instance();
    End& end = ring_.get_;
    for (;;) {
        const std::uint64_t taken = end.count() + taken_;
        if (end.seen_of_other <= taken) {
            end.seen_of_other = ring_.puts();
            if (end.seen_of_other <= taken) return false;
        }
        auto* segment = Arena::payload<RingSegment>(*arena.at<Block>(cursor_.segment));
        RecordHeader header{0, RecordHeader::skip};
        if (cursor_.position + sizeof header <= segment->capacity) {
            std::memcpy(&header, segment->data() + cursor_.position, sizeof header);
        }
        if (header.kind == RecordHeader::skip) {
            // The segment's records are taken before it is put away.
            advance(end, {segment->next, 0, cursor_.segment}, std::exchange(taken_, 0));
            ring_.put_away(end.current());
            MULTIPROCESSING_FAULT_POINT("peek: in the next segment");
            cursor_ = end.current();
            continue;
        }
        const std::byte* bytes = segment->data() + cursor_.position + sizeof header;
        shown_ = sizeof header + ((header.size + 7u) & ~std::uint64_t{7});
        if (header.kind == RecordHeader::inlined) {
            record = {{bytes, header.size}, nullptr};
            return true;
        }
        RunRecord there;
        std::memcpy(&there, bytes, sizeof there);
        {
            const Transaction tx = arena.transaction();
            record.run = arena.heap().find(there.block.offset, there.block.serial);
            if (record.run != nullptr && record.run->owner == arena.offset_of(&ring_.owned())) {
                record.bytes = {Arena::payload(*record.run), there.size};
                return true;
            }
        }
        // It was being taken by a process that was killed then, and went with it.
        MULTIPROCESSING_FAULT_POINT("peek: a run that has gone with its taker");
        cursor_.position += shown_;
        ++taken_;
        commit();
    }
}

inline void Ring::Getter::take(const Record& record) {
    cursor_.position += shown_;
    ++taken_;
    if (record.run == nullptr) return;
    {
        const Arena& arena = Arena::instance();
        Offset& mine = Processes::instance().owned();
        Transaction tx = arena.transaction();
        arena.unhang(tx, *record.run);
        arena.hang(tx, mine, *record.run);
        MULTIPROCESSING_FAULT_POINT("take: run taken over, not committed");
        tx.commit();
    }
    MULTIPROCESSING_FAULT_POINT("take: run taken over, record not taken");
    commit();
}

inline void Ring::Getter::commit() noexcept {
    if (taken_ == 0) return;
    advance(ring_.get_, cursor_, std::exchange(taken_, 0));
}

}  // namespace multiprocessing::shm
