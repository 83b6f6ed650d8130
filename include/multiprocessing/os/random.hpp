// SPDX-License-Identifier: BSL-1.0
//
// Bytes that nobody can guess: keys. Answers Python's `os.urandom`.
#pragma once

#include <multiprocessing/os/error.hpp>

#include <cstddef>
#include <cstdint>
#include <span>

#include <sys/random.h>

namespace multiprocessing::os {

inline void fill_with_random(std::span<std::byte> buffer) {
    while (!buffer.empty()) {
        const auto got =
            retry_on_signal([&] { return ::getrandom(buffer.data(), buffer.size(), 0); });
        if (got < 0) throw_errno("getrandom");
        buffer = buffer.subspan(static_cast<std::size_t>(got));
    }
}

/// A number that nothing else has.
[[nodiscard]] inline std::uint64_t random_number() {
    std::uint64_t number = 0;
    fill_with_random(std::as_writable_bytes(std::span(&number, 1)));
    return number;
}

}  // namespace multiprocessing::os
