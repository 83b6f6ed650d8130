// SPDX-License-Identifier: BSL-1.0
//
// Counted handles of blocks in the arena: an object there lives as long as any process has a handle
// of it or a message bears one. Copies inside a process are shared_ptr copies; a forked child has
// its parent's handles; in messages they travel as tickets.
#pragma once

#include <multiprocessing/shm/arena.hpp>
#include <multiprocessing/shm/processes.hpp>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <type_traits>
#include <utility>

namespace multiprocessing::shm {

/// The object that a ticket names has ended.
class StaleTicket : public std::runtime_error {
public:
    StaleTicket()
        : std::runtime_error("the shared object that this handle names has ended: its last handle "
                             "was dropped before the message was read") {}
};

/// A handle of one counted block.
class Ref {
public:
    Ref() noexcept = default;
    /// A new block of `size` bytes, not zeroed, with this as its only handle.
    static Ref create(std::uint64_t size);
    /// Turns a ticket into a handle and marks it as used. Throws StaleTicket.
    static Ref arrive(Ticket& ticket);
    /// Another handle of what a ticket names, which stays good. Throws StaleTicket.
    static Ref copy(const Ticket& ticket);

    /// A ticket for a message; the block lives until it is used or abandoned.
    [[nodiscard]] Ticket depart() const;

    [[nodiscard]] explicit operator bool() const noexcept { return held_ != nullptr; }
    template <class T = std::byte>
    [[nodiscard]] T* get() const noexcept {
        return Arena::payload<T>(*held_->block);
    }
    [[nodiscard]] Block& block() const noexcept { return *held_->block; }
    [[nodiscard]] Offset offset() const noexcept {
        return held_ ? Arena::instance().offset_of(held_->block) : 0;
    }
    /// The same object?
    friend bool operator==(const Ref& a, const Ref& b) noexcept { return a.offset() == b.offset(); }

private:
    struct Held {
        Block* block = nullptr;
        std::uint32_t entry = 0;
        std::uint32_t generation = 0;
        Held() = default;
        Held(const Held&) = delete;
        Held& operator=(const Held&) = delete;
        ~Held() {
            if (block != nullptr) Processes::instance().drop(entry, generation);
        }
    };

    template <class Settle>
    static Ref enter(Ticket ticket, Settle settle);

    std::shared_ptr<const Held> held_;
};

/// Gives up a ticket that will not be delivered.
void abandon(Ticket& ticket) noexcept;

/// A handle of a T in the arena.
template <class T>
class Shared : public Ref {
    static_assert(std::is_trivially_destructible_v<T>,
                  "an object in the arena ends with its last handle, in whatever process that is, and "
                  "nobody runs its destructor");

public:
    Shared() noexcept = default;
    explicit Shared(Ref ref) noexcept : Ref(std::move(ref)) {}
    /// Constructs one, with `extra` bytes after it.
    template <class... Args>
    static Shared make(std::uint64_t extra, Args&&... args) {
        Shared shared(Ref::create(sizeof(T) + extra));
        new (shared.template get<void>()) T(std::forward<Args>(args)...);
        return shared;
    }
    [[nodiscard]] T* operator->() const noexcept { return Ref::get<T>(); }
    [[nodiscard]] T& operator*() const noexcept { return *Ref::get<T>(); }
};

// ---------------------------------------------------------------------------------------------------

inline Ref Ref::create(std::uint64_t size) {
    Processes& processes = Processes::instance();
    static_cast<void>(processes.self());
    auto held = std::make_shared<Held>();  // first: what throws after the commit would lose the block
    const std::scoped_lock lock(processes.mutex);
    const Arena& arena = Arena::instance();
    Transaction tx = arena.transaction();
    if (arena.header().doomed != 0) arena.sweep(tx);
    Block& block = arena.heap().allocate(tx, size);
    tx.set(block.counts, 1);
    held->entry = processes.enter(tx, block);
    held->generation = processes.generation();
    tx.commit();
    held->block = &block;
    Ref ref;
    ref.held_ = std::move(held);
    return ref;
}

inline Ticket Ref::depart() const {
    const Arena& arena = Arena::instance();
    Transaction tx = arena.transaction();
    tx.set(block().counts, block().counts + (std::uint64_t{1} << 32));
    tx.commit();
    return arena.ticket(block());
}

inline Ref Ref::arrive(Ticket& ticket) {
    return enter(ticket, [&ticket](Transaction& tx, Block& block) {
        // A message that is read twice has used up its count the first time.
        const bool counted = (block.counts >> 32) != 0;
        if (counted) tx.set(block.counts, block.counts - (std::uint64_t{1} << 32));
        if (Arena::instance().contains(&ticket)) {
            tx.set(ticket.serial, 0);  // with the count, or the death of the reader drops it twice
        } else {
            ticket.serial = 0;
        }
    });
}

inline Ref Ref::copy(const Ticket& ticket) {
    return enter(ticket, [](Transaction&, Block&) {});
}

template <class Settle>
Ref Ref::enter(Ticket ticket, Settle settle) {
    Processes& processes = Processes::instance();
    static_cast<void>(processes.self());
    auto held = std::make_shared<Held>();
    const std::scoped_lock lock(processes.mutex);
    const Arena& arena = Arena::instance();
    Transaction tx = arena.transaction();
    Block* block = arena.heap().find(ticket.offset, ticket.serial);
    if (block == nullptr || block->counts == 0) throw StaleTicket();
    tx.set(block->counts, block->counts + 1);
    held->entry = processes.enter(tx, *block);
    held->generation = processes.generation();
    settle(tx, *block);
    tx.commit();
    held->block = block;
    Ref ref;
    ref.held_ = std::move(held);
    return ref;
}

inline void abandon(Ticket& ticket) noexcept {
    if (ticket.serial == 0) return;
    const Arena& arena = Arena::instance();
    Transaction tx = arena.transaction();
    Block* block = arena.heap().find(ticket.offset, ticket.serial);
    if (arena.contains(&ticket)) {
        tx.set(ticket.serial, 0);  // with the count, as above
    } else {
        ticket.serial = 0;
    }
    if (block == nullptr || (block->counts >> 32) == 0) {
        tx.commit();
        return;
    }
    tx.set(block->counts, block->counts - (std::uint64_t{1} << 32));
    if (block->counts == 0) {
        arena.destroy(tx, *block);
    } else {
        tx.commit();
    }
}

}  // namespace multiprocessing::shm
