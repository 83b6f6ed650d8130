// SPDX-License-Identifier: BSL-1.0
//
// HMAC, which is OpenSSL's: what somebody can compute of a message who has the key, and nobody else.
#pragma once

#include <multiprocessing/os/fork.hpp>

#include <array>
#include <cstddef>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

namespace multiprocessing::os {

/// A hash function, by the name that Python has for it.
struct Digest {
    std::string_view name;
    const ::EVP_MD* (*function)();
};
inline constexpr std::array digests{
    Digest{"md5", &::EVP_md5}, Digest{"sha256", &::EVP_sha256}, Digest{"sha384", &::EVP_sha384},
    Digest{"sha3_256", &::EVP_sha3_256}, Digest{"sha3_384", &::EVP_sha3_384}};

/// Null for another name.
[[nodiscard]] inline const Digest* find_digest(std::string_view name) noexcept {
    for (const Digest& each : digests) {
        if (each.name == name) return &each;
    }
    return nullptr;
}

/// Nothing where OpenSSL refuses: MD5 where that is forbidden, say.
[[nodiscard]] inline std::optional<std::string> hmac(const Digest& digest,
                                                     std::span<const std::byte> key,
                                                     std::string_view message) {
    if (key.size() > std::numeric_limits<int>::max()) return std::nullopt;
    std::array<unsigned char, EVP_MAX_MD_SIZE> code{};
    unsigned size = 0;
    // A null pointer would not be an empty key.
    const void* const start = key.empty() ? "" : static_cast<const void*>(key.data());
    // Its tables are under locks that nobody renews in a forked child.
    const NoFork whole;
    // And it is not to take them down before the last of our own that runs at the end of a program,
    // where it would crash. If somebody else has it do so, this says that it has.
    if (::OPENSSL_init_crypto(OPENSSL_INIT_NO_ATEXIT, nullptr) != 1 ||
        ::HMAC(digest.function(), start, static_cast<int>(key.size()),
               reinterpret_cast<const unsigned char*>(message.data()), message.size(), code.data(),
               &size) == nullptr) {
        return std::nullopt;
    }
    return std::string(reinterpret_cast<const char*>(code.data()), size);
}

/// Whether they are the same, found out in a time that does not tell where they differ.
[[nodiscard]] inline bool same_secret(std::string_view a, std::string_view b) noexcept {
    return a.size() == b.size() && ::CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

}  // namespace multiprocessing::os
