// SPDX-License-Identifier: BSL-1.0
//
// A worker's place at work: where it takes tasks from, claims their grains one by one, says what it is
// at, and hears what the parent asks of it.
#pragma once

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/os/clock.hpp>
#include <multiprocessing/os/memory.hpp>
#include <multiprocessing/runtime/pool/shared.hpp>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <optional>
#include <utility>

namespace multiprocessing::runtime::pool {

/// After what a worker leaves, to be replaced. 0: never.
struct WorkerLimits {
    std::uint64_t tasks = 0;
    std::uint64_t memory = 0;  // bytes of its own beside what it had before its first task
};

/// Of one worker, in its own process. Whatever it is killed in the middle of, its slot and the task say
/// what it had in hand.
class Desk {
public:
    Desk(const Channel& channel, std::uint32_t number, WorkerSlot& slot, WorkerLimits limits)
        : channel_(channel), slot_(slot), number_(number), limits_(limits),
          memory_at_start_(limits.memory != 0 ? os::private_memory() : 0),
          run_(slot.run.load(std::memory_order_relaxed) & ~WorkerSlot::run_mask),
          now_(os::nanoseconds_now()) {}
    Desk(const Desk&) = delete;
    Desk& operator=(const Desk&) = delete;

    /// Waits for a task with a grain to be had, and claims it. Null: the worker is to leave.
    [[nodiscard]] Task* next();
    /// The grain that next() has claimed.
    [[nodiscard]] std::uint32_t claimed() const noexcept { return claimed_; }
    /// Claims another grain of the task in hand.
    [[nodiscard]] std::optional<std::uint32_t> claim(Task& task) noexcept {
        if (!may_go_on()) return std::nullopt;
        return claim_next(task);
    }
    /// It will not look at its task again.
    void put_down() noexcept { std::atomic_ref(slot_.task.serial).store(0, std::memory_order_release); }

    void begin(Task& task, std::uint32_t grain);
    /// Another item of a task whose items are timed.
    void begin_item(std::uint32_t item) {
        slot_.item = item;
        slot_.started.store(os::nanoseconds_now(), std::memory_order_relaxed);
        start_running();
    }
    void end(Task& task, std::uint32_t grain);

private:
    [[nodiscard]] bool may_go_on() const noexcept {
        return !doomed_ && slot_.leave.load(std::memory_order_relaxed) == 0 &&
               (limits_.tasks == 0 || done_ < limits_.tasks) && !is_fat_;
    }
    [[nodiscard]] std::optional<std::uint32_t> claim_next(Task& task) noexcept;
    [[nodiscard]] bool claim_this(Grain& grain) const noexcept {
        std::uint32_t waiting = Grain::waiting;
        return grain.holder.load(std::memory_order_relaxed) == waiting &&
               grain.holder.compare_exchange_strong(waiting, number_ + 1);
    }
    /// Makes a task this worker's to look at; null if it is not there any more.
    [[nodiscard]] Task* pick_up(shm::Ticket ticket);
    void start_running() {
        run_ += WorkerSlot::one_start;
        std::uint64_t before = slot_.run.load(std::memory_order_relaxed);
        do {
            // What the parent has asked of the item before is over. But who is about to be killed
            // begins no other, and what it says stays true: it has nothing in hand.
            if ((before & WorkerSlot::run_mask) == WorkerSlot::doomed) throw SystemExit(0);
        } while (!slot_.run.compare_exchange_weak(before, run_ | WorkerSlot::running,
                                                  std::memory_order_seq_cst));
    }
    void weigh() noexcept;

    const Channel& channel_;
    WorkerSlot& slot_;
    const std::uint32_t number_;
    const WorkerLimits limits_;
    const std::uint64_t memory_at_start_;  // bytes of its own, before the first task
    std::uint64_t run_;
    std::uint64_t now_;          // when it last began or ended something
    std::uint64_t weighed_ = 0;  // when
    std::uint64_t done_ = 0;     // grains
    std::uint32_t claimed_ = 0;
    bool doomed_ = false;
    bool is_fat_ = false;
};

inline Task* Desk::next() {
    using shm::Ring;
    const auto stop = [this] {
        return channel_.control().stopping.load(std::memory_order_acquire) != 0 || !may_go_on();
    };
    while (may_go_on()) {
        Task* task = nullptr;
        // In this order: what a worker claims it has picked up, and what it has claimed is known to be
        // lost if it dies before the record is taken, which the next one passes over.
        const auto look = [&](Ring::Getter& end, const Ring::Getter::Record& record) {
            Offer offer;
            std::memcpy(&offer, record.bytes.data(), sizeof offer);
            Task* const here = pick_up(offer.task);
            bool more = false;
            if (here != nullptr) {
                const auto claimed =
                    offer.grain == Offer::any ? claim_next(*here)
                    : claim_this(here->all_grains()[offer.grain]) ? std::optional(offer.grain)
                                                                  : std::nullopt;
                if (claimed) {
                    task = here;
                    claimed_ = *claimed;
                    more = offer.grain == Offer::any &&
                           here->next.load(std::memory_order_relaxed) < here->grains;
                } else {
                    put_down();
                }
            }
            if (!more) end.take(record);
            return task != nullptr;
        };
        const auto outcome = channel_.tasks().take(os::Deadline::never(), look, stop, [] {});
        if (outcome != shm::Outcome::done) return nullptr;
        if (task == nullptr) continue;
        const std::uint64_t then = std::exchange(now_, os::nanoseconds_now());
        WorkerTally::add(slot_.tally.waiting, now_ - then);
        return task;
    }
    return nullptr;
}

inline Task* Desk::pick_up(shm::Ticket ticket) {
    const shm::Arena& arena = shm::Arena::instance();
    // In a transaction: the parent, who frees blocks in one, either finds it picked up or has freed it.
    shm::Transaction tx = arena.transaction();
    shm::Block* block = arena.heap().find(ticket.offset, ticket.serial);
    if (block == nullptr) return nullptr;
    tx.set(slot_.task.offset, ticket.offset);
    tx.set(slot_.task.serial, ticket.serial);
    tx.commit();
    return shm::Arena::payload<Task>(*block);
}

inline std::optional<std::uint32_t> Desk::claim_next(Task& task) noexcept {
    const std::uint32_t before = task.next.load(std::memory_order_relaxed);
    for (std::uint32_t i = before; i < task.grains; ++i) {
        if (!claim_this(task.all_grains()[i])) continue;
        task.next.store(i + 1, std::memory_order_relaxed);
        return i;
    }
    if (before < task.grains) task.next.store(task.grains, std::memory_order_relaxed);
    return std::nullopt;
}

inline void Desk::begin(Task& task, std::uint32_t grain) {
    slot_.id = task.id;
    slot_.grain = grain;
    if (task.timed == 0) start_running();
}

inline void Desk::end(Task& task, std::uint32_t grain) {
    const std::uint64_t before = slot_.run.exchange(run_ | WorkerSlot::idle, std::memory_order_acq_rel);
    doomed_ = (before & WorkerSlot::run_mask) == WorkerSlot::doomed;
    ++done_;
    const std::uint64_t then = std::exchange(now_, os::nanoseconds_now());
    slot_.tally.ran(now_ - then, task.base + task.first_of(grain), task.items_of(grain));
    if (limits_.memory != 0) weigh();
    channel_.report({task.id, grain, number_});
}

/// Has it grown too large?
inline void Desk::weigh() noexcept {
    constexpr std::uint64_t interval = 10'000'000;  // it takes some microseconds
    if (now_ - weighed_ < interval) return;
    weighed_ = now_;
    const std::uint64_t memory = os::private_memory();
    is_fat_ = memory - std::min(memory, memory_at_start_) > limits_.memory;
}

}  // namespace multiprocessing::runtime::pool
