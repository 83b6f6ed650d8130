// SPDX-License-Identifier: BSL-1.0
//
// Counted handles of objects in the arena, cells or blocks: one lives as long as any process has a
// handle of it or a message bears one. Copies inside a process are counted in its private memory; a
// forked child has its parent's handles; in messages they travel as tickets.
#pragma once

#include <multiprocessing/shm/arena.hpp>
#include <multiprocessing/shm/processes.hpp>

#include <atomic>
#include <cstddef>
#include <cstdint>
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

/// A handle of one counted object, as large as a std::shared_ptr and as safe with threads.
class Ref {
public:
    Ref() noexcept = default;
    Ref(const Ref& other) noexcept : object_(other.object_), copies_(other.copies_) {
        // Relaxed: who copies has a handle, so the object is there.
        if (copies_ != nullptr) copies_->fetch_add(1, std::memory_order_relaxed);
    }
    Ref(Ref&& other) noexcept
        : object_(std::exchange(other.object_, nullptr)),
          copies_(std::exchange(other.copies_, nullptr)) {}
    Ref& operator=(Ref other) noexcept {
        std::swap(object_, other.object_);
        std::swap(copies_, other.copies_);
        return *this;
    }
    ~Ref() {
        // Release what this thread did to the object, acquire what the others did who had a copy.
        if (copies_ != nullptr && copies_->fetch_sub(1, std::memory_order_acq_rel) == 1) {
            Processes::instance().drop(*copies_);
        }
    }
    /// A new object of `size` bytes, not zeroed, with this as its only handle.
    static Ref create(std::uint64_t size);
    /// Turns a ticket into a handle and marks it as used. Throws StaleTicket.
    static Ref arrive(Ticket& ticket);
    /// Another handle of what a ticket names, which stays good. Throws StaleTicket.
    static Ref copy(const Ticket& ticket);

    /// A ticket for a message; the object lives until it is used or abandoned.
    [[nodiscard]] Ticket depart() const;
    /// The same as a part of something larger.
    [[nodiscard]] Ticket depart(Transaction& tx) const;

    [[nodiscard]] explicit operator bool() const noexcept { return object_ != nullptr; }
    template <class T = std::byte>
    [[nodiscard]] T* get() const noexcept {
        return Arena::payload<T>(*object_);
    }
    [[nodiscard]] Counted& counted() const noexcept { return *object_; }
    /// How many bytes it has, those asked for or some more.
    [[nodiscard]] std::uint64_t size() const noexcept {
        return Arena::instance().size_of(*object_);
    }
    /// The same object?
    friend bool operator==(const Ref& a, const Ref& b) noexcept { return a.object_ == b.object_; }

private:
    Ref(Counted& object, CopyCount& copies) noexcept : object_(&object), copies_(&copies) {}
    template <class Settle>
    static Ref enter(Ticket ticket, Settle settle);

    Counted* object_ = nullptr;
    CopyCount* copies_ = nullptr;
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
    const std::scoped_lock lock(processes.mutex);
    const Arena& arena = Arena::instance();
    Transaction tx = arena.transaction();
    if (arena.header().doomed != 0) arena.sweep(tx);
    Counted& object = arena.allocate_counted(tx, size);
    tx.set(object.counts, 1);
    CopyCount& copies = processes.enter(tx, object);
    tx.commit();
    return Ref(object, copies);
}

inline Ticket Ref::depart() const {
    Transaction tx = Arena::instance().transaction();
    const Ticket ticket = depart(tx);
    tx.commit();
    return ticket;
}

inline Ticket Ref::depart(Transaction& tx) const {
    tx.set(object_->counts, object_->counts + (std::uint64_t{1} << 32));
    return Arena::instance().ticket(*object_);
}

inline Ref Ref::arrive(Ticket& ticket) {
    return enter(ticket, [&ticket](Transaction& tx, Counted& object) {
        // A message that is read twice has used up its count the first time.
        const bool counted = (object.counts >> 32) != 0;
        if (counted) tx.set(object.counts, object.counts - (std::uint64_t{1} << 32));
        if (Arena::instance().contains(&ticket)) {
            tx.set(ticket.serial, 0);  // with the count, or the death of the reader drops it twice
        } else {
            ticket.serial = 0;
        }
    });
}

inline Ref Ref::copy(const Ticket& ticket) {
    return enter(ticket, [](Transaction&, Counted&) {});
}

template <class Settle>
Ref Ref::enter(Ticket ticket, Settle settle) {
    Processes& processes = Processes::instance();
    static_cast<void>(processes.self());
    const std::scoped_lock lock(processes.mutex);
    const Arena& arena = Arena::instance();
    Transaction tx = arena.transaction();
    Counted* const object = arena.find(ticket);
    if (object == nullptr || object->counts == 0) throw StaleTicket();
    tx.set(object->counts, object->counts + 1);
    CopyCount& copies = processes.enter(tx, *object);
    settle(tx, *object);
    tx.commit();
    return Ref(*object, copies);
}

inline void abandon(Ticket& ticket) noexcept {
    if (ticket.serial == 0) return;
    const Arena& arena = Arena::instance();
    Transaction tx = arena.transaction();
    Counted* const object = arena.find(ticket);
    if (arena.contains(&ticket)) {
        tx.set(ticket.serial, 0);  // with the count, as above
    } else {
        ticket.serial = 0;
    }
    if (object == nullptr || (object->counts >> 32) == 0) {
        tx.commit();
        return;
    }
    tx.set(object->counts, object->counts - (std::uint64_t{1} << 32));
    if (object->counts == 0) {
        arena.destroy(tx, *object);
    } else {
        tx.commit();
    }
}

}  // namespace multiprocessing::shm
