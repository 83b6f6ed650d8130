// SPDX-License-Identifier: BSL-1.0
//
// Handles for a child that is yet to be spawned: they wait in a block that ends with the child, so
// that they are given back if it dies before it has unpacked them.
#pragma once

#include <multiprocessing/shm/arena.hpp>
#include <multiprocessing/shm/processes.hpp>

#include <algorithm>
#include <span>

namespace multiprocessing::shm {

/// Leaves copies of the tickets, which are the child's from now on. The result is how it finds
/// them. Throws std::bad_alloc; then they are still the caller's.
[[nodiscard]] inline Ticket leave_luggage(const ChildSlot& child, std::span<const Ticket> tickets) {
    if (tickets.empty()) return {};
    const Arena& arena = Arena::instance();
    Transaction tx = arena.transaction();
    Block& block =
        arena.allocate(tx, tickets.size_bytes(), Processes::instance().slot(child.id()).owned);
    std::copy(tickets.begin(), tickets.end(), Arena::payload<Ticket>(block));
    tx.set(block.tickets, tickets.size());
    tx.commit();
    return arena.ticket(block);
}

/// In the child: the tickets themselves, not copies. What is not used of them is given back when
/// this process ends.
[[nodiscard]] inline std::span<Ticket> find_luggage(Ticket luggage) {
    if (luggage.serial == 0) return {};
    Block* const block = Arena::instance().heap().find(luggage.offset, luggage.serial);
    if (block == nullptr) return {};
    return Arena::tickets(*block);
}

}  // namespace multiprocessing::shm
