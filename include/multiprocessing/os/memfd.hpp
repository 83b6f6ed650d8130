// SPDX-License-Identifier: BSL-1.0
//
// Anonymous memory that has a descriptor: no name in the file system, gone with its last user. Pages
// are committed before they are touched, so that lack of memory is std::bad_alloc and never SIGBUS.
#pragma once

#include <multiprocessing/os/error.hpp>
#include <multiprocessing/os/fd.hpp>

#include <cstddef>
#include <cstdint>
#include <limits>
#include <new>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

namespace multiprocessing::os {

/// A sparse memfd of `size` bytes of which none is committed. `label` shows in /proc/PID/maps.
[[nodiscard]] inline Fd memfd(const char* label, std::uint64_t size) {
    Fd fd(::memfd_create(label, MFD_CLOEXEC));
    if (!fd) throw_errno("memfd_create", label);
    fd = clear_of_standard_streams(std::move(fd));
    if (::ftruncate(fd.get(), static_cast<off_t>(size)) != 0) throw_errno("ftruncate", label);
    return fd;
}

/// How large a file this process may make, memfds too: beyond that the kernel sends SIGXFSZ.
[[nodiscard]] inline std::uint64_t file_size_limit() noexcept {
    ::rlimit limit{};
    const bool known = ::getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY;
    return known ? limit.rlim_cur : std::numeric_limits<std::uint64_t>::max();
}

/// A memfd that holds `bytes`, to be read from its start.
[[nodiscard]] inline Fd memory_file(const char* label, std::span<const std::byte> bytes) {
    Fd fd = memfd(label, 0);
    for (off_t at = 0; !bytes.empty();) {
        const auto written =
            retry_on_signal([&] { return ::pwrite(fd.get(), bytes.data(), bytes.size(), at); });
        if (written < 0) {
            if (errno == ENOSPC) throw std::bad_alloc();
            throw_errno("pwrite", label);
        }
        bytes = bytes.subspan(static_cast<std::size_t>(written));
        at += written;
    }
    return fd;
}

/// All that a file holds, wherever its position is.
[[nodiscard]] inline std::vector<std::byte> read_file(int fd) {
    struct ::stat status {};
    if (::fstat(fd, &status) != 0) throw_errno("fstat", "descriptor " + std::to_string(fd));
    std::vector<std::byte> bytes(static_cast<std::size_t>(status.st_size));
    for (std::size_t at = 0; at < bytes.size();) {
        const auto got = retry_on_signal([&] {
            return ::pread(fd, bytes.data() + at, bytes.size() - at, static_cast<off_t>(at));
        });
        if (got < 0) throw_errno("pread", "descriptor " + std::to_string(fd));
        if (got == 0) break;
        at += static_cast<std::size_t>(got);
    }
    return bytes;
}

/// Gives memory to [offset, offset + length); what is there already stays. Throws std::bad_alloc
/// when there is none to give.
inline void commit(int fd, std::uint64_t offset, std::uint64_t length) {
    const int result = retry_on_signal([&] {
        return ::fallocate(fd, FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset),
                           static_cast<off_t>(length));
    });
    if (result == 0) return;
    if (errno == ENOSPC) throw std::bad_alloc();
    throw_errno("fallocate", "shared memory");
}

/// Takes the memory of [offset, offset + length) back; it reads as zeros from now on.
inline void punch(int fd, std::uint64_t offset, std::uint64_t length) noexcept {
    retry_on_signal([&] {
        return ::fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                           static_cast<off_t>(offset), static_cast<off_t>(length));
    });
}

/// Keeps [address, address + length) out of core dumps: reserved address space says nothing.
inline void exclude_from_core_dumps(void* address, std::size_t length) noexcept {
    ::madvise(address, length, MADV_DONTDUMP);
}

[[nodiscard]] inline std::size_t page_size() noexcept {
    static const auto size = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
    return size;
}

}  // namespace multiprocessing::os
