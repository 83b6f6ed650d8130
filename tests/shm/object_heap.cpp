// SPDX-License-Identifier: BSL-1.0
#include <multiprocessing/shm/object_heap.hpp>

#include "shm/helpers.hpp"
#include "shm/single_step.hpp"
#include "support/catch.hpp"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <vector>

using namespace support;
using shm::ObjectHead;
using shm::ObjectHeap;

namespace {

shm::Shared<ObjectHead> make_object() {
    return shm::Shared<ObjectHead>::make(100, std::uint64_t{1});
}

}  // namespace

TEST_CASE("a heap gives memory, grows, and shrinks when it gets it back", "[shm][object_heap]") {
    const NoLeak leak;
    {
        const auto heap = ObjectHeap::make(4096);
        const auto first = heap->room();
        CHECK(first.size == 4096);
        const auto with_one_chunk = leak.leaked();
        struct Piece {
            std::byte* at;
            std::size_t size;
            std::byte fill;
        };
        std::mt19937 random(7);
        std::vector<Piece> pieces;
        for (int i = 0; i < 5000; ++i) {
            const std::size_t size = random() % 3000;
            const auto fill = static_cast<std::byte>(i);
            auto* const at = static_cast<std::byte*>(heap->allocate(size, i % 10 == 0 ? 64 : 8));
            CHECK(reinterpret_cast<std::uintptr_t>(at) % (i % 10 == 0 ? 64 : 8) == 0);
            std::fill_n(at, size, fill);
            pieces.push_back({at, size, fill});
            if (pieces.size() < 200) continue;
            std::swap(pieces[random() % pieces.size()], pieces.back());
            const Piece last = pieces.back();
            const bool whole = std::all_of(last.at, last.at + last.size,
                                           [&](std::byte b) { return b == last.fill; });
            REQUIRE(whole);
            heap->deallocate(last.at);
            pieces.pop_back();
        }
        CHECK(heap->room().size > 200'000);
        for (const Piece& piece : pieces) heap->deallocate(piece.at);
        CHECK(leak.leaked() <= with_one_chunk + (std::int64_t{1} << 20));
        auto* const large = heap->allocate(std::uint64_t{20} << 20, 8);
        std::memset(large, 1, std::size_t{20} << 20);
        heap->deallocate(large);
        // One chunk stays, and it has all of its memory.
        CHECK(heap->room().size < 2 << 20);
        CHECK(heap->room().free > heap->room().size - 2048);
    }
    CHECK(leak.leaked() == 0);
}

TEST_CASE("a heap that cannot grow says so and is as it was", "[shm][object_heap]") {
    const auto heap = ObjectHeap::make(4096);
    const auto before = heap->room();
    CHECK_THROWS_AS(heap->allocate(std::uint64_t{1} << 60, 8), std::bad_alloc);
    CHECK_THROWS_AS(heap->allocate(std::uint64_t{1} << 45, 8), std::bad_alloc);
    CHECK(heap->room().size == before.size);
    CHECK(heap->room().free == before.free);
    heap->deallocate(heap->allocate(100, 8));
    CHECK_FALSE(heap->broken());
}

TEST_CASE("processes and threads take from a heap and give back at once", "[shm][object_heap]") {
    const auto heap = ObjectHeap::make(4096);
    const auto work = [&heap](unsigned seed) {
        std::mt19937 random(seed);
        std::vector<std::uint32_t*> mine;
        bool whole = true;
        for (int i = 0; i < 2000; ++i) {
            auto* const at = static_cast<std::uint32_t*>(heap->allocate(4 + random() % 500, 8));
            *at = seed;
            mine.push_back(at);
            if (mine.size() < 50) continue;
            std::swap(mine[random() % mine.size()], mine.back());
            whole = whole && *mine.back() == seed;
            heap->deallocate(mine.back());
            mine.pop_back();
        }
        for (auto* const at : mine) heap->deallocate(at);
        return whole;
    };
    Child first([&] { return work(1); });
    Child second([&] { return work(2); });
    bool whole = false;
    std::thread thread([&] { whole = work(3); });
    CHECK(work(4));
    thread.join();
    CHECK(whole);
    CHECK(first.wait() == 0);
    CHECK(second.wait() == 0);
    CHECK_FALSE(heap->broken());
}

TEST_CASE("a name is its first object's until that is forgotten", "[shm][object_heap]") {
    const NoLeak leak;
    {
        const auto heap = ObjectHeap::make(1024);
        const auto without = leak.leaked();
        {
            const auto one = make_object();
            const auto two = make_object();
            CHECK(heap->name("x", one));
            CHECK_FALSE(heap->name("x", two));
            CHECK(heap->name("", two));
            CHECK(heap->find("x") == one);
            CHECK_FALSE(heap->find("y"));
            CHECK_FALSE(heap->forget("x", two));
            CHECK(heap->forget("x", one));
            CHECK_FALSE(heap->forget("x", one));
            CHECK_FALSE(heap->find("x"));
            CHECK(heap->forget("", two));
        }
        CHECK(leak.leaked() == without);
        // A named object needs nobody who has it, and ends with the heap.
        std::vector<std::string> names;
        for (int i = 0; i < 1000; ++i) names.push_back("object " + std::to_string(i));
        for (const std::string& name : names) CHECK(heap->name(name, make_object()));
        for (const std::string& name : names) CHECK(heap->find(name));
        auto there = heap->names();
        std::sort(there.begin(), there.end());
        std::sort(names.begin(), names.end());
        CHECK(there == names);
    }
    CHECK(leak.leaked() == 0);
}

TEST_CASE("killed anywhere in a heap, it works on without the chunk where it was",
          "[shm][object_heap][killed]") {
    const NoLeak leak;
    std::optional<shm::Shared<ObjectHeap>> heap;
    int broken = 0;
    void* old = nullptr;
    kill_anywhere(
        [&] {
            heap = ObjectHeap::make(2048);
            old = (*heap)->allocate(1000, 8);
        },
        [&] {
            (*heap)->deallocate((*heap)->allocate(100, 8));
        },
        [&] {
            const auto before = (*heap)->room();
            if ((*heap)->broken()) {
                ++broken;
                CHECK(before.free == 0);
                // It is as if that chunk were full for ever.
                (*heap)->deallocate(old);
                CHECK((*heap)->room().free == 0);
            }
            auto* const memory = (*heap)->allocate(10'000, 8);
            std::memset(memory, 1, 10'000);
            auto* const small = (*heap)->allocate(100, 8);
            (*heap)->deallocate(memory);
            (*heap)->deallocate(small);
            // Of what is of use one stays.
            CHECK((*heap)->room().free > 500);
            const auto after = (*heap)->room();
            (*heap)->deallocate((*heap)->allocate(100, 8));
            CHECK((*heap)->room().size == after.size);
            CHECK((*heap)->room().free == after.free);
            heap.reset();
            CHECK(leak.leaked() == 0);
        });
    CHECK(broken > 0);  // or nothing has been shown
}

TEST_CASE("killed anywhere in the naming of an object, it has the name or is gone",
          "[shm][object_heap][killed]") {
    const NoLeak leak;
    {
        const auto heap = ObjectHeap::make(1024);
        const auto without = leak.leaked();
        kill_anywhere([] {},
                      [&] {
                          const auto object = make_object();
                          static_cast<void>(heap->name("x", object));
                          static_cast<void>(heap->forget("x", object));
                      },
                      [&] {
                          const bool there = !heap->names().empty();
                          if (const auto object = heap->find("x")) {
                              CHECK(heap->forget("x", object));
                          } else {
                              CHECK_FALSE(there);
                          }
                          CHECK(heap->names().empty());
                          CHECK_FALSE(heap->broken());
                          CHECK(leak.leaked() == without);
                      });
    }
    CHECK(leak.leaked() == 0);
}
