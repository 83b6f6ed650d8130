// SPDX-License-Identifier: BSL-1.0
//
// How messages lie in a ring's memory.
#pragma once

#include <multiprocessing/shm/arena.hpp>

#include <cstddef>
#include <cstdint>

namespace multiprocessing::shm {

/// What stands in a segment before each record. With it, records are multiples of 8 bytes; what
/// follows it is not aligned.
class RecordHeader {
public:
    enum Kind : std::uint32_t {
        skip,     // nothing more in this segment: go to the next
        inlined,  // size() bytes follow
        run,      // a RunRecord follows
    };

    RecordHeader(Kind kind, std::uint32_t size) noexcept : word_(size << 2 | kind) {}
    [[nodiscard]] std::uint32_t size() const noexcept { return word_ >> 2; }
    [[nodiscard]] Kind kind() const noexcept { return static_cast<Kind>(word_ & 3); }

    /// The whole record, with this.
    [[nodiscard]] std::uint64_t record_bytes() const noexcept {
        return (sizeof(RecordHeader) + size() + 7) & ~std::uint64_t{7};
    }

private:
    std::uint32_t word_;
};
static_assert(sizeof(RecordHeader) == 4);

/// A message in a block of its own: its first `size` bytes of payload.
struct RunRecord {
    Ticket block;
    std::uint64_t size;
};

/// A stretch of records. Its payload follows.
struct RingSegment {
    Offset next;
    std::uint64_t capacity;
    [[nodiscard]] std::byte* data() noexcept { return reinterpret_cast<std::byte*>(this + 1); }
};

}  // namespace multiprocessing::shm
