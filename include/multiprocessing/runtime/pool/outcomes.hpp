// SPDX-License-Identifier: BSL-1.0
//
// The outcomes of a task's items on their way to the parent: written as they come, into the task's own
// memory, so that what a worker has finished outlives it.
#pragma once

#include <multiprocessing/os/process.hpp>
#include <multiprocessing/pickle/exception.hpp>
#include <multiprocessing/pickle/message.hpp>
#include <multiprocessing/runtime/pool/shared.hpp>
#include <multiprocessing/runtime/this_process.hpp>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <memory>
#include <new>
#include <set>
#include <span>
#include <string>
#include <utility>

namespace multiprocessing::runtime::pool {

/// Results that stand in the task as an array.
template <class R>
inline constexpr std::size_t array_element = pickle::Bitwise<R> ? sizeof(R) : 0;

/// A chain of blocks of outcomes that is written. Used by the worker.
class SpillWriter {
public:
    /// The blocks are to hang on `owner`, and the first be noted in `first` and the last in `last`.
    SpillWriter(shm::Offset& owner, shm::Ticket& first, shm::Ticket& last) noexcept
        : owner_(owner), first_(first), last_(last) {}

    /// Room for an entry of `size` bytes, with the handles that are in it. It counts from close() on.
    /// Throws std::bad_alloc.
    [[nodiscard]] std::byte* open(std::uint32_t item, bool is_error, std::size_t size, bool is_last,
                                  std::span<const shm::Ticket> tickets = {});
    void close() noexcept { std::atomic_ref(spill_->used).store(open_, std::memory_order_release); }

    /// Writes down an exception, and where it was thrown.
    void error(std::uint32_t item, const std::exception_ptr& exception, bool is_last,
               const os::Backtrace& thrown = {}) {
        pickle::Scratch bytes;
        pickle::dump_exception(exception, *bytes, os::this_pid(), this_process().self->current_name(),
                               thrown);
        bytes->copy_to(open(item, true, bytes->size(), is_last));
        close();
    }

private:
    void add(std::uint64_t capacity, std::span<const shm::Ticket> tickets);

    shm::Offset& owner_;
    shm::Ticket& first_;
    shm::Ticket& last_;
    Spill* spill_ = nullptr;
    std::uint64_t open_ = 0;
};

inline std::byte* SpillWriter::open(std::uint32_t item, bool is_error, std::size_t size, bool is_last,
                                    std::span<const shm::Ticket> tickets) {
    constexpr std::uint64_t some = 4096 - sizeof(shm::Block) - sizeof(Spill);
    constexpr std::uint64_t most = std::uint64_t{1} << 20;
    const std::uint64_t need = sizeof(Spill::Entry) + ((size + 7) & ~std::uint64_t{7});
    if (spill_ == nullptr || !tickets.empty() || need > spill_->capacity - spill_->used) {
        // Handles are given up with their block, so they have one to themselves.
        const std::uint64_t grown = spill_ == nullptr ? some : std::min(2 * spill_->capacity, most);
        add(is_last || !tickets.empty() ? need : std::max(need, grown), tickets);
    }
    std::byte* at = spill_->bytes() + spill_->used;
    const Spill::Entry entry{item, is_error ? 1u : 0u, size};
    std::memcpy(at, &entry, sizeof entry);
    open_ = spill_->used + need;
    return at + sizeof entry;
}

inline void SpillWriter::add(std::uint64_t capacity, std::span<const shm::Ticket> tickets) {
    const shm::Arena& arena = shm::Arena::instance();
    shm::Transaction tx = arena.transaction();
    shm::Block& block =
        arena.allocate(tx, sizeof(Spill) + capacity + tickets.size_bytes(), owner_);
    auto* spill = new (shm::Arena::payload(block)) Spill{{}, capacity, 0};
    if (!tickets.empty()) {
        std::memcpy(spill->bytes() + capacity, tickets.data(), tickets.size_bytes());
        tx.set(block.tickets, tickets.size());
    }
    const shm::Ticket ticket = arena.ticket(block);
    const auto note = [&tx, &ticket](shm::Ticket& where) {
        tx.set(where.offset, ticket.offset);
        tx.set(where.serial, ticket.serial);
    };
    note(last_.serial != 0 ? shm::Arena::payload<Spill>(arena.named(last_))->next : first_);
    note(last_);
    tx.commit();
    spill_ = spill;
}

/// Writes the outcomes of a grain's items, in order. Used by the worker.
class OutcomeWriter {
public:
    OutcomeWriter(Task& task, std::uint32_t grain)
        : task_(task), grain_(task.all_grains()[grain]), first_(task.first_of(grain)),
          end_(first_ + task.items_of(grain)), item_(first_ + grain_.finished.load()),
          spills_(shm::Arena::block_of(&task).owned, grain_.spill, grain_.last_spill) {}
    OutcomeWriter(const OutcomeWriter&) = delete;
    OutcomeWriter& operator=(const OutcomeWriter&) = delete;

    /// Of the task: the one whose outcome is the next.
    [[nodiscard]] std::uint32_t item() const noexcept { return item_; }
    [[nodiscard]] std::uint32_t end() const noexcept { return end_; }

    template <class R>
    void value(const R& result);
    void error(const std::exception_ptr& exception, const os::Backtrace& thrown = {}) {
        spills_.error(item_, exception, is_last(), thrown);
        finished_one();
    }

private:
    [[nodiscard]] bool is_last() const noexcept { return item_ + 1 == end_; }
    void finished_one() noexcept {
        ++item_;
        // The count is what makes the outcome count: after it, should this process be killed here.
        grain_.finished.store(item_ - first_, std::memory_order_release);
    }

    Task& task_;
    Grain& grain_;
    const std::uint32_t first_;
    const std::uint32_t end_;
    std::uint32_t item_;
    SpillWriter spills_;
};

template <class R>
void OutcomeWriter::value(const R& result) {
    if constexpr (array_element<R> != 0) {
        std::memcpy(task_.at(task_.results) + item_ * sizeof(R), std::addressof(result), sizeof(R));
    } else if constexpr (pickle::has_exact_size<R>) {
        // Straight to its place. What it is made of is bytes, and no handles.
        const std::size_t size = pickle::payload_size(result);
        pickle::Buffer place(std::span(spills_.open(item_, false, size, is_last()), size));
        pickle::save_payload(result, place);
        spills_.close();
    } else {
        pickle::Cargo cargo(false, "the result of a pool's task");
        pickle::Scratch bytes;
        pickle::save_payload(result, *bytes, &cargo);
        bytes->copy_to(spills_.open(item_, false, bytes->size(), is_last(), cargo.tickets()));
        cargo.ship();
        spills_.close();
    }
    finished_one();
}

/// What is done with outcomes in the parent.
class OutcomeReader {
public:
    virtual ~OutcomeReader() = default;
    /// Results that are nothing but their bytes: of the `array` those from place `from` on, `count` of
    /// them, which are the outcomes of `item` and the items after it.
    virtual void array(std::uint64_t item, const std::byte* array, std::uint32_t from,
                       std::uint32_t count) = 0;
    virtual void value(std::uint64_t item, std::span<const std::byte> bytes, pickle::Cargo& cargo) = 0;
    virtual void error(std::uint64_t item, std::exception_ptr exception) = 0;

    /// Goes through the outcomes of a grain's items from the first that has not been read on; `base` is
    /// the number in the job of the task's first item. Nothing is said of those `given_up`, items of the
    /// task whose outcomes the parent has decided on.
    void read(Task& task, std::uint32_t grain, std::uint64_t base, std::uint32_t& read,
              const std::set<std::uint32_t>& given_up);
    /// Goes through a chain of entries: entry(spill's block, item, is_error, bytes) until that is false.
    template <class Entry>
    static void walk(shm::Ticket first, Entry entry);
    /// An exception that cannot be made again here is one of its own.
    [[nodiscard]] static std::exception_ptr load(std::span<const std::byte> bytes) {
        try {
            return pickle::load_exception(bytes);
        } catch (...) {
            return std::current_exception();
        }
    }
};

template <class Entry>
void OutcomeReader::walk(shm::Ticket first, Entry entry) {
    const shm::Arena& arena = shm::Arena::instance();
    for (shm::Ticket next = first; next.serial != 0;) {
        auto& block = static_cast<shm::Block&>(arena.named(next));
        Spill& spill = *shm::Arena::payload<Spill>(block);
        const std::uint64_t used = std::atomic_ref(spill.used).load(std::memory_order_acquire);
        for (std::uint64_t at = 0; at < used;) {
            Spill::Entry here;
            std::memcpy(&here, spill.bytes() + at, sizeof here);
            at += sizeof here;
            if (!entry(block, here, std::span<const std::byte>(spill.bytes() + at, here.size))) return;
            at += (here.size + 7) & ~std::uint64_t{7};
        }
        next = spill.next;
    }
}

inline void OutcomeReader::read(Task& task, std::uint32_t grain, std::uint64_t base,
                                std::uint32_t& read, const std::set<std::uint32_t>& given_up) {
    const Grain& from = task.all_grains()[grain];
    const std::uint32_t finished = from.finished.load(std::memory_order_acquire);
    const std::uint32_t first = task.first_of(grain);
    std::uint32_t next = read;
    const auto give_run = [&](std::uint32_t until) {
        if (next < until) array(base + first + next, task.at(task.results), first + next, until - next);
        next = std::max(next, until);
    };
    const auto give_array = [&](std::uint32_t until) {
        if (task.results != 0) {
            const auto end = given_up.lower_bound(first + until);
            for (auto each = given_up.lower_bound(first + next); each != end; ++each) {
                give_run(*each - first);
                ++next;
            }
            give_run(until);
        }
        next = std::max(next, until);
    };
    walk(from.spill, [&](shm::Block& block, const Spill::Entry& entry, std::span<const std::byte> bytes) {
        const std::uint32_t item = entry.item - first;
        if (item >= finished) return false;  // written by one who died before it counted
        if (item < next) return true;        // so was this; or it was given up
        give_array(item);
        ++next;
        read = next;  // whatever comes of it
        if (given_up.contains(entry.item)) return true;
        if (entry.is_error != 0) {
            error(base + entry.item, load(bytes));
        } else {
            pickle::Cargo cargo(shm::Arena::tickets(block));
            value(base + entry.item, bytes, cargo);
        }
        return true;
    });
    give_array(finished);
    read = next;
}

}  // namespace multiprocessing::runtime::pool
