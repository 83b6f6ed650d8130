// SPDX-License-Identifier: BSL-1.0
#include <multiprocessing/shm/cells.hpp>

#include "shm/helpers.hpp"
#include "support/catch.hpp"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <random>
#include <set>
#include <vector>

using namespace support;

namespace {

constexpr std::uint64_t slab_bytes = 16 << 10;
constexpr std::uint64_t cells_a_slab = (slab_bytes - 128) / 32;

// Cells in a segment of their own.
class OwnCells {
public:
    struct Header {
        shm::Journal journal;
        shm::HeapState heap;
        shm::CellState cells;
    };

    OwnCells()
        : segment(shm::Segment::create(std::uint64_t{1} << 32)),
          header(*new (segment.at<Header>(0)) Header{}), heap(segment, header.heap),
          cells(segment, header.heap, header.cells) {
        heap.format(sizeof(Header));
    }
    [[nodiscard]] shm::Transaction transaction() { return {segment, header.journal}; }
    shm::Counted& allocate() {
        auto tx = transaction();
        shm::Counted& cell = cells.allocate(tx);
        tx.commit();
        return cell;
    }
    void free(shm::Counted& cell) {
        auto tx = transaction();
        cells.free(tx, cell);
        tx.commit();
    }
    [[nodiscard]] shm::Offset place_of(const shm::Counted& cell) const {
        return segment.offset_of(&cell);
    }
    [[nodiscard]] std::uint64_t slabs() const { return header.heap.allocated / slab_bytes; }

    shm::Segment segment;
    Header& header;
    shm::Heap heap;
    shm::Cells cells;
};

}  // namespace

TEST_CASE("a cell is found by its serial and by no other, and nowhere else", "[shm][cells]") {
    OwnCells own;
    {  // The memory may have served before.
        auto tx = own.transaction();
        shm::Block& block = own.heap.allocate(tx, slab_bytes - sizeof(shm::Block));
        std::memset(&block + 1, 3, slab_bytes - sizeof(shm::Block));
        own.heap.free(tx, block);
        tx.commit();
    }
    shm::Counted& cell = own.allocate();
    shm::Counted& other = own.allocate();
    const shm::Offset place = own.place_of(cell);
    const auto serial = cell.serial;
    CHECK(own.cells.find(place, serial) == &cell);
    CHECK(own.cells.find(place, serial + 1) == nullptr);
    CHECK(own.cells.find(place, 0) == nullptr);
    CHECK(own.cells.find(own.place_of(other), serial) == nullptr);
    // Whatever has been written there, no other place of the slab is one, nor of what is around it.
    const shm::Offset slab = place - 128;
    std::memset(&other + 1, static_cast<int>(serial), 16);
    for (shm::Offset at = slab - 4096; at < slab + 2 * slab_bytes; at += 8) {
        if (at == place || at == own.place_of(other)) continue;
        const std::uint64_t there =
            at < slab + slab_bytes ? *own.segment.at<std::uint64_t>(at) : serial;
        CHECK(own.cells.find(at, there) == nullptr);
        CHECK(own.heap.find(at, there) == nullptr);
    }
    for (const shm::Offset at : {shm::Offset{0}, own.segment.size() + 4096, ~shm::Offset{31}}) {
        CHECK(own.cells.find(at, serial) == nullptr);
    }
    own.free(cell);
    CHECK(own.cells.find(place, serial) == nullptr);
    shm::Counted& again = own.allocate();
    CHECK(own.place_of(again) == place);
    CHECK(again.serial != serial);
    CHECK(own.cells.find(place, serial) == nullptr);
}

TEST_CASE("a block that was a slab is one no more", "[shm][cells]") {
    OwnCells own;
    std::vector<shm::Counted*> cells;
    for (std::uint64_t i = 0; i <= cells_a_slab; ++i) cells.push_back(&own.allocate());
    const shm::Offset place = own.place_of(*cells.back());
    const auto serial = cells.back()->serial;
    own.free(*cells.front());
    own.free(*cells.back());
    REQUIRE(own.slabs() == 1);
    auto tx = own.transaction();
    shm::Block& block = own.heap.allocate(tx, slab_bytes - sizeof(shm::Block));
    REQUIRE(own.segment.offset_of(&block) == place - 128);
    auto& forged = *own.segment.at<shm::Counted>(place);
    forged.serial = serial;
    CHECK(own.cells.find(place, serial) == nullptr);
    CHECK(own.heap.find(own.place_of(block), block.serial) == &block);
}

TEST_CASE("the first half of a slab's cells have cache lines of their own", "[shm][cells]") {
    OwnCells own;
    std::set<shm::Offset> lines;
    for (std::uint64_t i = 0; i < cells_a_slab / 2; ++i)
        lines.insert(own.place_of(own.allocate()) / 64);
    CHECK(lines.size() == cells_a_slab / 2);
    for (std::uint64_t i = 0; i < cells_a_slab / 2; ++i)
        lines.insert(own.place_of(own.allocate()) / 64);
    CHECK(lines.size() == cells_a_slab / 2);
    CHECK(own.slabs() == 1);
}

TEST_CASE("slabs come as cells are needed and go with them, but one", "[shm][cells]") {
    OwnCells own;
    std::vector<shm::Counted*> cells;
    std::mt19937 random(7);
    for (int order = 0; order < 3; ++order) {
        std::set<shm::Offset> places;
        for (std::uint64_t i = 0; i < 3 * cells_a_slab; ++i) {
            cells.push_back(&own.allocate());
            places.insert(own.place_of(*cells.back()));
        }
        CHECK(places.size() == 3 * cells_a_slab);
        CHECK(own.slabs() == 3);
        if (order == 1) std::reverse(cells.begin(), cells.end());
        if (order == 2) std::shuffle(cells.begin(), cells.end(), random);
        while (!cells.empty()) {
            own.free(*cells.back());
            cells.pop_back();
            CHECK(own.slabs() >= (cells.size() + cells_a_slab - 1) / cells_a_slab);
        }
        CHECK(own.slabs() == 1);
    }
}

TEST_CASE("an empty slab goes when another has room", "[shm][cells]") {
    OwnCells own;
    std::vector<shm::Counted*> cells;
    for (std::uint64_t i = 0; i < cells_a_slab; ++i) cells.push_back(&own.allocate());
    own.free(own.allocate());
    CHECK(own.slabs() == 2);
    own.free(*cells.back());
    CHECK(own.slabs() == 1);
}

TEST_CASE("a transaction that fails takes no cell and frees none", "[shm][cells][journal]") {
    OwnCells own;
    std::vector<shm::Counted*> cells;
    for (std::uint64_t i = 0; i < cells_a_slab; ++i) cells.push_back(&own.allocate());
    const auto serial = cells[5]->serial;
    {
        auto tx = own.transaction();
        static_cast<void>(own.cells.allocate(tx));
        own.cells.free(tx, *cells[5]);
        own.cells.free(tx, *cells[6]);
        static_cast<void>(own.cells.allocate(tx));
    }
    CHECK(own.slabs() == 1);
    CHECK(own.header.cells.slabs == 0);
    CHECK(own.cells.find(own.place_of(*cells[5]), serial) == cells[5]);
    own.free(*cells[5]);
    {
        auto tx = own.transaction();
        static_cast<void>(own.cells.allocate(tx));
    }
    CHECK(own.header.cells.slabs != 0);
    cells[5] = &own.allocate();
    CHECK(own.header.cells.slabs == 0);
    for (auto* cell : cells) own.free(*cell);
    CHECK(own.slabs() == 1);
}

TEST_CASE("what fits stands in a cell, what does not in a block", "[shm][cells][ref]") {
    const auto small = shm::Ref::create(16);
    const auto large = shm::Ref::create(17);
    const shm::Arena& arena = shm::Arena::instance();
    CHECK(small.size() == 16);
    CHECK(large.size() == 17);
    CHECK(arena.offset_of(&small.counted()) % 32 == 0);
    CHECK(arena.offset_of(&large.counted()) % 64 == 48);
    CHECK(arena.find(arena.ticket(small.counted())) == &small.counted());
    CHECK(arena.find(arena.ticket(large.counted())) == &large.counted());
    CHECK(arena.heap().find(arena.offset_of(&small.counted()), small.counted().serial) == nullptr);
}

TEST_CASE("stale and forged tickets of cells are refused", "[shm][cells][ref]") {
    const NoLeak leak;
    shm::Ticket gone;
    {
        const auto object = shm::Ref::create(8);
        gone = shm::Arena::instance().ticket(object.counted());
        for (const std::uint64_t away : {8u, 16u, 32u, 48u, 64u, 1u << 14, 1u << 20}) {
            shm::Ticket forged{gone.offset + away, gone.serial};
            CHECK_THROWS_AS(shm::Ref::arrive(forged), shm::StaleTicket);
        }
        shm::Ticket another{gone.offset, gone.serial + 1};
        CHECK_THROWS_AS(shm::Ref::arrive(another), shm::StaleTicket);
    }
    CHECK(leak.leaked() == 0);
    const auto in_its_place = shm::Ref::create(8);
    CHECK_THROWS_AS(shm::Ref::copy(gone), shm::StaleTicket);
    CHECK_THROWS_AS(shm::Ref::arrive(gone), shm::StaleTicket);
    shm::abandon(gone);
    CHECK(in_its_place.counted().counts == 1);
}
