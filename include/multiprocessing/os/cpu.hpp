// SPDX-License-Identifier: BSL-1.0
//
// How many processors there are, and how many of them this process may use: affinity and the quota
// of its control groups, which containers are limited by.
#pragma once

#include <algorithm>
#include <cmath>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include <sched.h>
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

/// Processors that are online.
[[nodiscard]] inline int cpu_count() noexcept {
    return std::max(1, static_cast<int>(::sysconf(_SC_NPROCESSORS_ONLN)));
}

/// Processors in this process's affinity mask.
[[nodiscard]] inline int affinity_cpu_count() noexcept {
    // The kernel refuses a mask smaller than its own, so it grows until it is taken.
    for (int bits = 1024; bits <= 1 << 20; bits *= 2) {
        const std::size_t size = CPU_ALLOC_SIZE(bits);
        cpu_set_t* set = CPU_ALLOC(static_cast<std::size_t>(bits));
        if (set == nullptr) break;
        const bool taken = ::sched_getaffinity(0, size, set) == 0;
        const int count = taken ? CPU_COUNT_S(size, set) : 0;
        CPU_FREE(set);
        if (taken) return std::max(1, count);
    }
    return cpu_count();
}

/// The processors that the control groups' quotas are worth, rounded up; `unlimited` when there is
/// no quota. Version 2 (cpu.max) and version 1 (cpu.cfs_quota_us), each at every ancestor.
[[nodiscard]] inline int quota_cpu_count(int unlimited) {
    int least = unlimited;
    const auto consider = [&](double quota, double period) {
        if (quota > 0 && period > 0) {
            least = std::min(least, std::max(1, static_cast<int>(std::ceil(quota / period))));
        }
    };
    std::ifstream groups("/proc/self/cgroup");
    for (std::string line; std::getline(groups, line);) {
        // hierarchy:controllers:path, where version 2 has hierarchy 0 and no controllers.
        const auto first = line.find(':');
        const auto second = line.find(':', first + 1);
        if (first == std::string::npos || second == std::string::npos) continue;
        const std::string controllers = line.substr(first + 1, second - first - 1);
        std::string path = line.substr(second + 1);
        const bool version_2 = controllers.empty();
        if (!version_2 && (',' + controllers + ',').find(",cpu,") == std::string::npos) continue;
        const std::string root = version_2 ? "/sys/fs/cgroup" : "/sys/fs/cgroup/cpu";
        for (;;) {
            const std::string folder = root + (path == "/" ? "" : path);
            if (version_2) {
                std::ifstream file(folder + "/cpu.max");
                std::string quota;
                double period = 0;
                if (file >> quota >> period && quota != "max") {
                    consider(std::strtod(quota.c_str(), nullptr), period);
                }
            } else {
                std::ifstream quota_file(folder + "/cpu.cfs_quota_us");
                std::ifstream period_file(folder + "/cpu.cfs_period_us");
                double quota = 0;
                double period = 0;
                if (quota_file >> quota && period_file >> period) consider(quota, period);
            }
            if (path.empty() || path == "/") break;
            path.erase(path.rfind('/'));
        }
    }
    return least;
}

}  // namespace multiprocessing::os
