// SPDX-License-Identifier: BSL-1.0
//
// CPython's _TestHeap, of the arena that shared objects are in.
#include <multiprocessing/sharedctypes.hpp>
#include <multiprocessing/shm/arena.hpp>

#include "conformance/helpers.hpp"
#include "shm/helpers.hpp"
#include "support/catch.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <random>
#include <vector>

namespace mp = multiprocessing;
namespace shm = multiprocessing::shm;

namespace {

/// Sizes of blocks of the arena, by where they are.
using Blocks = std::map<std::uint64_t, std::uint64_t>;

Blocks free_blocks(const shm::Arena& arena) {
    const shm::HeapState& heap = arena.header().heap;
    Blocks blocks;
    for (std::size_t order = 0; order < heap.free.size(); ++order) {
        for (auto at = heap.free[order]; at != 0; at = arena.at<shm::Block>(at)->next) {
            blocks.emplace(at - heap.start, std::uint64_t{1} << order);
        }
    }
    return blocks;
}

/// Those in use, as their tags have them, if they and the free ones tile all memory that has ever
/// been used; else none.
Blocks used_blocks(const shm::Arena& arena, const Blocks& free) {
    const shm::HeapState& heap = arena.header().heap;
    Blocks used;
    for (std::uint64_t at = 0; at < heap.frontier;) {
        if (const auto found = free.find(at); found != free.end()) {
            at += found->second;
            continue;
        }
        const auto tag = *arena.at<std::uint8_t>(heap.tags + (at >> shm::HeapState::least_order));
        if ((tag & 0x80) == 0) return {};
        const std::uint64_t size = std::uint64_t{1} << (tag & 0x3f);
        if (at + size > heap.frontier) return {};
        used.emplace(at, size);
        at += size;
    }
    return used;
}

}  // namespace

TEST_CASE("_TestHeap.test_heap", "[shm][heap][conformance]") {
    const support::NoLeak leak;
    const shm::Arena& arena = shm::Arena::instance();
    std::mt19937 random(12);
    std::lognormal_distribution<double> sizes(0, 1);
    std::vector<mp::RawArray<char>> blocks;
    for (int i = 0; i < 5000; ++i) {
        blocks.emplace_back(static_cast<int>(sizes(random) * 1000));
        std::fill(blocks.back().begin(), blocks.back().end(), static_cast<char>(i));
        if (blocks.size() > 50)
            blocks.erase(blocks.begin() + static_cast<std::ptrdiff_t>(random() % 50));
    }
    for (const auto& block : blocks) {
        const bool whole =
            std::all_of(block.begin(), block.end(), [&](char c) { return c == block[0]; });
        CHECK(whole);
    }
    {
        const shm::Transaction tx = arena.transaction();
        const Blocks free = free_blocks(arena);
        const Blocks used = used_blocks(arena, free);
        CHECK(used.size() >= blocks.size());
        // What is free beside its buddy is one block with it.
        for (const auto& [at, size] : free) {
            const auto buddy = free.find(at ^ size);
            CHECK((buddy == free.end() || buddy->second != size));
        }
    }
    std::shuffle(blocks.begin(), blocks.end(), random);
    while (!blocks.empty()) blocks.pop_back();
    CHECK(leak.leaked() == 0);
}
