// SPDX-License-Identifier: BSL-1.0
//
// Where a message is written: raw bytes that grow without being zeroed first, and a buffer a thread
// keeps for its next message so that a small one costs no allocation.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <new>
#include <span>
#include <stdexcept>
#include <utility>

namespace multiprocessing::pickle {

/// Growable raw bytes. Move-only. Made over foreign memory it writes there and cannot grow beyond
/// it: a message whose size is known goes straight to its place.
class Buffer {
public:
    constexpr Buffer() noexcept = default;
    explicit Buffer(std::span<std::byte> foreign) noexcept
        : data_(foreign.data()), capacity_(foreign.size()), owned_(false) {}
    Buffer(Buffer&& other) noexcept { swap(other); }
    Buffer& operator=(Buffer&& other) noexcept {
        Buffer(std::move(other)).swap(*this);
        return *this;
    }
    ~Buffer() {
        if (owned_) std::free(data_);
    }

    [[nodiscard]] std::byte* data() noexcept { return data_; }
    [[nodiscard]] const std::byte* data() const noexcept { return data_; }
    [[nodiscard]] std::size_t size() const noexcept { return size_; }
    [[nodiscard]] std::size_t capacity() const noexcept { return capacity_; }
    [[nodiscard]] std::span<const std::byte> span() const noexcept { return {data_, size_}; }
    /// Copies everything to `out`; an empty buffer may have no memory to copy from.
    void copy_to(std::byte* out) const noexcept {
        if (size_ != 0) std::memcpy(out, data_, size_);
    }

    /// Forgets the bytes and keeps the memory.
    void clear() noexcept { size_ = 0; }
    /// Forgets what was written after the first `size` bytes.
    void truncate(std::size_t size) noexcept { size_ = std::min(size, size_); }
    /// Forgets the bytes, and the memory too if there is more of it than `most`.
    void clear_and_shrink(std::size_t most) noexcept;
    void reserve(std::size_t capacity) {
        if (capacity > capacity_) reallocate(capacity);
    }
    /// Makes room for `count` more bytes, which the caller fills. Valid until the next call.
    std::byte* grow(std::size_t count) {
        if (count > capacity_ - size_) enlarge(count);
        return data_ + std::exchange(size_, size_ + count);
    }
    void append(const void* from, std::size_t count) {
        if (count != 0) std::memcpy(grow(count), from, count);
    }
    void swap(Buffer& other) noexcept {
        std::swap(data_, other.data_);
        std::swap(size_, other.size_);
        std::swap(capacity_, other.capacity_);
        std::swap(owned_, other.owned_);
    }

private:
    void enlarge(std::size_t count);
    void reallocate(std::size_t capacity);

    std::byte* data_ = nullptr;
    std::size_t size_ = 0;
    std::size_t capacity_ = 0;
    bool owned_ = true;
};

/// The calling thread's spare buffer for as long as this lives, empty at first. A message that is
/// written while another is being written (a user's `serialize` that puts into a queue) gets a
/// buffer of its own. Memory above 1 MiB is given back.
class Scratch {
public:
    Scratch() noexcept : keeper_(keeper()) {
        if (!keeper_gone && !std::exchange(keeper_.taken, true)) {
            mine_ = true;
            buffer_.swap(keeper_.spare);
        }
    }
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;
    ~Scratch() {
        if (!mine_) return;
        buffer_.clear_and_shrink(most_kept);
        buffer_.swap(keeper_.spare);
        keeper_.taken = false;
    }

    [[nodiscard]] Buffer& buffer() noexcept { return buffer_; }
    Buffer& operator*() noexcept { return buffer_; }
    Buffer* operator->() noexcept { return &buffer_; }

    static constexpr std::size_t most_kept = std::size_t{1} << 20;

private:
    // Messages are written after this too: by atexit functions and the destructors of static objects,
    // which run when the thread's own objects have ended.
    static inline thread_local bool keeper_gone = false;

    struct Keeper {
        Buffer spare;
        bool taken = false;
        ~Keeper() { keeper_gone = true; }
    };
    static Keeper& keeper() noexcept {
        static thread_local Keeper kept;
        return kept;
    }

    Keeper& keeper_;
    Buffer buffer_;
    bool mine_ = false;
};

inline void Buffer::clear_and_shrink(std::size_t most) noexcept {
    size_ = 0;
    if (owned_ && capacity_ > most) {
        std::free(data_);
        data_ = nullptr;
        capacity_ = 0;
    }
}

inline void Buffer::enlarge(std::size_t count) {
    constexpr std::size_t smallest = 256;
    if (count > static_cast<std::size_t>(-1) / 2 - size_) throw std::bad_alloc();
    reallocate(std::max({smallest, capacity_ * 2, size_ + count}));
}

inline void Buffer::reallocate(std::size_t capacity) {
    if (!owned_) throw std::logic_error("a message is larger than the memory set aside for it");
    void* const larger = std::realloc(data_, capacity);
    if (larger == nullptr) throw std::bad_alloc();
    data_ = static_cast<std::byte*>(larger);
    capacity_ = capacity;
}

}  // namespace multiprocessing::pickle
