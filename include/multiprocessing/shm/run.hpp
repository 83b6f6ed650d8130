// SPDX-License-Identifier: BSL-1.0
//
// A block of shared memory that one process writes or reads alone: a long message before it is put
// and after it was taken. It ends with its owner, even one that is killed.
#pragma once

#include <multiprocessing/os/fault.hpp>
#include <multiprocessing/shm/arena.hpp>
#include <multiprocessing/shm/processes.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <utility>

namespace multiprocessing::shm {

/// Owns a run; move-only; the destructor frees it.
class Run {
public:
    Run() noexcept = default;
    /// Takes over a block of this process's.
    explicit Run(Block& block) noexcept : block_(&block) {}
    /// A new one for `size` bytes and so many tickets. Throws std::bad_alloc.
    explicit Run(std::uint64_t size, std::span<const Ticket> tickets = {});
    Run(Run&& other) noexcept : block_(std::exchange(other.block_, nullptr)) {}
    Run& operator=(Run&& other) noexcept {
        std::swap(block_, other.block_);
        return *this;
    }
    ~Run();

    [[nodiscard]] explicit operator bool() const noexcept { return block_ != nullptr; }
    [[nodiscard]] Block& block() const noexcept { return *block_; }
    [[nodiscard]] std::byte* data() const noexcept { return Arena::payload(*block_); }
    [[nodiscard]] std::span<Ticket> tickets() const noexcept { return Arena::tickets(*block_); }
    /// It is somebody else's now.
    Block& release() noexcept { return *std::exchange(block_, nullptr); }

private:
    Block* block_ = nullptr;
};

inline Run::Run(std::uint64_t size, std::span<const Ticket> tickets) {
    Offset& owned = Processes::instance().owned();
    const Arena& arena = Arena::instance();
    const std::uint64_t aligned = (size + 7) & ~std::uint64_t{7};
    Transaction tx = arena.transaction();
    Block& block = arena.allocate(tx, aligned + tickets.size_bytes(), owned);
    if (!tickets.empty()) {
        std::memcpy(Arena::payload(block) + aligned, tickets.data(), tickets.size_bytes());
        tx.set(block.tickets, tickets.size());
    }
    MULTIPROCESSING_FAULT_POINT("run: made, not committed");
    tx.commit();
    MULTIPROCESSING_FAULT_POINT("run: committed");
    block_ = &block;
}

inline Run::~Run() {
    if (block_ == nullptr) return;
    const Arena& arena = Arena::instance();
    Transaction tx = arena.transaction();
    arena.destroy(tx, *block_);
    MULTIPROCESSING_FAULT_POINT("run: freed");
}

}  // namespace multiprocessing::shm
