// SPDX-License-Identifier: BSL-1.0
//
// Numbered messages through a ring, short ones and such as have a block of their own.
#pragma once

#include <multiprocessing/shm/ring.hpp>
#include <multiprocessing/shm/run.hpp>

#include "shm/helpers.hpp"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>

namespace support {

using shm::Outcome;
using shm::Ring;

inline void write(Ring::Putter& putter, std::uint64_t number, std::uint32_t size) {
    std::byte* at = putter.reserve(size);
    std::memset(at, static_cast<int>(number & 0xff), size);
    std::memcpy(at, &number, sizeof number);
}

inline Outcome put(Ring& ring, std::uint64_t number, std::uint32_t size = 8,
                   os::Deadline deadline = soon()) {
    return ring.put(deadline, [&](Ring::Putter& putter) { write(putter, number, size); });
}

inline Outcome put_run(Ring& ring, std::uint64_t number, os::Deadline deadline = soon()) {
    shm::Run run(100'000);
    std::memcpy(run.data(), &number, sizeof number);
    const auto outcome = ring.put(
        deadline, [&](Ring::Putter& putter) { putter.put_run(run.block(), 100'000); });
    if (outcome == Outcome::done) run.release();
    return outcome;
}

inline std::uint64_t number_in(std::span<const std::byte> bytes) {
    std::uint64_t number = 0;
    std::memcpy(&number, bytes.data(), sizeof number);
    for (const std::byte byte : bytes.subspan(sizeof number, std::min<std::size_t>(16, bytes.size() - 8))) {
        if (byte != static_cast<std::byte>(number & 0xff)) return ~std::uint64_t{0};
    }
    return number;
}

/// A number, or how the attempt ended.
inline std::optional<std::uint64_t> get(Ring& ring, os::Deadline deadline = soon()) {
    std::optional<std::uint64_t> number;
    Ring::Getter::Record taken;
    const auto outcome =
        ring.take(deadline, [&](Ring::Getter& getter, const Ring::Getter::Record& record) {
            if (record.run == nullptr) number = number_in(record.bytes);
            taken = record;
            getter.take(record);
        });
    if (outcome == Outcome::done && taken.run != nullptr) {
        const shm::Run run(*taken.run);
        std::uint64_t read = 0;
        std::memcpy(&read, taken.bytes.data(), sizeof read);
        number = read;
    }
    return number;
}

}  // namespace support
