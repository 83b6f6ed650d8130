// SPDX-License-Identifier: BSL-1.0
//
// A fence in a form that ThreadSanitizer understands.
#pragma once

#include <atomic>
#include <cstdint>

namespace multiprocessing::os {

/// Whether this is compiled for ThreadSanitizer.
#if defined(__SANITIZE_THREAD__)
inline constexpr bool thread_sanitizer = true;
#elif defined(__has_feature)
inline constexpr bool thread_sanitizer = __has_feature(thread_sanitizer);
#else
inline constexpr bool thread_sanitizer = false;
#endif

/// Looks at `word` after a fence: what this thread has stored before can be seen by whoever changes
/// the word after that look with an atomic operation that both reads and writes it.
[[nodiscard]] inline std::uint32_t look_after_fence(std::atomic<std::uint32_t>& word) noexcept {
    // It knows no fences. A change of the word that changes nothing comes to the same: it is before
    // or after the other's, and the later of the two sees the earlier.
    if constexpr (thread_sanitizer) {
        return word.fetch_add(0, std::memory_order_seq_cst);
    } else {
        std::atomic_thread_fence(std::memory_order_seq_cst);
        return word.load(std::memory_order_relaxed);
    }
}

}  // namespace multiprocessing::os
