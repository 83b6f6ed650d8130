// SPDX-License-Identifier: BSL-1.0
//
// A function to many ranks, which help: what is large leaves the master twice, however many they are.
#pragma once

#include <multiprocessing/mpi/messages.hpp>
#include <multiprocessing/mpi/wire.hpp>
#include <multiprocessing/pickle/buffer.hpp>

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

namespace multiprocessing::mpi {

/// The message of a function, for one who is to send it on to others.
[[nodiscard]] inline pickle::Buffer function_message(Function head, std::span<const std::byte> callable,
                                                     std::span<const std::int32_t> others) {
    head.send_on = static_cast<std::uint32_t>(others.size());
    pickle::Buffer message;
    message.reserve(sizeof head + others.size_bytes() + callable.size());
    append(message, head);
    message.append(others.data(), others.size_bytes());
    message.append(callable.data(), callable.size());
    return message;
}

/// Sends it to half of the ranks by the first of them, which does the same, to half of the rest, and so
/// on. All have it after as many steps as their number has binary digits.
inline void send_function(Wire& wire, const Function& head, std::span<const std::byte> callable,
                          std::span<const std::int32_t> ranks) {
    while (!ranks.empty()) {
        const std::size_t half = (ranks.size() + 1) / 2;
        wire.send(ranks[0], function_message(head, callable, ranks.subspan(1, half - 1)));
        ranks = ranks.subspan(half);
    }
}

}  // namespace multiprocessing::mpi
