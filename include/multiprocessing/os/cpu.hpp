// SPDX-License-Identifier: BSL-1.0
//
// How many processors there are, and how many of them this process may use: affinity and the quota
// of its control groups, which containers are limited by.
#pragma once

#include <multiprocessing/os/affinity.hpp>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <optional>
#include <string>

#include <unistd.h>

namespace multiprocessing::os {

/// One step of a spin: tells the processor that this is one.
inline void spin_pause() noexcept {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

/// Has a cache line come near that is soon to be read, or written: then as this processor's own.
inline void prefetch_to_read(const void* address) noexcept { __builtin_prefetch(address); }
inline void prefetch_to_write(const void* address) noexcept {
#if defined(__x86_64__)
    // The compiler makes a reader's prefetch of it unless told that there is this; where there is not it
    // does nothing.
    asm volatile("prefetchw %0" : : "m"(*static_cast<const char*>(address)));
#else
    __builtin_prefetch(address, 1);
#endif
}

/// Processors that are online.
[[nodiscard]] inline int cpu_count() noexcept {
    return std::max(1, static_cast<int>(::sysconf(_SC_NPROCESSORS_ONLN)));
}

/// Processors in this thread's affinity mask.
[[nodiscard]] inline int affinity_cpu_count() noexcept {
    try {
        return std::max(1, CpuSet::of_this_thread().count());
    } catch (...) {
        return cpu_count();
    }
}

/// The processors that the control groups' quotas are worth, rounded up; nothing when there is no
/// quota. Version 2 (cpu.max) and version 1 (cpu.cfs_quota_us), each at every ancestor. `root` is
/// what /proc and /sys are looked for under.
[[nodiscard]] std::optional<int> quota_cpu_count(const std::string& root = {});

/// The first of the environment variables that is a number of processors.
[[nodiscard]] inline std::optional<int> cpu_count_override() noexcept {
    for (const char* name : {"MULTIPROCESSING_CPU_COUNT", "PYTHON_CPU_COUNT"}) {
        const char* const text = std::getenv(name);
        if (text == nullptr || *text == '\0') continue;
        char* end = nullptr;
        const long count = std::strtol(text, &end, 10);
        if (*end == '\0' && count >= 1 && count <= CpuSet::most) return static_cast<int>(count);
    }
    return std::nullopt;
}

// -------------------------------------------------------------------------------------------------

namespace cpu_quota {

/// What "max 100000" and "50000 100000" say, in processors.
[[nodiscard]] inline std::optional<double> of_version_2(const std::string& folder) {
    std::ifstream file(folder + "/cpu.max");
    std::string quota;
    double period = 0;
    if (!(file >> quota >> period) || quota == "max" || period <= 0) return std::nullopt;
    return std::strtod(quota.c_str(), nullptr) / period;
}

[[nodiscard]] inline std::optional<double> of_version_1(const std::string& folder) {
    std::ifstream quota_file(folder + "/cpu.cfs_quota_us");
    std::ifstream period_file(folder + "/cpu.cfs_period_us");
    double quota = 0;
    double period = 0;
    if (!(quota_file >> quota) || !(period_file >> period) || period <= 0) return std::nullopt;
    return quota / period;
}

}  // namespace cpu_quota

inline std::optional<int> quota_cpu_count(const std::string& root) {
    std::optional<int> least;
    std::ifstream groups(root + "/proc/self/cgroup");
    for (std::string line; std::getline(groups, line);) {
        // hierarchy:controllers:path, where version 2 has hierarchy 0 and no controllers.
        const auto first = line.find(':');
        const auto second = line.find(':', first + 1);
        if (first == std::string::npos || second == std::string::npos) continue;
        const std::string controllers = line.substr(first + 1, second - first - 1);
        const bool version_2 = controllers.empty();
        if (!version_2 && (',' + controllers + ',').find(",cpu,") == std::string::npos) continue;
        const std::string mount = root + (version_2 ? "/sys/fs/cgroup" : "/sys/fs/cgroup/cpu");
        // Up to the mount itself, which in a container is the group that limits it.
        for (std::string path = line.substr(second + 1);;) {
            if (path == "/") path.clear();
            const auto quota = version_2 ? cpu_quota::of_version_2(mount + path)
                                         : cpu_quota::of_version_1(mount + path);
            if (quota && *quota > 0) {
                const int worth = std::max(1, static_cast<int>(std::ceil(*quota)));
                least = least ? std::min(*least, worth) : worth;
            }
            if (path.empty()) break;
            path.erase(std::min(path.rfind('/'), path.size()));
        }
    }
    return least;
}

}  // namespace multiprocessing::os
