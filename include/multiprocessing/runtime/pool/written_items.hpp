// SPDX-License-Identifier: BSL-1.0
//
// The items of a task as they are written, one after the other.
#pragma once

#include <multiprocessing/pickle/message.hpp>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

namespace multiprocessing::runtime::pool {

/// For a task of at most `most` items, of which each `grain` are a chunk. `TheCall` is a TravellingCall.
template <class TheCall, class Item>
class WrittenItems {
public:
    /// They are written into the memory of `bytes`, which grows.
    WrittenItems(std::uint32_t most, std::uint32_t grain, pickle::Buffer&& bytes = {}) noexcept
        : most_(most), grain_(grain), bytes_(std::move(bytes)) {}

    /// Of this size a task is large: it ends with the chunk that made it so.
    static constexpr std::size_t large = std::size_t{64} << 10;

    /// Writes one more; whether it was the last that is to come into this task.
    [[nodiscard]] bool add(const Item& item, pickle::Cargo* cargo) {
        if (count_ % grain_ == 0) {
            whole_ = bytes_.size();
            if constexpr (!TheCall::plain) first_bytes_.push_back(whole_);
        }
        if constexpr (TheCall::plain) {
            bytes_.append(std::addressof(item), sizeof item);
        } else {
            TheCall::write_item(bytes_, cargo, item);
        }
        ++count_;
        return count_ == most_ || (bytes_.size() >= large && count_ % grain_ == 0);
    }
    /// An item could not be read, or not be written: drops the chunk that is not whole. Whether there
    /// are others.
    [[nodiscard]] bool keep_whole() noexcept {
        const std::uint32_t chunks = count_ / grain_;
        if (count_ != chunks * grain_ || first_bytes_.size() > chunks) bytes_.truncate(whole_);
        count_ = chunks * grain_;
        if (!TheCall::plain) first_bytes_.resize(chunks);
        return count_ != 0;
    }

    [[nodiscard]] std::uint32_t count() const noexcept { return count_; }
    [[nodiscard]] pickle::Buffer& bytes() noexcept { return bytes_; }
    /// Where each chunk begins, if that cannot be told from the size of an item.
    [[nodiscard]] std::vector<std::uint64_t>& first_bytes() noexcept { return first_bytes_; }

private:
    const std::uint32_t most_;
    const std::uint32_t grain_;
    std::uint32_t count_ = 0;
    pickle::Buffer bytes_;
    std::size_t whole_ = 0;  // bytes before the chunk that was begun last
    std::vector<std::uint64_t> first_bytes_;
};

}  // namespace multiprocessing::runtime::pool
