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
    ~OutcomeWriter();

    template <class R>
    void value(const R& result);
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
    [[nodiscard]] shm::Block& allocate(std::uint64_t capacity);

    const Channel& channel_;
    WorkerSlot& slot_;
    std::uint32_t item_;
    shm::Block* block_ = nullptr;   // of a chunk's outcomes
    pickle::Scratch scratch_;       // or of a single one's
    pickle::Cargo cargo_{false, "the result of a pool's task"};
};

inline OutcomeWriter::OutcomeWriter(const Channel& channel, std::uint32_t worker, const Task& task,
                                    std::size_t element)
    : channel_(channel), slot_(channel.control().slots()[worker]), item_(task.begin) {
    const std::uint32_t count = task.count - task.begin;
    Result fresh{};
    fresh.id = task.id;
    fresh.worker = worker;
    fresh.first = task.begin;
    fresh.array = element * count;
    if (count == 1) {
        fresh.capacity = std::numeric_limits<std::uint64_t>::max();
        scratch_->grow(sizeof fresh + fresh.array);
    } else {
        constexpr std::uint64_t some = 4096 - sizeof(Result) - sizeof(shm::Block);
        fresh.capacity = element != 0 ? fresh.array : some;
        block_ = &allocate(fresh.capacity);
    }
    new (&head()) Result(fresh);
}

inline OutcomeWriter::~OutcomeWriter() {
    if (block_ == nullptr) return;
    const shm::Arena& arena = shm::Arena::instance();
    shm::Transaction tx = arena.transaction();
    tx.set(slot_.result.serial, 0);
    arena.destroy(tx, *block_);
}

/// A block of the pool's, for it must outlive the worker, noted in the worker's slot.
inline shm::Block& OutcomeWriter::allocate(std::uint64_t capacity) {
    const shm::Arena& arena = shm::Arena::instance();
    shm::Transaction tx = arena.transaction();
    shm::Block& block = arena.allocate(tx, sizeof(Result) + capacity, channel_.owned());
    if (block_ == nullptr) {
        tx.set(slot_.result.offset, arena.offset_of(&block));
        tx.set(slot_.result.serial, block.serial);
        new (shm::Arena::payload(block)) Result{};
    }
    tx.commit();
    return block;
}

inline std::byte* OutcomeWriter::grow(std::size_t size) {
    if (block_ == nullptr) return scratch_->grow(size);
    Result& old = head();
    const std::uint64_t used = old.array + old.entries;
    if (used + size > old.capacity) {
        shm::Block& larger = allocate(std::max(old.capacity * 2, used + size));
        std::memcpy(shm::Arena::payload(larger), &old, sizeof old + used);
        Result& fresh = *shm::Arena::payload<Result>(larger);
        fresh.capacity = larger.size - sizeof(Result);
        const shm::Arena& arena = shm::Arena::instance();
        shm::Transaction tx = arena.transaction();
        tx.set(slot_.result.offset, arena.offset_of(&larger));
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
        pickle::save_payload(result, *bytes, &cargo_);
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

inline void OutcomeWriter::send() {
    using shm::Ring;
    const auto put = [&](shm::Block& block, std::uint64_t size) {
        static_cast<void>(channel_.results().put(
            os::Deadline::never(), [&](Ring::Putter& end) { end.put_run(block, size); }));
    };
    const std::uint64_t size = sizeof(Result) + head().array + head().entries;
    if (!cargo_.tickets().empty()) {
        shm::Run run(size, cargo_.tickets());
        cargo_.ship();
        std::memcpy(run.data(), &head(), size);
        put(run.block(), size);
        run.release();
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
            error(base + entry.item, pickle::load_exception(bytes));
        }
        at += sizeof entry + entry.size;
    }
    give_array(finished);
}

}  // namespace multiprocessing::runtime::pool
