// SPDX-License-Identifier: BSL-1.0
//
// Python's hash of strings, SipHash-1-3, with a secret of the process's own: who sends the keys of
// a dict cannot choose them so that they all fall into one place.
#pragma once

#include <multiprocessing/os/random.hpp>

#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

namespace multiprocessing::python::hashes {

inline std::atomic<std::uint64_t> secret_made{0};

/// Made when it is first asked for, and inherited by forked children: tables stay what they are.
[[nodiscard]] inline std::uint64_t secret() {
    std::uint64_t secret = secret_made.load(std::memory_order_relaxed);
    if (secret != 0) return secret;
    const std::uint64_t mine = os::random_number() | 1;
    // Nothing else is published with it: whoever comes first, all use the same number.
    secret_made.compare_exchange_strong(secret, mine, std::memory_order_relaxed);
    return secret != 0 ? secret : mine;
}

[[nodiscard]] inline std::uint64_t of(std::string_view bytes) {
    const std::uint64_t key = secret();
    std::uint64_t a = key ^ 0x736f6d6570736575u;
    std::uint64_t b = std::rotl(key, 32) ^ 0x646f72616e646f6du;
    std::uint64_t c = key ^ 0x6c7967656e657261u;
    std::uint64_t d = std::rotl(key, 32) ^ 0x7465646279746573u;
    const auto round = [&] {
        a += b;
        c += d;
        b = std::rotl(b, 13) ^ a;
        d = std::rotl(d, 16) ^ c;
        a = std::rotl(a, 32);
        c += b;
        a += d;
        b = std::rotl(b, 17) ^ c;
        d = std::rotl(d, 21) ^ a;
        c = std::rotl(c, 32);
    };
    const auto absorb = [&](std::uint64_t word) {
        d ^= word;
        round();
        a ^= word;
    };
    const std::size_t size = bytes.size();
    std::uint64_t word = 0;
    for (; bytes.size() >= sizeof word; bytes.remove_prefix(sizeof word)) {
        std::memcpy(&word, bytes.data(), sizeof word);
        absorb(word);
    }
    word = 0;
    if (!bytes.empty()) std::memcpy(&word, bytes.data(), bytes.size());
    absorb(word | static_cast<std::uint64_t>(size) << 56);
    c ^= 0xff;
    for (int i = 0; i < 3; ++i) round();
    return a ^ b ^ c ^ d;
}

[[nodiscard]] inline std::uint64_t of(std::uint64_t a, std::uint64_t b) {
    const std::uint64_t both[] = {a, b};
    return of(std::string_view(reinterpret_cast<const char*>(both), sizeof both));
}

}  // namespace multiprocessing::python::hashes
