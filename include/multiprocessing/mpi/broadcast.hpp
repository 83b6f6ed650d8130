// SPDX-License-Identifier: BSL-1.0
//
// A function to many ranks, which help: what is large leaves the master as often as their number has
// binary digits.
#pragma once

#include <multiprocessing/mpi/messages.hpp>
#include <multiprocessing/mpi/wire.hpp>
#include <multiprocessing/pickle/buffer.hpp>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>

namespace multiprocessing::mpi {

/// Sends a function to half of the ranks by the first of them, which does the same, to half of the rest,
/// and so on. All have it after as many steps as their number has binary digits. `keeps` has its bytes.
inline void send_function(Wire& wire, Function head, std::span<const std::byte> callable,
                          const std::shared_ptr<const void>& keeps, std::span<const std::int32_t> ranks) {
    while (!ranks.empty()) {
        const std::size_t half = (ranks.size() + 1) / 2;
        const auto others = ranks.subspan(1, half - 1);
        head.send_on = static_cast<std::uint32_t>(others.size());
        pickle::Buffer message;
        append(message, head);
        message.append(others.data(), others.size_bytes());
        wire.send(ranks[0], std::move(message), callable, keeps);
        ranks = ranks.subspan(half);
    }
}

}  // namespace multiprocessing::mpi
