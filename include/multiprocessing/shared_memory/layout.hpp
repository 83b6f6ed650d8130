// SPDX-License-Identifier: BSL-1.0
//
// What a `ShareableList` is in memory, byte for byte as Python's: numbers of 8 bytes that say how
// many items there are, where each begins in the data and where the last one ends; the data; the
// format of each item in 8 bytes, as Python's `struct` writes it; a byte for each, the kind of its
// type.
#pragma once

#include <multiprocessing/bytes.hpp>
#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/none.hpp>
#include <multiprocessing/shared_memory/item.hpp>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace multiprocessing::shared_memory {

/// Where everything is. It never changes, so that whoever attaches reads and checks it once; the
/// formats and kinds do, and are looked at each time.
class Layout {
public:
    /// That of a new list. *Throws* ValueError for an item that is too long.
    explicit Layout(const std::vector<ShareableItem>& items);
    /// That of the list in some memory. *Throws* ValueError where there is none.
    Layout(std::span<const std::byte> memory, const std::string& name);

    [[nodiscard]] std::size_t count() const noexcept { return begins_.size() - 1; }
    /// Of the whole, in bytes.
    [[nodiscard]] std::size_t size() const noexcept { return kinds() + count(); }
    /// How many bytes an item may have.
    [[nodiscard]] std::size_t room(std::size_t i) const noexcept {
        return begins_[i + 1] - begins_[i];
    }

    /// Writes what does not change.
    void write_frame(std::span<std::byte> memory) const;
    /// Writes an item that fits.
    void write(std::span<std::byte> memory, std::size_t i, const ShareableItem& item) const;
    /// *Throws* ValueError for what is none.
    [[nodiscard]] ShareableItem read(std::span<const std::byte> memory, std::size_t i) const;
    [[nodiscard]] std::string format(std::span<const std::byte> memory, std::size_t i) const;

private:
    enum class Kind : unsigned char { number, text, raw, none };
    static constexpr std::size_t word = 8;

    [[nodiscard]] std::size_t formats() const noexcept { return begins_.back(); }
    [[nodiscard]] std::size_t kinds() const noexcept { return formats() + word * count(); }
    [[nodiscard]] static constexpr std::size_t data_begin(std::size_t count) noexcept {
        return (count + 2) * word;
    }
    [[nodiscard]] static std::size_t room_for(const ShareableItem& item);
    [[nodiscard]] static std::string format_for(const ShareableItem& item, std::size_t room);

    std::vector<std::size_t> begins_;  // of the items in the memory, and the end of the last
};

// ---------------------------------------------------------------------------------------------------

inline Layout::Layout(const std::vector<ShareableItem>& items) : begins_{data_begin(items.size())} {
    for (const ShareableItem& item : items) {
        const std::size_t room = room_for(item);
        if (format_for(std::string(), room).size() > word) {
            throw ValueError("ShareableList: an item of " + std::to_string(room) +
                             " bytes is too long: there is room for less than 10,000,000");
        }
        begins_.push_back(begins_.back() + room);
    }
}

inline Layout::Layout(std::span<const std::byte> memory, const std::string& name) {
    const auto fail = [&name](const std::string& why) {
        throw ValueError("the shared memory '" + name + "' holds no ShareableList: " + why);
    };
    const auto load = [memory](std::size_t at) {
        std::int64_t number;
        std::memcpy(&number, &memory[at * word], sizeof number);
        return number;
    };
    const std::size_t words = memory.size() / word;
    if (words < 2) fail("it has but " + std::to_string(memory.size()) + " bytes");
    const std::int64_t count = load(0);
    if (count < 0 || static_cast<std::uint64_t>(count) > words - 2) {
        fail("there is no room for " + std::to_string(count) + " items");
    }
    const std::size_t start = data_begin(static_cast<std::size_t>(count));
    std::int64_t least = 0;
    for (std::size_t i = 0; i <= static_cast<std::size_t>(count); ++i) {
        const std::int64_t begin = load(i + 1);
        if (begin < least || (i == 0 && begin != 0) ||
            static_cast<std::uint64_t>(begin) > memory.size()) {
            fail("item " + std::to_string(i) + " is at " + std::to_string(begin));
        }
        least = begin + static_cast<std::int64_t>(word);
        begins_.push_back(start + static_cast<std::size_t>(begin));
    }
    if (size() > memory.size()) fail("it is too small for its items");
}

inline std::size_t Layout::room_for(const ShareableItem& item) {
    if (const auto* text = std::get_if<std::string>(&item.variant())) {
        // Python's room is for as many bytes as there are characters, and cuts off what is more.
        const auto characters = std::count_if(text->begin(), text->end(), [](char c) {
            return (static_cast<unsigned char>(c) & 0xc0) != 0x80;
        });
        return std::max((static_cast<std::size_t>(characters) / word + 1) * word,
                        (text->size() + word - 1) / word * word);
    }
    if (const auto* raw = std::get_if<bytes>(&item.variant()))
        return (raw->size() / word + 1) * word;
    return word;
}

inline std::string Layout::format_for(const ShareableItem& item, std::size_t room) {
    constexpr std::array formats{"xxxxxx?x", "xxxxxxx?", "q", "d"};
    const std::size_t type = item.variant().index();
    return type < formats.size() ? formats[type] : std::to_string(room) + 's';
}

inline void Layout::write_frame(std::span<std::byte> memory) const {
    const auto store = [memory](std::size_t at, std::size_t value) {
        const auto number = static_cast<std::int64_t>(value);
        std::memcpy(&memory[at * word], &number, sizeof number);
    };
    store(0, count());
    for (std::size_t i = 0; i <= count(); ++i) store(i + 1, begins_[i] - begins_[0]);
}

inline void Layout::write(std::span<std::byte> memory, std::size_t i,
                          const ShareableItem& item) const {
    Kind kind = Kind::number;
    std::array<std::byte, word> small{};
    std::span<const std::byte> data = small;
    if (item.is_none()) {
        kind = Kind::none;
    } else if (const bool* truth = std::get_if<bool>(&item.variant())) {
        small.back() = std::byte{*truth};
    } else if (const auto* whole = std::get_if<std::int64_t>(&item.variant())) {
        std::memcpy(small.data(), whole, word);
    } else if (const auto* real = std::get_if<double>(&item.variant())) {
        std::memcpy(small.data(), real, word);
    } else if (const auto* text = std::get_if<std::string>(&item.variant())) {
        kind = Kind::text;
        data = std::as_bytes(std::span(*text));
    } else {
        kind = Kind::raw;
        data = std::get<bytes>(item.variant()).span();
    }
    const auto place = memory.subspan(begins_[i], room(i));
    const auto end = std::copy(data.begin(), data.end(), place.begin());
    // What is a number leaves the rest of the room as it was, as Python's struct does.
    if (kind == Kind::text || kind == Kind::raw) std::fill(end, place.end(), std::byte{0});
    const std::string format = format_for(item, room(i));
    std::memset(&memory[formats() + i * word], 0, word);
    std::memcpy(&memory[formats() + i * word], format.data(), format.size());
    memory[kinds() + i] = static_cast<std::byte>(kind);
}

inline std::string Layout::format(std::span<const std::byte> memory, std::size_t i) const {
    const auto* text = reinterpret_cast<const char*>(&memory[formats() + i * word]);
    return {text, std::find(text, text + word, '\0')};
}

inline ShareableItem Layout::read(std::span<const std::byte> memory, std::size_t i) const {
    const auto place = memory.subspan(begins_[i], room(i));
    const auto number = [place]<class T>(T value) -> ShareableItem {
        std::memcpy(&value, place.data(), sizeof value);
        return value;
    };
    const auto kind = static_cast<Kind>(memory[kinds() + i]);
    if (kind == Kind::none) return None;
    const std::string format = this->format(memory, i);
    if (format == "q") return number(std::int64_t{});
    if (format == "d") return number(double{});
    if (format == "xxxxxxx?") return place[word - 1] != std::byte{0};
    std::size_t size = 0;
    const auto [end, error] = std::from_chars(format.data(), format.data() + format.size(), size);
    if (error != std::errc() || std::string_view(end) != "s" || size > place.size()) {
        throw ValueError("ShareableList: item " + std::to_string(i) + " has the format '" + format +
                         "'");
    }
    std::string_view text(reinterpret_cast<const char*>(place.data()), size);
    text = text.substr(0, text.find_last_not_of('\0') + 1);  // all of them: npos + 1 is 0
    if (kind == Kind::raw) return bytes(text);
    return text;
}

}  // namespace multiprocessing::shared_memory
