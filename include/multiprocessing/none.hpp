// SPDX-License-Identifier: BSL-1.0
//
// `mp::None`, the answer to Python's `None` where a list or a message of values of several types
// holds one.
#pragma once

namespace multiprocessing {

/// The type of `mp::None`.
struct none_t {
    friend constexpr bool operator==(none_t, none_t) noexcept { return true; }
};
inline constexpr none_t None{};

}  // namespace multiprocessing
