// SPDX-License-Identifier: BSL-1.0
//
// What a pickle is read into before it becomes C++ objects: small values, whose strings are left
// where they are in the pickle, and nodes for containers, which several values may share.
#pragma once

#include <multiprocessing/os/memory.hpp>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <span>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace multiprocessing::python::machine {

/// The memory of all nodes, which is given back as a whole.
class Arena {
public:
    /// `expected` bytes are likely to be asked for. What is not touched costs nothing.
    explicit Arena(std::size_t expected = 0) noexcept
        : next_block_(std::clamp(expected, smallest_block, largest_block)) {}
    Arena(const Arena&) = delete;
    Arena& operator=(const Arena&) = delete;
    ~Arena() {
        for (void* block : blocks_) std::free(block);
    }

    /// Memory for `count` objects, which are not made.
    template <class T>
    [[nodiscard]] T* allocate(std::size_t count) {
        static_assert(alignof(T) <= alignment && std::is_trivially_destructible_v<T>);
        if (count > largest_request / sizeof(T)) throw std::bad_alloc();
        return reinterpret_cast<T*>(take(count * sizeof(T)));
    }
    /// The same with the old contents, which stay where they are if there is room after them.
    template <class T>
    [[nodiscard]] T* enlarge(T* old, std::size_t old_count, std::size_t count) {
        static_assert(std::is_trivially_copyable_v<T>);
        if (old != nullptr) {
            std::byte* const old_end = reinterpret_cast<std::byte*>(old + old_count);
            if (old_end == next_ &&
                static_cast<std::size_t>(end_ - next_) / sizeof(T) >= count - old_count) {
                next_ += (count - old_count) * sizeof(T);
                return old;
            }
        }
        T* const larger = allocate<T>(count);
        if (old_count != 0) std::memcpy(larger, old, old_count * sizeof(T));
        return larger;
    }

private:
    static constexpr std::size_t alignment = 16;
    static constexpr std::size_t smallest_block = 4096;
    static constexpr std::size_t largest_block = std::size_t{64} << 20;
    static constexpr std::size_t largest_request = static_cast<std::size_t>(-1) / 4;

    [[nodiscard]] std::byte* take(std::size_t size) {
        size = (size + alignment - 1) / alignment * alignment;
        if (size > static_cast<std::size_t>(end_ - next_)) add_block(size);
        return std::exchange(next_, next_ + size);
    }
    void add_block(std::size_t size) {
        size = std::max(size, next_block_);
        blocks_.reserve(blocks_.size() + 1);
        auto* const block = static_cast<std::byte*>(std::malloc(size));
        if (block == nullptr) throw std::bad_alloc();
        os::before_filling(block, size);
        blocks_.push_back(block);
        next_ = block;
        end_ = block + size;
        next_block_ = std::clamp(2 * next_block_, smallest_block, largest_block);
    }

    // Small pickles need no other.
    alignas(alignment) std::byte first_[1024];
    std::byte* next_ = first_;
    std::byte* end_ = first_ + sizeof first_;
    std::size_t next_block_;
    std::vector<void*> blocks_;
};

enum class Kind : std::uint8_t {
    none,
    boolean,
    integer,  // of 64 bits with a sign
    natural,  // above these, of 64 bits
    wide,     // more bits: two's complement in bytes, the lowest first
    digits,   // still more, as decimal text
    real,
    text,
    raw,
    list,
    tuple,
    dict,
    set,
    constructor  // one of the few names that Python's own pickles of plain data refer to
};

class Value;

/// A container: its items, or its keys and values in turn.
struct Node {
    Value* items = nullptr;
    std::size_t size = 0;
    std::size_t capacity = 0;
    // For bounds.hpp alone.
    std::uint64_t weight = 0;
    std::uint32_t height = 0;
};

/// 16 bytes, nothing but these.
class Value {
public:
    Value() = default;
    explicit Value(Kind kind) noexcept : head_(static_cast<std::uint64_t>(kind)) {}
    [[nodiscard]] static Value boolean(bool truth) noexcept {
        return Value(Kind::boolean, 0, truth ? 1 : 0);
    }
    [[nodiscard]] static Value integer(std::int64_t number) noexcept {
        return Value(Kind::integer, 0, static_cast<std::uint64_t>(number));
    }
    [[nodiscard]] static Value natural(std::uint64_t number) noexcept {
        return number > std::uint64_t{INT64_MAX} ? Value(Kind::natural, 0, number)
                                                 : Value(Kind::integer, 0, number);
    }
    [[nodiscard]] static Value real(double number) noexcept {
        return Value(Kind::real, 0, std::bit_cast<std::uint64_t>(number));
    }
    /// Text, raw bytes or a wide integer, which stay where they are.
    Value(Kind kind, std::string_view text) noexcept
        : Value(kind, text.size(), reinterpret_cast<std::uintptr_t>(text.data())) {}
    Value(Kind kind, Node& node) noexcept
        : Value(kind, 0, reinterpret_cast<std::uintptr_t>(&node)) {}
    template <class Enum>
        requires std::is_enum_v<Enum>
    [[nodiscard]] static Value constructor(Enum which) noexcept {
        return Value(Kind::constructor, 0, static_cast<std::uint64_t>(which));
    }

    [[nodiscard]] Kind kind() const noexcept { return static_cast<Kind>(head_ & 0xff); }
    [[nodiscard]] bool is_container() const noexcept {
        return kind() >= Kind::list && kind() <= Kind::set;
    }
    [[nodiscard]] bool is(Kind a, Kind b) const noexcept { return kind() == a || kind() == b; }
    [[nodiscard]] bool truth() const noexcept { return body_ != 0; }
    [[nodiscard]] std::int64_t integer() const noexcept { return static_cast<std::int64_t>(body_); }
    [[nodiscard]] std::uint64_t natural() const noexcept { return body_; }
    [[nodiscard]] double real() const noexcept { return std::bit_cast<double>(body_); }
    /// How many bytes text() has.
    [[nodiscard]] std::size_t length() const noexcept { return head_ >> 8; }
    [[nodiscard]] std::string_view text() const noexcept {
        return {reinterpret_cast<const char*>(body_), length()};
    }
    [[nodiscard]] Node& node() const noexcept { return *reinterpret_cast<Node*>(body_); }
    [[nodiscard]] std::span<const Value> items() const noexcept {
        return {node().items, node().size};
    }

private:
    Value(Kind kind, std::size_t length, std::uint64_t body) noexcept
        : head_(static_cast<std::uint64_t>(kind) | static_cast<std::uint64_t>(length) << 8),
          body_(body) {}

    std::uint64_t head_;
    std::uint64_t body_;
};
static_assert(sizeof(Value) == 16 && std::is_trivially_copyable_v<Value>);

/// An empty container with room for some items.
[[nodiscard]] inline Value make_container(Arena& arena, Kind kind, std::size_t room = 0) {
    Node* const node = new (arena.allocate<Node>(1)) Node;
    if (room != 0) {
        node->items = arena.allocate<Value>(room);
        node->capacity = room;
    }
    return Value(kind, *node);
}

/// Another container of the items that this one has now. They are copied when something is added to
/// the new one; what is added to the old one comes after them.
[[nodiscard]] inline Value share_items(Arena& arena, Kind kind, const Node& node) {
    const Value container = make_container(arena, kind);
    container.node().items = node.items;
    container.node().size = container.node().capacity = node.size;
    return container;
}

inline void append(Arena& arena, Node& node, std::span<const Value> items) {
    if (items.empty()) return;
    if (items.size() > node.capacity - node.size) {
        const std::size_t room = std::max(2 * node.capacity, node.size + items.size());
        node.items = arena.enlarge(node.items, node.capacity, room);
        node.capacity = room;
    }
    std::memcpy(node.items + node.size, items.data(), items.size() * sizeof(Value));
    node.size += items.size();
}

}  // namespace multiprocessing::python::machine
