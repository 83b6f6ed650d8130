// SPDX-License-Identifier: BSL-1.0
//
// A heap inside the arena for what is made of many small parts, as containers are: Boost's best-fit
// allocator in chunks of the arena, which grows by another chunk; and its objects by name. Boost's
// allocator is not proof against a death inside of it: that is found out, and the chunk it happened
// in is left as it is from then on. The chunks and names are the arena's own records, and always
// whole.
#pragma once

#include <multiprocessing/shm/arena.hpp>
#include <multiprocessing/shm/processes.hpp>
#include <multiprocessing/shm/ref.hpp>
#include <multiprocessing/shm/user_lock.hpp>

#include <boost/interprocess/mem_algo/rbtree_best_fit.hpp>
#include <boost/interprocess/sync/mutex_family.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <new>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace multiprocessing::shm {

/// What stands before every object of a heap, in a counted block of its own, so that a handle can
/// always look whether the object is still there. The object follows.
struct alignas(64) ObjectHead {
    enum State : std::uint32_t { whole, broken, destroyed };

    UserLock lock{true};  // first, as in whatever has a lock for users
    std::atomic<std::uint32_t> state{whole};
    std::uint64_t type;  // a hash of its name

    explicit ObjectHead(std::uint64_t type_hash) noexcept : type(type_hash) {}
    [[nodiscard]] std::byte* object() noexcept { return reinterpret_cast<std::byte*>(this + 1); }
};

/// The shared object. All calls may come from several processes and threads.
class ObjectHeap {
public:
    /// `size` is that of its first chunk. Throws std::bad_alloc.
    static Shared<ObjectHeap> make(std::uint64_t size);

    // Memory. Allocating throws std::bad_alloc. After a death inside the chunk where it was is not
    // touched again: what is there stays where it is, and what is freed there is lost.

    [[nodiscard]] void* allocate(std::uint64_t bytes, std::uint64_t alignment);
    void deallocate(void* memory) noexcept;

    /// Of all chunks, and what can be had of it, in bytes.
    struct Room {
        std::uint64_t size = 0;
        std::uint64_t free = 0;
    };
    [[nodiscard]] Room room();
    /// Has somebody died while the allocator was at work, so that there is a chunk of no use?
    [[nodiscard]] bool broken();

    // Names. A named object lives until it is forgotten, and then until its last handle is dropped.

    /// False if there is one of that name.
    [[nodiscard]] bool name(std::string_view name, const Shared<ObjectHead>& object);
    /// Nothing if there is none.
    [[nodiscard]] Shared<ObjectHead> find(std::string_view name);
    /// Takes the name away from the object, if that is what has it.
    [[nodiscard]] bool forget(std::string_view name, const Shared<ObjectHead>& object);
    [[nodiscard]] std::vector<std::string> names();

    ObjectHeap() noexcept = default;

private:
    // By itself it would be as safe as this heap's lock, and not more; so it has none.
    using Algorithm = boost::interprocess::rbtree_best_fit<boost::interprocess::null_mutex_family>;

    struct alignas(64) Chunk {
        Offset next;
        std::uint64_t size;   // of what the algorithm has
        bool broken = false;  // somebody died in the algorithm
        [[nodiscard]] Algorithm& algorithm() noexcept {
            return *reinterpret_cast<Algorithm*>(this + 1);
        }
        [[nodiscard]] bool holds(const void* memory) const noexcept {
            const auto* at = static_cast<const std::byte*>(memory);
            const auto* begin = reinterpret_cast<const std::byte*>(this + 1);
            return at >= begin && at < begin + size;
        }
    };
    /// A block of the heap's: this, the name, and at the end of the block a ticket of the object.
    struct Entry {
        Offset next;
        std::uint64_t hash;
        std::uint64_t length;
        [[nodiscard]] std::string_view name() const noexcept {
            return {reinterpret_cast<const char*>(this + 1), length};
        }
    };

    /// Has the heap's lock. What the last holder may have left half changed when it died, it says.
    class Guard {
    public:
        explicit Guard(ObjectHeap& heap) : heap_(heap) {
            const Taken taken = heap.lock_.acquire(os::Deadline::never());
            if (taken.from_the_dead && heap.at_work_ != 0) {
                chunk(heap.at_work_).broken = true;
                heap.at_work_ = 0;
            }
        }
        Guard(const Guard&) = delete;
        Guard& operator=(const Guard&) = delete;
        ~Guard() { heap_.lock_.release(); }

    private:
        ObjectHeap& heap_;
    };
    /// As long as one lives the records of that chunk's algorithm are not whole.
    class AtWork {
    public:
        AtWork(ObjectHeap& heap, Offset chunk) noexcept : heap_(heap) { set(chunk); }
        AtWork(const AtWork&) = delete;
        AtWork& operator=(const AtWork&) = delete;
        ~AtWork() { set(0); }

    private:
        // In the order of the program, as in a Transaction: a killed process has done a part of it.
        void set(Offset chunk) noexcept {
            std::atomic_signal_fence(std::memory_order_seq_cst);
            heap_.at_work_ = chunk;
            std::atomic_signal_fence(std::memory_order_seq_cst);
        }
        ObjectHeap& heap_;
    };

    [[nodiscard]] static Chunk& chunk(Offset offset) {
        return *Arena::instance().at<Chunk>(offset);
    }
    [[nodiscard]] static std::uint64_t least_size() noexcept {
        return std::max<std::uint64_t>(Algorithm::get_min_size(0), 1024);
    }
    void grow(std::uint64_t bytes);
    void add_chunk(std::uint64_t size);
    [[nodiscard]] bool is_last(const Chunk& home) noexcept;
    void drop(Offset place, Chunk& chunk) noexcept;
    [[nodiscard]] static std::uint64_t hash_of(std::string_view name) noexcept {
        return std::hash<std::string_view>()(name);
    }
    [[nodiscard]] Offset& bucket(std::string_view name) noexcept {
        return buckets_[hash_of(name) % buckets_.size()];
    }
    [[nodiscard]] static Ticket& ticket_of(Entry& entry) noexcept {
        return Arena::tickets(Arena::block_of(&entry)).front();
    }
    [[nodiscard]] Entry* entry(std::string_view name) noexcept;

    UserLock lock_{true};
    Offset at_work_ = 0;  // the chunk whose records are not whole
    Offset chunks_ = 0;   // the newest first
    std::array<Offset, 256> buckets_{};
};

// ---------------------------------------------------------------------------------------------------

inline Shared<ObjectHeap> ObjectHeap::make(std::uint64_t size) {
    auto heap = Shared<ObjectHeap>::make(0);
    heap->add_chunk(std::max(size, least_size()));
    return heap;
}

inline void ObjectHeap::add_chunk(std::uint64_t size) {
    const Arena& arena = Arena::instance();
    Transaction tx = arena.transaction();
    Block& block = arena.allocate(tx, sizeof(Chunk) + size, Arena::block_of(this).owned);
    auto* added = new (Arena::payload(block)) Chunk{chunks_, size};
    new (&added->algorithm()) Algorithm(size, 0);
    tx.set(chunks_, arena.offset_of(added));
    tx.commit();
}

inline void ObjectHeap::grow(std::uint64_t bytes) {
    // As much again as there is of use, so that there are never many chunks. What is asked for must
    // fit with the algorithm's own records.
    const std::uint64_t least = bytes + least_size();
    std::uint64_t all = 0;
    for (Offset at = chunks_; at != 0; at = chunk(at).next) {
        if (!chunk(at).broken) all += chunk(at).size;
    }
    // A power of two with the headers is what the arena gives without waste.
    const std::uint64_t whole = std::bit_ceil(std::max(least, all) + sizeof(Chunk) + sizeof(Block));
    try {
        add_chunk(whole - sizeof(Chunk) - sizeof(Block));
    } catch (const std::bad_alloc&) {
        add_chunk(least);
    }
}

inline void* ObjectHeap::allocate(std::uint64_t bytes, std::uint64_t alignment) {
    const Guard guard(*this);
    constexpr std::uint64_t most = std::uint64_t{1} << 48;
    if (bytes > most) throw std::bad_alloc();
    const auto take = [&]() -> void* {
        for (Offset at = chunks_; at != 0; at = chunk(at).next) {
            if (chunk(at).broken) continue;
            const AtWork at_work(*this, at);
            Algorithm& algorithm = chunk(at).algorithm();
            void* const memory = alignment > alignof(std::max_align_t)
                                     ? algorithm.allocate_aligned(bytes, alignment)
                                     : algorithm.allocate(bytes);
            if (memory != nullptr) return memory;
        }
        return nullptr;
    };
    if (void* const memory = take()) return memory;
    grow(bytes + alignment);
    void* const memory = take();
    if (memory == nullptr) throw std::bad_alloc();
    return memory;
}

inline void ObjectHeap::deallocate(void* memory) noexcept {
    const Guard guard(*this);
    for (Offset at = chunks_; at != 0; at = chunk(at).next) {
        Chunk& home = chunk(at);
        if (!home.holds(memory)) continue;
        if (home.broken) return;
        bool empty = false;
        {
            const AtWork at_work(*this, at);
            home.algorithm().deallocate(memory);
            empty = home.algorithm().all_memory_deallocated();
        }
        if (empty && !is_last(home)) drop(at, home);
        return;
    }
}

/// The one of use that stays, for whoever comes next?
inline bool ObjectHeap::is_last(const Chunk& home) noexcept {
    for (Offset at = chunks_; at != 0; at = chunk(at).next) {
        if (!chunk(at).broken && &chunk(at) != &home) return false;
    }
    return true;
}

inline void ObjectHeap::drop(Offset place, Chunk& dropped) noexcept {
    const Arena& arena = Arena::instance();
    Transaction tx = arena.transaction();
    Offset before = 0;
    for (Offset at = chunks_; at != place; at = chunk(at).next) before = at;
    tx.set(before != 0 ? chunk(before).next : chunks_, dropped.next);
    // With it in one unit: the block is on the heap's list until it is freed.
    arena.destroy(tx, Arena::block_of(&dropped));
}

inline ObjectHeap::Room ObjectHeap::room() {
    const Guard guard(*this);
    Room room;
    for (Offset at = chunks_; at != 0; at = chunk(at).next) {
        room.size += chunk(at).size;
        if (!chunk(at).broken) room.free += chunk(at).algorithm().get_free_memory();
    }
    return room;
}

inline bool ObjectHeap::broken() {
    const Guard guard(*this);  // which finds out
    for (Offset at = chunks_; at != 0; at = chunk(at).next) {
        if (chunk(at).broken) return true;
    }
    return false;
}

inline ObjectHeap::Entry* ObjectHeap::entry(std::string_view name) noexcept {
    const Arena& arena = Arena::instance();
    const std::uint64_t hash = hash_of(name);
    for (Offset at = bucket(name); at != 0;) {
        auto& found = *arena.at<Entry>(at);
        if (found.hash == hash && found.name() == name) return &found;
        at = found.next;
    }
    return nullptr;
}

inline bool ObjectHeap::name(std::string_view name, const Shared<ObjectHead>& object) {
    const Arena& arena = Arena::instance();
    Transaction tx = arena.transaction();
    if (entry(name) != nullptr) return false;
    const std::uint64_t text = (sizeof(Entry) + name.size() + 7) & ~std::uint64_t{7};
    Block& block = arena.allocate(tx, text + sizeof(Ticket), Arena::block_of(this).owned);
    Offset& first = bucket(name);
    auto* added = new (Arena::payload(block)) Entry{first, hash_of(name), name.size()};
    std::memcpy(added + 1, name.data(), name.size());
    tx.set(block.tickets, 1);
    new (&ticket_of(*added)) Ticket(object.depart(tx));
    tx.set(first, arena.offset_of(added));
    tx.commit();
    return true;
}

inline Shared<ObjectHead> ObjectHeap::find(std::string_view name) {
    Ticket ticket;
    {
        const Transaction tx = Arena::instance().transaction();
        Entry* const found = entry(name);
        if (found == nullptr) return {};
        ticket = ticket_of(*found);
    }
    try {
        return Shared<ObjectHead>(Ref::copy(ticket));
    } catch (const StaleTicket&) {  // it has been destroyed in between
        return {};
    }
}

inline bool ObjectHeap::forget(std::string_view name, const Shared<ObjectHead>& object) {
    const Arena& arena = Arena::instance();
    Transaction tx = arena.transaction();
    Entry* const found = entry(name);
    if (found == nullptr || arena.find(ticket_of(*found)) != &object.counted()) return false;
    Offset* link = &bucket(name);
    while (arena.at<Entry>(*link) != found) link = &arena.at<Entry>(*link)->next;
    tx.set(*link, found->next);
    arena.destroy(tx, Arena::block_of(found));  // and the ticket with it
    return true;
}

inline std::vector<std::string> ObjectHeap::names() {
    const Arena& arena = Arena::instance();
    std::vector<std::string> names;
    const Transaction tx = arena.transaction();
    for (const Offset first : buckets_) {
        for (Offset at = first; at != 0; at = arena.at<Entry>(at)->next) {
            names.emplace_back(arena.at<Entry>(at)->name());
        }
    }
    return names;
}

}  // namespace multiprocessing::shm
