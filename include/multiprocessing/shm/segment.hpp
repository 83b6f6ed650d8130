// SPDX-License-Identifier: BSL-1.0
//
// The address space of the arena: one sparse memfd mapped once, the bitmap of the pages that have
// been given memory, and the translation between offsets (which mean the same in every process) and
// addresses (which do not, after an exec).
#pragma once

#include <multiprocessing/os/memfd.hpp>
#include <multiprocessing/shm/mapped_file.hpp>

#include <boost/interprocess/mapped_region.hpp>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <new>
#include <utility>

namespace multiprocessing::shm {

/// A place in the arena, counted from its start; 0 is no place.
using Offset = std::uint64_t;

inline constexpr std::uint64_t page_bytes = 4096;

/// A mapped memfd. Which of its pages have memory is known to all from a bitmap inside it.
class Segment {
public:
    /// Makes one of the largest size that the address space allows, at most `bytes`.
    static Segment create(std::uint64_t bytes);
    /// Maps one that another process made.
    static Segment attach(os::Fd fd);

    [[nodiscard]] int descriptor() const noexcept { return fd_.get(); }
    [[nodiscard]] std::uint64_t size() const noexcept { return region_.get_size(); }
    template <class T = std::byte>
    [[nodiscard]] T* at(Offset offset) const noexcept {
        return reinterpret_cast<T*>(static_cast<std::byte*>(region_.get_address()) + offset);
    }
    [[nodiscard]] Offset offset_of(const void* address) const noexcept {
        return static_cast<Offset>(static_cast<const std::byte*>(address) - at(0));
    }

private:
    Segment(os::Fd fd, std::uint64_t bytes)
        : fd_(std::move(fd)), region_(map_file(fd_, bytes)) {
        os::exclude_from_core_dumps(region_.get_address(), region_.get_size());
    }

    os::Fd fd_;
    boost::interprocess::mapped_region region_;
};

inline Segment Segment::create(std::uint64_t bytes) {
    // Under a limit on address space (ulimit -v, valgrind) a smaller reservation does as well.
    constexpr std::uint64_t least = std::uint64_t{256} << 20;
    // And under one on files (ulimit -f), of which this is one to the kernel.
    const std::uint64_t most = os::file_size_limit() & ~(page_bytes - 1);
    if (most < least) {
        os::throw_error(EFBIG, "memfd_create",
                        "shared memory, which takes a limit of file sizes (ulimit -f) of 256 MiB or more");
    }
    for (bytes = std::min(bytes, most);; bytes /= 4) {
        try {
            return Segment(os::memfd("multiprocessing", bytes), bytes);
        } catch (const boost::interprocess::interprocess_exception&) {
            if (bytes / 4 < least) throw std::bad_alloc();
        }
    }
}

inline Segment Segment::attach(os::Fd fd) {
    struct ::stat status {};
    if (::fstat(fd.get(), &status) != 0) os::throw_errno("fstat", "the arena");
    try {
        const auto bytes = static_cast<std::uint64_t>(status.st_size);
        return Segment(std::move(fd), bytes);
    } catch (const boost::interprocess::interprocess_exception& error) {
        throw_unmappable(error, "the arena");
    }
}

}  // namespace multiprocessing::shm
