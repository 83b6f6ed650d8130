// SPDX-License-Identifier: BSL-1.0
//
// What a child finds around it when it is not to be what its parent has: environment variables, the
// working directory, processors, and how many threads numeric libraries use in it. Python leaves
// all of this to the target.
#pragma once

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/os/affinity.hpp>
#include <multiprocessing/os/environment.hpp>
#include <multiprocessing/os/fd.hpp>

#include <optional>
#include <string>
#include <vector>

namespace multiprocessing::runtime {

struct Surroundings {
    os::Variables env;
    std::string cwd;                // empty: the parent's at the start
    std::vector<int> cpu_affinity;  // empty: the parent's
    std::optional<int> inner_threads;

    /// Throws ValueError for what no process can be given.
    void check() const;
    /// All variables to set. Those that are named in `env` have the last word.
    [[nodiscard]] os::Variables variables() const;
    /// In the parent: the folder to go to, if any. Throws std::system_error that names it.
    [[nodiscard]] os::Fd open_folder() const {
        return cwd.empty() ? os::Fd() : os::open_directory(cwd.c_str());
    }
    /// In a child that was not executed with them: all but the affinity, which it has inherited.
    void take_up(int folder) const;
};

// -------------------------------------------------------------------------------------------------

inline void Surroundings::check() const {
    for (const auto& [name, value] : env) {
        if (name.empty() || name.find_first_of(std::string("=\0", 2)) != std::string::npos ||
            value.find('\0') != std::string::npos) {
            throw ValueError("Process: '" + name +
                             "' cannot be set in .env: a variable's name is "
                             "not empty and has no '=', and neither it nor its value has a NUL");
        }
    }
    if (cwd.find('\0') != std::string::npos) throw ValueError("Process: .cwd has a NUL in it");
    for (const int processor : cpu_affinity) {
        if (processor < 0 || processor >= os::CpuSet::most) {
            throw ValueError("Process: there is no processor " + std::to_string(processor) +
                             " for .cpu_affinity: they are counted from 0");
        }
    }
    if (inner_threads && *inner_threads < 1) {
        throw ValueError("Process: .inner_threads is " + std::to_string(*inner_threads) +
                         ", but a library has at least 1 thread");
    }
}

inline os::Variables Surroundings::variables() const {
    os::Variables all = env;
    if (inner_threads) {
        for (const char* name : os::inner_thread_variables) {
            all.emplace(name, std::to_string(*inner_threads));
        }
    }
    return all;
}

inline void Surroundings::take_up(int folder) const {
    if (folder >= 0) os::change_directory(folder);
    os::set_variables(variables());
    if (inner_threads) os::set_inner_threads(*inner_threads);
}

}  // namespace multiprocessing::runtime
