// SPDX-License-Identifier: BSL-1.0
//
// What the messages of CPython's handshake begin with, for those who only want to tell them from others.
#pragma once

#include <cstddef>
#include <span>
#include <string_view>

namespace multiprocessing::runtime::challenge {

inline constexpr std::string_view prefix = "#CHALLENGE#";
inline constexpr std::string_view welcome = "#WELCOME#";
inline constexpr std::string_view failure = "#FAILURE#";

[[nodiscard]] inline std::string_view text(std::span<const std::byte> message) noexcept {
    return {reinterpret_cast<const char*>(message.data()), message.size()};
}

}  // namespace multiprocessing::runtime::challenge
