// SPDX-License-Identifier: BSL-1.0
//
// What is done at the two ends of a ring by who holds them: records written and published, shown and
// taken, and what a killed holder left there put right.
#pragma once

#include <multiprocessing/shm/arena.hpp>
#include <multiprocessing/shm/processes.hpp>
#include <multiprocessing/shm/ring.hpp>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

namespace multiprocessing::shm {

// What is defined here is in every put and every take, and keeps its state in registers if nothing is
// given its address: so what is seldom needed is a member of Ring.

[[gnu::always_inline]] inline Ring::Putter::Putter(Ring& ring) : ring_(ring) {
    End& end = ring_.put_;
    if (end.mutex.lock()) [[unlikely]] roll_back_for_the_dead();
    MULTIPROCESSING_FAULT_POINT("put: end taken");
    if (end.pending.serial != 0) [[unlikely]] ring_.settle_pending();
    cursor_ = end.current();
}

/// Somebody died between handing a run to the ring and taking note that it is in.
inline void Ring::settle_pending() {
    MULTIPROCESSING_FAULT_POINT("put: a run that a death left pending");
    if (put_.count() <= put_.pending_at) {
        const Arena& arena = Arena::instance();
        Transaction tx = arena.transaction();
        if (Block* run = arena.heap().find(put_.pending.offset, put_.pending.serial)) {
            arena.destroy(tx, *run);
        }
    }
    MULTIPROCESSING_FAULT_POINT("put: pending run settled, note stands");
    put_.pending = {};
}

/// Whoever gets an end from a holder that was killed there may find it in the middle of a transaction.
/// What that has changed is seen without the arena's mutex (a segment's link, a cursor's note of what
/// is to be put away), and is to be undone before anybody relies on it.
inline void Ring::roll_back_for_the_dead() {
    static_cast<void>(Arena::instance().transaction());  // its first step, if nobody else's was
}

[[gnu::always_inline]] inline std::uint64_t Ring::Putter::room() noexcept {
    End& end = ring_.put_;
    const std::uint64_t put = end.count() + reserved_;
    if (put - end.seen_of_other >= ring_.bound_) end.seen_of_other = ring_.gets();
    const std::uint64_t waiting = put - end.seen_of_other;
    return waiting < ring_.bound_ ? ring_.bound_ - waiting : 0;
}

[[gnu::always_inline]] inline std::byte* Ring::Putter::reserve(RecordHeader header) {
    const std::uint64_t record = header.record_bytes();
    RingSegment* segment = segment_at(cursor_.segment);
    if (cursor_.position + record > segment->capacity) [[unlikely]] {
        cursor_ = ring_.leave_segment(cursor_, record);
        segment = segment_at(cursor_.segment);
    }
    std::byte* const at = segment->data() + cursor_.position;
    os::prefetch_to_write(at + prefetch_ahead);  // it may still be in the consumer's cache
    std::memcpy(at, &header, sizeof header);
    MULTIPROCESSING_FAULT_POINT("reserve: header written");
    cursor_.position += record;
    ++reserved_;
    return at + sizeof header;
}

[[gnu::always_inline]] inline void Ring::Putter::publish() noexcept {
    if (reserved_ == 0) return;
    advance(ring_.put_, cursor_, std::exchange(reserved_, 0));
}

[[gnu::always_inline]] inline Ring::Getter::Getter(Ring& ring) : ring_(ring) {
    End& end = ring_.get_;
    if (end.mutex.lock()) [[unlikely]] roll_back_for_the_dead();
    MULTIPROCESSING_FAULT_POINT("get: end taken");
    if (end.current().retired != 0) [[unlikely]] ring_.put_away(end.current());
    cursor_ = end.current();
}

[[gnu::always_inline]] inline bool Ring::Getter::peek(Record& record) {
    End& end = ring_.get_;
    for (;;) {
        const std::uint64_t taken = end.count() + taken_;
        if (end.seen_of_other <= taken) {
            end.seen_of_other = ring_.puts();
            if (end.seen_of_other <= taken) return false;
        }
        RingSegment* const segment = segment_at(cursor_.segment);
        RecordHeader header(RecordHeader::skip, 0);
        if (cursor_.position + sizeof header <= segment->capacity) [[likely]] {
            std::memcpy(&header, segment->data() + cursor_.position, sizeof header);
        }
        const std::byte* const bytes = segment->data() + cursor_.position + sizeof header;
        shown_ = header.record_bytes();
        os::prefetch_to_read(bytes + prefetch_ahead);
        if (header.kind() == RecordHeader::inlined) [[likely]] {
            record = {{bytes, header.size()}, nullptr};
            return true;
        }
        if (header.kind() == RecordHeader::skip) {
            // The segment's records are taken before it is put away.
            advance(end, {segment->next, 0, cursor_.segment}, std::exchange(taken_, 0));
            ring_.put_away(end.current());
            MULTIPROCESSING_FAULT_POINT("peek: in the next segment");
            cursor_ = end.current();
            continue;
        }
        record = run_at(ring_, bytes);
        if (record.run != nullptr) return true;
        // It was being taken by a process that was killed then, and went with it.
        MULTIPROCESSING_FAULT_POINT("peek: a run that has gone with its taker");
        cursor_.position += shown_;
        ++taken_;
        ++total_;
        commit();
    }
}

/// The run that such a record names, if it is still the ring's.
inline Ring::Getter::Record Ring::Getter::run_at(Ring& ring, const std::byte* bytes) {
    RunRecord there;
    std::memcpy(&there, bytes, sizeof there);
    const Arena& arena = Arena::instance();
    const Transaction tx = arena.transaction();
    Block* const run = arena.heap().find(there.block.offset, there.block.serial);
    if (run == nullptr || run->owner != arena.offset_of(&ring.owned())) return {};
    return {{Arena::payload(*run), there.size}, run};
}

[[gnu::always_inline]] inline void Ring::Getter::take(const Record& record) {
    cursor_.position += shown_;
    ++taken_;
    ++total_;
    if (record.run == nullptr) return;
    ring_.hand_over(*record.run);
    MULTIPROCESSING_FAULT_POINT("take: run taken over, record not taken");
    commit();
}

/// Makes a run of the ring's this process's own.
inline void Ring::hand_over(Block& run) {
    const Arena& arena = Arena::instance();
    Offset& mine = Processes::instance().owned();
    Transaction tx = arena.transaction();
    arena.unhang(tx, run);
    arena.hang(tx, mine, run);
    MULTIPROCESSING_FAULT_POINT("take: run taken over, not committed");
    tx.commit();
}

[[gnu::always_inline]] inline void Ring::Getter::commit() noexcept {
    if (taken_ == 0) return;
    advance(ring_.get_, cursor_, std::exchange(taken_, 0));
}

}  // namespace multiprocessing::shm
