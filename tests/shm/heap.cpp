// SPDX-License-Identifier: BSL-1.0
#include <multiprocessing/shm/heap.hpp>

#include "shm/helpers.hpp"
#include "support/catch.hpp"

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <map>
#include <new>
#include <random>
#include <vector>

using namespace support;

namespace {

// A heap in a segment of its own.
class OwnHeap {
public:
    struct Header {
        shm::Journal journal;
        shm::HeapState state;
    };

    OwnHeap()
        : segment(shm::Segment::create(std::uint64_t{1} << 32)),
          header(*new (segment.at<Header>(0)) Header{}), heap(segment, header.state) {
        heap.format(sizeof(Header));
    }
    [[nodiscard]] shm::Transaction transaction() { return {segment, header.journal}; }
    shm::Block& allocate(std::uint64_t size) {
        auto tx = transaction();
        shm::Block& block = heap.allocate(tx, size);
        tx.commit();
        return block;
    }
    /// Where a ticket of the block would say it is.
    shm::Offset place_of(const shm::Counted& block) const { return segment.offset_of(&block); }
    void free(shm::Block& block) {
        auto tx = transaction();
        heap.free(tx, block);
        tx.commit();
        heap.trim(segment.offset_of(&block));
    }
    // Free blocks by their offsets from the start, with their sizes.
    [[nodiscard]] std::map<std::uint64_t, std::uint64_t> free_blocks() const {
        std::map<std::uint64_t, std::uint64_t> blocks;
        for (std::size_t order = 0; order < header.state.free.size(); ++order) {
            for (auto at = header.state.free[order]; at != 0; at = segment.at<shm::Block>(at)->next) {
                blocks.emplace(at - header.state.start, std::uint64_t{1} << order);
            }
        }
        return blocks;
    }

    shm::Segment segment;
    Header& header;
    shm::Heap heap;
};

std::byte* payload(shm::Block& block) {
    return reinterpret_cast<std::byte*>(&block + 1);
}

std::uint64_t whole(std::uint64_t size) {
    return std::bit_ceil(std::max<std::uint64_t>(128, size + sizeof(shm::Block)));
}

}  // namespace

TEST_CASE("blocks tile the heap exactly, and everything coalesces", "[shm][heap]") {
    OwnHeap own;
    std::mt19937 random(7);
    std::vector<shm::Block*> blocks;
    for (int step = 0; step < 4000; ++step) {
        if (blocks.size() > 50 || (!blocks.empty() && random() % 2 == 0)) {
            std::swap(blocks[random() % blocks.size()], blocks.back());
            own.free(*blocks.back());
            blocks.pop_back();
        } else {
            const std::uint64_t size = std::uint64_t{1} << (random() % 18);
            blocks.push_back(&own.allocate(size + random() % size));
            std::memset(payload(*blocks.back()), 0xee, blocks.back()->size);
        }
        if (step % 50 != 0) continue;
        auto tiles = own.free_blocks();
        for (const auto* block : blocks) {
            tiles.emplace(own.segment.offset_of(block) - own.header.state.start, whole(block->size));
        }
        std::uint64_t next = 0;
        for (const auto& [at, size] : tiles) {
            REQUIRE(at == next);
            REQUIRE(at % size == 0);
            next = at + size;
        }
        REQUIRE(next == own.header.state.frontier);
    }
    for (auto* block : blocks) own.free(*block);
    CHECK(own.header.state.allocated == 0);
    // As few blocks as cover everything up to the frontier.
    const auto left = own.free_blocks();
    CHECK(left.size() == static_cast<std::size_t>(std::popcount(own.header.state.frontier)));
}

TEST_CASE("a block is found by its serial and by no other", "[shm][heap]") {
    OwnHeap own;
    shm::Block& block = own.allocate(100);
    const auto offset = own.place_of(block);
    const auto serial = block.serial;
    CHECK(own.heap.find(offset, serial) == &block);
    CHECK(own.heap.find(offset, serial + 1) == nullptr);
    CHECK(own.heap.find(offset, 0) == nullptr);
    CHECK(own.heap.find(offset + 8, serial) == nullptr);
    CHECK(own.heap.find(offset + 128, serial) == nullptr);
    CHECK(own.heap.find(0, serial) == nullptr);
    CHECK(own.heap.find(own.segment.size() + 4096, serial) == nullptr);
    CHECK(own.heap.find(~std::uint64_t{0}, serial) == nullptr);
    own.free(block);
    CHECK(own.heap.find(offset, serial) == nullptr);
    shm::Block& again = own.allocate(100);
    CHECK(own.place_of(again) == offset);
    CHECK(again.serial != serial);
    CHECK(own.heap.find(offset, serial) == nullptr);
    own.free(again);
}

TEST_CASE("too much is std::bad_alloc and leaves the heap as it was", "[shm][heap]") {
    OwnHeap own;
    shm::Block& block = own.allocate(5000);
    const auto frontier = own.header.state.frontier;
    const auto before = own.free_blocks();
    for (const std::uint64_t size :
         {own.segment.size(), std::uint64_t{1} << 63, ~std::uint64_t{0}, ~std::uint64_t{0} - 64}) {
        CHECK_THROWS_AS(own.allocate(size), std::bad_alloc);
    }
    CHECK(own.header.state.frontier == frontier);
    CHECK(own.free_blocks() == before);
    own.free(block);
    CHECK(own.header.state.allocated == 0);
}

TEST_CASE("a transaction that fails takes no block and frees none", "[shm][heap][journal]") {
    OwnHeap own;
    shm::Block& kept = own.allocate(300);
    const auto serial = kept.serial;
    const auto allocated = own.header.state.allocated;
    const auto before = own.free_blocks();
    {
        auto tx = own.transaction();
        own.heap.free(tx, kept);
        static_cast<void>(own.heap.allocate(tx, 70'000));
        static_cast<void>(own.heap.allocate(tx, 128));
    }
    CHECK(own.header.state.allocated == allocated);
    CHECK(own.free_blocks() == before);
    CHECK(own.heap.find(own.place_of(kept), serial) == &kept);
    own.free(kept);
}

TEST_CASE("a transaction that fails gives a block back with all that are free behind it",
          "[shm][heap][journal]") {
    OwnHeap own;
    std::vector<shm::Block*> blocks;
    for (int i = 0; i < 8; ++i) blocks.push_back(&own.allocate(1000));
    for (std::size_t i = 0; i < 8; i += 2) own.free(*blocks[i]);  // no two of them are buddies
    const auto before = own.free_blocks();
    {
        auto tx = own.transaction();
        static_cast<void>(own.heap.allocate(tx, 1000));
    }
    CHECK(own.free_blocks() == before);
    for (std::size_t i = 1; i < 8; i += 2) own.free(*blocks[i]);
    CHECK(own.header.state.allocated == 0);
    CHECK(own.free_blocks().size() ==
          static_cast<std::size_t>(std::popcount(own.header.state.frontier)));
}

TEST_CASE("freed memory goes back to the system beyond a slack", "[shm][heap]") {
    OwnHeap own;
    constexpr std::uint64_t size = std::uint64_t{4} << 20;
    constexpr std::uint64_t slack = std::uint64_t{64} << 20;
    const auto committed = [&] { return own.header.state.committed.load(); };
    std::vector<shm::Block*> blocks;
    while (blocks.size() * size < 4 * slack) blocks.push_back(&own.allocate(size));
    CHECK(committed() >= 4 * slack);
    for (shm::Block* block : blocks) own.free(*block);
    CHECK(committed() <= slack + 8 * size);
    // And comes again.
    for (shm::Block*& block : blocks) {
        block = &own.allocate(size);
        std::memset(payload(*block), 1, size);
    }
    CHECK(committed() >= 4 * slack);
    for (shm::Block* block : blocks) own.free(*block);
}

TEST_CASE("what is used again and again keeps its memory, however large", "[shm][heap]") {
    OwnHeap own;
    constexpr std::uint64_t size = std::uint64_t{100} << 20;
    CHECK_FALSE(own.heap.is_warm(size));
    shm::Block& first = own.allocate(size);
    CHECK_FALSE(own.heap.is_warm(size));
    const auto committed = own.header.state.committed.load();
    own.free(first);
    CHECK(own.header.state.committed.load() == committed);
    CHECK(own.heap.is_warm(size));
    CHECK(own.heap.is_warm(1000));
    CHECK_FALSE(own.heap.is_warm(2 * size));
}
