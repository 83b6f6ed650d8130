// SPDX-License-Identifier: BSL-1.0
//
// The bare limits of queues: rings that know no types, bounds, sleep or death of a peer. They spin,
// and yield when that takes long. For memory that was zeroed and is shared.
#pragma once

#include "measure.hpp"

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include <sched.h>

namespace benchmark {

/// Counts how often something was not there yet, and yields when that was often.
class Patience {
public:
    void wait() noexcept {
        if (++times_ % 1024 == 0) {
            ::sched_yield();
        } else {
            pause();
        }
    }

private:
    unsigned times_ = 0;
};

/// Vyukov's bounded queue of many producers and many consumers, with one word in a slot.
template <std::size_t Slots>
class MpmcRing {
public:
    MpmcRing() {
        for (std::size_t i = 0; i < Slots; ++i) slots_[i].turn = i;
    }

    void put(std::uint64_t item) noexcept {
        auto at = tail_.load(std::memory_order_relaxed);
        for (Patience patience;;) {
            Slot& slot = slots_[at % Slots];
            const auto turn = slot.turn.load(std::memory_order_acquire);
            if (turn == at) {
                if (tail_.compare_exchange_weak(at, at + 1, std::memory_order_relaxed)) {
                    slot.item = item;
                    slot.turn.store(at + 1, std::memory_order_release);
                    return;
                }
            } else {
                if (static_cast<std::int64_t>(turn - at) < 0) patience.wait();
                at = tail_.load(std::memory_order_relaxed);
            }
        }
    }

    std::uint64_t get() noexcept {
        auto at = head_.load(std::memory_order_relaxed);
        for (Patience patience;;) {
            Slot& slot = slots_[at % Slots];
            const auto turn = slot.turn.load(std::memory_order_acquire);
            if (turn == at + 1) {
                if (head_.compare_exchange_weak(at, at + 1, std::memory_order_relaxed)) {
                    const auto item = slot.item;
                    slot.turn.store(at + Slots, std::memory_order_release);
                    return item;
                }
            } else {
                if (static_cast<std::int64_t>(turn - (at + 1)) < 0) patience.wait();
                at = head_.load(std::memory_order_relaxed);
            }
        }
    }

private:
    struct Slot {
        std::atomic<std::uint64_t> turn;
        std::uint64_t item;
    };
    alignas(64) std::atomic<std::uint64_t> tail_{0};
    alignas(64) std::atomic<std::uint64_t> head_{0};
    alignas(64) std::array<Slot, Slots> slots_{};
};

/// Lamport's ring of one producer and one consumer. Each looks at the other's end only when what it
/// saw last does not suffice.
template <class Item, std::size_t Slots>
class SpscRing {
public:
    /// The slot to write to next, and that it is written.
    Item& back() noexcept {
        const auto at = tail_.load(std::memory_order_relaxed);
        for (Patience patience; at - head_seen_ == Slots;) {
            head_seen_ = head_.load(std::memory_order_acquire);
            if (at - head_seen_ == Slots) patience.wait();
        }
        return items_[at % Slots];
    }
    void push() noexcept {
        tail_.store(tail_.load(std::memory_order_relaxed) + 1, std::memory_order_release);
    }
    /// The slot to read next, and that it is read.
    const Item& front() noexcept {
        const auto at = head_.load(std::memory_order_relaxed);
        for (Patience patience; at == tail_seen_;) {
            tail_seen_ = tail_.load(std::memory_order_acquire);
            if (at == tail_seen_) patience.wait();
        }
        return items_[at % Slots];
    }
    void pop() noexcept {
        head_.store(head_.load(std::memory_order_relaxed) + 1, std::memory_order_release);
    }

private:
    alignas(64) std::atomic<std::uint64_t> tail_{0};
    std::uint64_t head_seen_{0};
    alignas(64) std::atomic<std::uint64_t> head_{0};
    std::uint64_t tail_seen_{0};
    alignas(64) std::array<Item, Slots> items_{};
};

/// A slot of the copying ring.
template <std::size_t Size>
struct Block {
    alignas(64) std::array<std::byte, Size> bytes;
};

/// Seconds to send `count` messages of `Blocks` blocks from one process to another through a ring:
/// copied in from the producer's memory and out to the consumer's, all of it touched before.
template <std::size_t Size, std::size_t Slots, std::size_t Blocks = 1>
double copy_through_ring(long count) {
    struct Memory {
        SpscRing<Block<Size>, Slots> ring;
        std::array<Block<Size>, Blocks> from;
        std::array<Block<Size>, Blocks> to;
        std::atomic<bool> ready;
    };
    static const Mapped<Memory> memory;
    static const bool touched = [] {
        std::memset(static_cast<void*>(&memory->from), 1, sizeof(memory->from));
        std::memset(static_cast<void*>(&memory->to), 1, sizeof(memory->to));
        for (std::size_t i = 0; i < Slots; ++i) {
            std::memset(static_cast<void*>(&memory->ring.back()), 1, Size);
            memory->ring.push();
            static_cast<void>(memory->ring.front());
            memory->ring.pop();
        }
        return true;
    }();
    static_cast<void>(touched);
    memory->ready = false;
    const Child producer([&] {
        // Even so a child has to find each page once: that is not counted.
        const volatile std::byte* const bytes = reinterpret_cast<const std::byte*>(&*memory);
        for (std::size_t i = 0; i < sizeof(Memory); i += 4096) static_cast<void>(bytes[i]);
        memory->ready.store(true, std::memory_order_release);
        for (long i = 0; i < count; ++i) {
            for (const auto& block : memory->from) {
                std::memcpy(&memory->ring.back(), &block, Size);
                memory->ring.push();
            }
        }
    });
    for (Patience patience; !memory->ready.load(std::memory_order_acquire);) patience.wait();
    return seconds([&] {
        for (long i = 0; i < count; ++i) {
            for (auto& block : memory->to) {
                std::memcpy(&block, &memory->ring.front(), Size);
                memory->ring.pop();
            }
        }
    });
}

}  // namespace benchmark
