// SPDX-License-Identifier: BSL-1.0
//
// What a Pool and its workers share: a ring of tasks, a ring of results, and for each worker a slot in
// which it writes down what it holds before it begins, so that its death costs the item in its hands
// and nothing else.
#pragma once

#include <multiprocessing/os/fd.hpp>
#include <multiprocessing/os/module.hpp>
#include <multiprocessing/pickle/handle.hpp>
#include <multiprocessing/shm/arena.hpp>
#include <multiprocessing/shm/ref.hpp>
#include <multiprocessing/shm/ring.hpp>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>

namespace multiprocessing::runtime::pool {

/// What stands at the start of a task's block. Then the callable, then the items. The ring carries
/// only the ticket of the block, which is the parent's: whoever is lost, the task can be given again.
struct alignas(64) Task {
    // What `holder` says beside a worker's number plus one.
    static constexpr std::uint32_t waiting = 0;
    static constexpr std::uint32_t cancelled = ~std::uint32_t{0};

    std::uint64_t id;
    os::CodeAddress entry;               // the function that can read and run it
    std::uint32_t begin;                 // the first item to run: those before it are finished
    std::uint32_t count;                 // of items
    std::uint64_t bytes;                 // of the payload
    std::atomic<std::uint32_t> holder;   // who took it

    [[nodiscard]] std::byte* payload() noexcept { return reinterpret_cast<std::byte*>(this + 1); }
};

/// What stands at the start of a result: outcomes of the items from `first` on. Where results are
/// nothing but their bytes an array of them follows, one place for each item of the task; then, for
/// all others and for errors, entries.
struct Result {
    enum class Kind : std::uint32_t {
        outcomes,      // of all items that were left of the task
        part,          // of those so far: the task goes on
        failed_start,  // the initializer's exception, as one entry
    };
    struct Entry {
        std::uint32_t item;
        std::uint32_t is_error;
        std::uint64_t size;
    };

    std::uint64_t id;
    Kind kind;
    std::uint32_t worker;
    std::uint32_t first;
    std::uint32_t finished;   // how many items' outcomes are here
    std::uint64_t array;      // bytes of the array
    std::uint64_t entries;    // bytes of entries
    std::uint64_t capacity;   // bytes for both
    std::uint64_t reserved[2];

    [[nodiscard]] std::byte* payload() noexcept { return reinterpret_cast<std::byte*>(this + 1); }
    [[nodiscard]] const std::byte* payload() const noexcept {
        return reinterpret_cast<const std::byte*>(this + 1);
    }
};

static_assert(sizeof(Result) == 64, "the array begins at a cache line");

/// What one worker holds, written by it, read by the parent when it is dead.
struct alignas(64) WorkerSlot {
    enum class Stage : std::uint32_t { starting, initializing, ready };

    shm::Ticket task;
    shm::Ticket result;  // what it has of it so far, if there is more than one item
    Stage stage;
};

/// The shared object of a pool, followed by the slots.
struct Control {
    explicit Control(std::uint32_t count) noexcept : workers(count) {
        for (WorkerSlot& slot : slots()) slot = WorkerSlot{};
    }
    [[nodiscard]] std::span<WorkerSlot> slots() noexcept {
        return {reinterpret_cast<WorkerSlot*>(reinterpret_cast<std::byte*>(this) + sizeof(Control)),
                workers};
    }
    [[nodiscard]] static std::uint64_t extra_bytes(std::uint32_t workers) noexcept {
        return workers * sizeof(WorkerSlot);
    }

    alignas(64) std::atomic<std::uint32_t> stopping{0};  // workers leave when they have nothing in hand
    std::atomic<std::uint32_t> parent_sleeps{0};         // ring the doorbell for it
    std::uint32_t workers;
    std::uint32_t reserved[13]{};
};
static_assert(sizeof(Control) % alignof(WorkerSlot) == 0);

/// The connection of one process to a pool.
class Channel {
public:
    explicit Channel(std::uint32_t workers)
        : control_(shm::Shared<Control>::make(Control::extra_bytes(workers), workers)),
          tasks_(shm::Ring::make()), results_(shm::Ring::make()),
          doorbell_(std::make_shared<os::EventFd>()) {}

    [[nodiscard]] Control& control() const noexcept { return *control_; }
    [[nodiscard]] shm::Ring& tasks() const noexcept { return *tasks_; }
    [[nodiscard]] shm::Ring& results() const noexcept { return *results_; }
    [[nodiscard]] const os::EventFd& doorbell() const noexcept { return *doorbell_; }
    /// The list of blocks that end with the pool.
    [[nodiscard]] shm::Offset& owned() const noexcept {
        return shm::Arena::block_of(&*control_).owned;
    }
    /// After a result has been put.
    void announce() const noexcept {
        // Orders the result before the look; the parent raises its flag before its last look.
        std::atomic_thread_fence(std::memory_order_seq_cst);
        if (control().parent_sleeps.load(std::memory_order_relaxed) != 0 &&
            control().parent_sleeps.exchange(0) != 0) {
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
        pickle::save_ref(archive, results_);
        archive.put(static_cast<std::uint32_t>(archive.cargo().add_descriptor(doorbell_->get())));
    }
    void load_handle(pickle::IArchive& archive) {
        control_ = shm::Shared<Control>(pickle::load_ref(archive, sizeof(Control)));
        tasks_ = shm::Shared<shm::Ring>(pickle::load_ref(archive, sizeof(shm::Ring)));
        results_ = shm::Shared<shm::Ring>(pickle::load_ref(archive, sizeof(shm::Ring)));
        doorbell_ = std::make_shared<os::EventFd>(
            archive.cargo().take_descriptor(archive.get<std::uint32_t>()));
    }

    shm::Shared<Control> control_;
    shm::Shared<shm::Ring> tasks_;
    shm::Shared<shm::Ring> results_;
    std::shared_ptr<os::EventFd> doorbell_;
};

}  // namespace multiprocessing::runtime::pool
