// SPDX-License-Identifier: BSL-1.0
//
// A process's private memory: advice to the kernel, and how much there is.
#pragma once

#include <multiprocessing/os/error.hpp>
#include <multiprocessing/os/fd.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>

#include <fcntl.h>
#include <malloc.h>
#include <sys/mman.h>
#include <unistd.h>

namespace multiprocessing::os {

/// Before memory is written for the first time: where it is large, has the kernel give it in pages of
/// megabytes if it can. By the 4 KiB, it takes two to four times as long to get it as to fill it.
inline void before_filling(void* memory, std::size_t size) noexcept {
    constexpr std::size_t worth_it = std::size_t{8} << 20;
    constexpr std::uintptr_t huge_page = std::uintptr_t{2} << 20;
    if (size < worth_it) return;
    const auto begin = reinterpret_cast<std::uintptr_t>(memory);
    const auto first = (begin + huge_page - 1) & ~(huge_page - 1);
    const auto last = (begin + size) & ~(huge_page - 1);
    // Only advice: a kernel that does not take it has changed nothing.
    if (first < last) {
        ::madvise(static_cast<std::byte*>(memory) + (first - begin), last - first, MADV_HUGEPAGE);
    }
}

/// Has the C library keep what this process frees, where it would give it back to the system and fault it in
/// anew at the next use, page by page. For a process that does the same over and over.
inline void keep_freed_memory() noexcept {
#if defined(__GLIBC__)
    ::mallopt(M_MMAP_THRESHOLD, 32 << 20);
    ::mallopt(M_TRIM_THRESHOLD, 256 << 20);
#endif
}

/// What a statm file says: all numbers are pages; what is shared is not this process's alone.
[[nodiscard]] inline std::uint64_t private_memory_of(const char* statm) noexcept {
    const Fd file(::open(statm, O_RDONLY | O_CLOEXEC));
    if (!file) return 0;
    char text[128];
    const auto got = retry_on_signal([&] { return ::read(file.get(), text, sizeof text - 1); });
    if (got <= 0) return 0;
    text[got] = '\0';
    unsigned long long size = 0;
    unsigned long long resident = 0;
    unsigned long long shared = 0;
    if (std::sscanf(text, "%llu %llu %llu", &size, &resident, &shared) != 3) return 0;
    return (resident - std::min(shared, resident)) * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
}

/// Bytes of memory that this process has to itself and that are not paged out; 0 if the system does not
/// tell. Takes some microseconds.
[[nodiscard]] inline std::uint64_t private_memory() noexcept {
    return private_memory_of("/proc/self/statm");
}
/// The same of another process.
[[nodiscard]] inline std::uint64_t private_memory(int pid) noexcept {
    char path[32];
    std::snprintf(path, sizeof path, "/proc/%d/statm", pid);
    return private_memory_of(path);
}

}  // namespace multiprocessing::os
