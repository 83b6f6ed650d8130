// SPDX-License-Identifier: BSL-1.0
//
// The outcomes of a task's items on their way to the parent. A single one is written down when it is
// there; those of a chunk as they come, in shared memory, so that what a worker has finished outlives
// it.
#pragma once

#include <multiprocessing/os/process.hpp>
#include <multiprocessing/pickle/exception.hpp>
#include <multiprocessing/pickle/message.hpp>
#include <multiprocessing/runtime/pool/shared.hpp>
#include <multiprocessing/runtime/this_process.hpp>
#include <multiprocessing/shm/run.hpp>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <limits>
#include <new>
#include <optional>
#include <span>
#include <string>
#include <utility>

namespace multiprocessing::runtime::pool {

/// Writes the outcomes of one task, in order. Used by the worker.
class OutcomeWriter {
public:
    /// `element` is the size of a result that is nothing but its bytes, else 0.
    OutcomeWriter(const Channel& channel, std::uint32_t worker, const Task& task, std::size_t element);
    OutcomeWriter(const OutcomeWriter&) = delete;
    OutcomeWriter& operator=(const OutcomeWriter&) = delete;

    template <class R>
    void value(const R& result);
    /// Between two items: sends on what must not be lost with this process.
    void pass_on();
    void error(const std::exception_ptr& exception);
    /// Says that the worker could not begin.
    void fail_start(const std::exception_ptr& exception) {
        head().kind = Result::Kind::failed_start;
        error(exception);
    }
    /// Hands everything to the parent.
    void send();

private:
    [[nodiscard]] Result& head() noexcept {
        return *reinterpret_cast<Result*>(block_ != nullptr ? shm::Arena::payload(*block_)
                                                            : scratch_->data());
    }
    /// Room for `size` bytes of an entry.
    [[nodiscard]] std::byte* grow(std::size_t size);
    void entry(std::span<const std::byte> bytes, bool is_error);
    void finished_one() noexcept;
    [[nodiscard]] shm::Block& allocate(const Result& head);
    void put_with_tickets();

    const Channel& channel_;
    WorkerSlot& slot_;
    std::uint32_t item_;
    const std::uint32_t end_;
    // Of a chunk's outcomes. If this is not sent the worker is about to end, and the parent will look
    // at what there is: so it is not destroyed here.
    shm::Block* block_ = nullptr;
    pickle::Scratch scratch_;  // or of a single one's
    std::optional<pickle::Cargo> cargo_{std::in_place, false, carrier};

    static constexpr const char* carrier = "the result of a pool's task";
};

inline OutcomeWriter::OutcomeWriter(const Channel& channel, std::uint32_t worker, const Task& task,
                                    std::size_t element)
    : channel_(channel), slot_(channel.control().slots()[worker]), item_(task.begin),
      end_(task.count) {
    const std::uint32_t count = end_ - item_;
    Result fresh{};
    fresh.id = task.id;
    fresh.worker = worker;
    fresh.first = item_;
    fresh.array = element * count;
    if (count == 1) {
        fresh.capacity = std::numeric_limits<std::uint64_t>::max();
        new (scratch_->grow(sizeof fresh + fresh.array)) Result(fresh);
    } else {
        constexpr std::uint64_t some = 4096 - sizeof(Result) - sizeof(shm::Block);
        fresh.capacity = element != 0 ? fresh.array : some;
        block_ = &allocate(fresh);
    }
}

/// A block of the pool's, for it must outlive the worker; the first is noted in the worker's slot.
inline shm::Block& OutcomeWriter::allocate(const Result& head) {
    const shm::Arena& arena = shm::Arena::instance();
    shm::Transaction tx = arena.transaction();
    shm::Block& block = arena.allocate(tx, sizeof(Result) + head.capacity, channel_.owned());
    new (shm::Arena::payload(block)) Result(head);
    if (block_ == nullptr) {
        tx.set(slot_.result.offset, arena.ticket(block).offset);
        tx.set(slot_.result.serial, block.serial);
    }
    tx.commit();
    return block;
}

inline std::byte* OutcomeWriter::grow(std::size_t size) {
    if (block_ == nullptr) return scratch_->grow(size);
    Result& old = head();
    const std::uint64_t used = old.array + old.entries;
    if (used + size > old.capacity) {
        Result grown = old;
        grown.capacity = std::max(old.capacity * 2, used + size);
        shm::Block& larger = allocate(grown);
        std::memcpy(shm::Arena::payload<Result>(larger)->payload(), old.payload(), used);
        const shm::Arena& arena = shm::Arena::instance();
        shm::Transaction tx = arena.transaction();
        tx.set(slot_.result.offset, arena.ticket(larger).offset);
        tx.set(slot_.result.serial, larger.serial);
        shm::Block& gone = *std::exchange(block_, &larger);
        arena.destroy(tx, gone);
    }
    return head().payload() + used;
}

inline void OutcomeWriter::entry(std::span<const std::byte> bytes, bool is_error) {
    const Result::Entry entry{item_, is_error ? 1u : 0u, bytes.size()};
    std::byte* at = grow(sizeof entry + bytes.size());
    std::memcpy(at, &entry, sizeof entry);
    if (!bytes.empty()) std::memcpy(at + sizeof entry, bytes.data(), bytes.size());
    head().entries += sizeof entry + bytes.size();
}

inline void OutcomeWriter::finished_one() noexcept {
    // The count is what makes the outcome count: after it, should this process be killed here.
    std::atomic_ref(head().finished).fetch_add(1, std::memory_order_release);
    ++item_;
}

template <class R>
void OutcomeWriter::value(const R& result) {
    if constexpr (pickle::Bitwise<R>) {
        std::memcpy(head().payload() + (item_ - head().first) * sizeof(R), std::addressof(result),
                    sizeof(R));
    } else {
        pickle::Scratch bytes;
        pickle::save_payload(result, *bytes, &*cargo_);
        entry(bytes->span(), false);
    }
    finished_one();
}

inline void OutcomeWriter::error(const std::exception_ptr& exception) {
    pickle::Scratch bytes;
    pickle::dump_exception(exception, *bytes, os::this_pid(), this_process().self->current_name());
    entry(bytes->span(), true);
    finished_one();
}

inline void OutcomeWriter::put_with_tickets() {
    const std::uint64_t size = sizeof(Result) + head().array + head().entries;
    shm::Run run(size, cargo_->tickets());
    cargo_->ship();
    std::memcpy(run.data(), &head(), size);
    static_cast<void>(channel_.results().put(
        os::Deadline::never(), [&](shm::Ring::Putter& end) { end.put_run(run.block(), size); }));
    run.release();
}

inline void OutcomeWriter::pass_on() {
    // Handles of shared objects are on their way already: nobody else could find them here.
    if (cargo_->tickets().empty() || item_ == end_) return;
    Result& result = head();
    result.kind = Result::Kind::part;
    put_with_tickets();
    channel_.announce();
    cargo_.emplace(false, carrier);
    // In this order: at no point is there an outcome here that was sent.
    std::atomic_ref(result.finished).store(0, std::memory_order_release);
    std::atomic_ref(result.entries).store(0, std::memory_order_release);
    std::atomic_ref(result.first).store(item_, std::memory_order_release);
    result.kind = Result::Kind::outcomes;
}

inline void OutcomeWriter::send() {
    using shm::Ring;
    const auto put = [&](shm::Block& block, std::uint64_t size) {
        static_cast<void>(channel_.results().put(
            os::Deadline::never(), [&](Ring::Putter& end) { end.put_run(block, size); }));
    };
    const std::uint64_t size = sizeof(Result) + head().array + head().entries;
    if (!cargo_->tickets().empty()) {
        put_with_tickets();
        if (block_ != nullptr) {
            const shm::Arena& arena = shm::Arena::instance();
            shm::Transaction tx = arena.transaction();
            tx.set(slot_.result.serial, 0);
            arena.destroy(tx, *std::exchange(block_, nullptr));
        }
    } else if (block_ != nullptr) {
        put(*block_, size);
        block_ = nullptr;
        slot_.result = {};
    } else if (size <= Ring::inline_most) {
        static_cast<void>(
            channel_.results().put(os::Deadline::never(), [&](Ring::Putter& end) {
                std::memcpy(end.reserve(static_cast<std::uint32_t>(size)), scratch_->data(), size);
            }));
    } else {
        shm::Run run(size);
        std::memcpy(run.data(), scratch_->data(), size);
        put(run.block(), size);
        run.release();
    }
    channel_.announce();
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

    /// Goes through a result whose items are numbered from `base` on in the job.
    void read(const Result& result, std::span<shm::Ticket> tickets, std::uint64_t base);

private:
    // An exception that cannot be made again here is one of its own.
    [[nodiscard]] static std::exception_ptr load(std::span<const std::byte> bytes) {
        try {
            return pickle::load_exception(bytes);
        } catch (...) {
            return std::current_exception();
        }
    }
};

inline void OutcomeReader::read(const Result& result, std::span<shm::Ticket> tickets,
                                std::uint64_t base) {
    const std::uint32_t finished =
        std::atomic_ref(const_cast<std::uint32_t&>(result.finished)).load(std::memory_order_acquire);
    pickle::Cargo cargo(tickets);
    const std::byte* at = result.payload() + result.array;
    const std::byte* const end = at + result.entries;
    std::uint32_t next = 0;  // the first of the array that has not been given out
    const auto give_array = [&](std::uint32_t until) {
        if (result.array != 0 && until > next) {
            array(base + result.first + next, result.payload(), next, until - next);
        }
        next = until + 1;
    };
    while (at != end) {
        Result::Entry entry;
        std::memcpy(&entry, at, sizeof entry);
        if (entry.item >= result.first + finished) break;  // written by one who died before it counted
        const std::span bytes(at + sizeof entry, entry.size);
        give_array(entry.item - result.first);
        if (entry.is_error == 0) {
            value(base + entry.item, bytes, cargo);
        } else {
            error(base + entry.item, load(bytes));
        }
        at += sizeof entry + entry.size;
    }
    give_array(finished);
}

}  // namespace multiprocessing::runtime::pool
