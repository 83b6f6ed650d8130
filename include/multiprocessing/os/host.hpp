// SPDX-License-Identifier: BSL-1.0
//
// Which machine this is, and of which table of processes a process's number is.
#pragma once

#include <cstddef>
#include <fstream>
#include <string>

#include <limits.h>
#include <unistd.h>

namespace multiprocessing::os {

/// What this machine calls itself.
[[nodiscard]] inline std::string host_name() {
    char name[HOST_NAME_MAX + 1] = {};
    if (::gethostname(name, sizeof name - 1) != 0) return "localhost";
    return name;
}

/// The same for two processes that know each other by their numbers: of one kernel since it was
/// started, and in one namespace of processes.
[[nodiscard]] inline std::string process_table() {
    std::string table;
    std::getline(std::ifstream("/proc/sys/kernel/random/boot_id"), table);
    char of[64] = {};
    const auto length = ::readlink("/proc/self/ns/pid", of, sizeof of - 1);
    return table + (length > 0 ? std::string(of, static_cast<std::size_t>(length)) : std::string());
}

}  // namespace multiprocessing::os
