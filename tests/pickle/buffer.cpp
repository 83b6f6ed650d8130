// SPDX-License-Identifier: BSL-1.0
#include "support/catch.hpp"

#include <multiprocessing/pickle/buffer.hpp>

#include <array>
#include <cstring>
#include <stdexcept>
#include <string>
#include <utility>

namespace pickle = multiprocessing::pickle;

TEST_CASE("a buffer grows and keeps what was written", "[pickle][buffer]") {
    pickle::Buffer buffer;
    CHECK(buffer.size() == 0);
    std::string expected;
    for (int i = 0; i < 1000; ++i) {
        const std::string piece = std::to_string(i);
        buffer.append(piece.data(), piece.size());
        expected += piece;
    }
    REQUIRE(buffer.size() == expected.size());
    CHECK(std::memcmp(buffer.data(), expected.data(), expected.size()) == 0);
    buffer.truncate(3);
    CHECK(buffer.span().size() == 3);
    buffer.clear();
    CHECK(buffer.size() == 0);
    CHECK(buffer.capacity() >= expected.size());
}

TEST_CASE("a buffer gives its bytes away by moving", "[pickle][buffer]") {
    pickle::Buffer first;
    first.append("abc", 3);
    pickle::Buffer second(std::move(first));
    CHECK(second.size() == 3);
    pickle::Buffer third;
    third.append("longer", 6);
    third = std::move(second);
    CHECK(std::memcmp(third.data(), "abc", 3) == 0);
}

TEST_CASE("a buffer over foreign memory does not grow beyond it", "[pickle][buffer]") {
    std::array<std::byte, 4> memory{};
    pickle::Buffer buffer{std::span<std::byte>(memory)};
    buffer.append("abcd", 4);
    CHECK(memory[3] == std::byte{'d'});
    CHECK_THROWS_AS(buffer.append("e", 1), std::logic_error);
}

TEST_CASE("the scratch buffer is the same memory again, but not while it is in use",
          "[pickle][buffer]") {
    const std::byte* first = nullptr;
    {
        pickle::Scratch scratch;
        scratch->append("abc", 3);
        first = scratch->data();
        pickle::Scratch nested;
        CHECK(nested->size() == 0);
        nested->append("x", 1);
        CHECK(nested->data() != first);
    }
    pickle::Scratch again;
    CHECK(again->size() == 0);
    again->append("y", 1);
    CHECK(again->data() == first);
}

TEST_CASE("the scratch buffer gives much memory back", "[pickle][buffer]") {
    {
        pickle::Scratch scratch;
        scratch->grow(2 * pickle::Scratch::most_kept);
    }
    pickle::Scratch scratch;
    CHECK(scratch->capacity() <= pickle::Scratch::most_kept);
}
