// SPDX-License-Identifier: BSL-1.0
//
// What a Pool and its workers share: tasks, a ring of their tickets, a ring of reports, and for each
// worker a slot in which it says what it is at, so that its death costs the item in its hands and
// nothing else.
#pragma once

#include <multiprocessing/os/fd.hpp>
#include <multiprocessing/os/fence.hpp>
#include <multiprocessing/os/module.hpp>
#include <multiprocessing/pickle/handle.hpp>
#include <multiprocessing/shm/arena.hpp>
#include <multiprocessing/shm/ref.hpp>
#include <multiprocessing/shm/ring.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <utility>

namespace multiprocessing::runtime::pool {

/// Items of a task that are claimed, run and reported together: a chunk, in Python's words. Each has a
/// cache line to itself, for two workers are at neighbours.
struct alignas(64) Grain {
    // What `holder` says beside a worker's number plus one.
    static constexpr std::uint32_t waiting = 0;
    static constexpr std::uint32_t cancelled = ~std::uint32_t{0};

    std::atomic<std::uint32_t> holder;    // who claimed it
    std::atomic<std::uint32_t> finished;  // of its items, from the first on: their outcomes are there
    std::uint64_t first_byte;             // where its items begin among those of the task
    shm::Ticket spill;                    // the first block of outcomes that are not in the array
    shm::Ticket last_spill;
};

/// What stands at the start of a task's block: then its grains, an array of results, the callable, the
/// items. Items stand where they are if that is shared memory already. The ring carries the block's
/// ticket: whoever is lost, the rest can be given again.
struct alignas(64) Task {
    std::uint64_t id;
    os::CodeAddress entry;   // the function that can read and run it
    std::uint32_t count;     // of items
    std::uint32_t grain;     // how many of them make one
    std::uint32_t grains;
    std::uint32_t timed;     // each item's start is to be noted
    std::uint32_t keeps_exit;  // SystemExit is an outcome, and not the end of the worker
    std::uint32_t reserved;
    std::uint64_t callable;  // where it begins, from here
    std::uint64_t end;       // of callable and items, from here
    std::uint64_t results;   // where the array of results begins, from here; 0: there is none
    std::uint64_t items;     // where items that are nothing but their bytes begin, in the arena
    std::uint64_t base;      // the number in the job of the first item
    std::atomic<std::uint32_t> cancelled;  // nobody wants the outcomes of what is not run yet
    alignas(64) std::atomic<std::uint32_t> next;  // no grain before this one waits, but those given again

    [[nodiscard]] std::byte* at(std::uint64_t offset) noexcept {
        return reinterpret_cast<std::byte*>(this) + offset;
    }
    [[nodiscard]] std::span<Grain> all_grains() noexcept {
        return {reinterpret_cast<Grain*>(this + 1), grains};
    }
    /// The first item of a grain, and how many it has.
    [[nodiscard]] std::uint32_t first_of(std::uint32_t which) const noexcept { return which * grain; }
    [[nodiscard]] std::uint32_t items_of(std::uint32_t which) const noexcept {
        return std::min(grain, count - first_of(which));
    }
};
static_assert(sizeof(Task) % 64 == 0 && sizeof(Grain) == 64);

/// What one record of the tasks' ring says.
struct Offer {
    static constexpr std::uint32_t any = ~std::uint32_t{0};

    shm::Ticket task;
    std::uint32_t grain;  // the one that is given again, or any
    std::uint32_t reserved;
};

/// What one record of the reports' ring says: all items of a grain have their outcomes.
struct Report {
    std::uint64_t task;  // its id; 0: the worker could not begin, and its slot says why
    std::uint32_t grain;
    std::uint32_t worker;
};

/// A block of outcomes: entries one after the other, each with its bytes.
struct Spill {
    struct Entry {
        std::uint32_t item;
        std::uint32_t is_error;
        std::uint64_t size;
    };

    shm::Ticket next;
    std::uint64_t capacity;
    std::uint64_t used;

    [[nodiscard]] std::byte* bytes() noexcept { return reinterpret_cast<std::byte*>(this + 1); }
};
static_assert(sizeof(Spill) % alignof(Spill::Entry) == 0);

/// One of the grains that took longest.
struct SlowTask {
    std::atomic<std::uint64_t> nanoseconds;
    std::atomic<std::uint64_t> first;  // of its items, in the job
    std::atomic<std::uint64_t> count;
};

/// What a worker says of its work. Times are nanoseconds.
struct WorkerTally {
    using Count = std::atomic<std::uint64_t>;

    Count tasks;    // grains
    Count items;
    Count busy;
    Count waiting;  // for something to do
    Count began;    // on the monotonic clock: its process runs,
    Count ready;    // its initializer has returned
    Count least_slow;                 // of these:
    std::array<SlowTask, 8> slowest;  // in no order

    /// For a worker that takes the place of another; what took longest stays.
    void restart() noexcept {
        for (Count* count : {&tasks, &items, &busy, &waiting, &began, &ready}) count->store(0);
    }
    /// One writes, so nothing has to be locked.
    static void add(Count& count, std::uint64_t more) noexcept {
        count.store(count.load(std::memory_order_relaxed) + more, std::memory_order_relaxed);
    }
    /// A grain has been run.
    void ran(std::uint64_t taken, std::uint64_t first, std::uint64_t count) noexcept {
        add(tasks, 1);
        add(items, count);
        add(busy, taken);
        constexpr auto relaxed = std::memory_order_relaxed;
        if (taken <= least_slow.load(relaxed)) return;
        const auto shorter = [](const SlowTask& a, const SlowTask& b) {
            return a.nanoseconds.load(relaxed) < b.nanoseconds.load(relaxed);
        };
        SlowTask& place = *std::min_element(slowest.begin(), slowest.end(), shorter);
        place.nanoseconds.store(taken, relaxed);
        place.first.store(first, relaxed);
        place.count.store(count, relaxed);
        const SlowTask& least = *std::min_element(slowest.begin(), slowest.end(), shorter);
        least_slow.store(least.nanoseconds.load(relaxed), relaxed);
    }
};

/// What one worker holds, written by it, read by the parent; and what the parent asks of it.
struct alignas(64) WorkerSlot {
    enum class Stage : std::uint32_t { starting, initializing, ready, left };

    /// What it is at: a number that grows with each start, and one of these.
    enum Run : std::uint64_t {
        idle = 0,
        running = 1,
        asked = 2,   // to stop, in its own time
        doomed = 3,  // it is about to be killed, and takes nothing else
    };
    static constexpr std::uint64_t run_mask = 3;
    static constexpr std::uint64_t one_start = 4;

    // Written by the worker.
    shm::Ticket task;     // that it may look at: its block is not freed
    std::uint64_t id;     // of that task, and
    std::uint32_t grain;  // which of its grains it runs,
    std::uint32_t item;   // and, if its items are timed, which of the task's
    Stage stage;
    shm::Ticket spill;    // why it could not begin
    // Written by both.
    alignas(64) std::atomic<std::uint64_t> run;
    std::atomic<std::uint64_t> started;  // of the monotonic clock; only where it is wanted
    std::atomic<std::uint32_t> leave;    // when there is nothing in hand
    alignas(64) WorkerTally tally;

    /// For a worker that takes the place of another.
    void restart() noexcept {
        task = spill = {};
        id = 0;
        grain = item = 0;
        stage = Stage::starting;
        run.store(run.load() & ~run_mask);
        leave.store(0);
        tally.restart();
    }
};

/// The shared object of a pool.
struct Control {
    alignas(64) std::atomic<std::uint32_t> stopping{0};  // workers leave when they have nothing in hand
    std::atomic<std::uint32_t> parent_sleeps{0};         // ring the doorbell for it
    std::atomic<std::uint32_t> nobody_reads{0};          // ring it when many reports have gathered
    std::uint32_t reserved[13]{};
};

/// The connection of one process to a pool.
class Channel {
public:
    Channel()
        : control_(shm::Shared<Control>::make(0)), tasks_(shm::Ring::make()),
          reports_(shm::Ring::make()), doorbell_(std::make_shared<os::EventFd>()) {}

    /// So many reports are not left to lie.
    static constexpr std::uint64_t many_reports = 256;

    [[nodiscard]] Control& control() const noexcept { return *control_; }
    [[nodiscard]] shm::Ring& tasks() const noexcept { return *tasks_; }
    [[nodiscard]] shm::Ring& reports() const noexcept { return *reports_; }
    [[nodiscard]] const os::EventFd& doorbell() const noexcept { return *doorbell_; }
    /// The list of blocks that end with the pool.
    [[nodiscard]] shm::Offset& owned() const noexcept {
        return shm::Arena::block_of(&*control_).owned;
    }
    /// Tells the parent.
    void report(const Report& report) const {
        static_cast<void>(reports().put(os::Deadline::never(), [&](shm::Ring::Putter& end) {
            std::memcpy(end.reserve(sizeof report), &report, sizeof report);
        }));
        // Orders the report before the look; the parent raises its flag before its last look.
        if (os::look_after_fence(control().parent_sleeps) != 0) {
            if (control().parent_sleeps.exchange(0) != 0) doorbell_->ring();
        } else if (control().nobody_reads.load(std::memory_order_relaxed) != 0 &&
                   reports().size() >= many_reports &&
                   control().nobody_reads.exchange(0) != 0) {
            doorbell_->ring();
        }
    }

    using travels_as_handle = void;

    explicit Channel(pickle::Unread) noexcept {}

private:
    friend struct pickle::HandleAccess;
    void save_handle(pickle::OArchive& archive) const {
        pickle::save_ref(archive, control_);
        pickle::save_ref(archive, tasks_);
        pickle::save_ref(archive, reports_);
        archive.put(static_cast<std::uint32_t>(archive.cargo().add_descriptor(doorbell_->get())));
    }
    void load_handle(pickle::IArchive& archive) {
        control_ = shm::Shared<Control>(pickle::load_ref(archive, sizeof(Control)));
        tasks_ = shm::Shared<shm::Ring>(pickle::load_ref(archive, sizeof(shm::Ring)));
        reports_ = shm::Shared<shm::Ring>(pickle::load_ref(archive, sizeof(shm::Ring)));
        doorbell_ = std::make_shared<os::EventFd>(
            archive.cargo().take_descriptor(archive.get<std::uint32_t>()));
    }

    shm::Shared<Control> control_;
    shm::Shared<shm::Ring> tasks_;
    shm::Shared<shm::Ring> reports_;
    std::shared_ptr<os::EventFd> doorbell_;
};

}  // namespace multiprocessing::runtime::pool
