// SPDX-License-Identifier: BSL-1.0
//
// The two-lock queue of messages on which Queue, SimpleQueue, JoinableQueue and Pool stand: many
// producers, many consumers, FIFO, growing by segments. One mutex for each end; the store of one
// index is the commit, so whoever is killed before it leaves nothing behind, and after it everything.
// The ends meet in nothing but the two indices, and look at each other's only when they must.
#pragma once

#include <multiprocessing/os/fault.hpp>
#include <multiprocessing/shm/arena.hpp>
#include <multiprocessing/shm/head_start.hpp>
#include <multiprocessing/shm/process_mutex.hpp>
#include <multiprocessing/shm/ref.hpp>
#include <multiprocessing/shm/ring_record.hpp>
#include <multiprocessing/shm/wait.hpp>

#include <array>
#include <atomic>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <limits>
#include <span>

namespace multiprocessing::shm {

/// How an attempt to put or take ended.
enum class Outcome { done, timed_out, shut_down };

/// The shared object. Its segments and runs hang on its block.
class Ring {
public:
    /// What is longer goes into a block of its own.
    static constexpr std::uint32_t inline_most = 8192;
    static constexpr std::uint64_t unbounded = std::numeric_limits<std::uint64_t>::max() >> 1;

    /// A new ring that holds at most `bound` items.
    [[nodiscard]] static Shared<Ring> make(std::uint64_t bound = unbounded);

    explicit Ring(std::uint64_t bound) noexcept : bound_(bound) {}
    Ring(const Ring&) = delete;
    Ring& operator=(const Ring&) = delete;

    class Putter;
    class Getter;

    /// Items put, and taken, since the beginning.
    [[nodiscard]] std::uint64_t puts() const noexcept { return put_.count(); }
    [[nodiscard]] std::uint64_t gets() const noexcept { return get_.count(); }
    [[nodiscard]] std::uint64_t size() const noexcept {
        const std::uint64_t taken = gets();  // first, or the difference could be negative
        return puts() - taken;
    }
    [[nodiscard]] std::uint64_t bound() const noexcept { return bound_; }
    [[nodiscard]] bool full() const noexcept { return size() >= bound_; }
    [[nodiscard]] bool is_shut_down() const noexcept {
        return shut_down_.load(std::memory_order_acquire) != 0;
    }
    /// No more puts from now on; wakes everybody.
    void shut_down();

    /// Calls write(Putter&) when there is room. What it throws leaves the ring as it was.
    template <class Write>
    Outcome put(os::Deadline deadline, Write write);
    /// Calls write(Putter&) again and again while it returns true and there is room; what it wrote
    /// becomes visible together, also if it throws then.
    template <class Write>
    Outcome put_many(os::Deadline deadline, Write write);
    /// Calls read(Getter&, Getter::Record) when there is a record, which it may take(). If it does not,
    /// it is called again; unless it returns true, which says that it has what it came for.
    template <class Read>
    Outcome take(os::Deadline deadline, Read read) {
        return take(deadline, read, [] { return false; }, [] {});
    }
    /// The same, given up (as timed out) when stop() is true, which is asked after every wake-up;
    /// `idle` as in WaitWord::wait.
    template <class Read, class Stop, class Idle>
    Outcome take(os::Deadline deadline, Read read, Stop stop, Idle idle);
    /// Drops everything that is there.
    void discard();

    /// Before `bytes` of memory are taken for a message: if they would have to be fresh, and the
    /// consumers are at work, waits for these to free some, but no longer than it takes to touch fresh
    /// memory. So a producer that is faster than its consumers does not run ahead into memory that is
    /// twenty times as slow, and one without any loses little.
    void await_used_memory(std::uint64_t bytes, os::Deadline deadline);

    /// Notes that an item that was taken has been dealt with; false if there is none.
    bool task_done() noexcept;
    /// Waits until task_done() has been called for every put; false at the deadline.
    bool join(os::Deadline deadline);

    void wake_all() noexcept {
        items_.rouse_all();
        space_.rouse_all();
        wake_selectors();
    }

    /// Whether a take would not wait: there is an item, or there will be none.
    [[nodiscard]] bool settled() const noexcept { return size() != 0 || is_shut_down(); }
    /// Has the next put, or shut_down(), wake those who wait at that word of SelectorWords.
    void tell_selector(std::size_t word) noexcept {
        selectors_.fetch_or(std::uint64_t{1} << word, std::memory_order_seq_cst);
    }

private:
    struct Cursor {
        Offset segment = 0;
        std::uint64_t position = 0;
        Offset retired = 0;  // getting end: the segment just finished, to be put away
    };
    // There are two cursors; the commit word says which one counts, and how many records there are.
    // The first cache line is this end's own, the other end reads the second.
    struct alignas(64) End {
        ProcessMutex mutex;
        std::uint64_t seen_of_other = 0;  // a stale count of the other end
        std::array<Cursor, 2> cursors{};
        alignas(64) std::atomic<std::uint64_t> commit{0};
        Ticket pending{};                 // putting end: a run handed to the ring, not committed yet
        std::uint64_t pending_at = 0;

        [[nodiscard]] std::uint64_t count() const noexcept {
            return commit.load(std::memory_order_acquire) >> 1;
        }
        [[nodiscard]] Cursor& current() noexcept {
            return cursors[commit.load(std::memory_order_relaxed) & 1];
        }
    };

    static constexpr std::ptrdiff_t prefetch_ahead = 512;
    static constexpr std::uint64_t least_segment = 4096;
    static constexpr std::uint64_t most_segment = 65536;
    static constexpr std::uint64_t enough_segments = 8;  // before await_used_memory() for another

    [[nodiscard]] Offset& owned() noexcept { return Arena::block_of(this).owned; }
    [[nodiscard]] static RingSegment* segment_at(Offset offset) noexcept {
        return Arena::payload<RingSegment>(*Arena::instance().at<Block>(offset));
    }
    /// Waits until a take would not wait, or stop(). Sets `slept` if it came to that.
    template <class Stop, class Idle>
    bool wait_for_item(os::Deadline deadline, Stop& stop, Idle& idle, bool& slept);
    static void advance(End& end, const Cursor& cursor, std::uint64_t records) noexcept;
    Offset add_segment(Offset last, std::uint64_t record);
    static void roll_back_for_the_dead();
    [[nodiscard]] bool has_used_memory(std::uint64_t bytes);
    Cursor leave_segment(Cursor from, std::uint64_t record);
    void put_away(Cursor& cursor);
    void settle_pending();
    void hand_over(Block& run);

    /// After a put, or a take that left something: somebody who sleeps can go on.
    void announce_items() noexcept {
        items_.rouse();
        if (selectors_.load(std::memory_order_relaxed) != 0) [[unlikely]] wake_selectors();
    }
    void wake_selectors() noexcept;

    End put_;
    End get_;
    // Read by all and seldom written, as long as nobody sleeps.
    alignas(64) WaitWord items_;
    WaitWord space_;
    std::atomic<std::uint32_t> shut_down_{0};
    std::uint64_t bound_;
    std::atomic<std::uint64_t> selectors_{0};  // a bit for each of SelectorWords that wants to know
    // The rest.
    alignas(64) std::atomic<std::uint64_t> done_{0};
    WaitWord all_done_;
    Lookout items_lookout_;
    Lookout space_lookout_;
    Lookout done_lookout_;
    std::atomic<std::uint64_t> gets_at_growth_{0};
    std::uint64_t last_capacity_ = 0;
    std::uint64_t segments_ = 0;
    Offset spare_ = 0;
};

/// The putting end, held. Records become visible together, at publish().
class Ring::Putter {
public:
    explicit Putter(Ring& ring);
    Putter(const Putter&) = delete;
    Putter& operator=(const Putter&) = delete;
    ~Putter() { ring_.put_.mutex.unlock(); }

    /// How many items the bound leaves room for.
    [[nodiscard]] std::uint64_t room() noexcept;
    /// Space for a record at the tail. Throws std::bad_alloc.
    [[nodiscard]] std::byte* reserve(std::uint32_t size) {
        return reserve(RecordHeader(RecordHeader::inlined, size));
    }
    /// A record that is a run, the first `size` bytes of its payload. Publishes, for a run must not
    /// be half in two places.
    void put_run(Block& run, std::uint64_t size);
    void publish() noexcept;

private:
    std::byte* reserve(RecordHeader header);

    Ring& ring_;
    Cursor cursor_;
    std::uint64_t reserved_ = 0;
};

/// The getting end, held. What peek() shows is taken by take() and commit(), and not before.
class Ring::Getter {
public:
    /// A record: its bytes, in a segment or in a run.
    struct Record {
        std::span<const std::byte> bytes;
        Block* run = nullptr;
    };

    explicit Getter(Ring& ring);
    Getter(const Getter&) = delete;
    Getter& operator=(const Getter&) = delete;
    ~Getter() { ring_.get_.mutex.unlock(); }

    /// Shows the next record, if there is one.
    [[nodiscard]] bool peek(Record& record);
    /// Takes the record that was shown. Its bytes are good until commit(); but a run, committed here
    /// with all before it, is this process's own from now on.
    void take(const Record& record);
    void commit() noexcept;

    /// Records taken, and passed over because they went with who was taking them.
    [[nodiscard]] std::uint64_t taken() const noexcept { return total_; }
    /// How many there are that this end knows of.
    [[nodiscard]] std::uint64_t known() const noexcept {
        const std::uint64_t gone = ring_.get_.count() + taken_;
        const std::uint64_t seen = ring_.get_.seen_of_other;
        return seen > gone ? seen - gone : 0;
    }
    /// How many there are: at the price of a look at the other end.
    [[nodiscard]] std::uint64_t available() noexcept {
        ring_.get_.seen_of_other = ring_.puts();
        return known();
    }

private:
    [[nodiscard]] static Record run_at(Ring& ring, const std::byte* bytes);

    Ring& ring_;
    Cursor cursor_;
    std::uint64_t taken_ = 0;  // since the last commit
    std::uint64_t total_ = 0;
    std::uint64_t shown_ = 0;  // the size of the record that peek() showed
};

// ---------------------------------------------------------------------------------------------------

template <class Write>
Outcome Ring::put(os::Deadline deadline, Write write) {
    for (;;) {
        bool room_left = false;
        bool done = false;
        {
            Putter putter(*this);
            if (is_shut_down()) {
                space_.rouse();  // who shut it down may have been killed before it told anybody
                return Outcome::shut_down;
            }
            if (putter.room() != 0) {
                try {
                    write(putter);
                } catch (...) {
                    space_.rouse();  // the room is somebody else's
                    throw;
                }
                MULTIPROCESSING_FAULT_POINT("put: written, not published");
                putter.publish();
                MULTIPROCESSING_FAULT_POINT("put: published, end held");
                done = true;
                room_left = bound_ != unbounded && putter.room() != 0;
            }
        }
        MULTIPROCESSING_FAULT_POINT("put: end let go");
        if (done) {
            announce_items();
            MULTIPROCESSING_FAULT_POINT("put: consumers told");
            if (room_left) space_.rouse();  // who was roused for it passes on what it leaves
            return Outcome::done;
        }
        deadline.begin();
        const auto ready = [this] { return !full() || is_shut_down(); };
        const Naps naps = Naps::long_ones(space_lookout_);
        if (!space_.wait(ready, deadline, [] {}, naps)) return Outcome::timed_out;
    }
}

template <class Write>
Outcome Ring::put_many(os::Deadline deadline, Write write) {
    std::exception_ptr failure;
    const Outcome outcome = put(deadline, [&](Putter& putter) {
        try {
            while (write(putter) && putter.room() != 0) {
            }
        } catch (...) {
            failure = std::current_exception();
        }
    });
    if (failure) std::rethrow_exception(failure);
    return outcome;
}

template <class Read, class Stop, class Idle>
Outcome Ring::take(os::Deadline deadline, Read read, Stop stop, Idle idle) {
    bool came_back = false;  // from a head start
    bool slept = false;
    for (;;) {
        const bool last = is_shut_down();  // before the look at the items: nothing comes after it
        bool found = false;
        bool taken = false;
        bool served = false;
        bool freed = false;
        std::uint64_t more = 0;
        {
            Getter getter(*this);
            Getter::Record record;
            found = getter.peek(record);
            if (found) {
                const std::uint64_t before = getter.taken();  // peek() may have passed over some
                try {
                    if constexpr (std::same_as<decltype(read(getter, record)), bool>) {
                        served = read(getter, record);
                    } else {
                        read(getter, record);
                    }
                } catch (...) {
                    items_.rouse();  // the item is somebody else's
                    throw;
                }
                MULTIPROCESSING_FAULT_POINT("get: taken, not committed");
                getter.commit();
                MULTIPROCESSING_FAULT_POINT("get: committed, end held");
                taken = served || getter.taken() != before;
                more = getter.known();
                if (came_back) HeadStart::result(more + getter.taken());
            }
            freed = getter.taken() != 0;
        }
        MULTIPROCESSING_FAULT_POINT("get: end let go");
        if (freed && bound_ != unbounded) space_.rouse();
        MULTIPROCESSING_FAULT_POINT("get: producers told");
        if (slept && taken) {
            // Who put something while this one was being woken has woken nobody else, and may not have
            // been seen to put it yet.
            WaitWord::settle();
            more = size();
        }
        if (more != 0) items_.rouse();
        MULTIPROCESSING_FAULT_POINT("get: other consumers told");
        if (taken) return Outcome::done;
        if (found) continue;
        if (came_back) HeadStart::result(0);
        if (last) {
            items_.rouse();  // as in put()
            return Outcome::shut_down;
        }
        if (stop()) return Outcome::timed_out;
        came_back = !deadline.is_passed() && !came_back && HeadStart::give();
        if (came_back) continue;
        deadline.begin();
        if (!wait_for_item(deadline, stop, idle, slept)) return Outcome::timed_out;
    }
}

template <class Stop, class Idle>
bool Ring::wait_for_item(os::Deadline deadline, Stop& stop, Idle& idle, bool& slept) {
    const auto ready = [&] { return settled() || stop(); };
    if (ready()) return true;
    if (deadline.expired()) return false;
    const int looks = Spin::steps_until(ready);
    if (looks >= 0) {
        HeadStart::looked(looks);
        return true;
    }
    slept = true;
    return items_.sleep_until(ready, [] {}, deadline, idle, Naps::long_ones(items_lookout_));
}

inline void Ring::advance(End& end, const Cursor& cursor, std::uint64_t records) noexcept {
    const std::uint64_t now = end.commit.load(std::memory_order_relaxed);
    const std::uint64_t other = (now & 1) ^ 1;
    // One by one: copied together they are loaded as a whole that has just been stored in parts,
    // which stalls the processor for as long as all the rest takes.
    end.cursors[other].segment = cursor.segment;
    end.cursors[other].position = cursor.position;
    end.cursors[other].retired = cursor.retired;
    MULTIPROCESSING_FAULT_POINT("advance: cursor written, index not");
    // Release: the records, and the cursor, before the index that makes them true.
    end.commit.store((((now >> 1) + records) << 1) | other, std::memory_order_release);
    MULTIPROCESSING_FAULT_POINT("advance: index stored");
}

}  // namespace multiprocessing::shm

#include <multiprocessing/shm/ring_ends.hpp>
#include <multiprocessing/shm/ring_rest.hpp>
#include <multiprocessing/shm/ring_segments.hpp>
