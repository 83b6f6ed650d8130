// SPDX-License-Identifier: BSL-1.0
//
// Environment variables, and the thread counts of numeric libraries, which read theirs when they
// are loaded and want to be told afterwards.
#pragma once

#include <multiprocessing/os/error.hpp>

#include <cstdint>
#include <cstdlib>
#include <map>
#include <string>
#include <vector>

#include <unistd.h>

namespace multiprocessing::os {

/// Environment variables to set, by name.
using Variables = std::map<std::string, std::string>;

/// Sets them for this process. No other thread may look at the environment meanwhile.
inline void set_variables(const Variables& variables) {
    for (const auto& [name, value] : variables) {
        if (::setenv(name.c_str(), value.c_str(), 1) != 0) throw_errno("setenv", name);
    }
}

/// "NAME=value" for each variable of this process.
[[nodiscard]] inline std::vector<std::string> environment() {
    std::vector<std::string> entries;
    for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry) {
        entries.emplace_back(*entry);
    }
    return entries;
}

/// Tells whether the environment has changed.
[[nodiscard]] inline std::uint64_t environment_hash() noexcept {
    std::uint64_t hash = 0xcbf29ce484222325u;  // FNV-1a
    for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry) {
        const char* text = *entry;
        do {
            hash = (hash ^ static_cast<unsigned char>(*text)) * 0x100000001b3u;
        } while (*text++ != '\0');
    }
    return hash;
}

/// Makes the environment of this process that of another.
inline void replace_environment(const std::vector<std::string>& entries) {
    ::clearenv();
    for (const std::string& entry : entries) {
        const auto end_of_name = entry.find('=');
        if (end_of_name == 0 || end_of_name == std::string::npos) continue;  // nothing can name it
        const std::string name = entry.substr(0, end_of_name);
        if (::setenv(name.c_str(), entry.c_str() + end_of_name + 1, 1) != 0) {
            throw_errno("setenv", name);
        }
    }
}

/// The variables from which OpenMP and the usual libraries of linear algebra take the number of
/// threads that each of their calls uses.
inline constexpr const char* inner_thread_variables[] = {
    "OMP_NUM_THREADS",  "OPENBLAS_NUM_THREADS",   "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "NUMEXPR_NUM_THREADS"};

#if defined(__ELF__)
// Null where the program is not linked to the library. Under names of our own, so that they do not
// clash with the libraries' headers.
[[gnu::weak]] void openmp_set_threads(int) __asm__("omp_set_num_threads");
[[gnu::weak]] void openblas_set_threads(int) __asm__("openblas_set_num_threads");
[[gnu::weak]] void mkl_set_threads(int) __asm__("MKL_Set_Num_Threads");
#endif

/// Tells those that are loaded already, and so have read their variables.
inline void set_inner_threads([[maybe_unused]] int threads) noexcept {
#if defined(__ELF__)
    if (openmp_set_threads != nullptr) openmp_set_threads(threads);
    if (openblas_set_threads != nullptr) openblas_set_threads(threads);
    if (mkl_set_threads != nullptr) mkl_set_threads(threads);
#endif
}

}  // namespace multiprocessing::os
