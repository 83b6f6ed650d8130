// SPDX-License-Identifier: BSL-1.0
//
// `mp::bytes`, the answer to Python's `bytes`: a vector of std::byte that is made from whatever
// holds bytes, so that a key or a message can be written as a literal.
#pragma once

#include <cstddef>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace multiprocessing {

/// A byte string. *Python*: `bytes`.
class bytes : public std::vector<std::byte> {
public:
    using std::vector<std::byte>::vector;
    bytes() = default;
    bytes(std::string_view text) { assign_raw(text.data(), text.size()); }
    bytes(const std::string& text) : bytes(std::string_view(text)) {}
    /// A literal: without its terminating NUL, but with those inside.
    template <std::size_t N>
    bytes(const char (&literal)[N]) : bytes(std::string_view(literal, N - 1)) {}
    bytes(std::span<const std::byte> raw) { assign_raw(raw.data(), raw.size()); }
    bytes(std::vector<std::byte> raw) : std::vector<std::byte>(std::move(raw)) {}

    /// The same bytes as text.
    [[nodiscard]] std::string str() const {
        return std::string(reinterpret_cast<const char*>(data()), size());
    }
    [[nodiscard]] std::span<const std::byte> span() const noexcept { return {data(), size()}; }
    [[nodiscard]] std::span<std::byte> span() noexcept { return {data(), size()}; }

private:
    void assign_raw(const void* from, std::size_t size) {
        resize(size);
        if (size != 0) std::memcpy(data(), from, size);
    }
};

}  // namespace multiprocessing
