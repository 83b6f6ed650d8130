// SPDX-License-Identifier: BSL-1.0
//
// Which names in the system this tree of processes has made and not yet taken away: a list in the
// arena, so that it outlives whoever made them. Somebody who outlives the tree (see
// runtime/resource_tracker.hpp) takes away what is left. Answers the cache of CPython's
// `resource_tracker`.
#pragma once

#include <multiprocessing/os/named_memory.hpp>
#include <multiprocessing/shm/arena.hpp>

#include <array>
#include <climits>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>
#include <string_view>
#include <utility>

namespace multiprocessing::shm {

/// An entry of the list, followed by the name and a NUL. It is made before the name is, and so says
/// which file is meant: a name that is another file's is not this tree's.
struct TrackedName {
    os::FileIdentity identity;
    std::uint64_t group;  // whose: a manager's number, or 0

    [[nodiscard]] const char* name() const noexcept {
        return reinterpret_cast<const char*>(this + 1);
    }
};

/// Notes a name that is about to be given to the file. *If this process dies* before it is, the
/// entry means nothing.
inline Ticket track_name(std::string_view name, os::FileIdentity identity,
                         std::uint64_t group = 0) {
    const Arena& arena = Arena::instance();
    Transaction tx = arena.transaction();
    Block& block =
        arena.allocate(tx, sizeof(TrackedName) + name.size() + 1, arena.header().tracked_names);
    auto* entry = new (Arena::payload(block)) TrackedName{identity, group};
    auto* text = reinterpret_cast<char*>(entry + 1);
    std::memcpy(text, name.data(), name.size());
    text[name.size()] = '\0';
    tx.commit();
    return arena.ticket(block);
}

/// Forgets an entry, if it is there.
inline void untrack_name(Ticket ticket) noexcept {
    const Arena& arena = Arena::instance();
    Transaction tx = arena.transaction();
    Block* block = arena.heap().find(ticket.offset, ticket.serial);
    if (block != nullptr) arena.destroy(tx, *block);
}

/// Calls visit(entry, block) for each in the arena that is mapped at `base`, until it returns true.
/// Whether it did. With the arena's mutex held, or where nobody else is left.
template <class Visit>
bool visit_tracked_names(std::byte* base, Visit visit) {
    for (Offset at = reinterpret_cast<ArenaHeader*>(base)->tracked_names; at != 0;) {
        Block& block = *reinterpret_cast<Block*>(base + at);
        if (visit(*Arena::payload<const TrackedName>(block), block)) return true;
        at = block.next;
    }
    return false;
}

template <class Visit>
bool visit_tracked_names(Visit visit) {
    return visit_tracked_names(Arena::instance().segment().at(0), std::move(visit));
}
/// The same for the only process left that has that arena, which it has mapped by itself: what
/// others were killed in the middle of is undone first.
template <class Visit>
void visit_names_that_are_left(std::byte* base, Visit visit) {
    roll_back(base, reinterpret_cast<ArenaHeader*>(base)->journal);
    visit_tracked_names(base, [&](const TrackedName& entry, Block&) {
        visit(entry);
        return false;
    });
}

/// Forgets the entry of a name that has been taken away, whoever has made it.
inline void untrack_name(os::FileIdentity identity) noexcept {
    const Arena& arena = Arena::instance();
    Transaction tx = arena.transaction();
    Block* found = nullptr;
    visit_tracked_names([&](const TrackedName& entry, Block& block) {
        if (entry.identity != identity) return false;
        found = &block;
        return true;
    });
    if (found != nullptr) arena.destroy(tx, *found);
}

/// Takes away all names of a group. Others may do the same at the same time.
inline void remove_names_of(std::uint64_t group) noexcept {
    const Arena& arena = Arena::instance();
    for (;;) {
        std::array<char, NAME_MAX + 2> name;
        os::FileIdentity identity;
        Ticket ticket;
        {
            const Transaction tx = arena.transaction();
            const auto copy = [&](const TrackedName& entry, Block& block) {
                if (entry.group != group) return false;
                std::strncpy(name.data(), entry.name(), name.size() - 1);
                name.back() = '\0';
                identity = entry.identity;
                ticket = arena.ticket(block);
                return true;
            };
            if (!visit_tracked_names(copy)) return;
        }
        // Without the mutex, for it may take as long as much memory takes to be freed. Gone already
        // is as good, and what cannot be taken away is not kept trying.
        static_cast<void>(os::remove_name_of(name.data(), identity));
        untrack_name(ticket);
    }
}

}  // namespace multiprocessing::shm
