// SPDX-License-Identifier: BSL-1.0
//
// What a pool is asked for in numbers.
#pragma once

#include <multiprocessing/exceptions.hpp>

#include <cstdint>
#include <string>

namespace multiprocessing::runtime::pool {

/// A number of which there must be one at least; `what` names it. Throws ValueError.
[[nodiscard]] inline std::uint32_t at_least_one(int number, const std::string& what) {
    if (number >= 1) return static_cast<std::uint32_t>(number);
    throw ValueError(what + " is " + std::to_string(number) + ", but must be 1 or more");
}

}  // namespace multiprocessing::runtime::pool
