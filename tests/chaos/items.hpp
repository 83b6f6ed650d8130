// SPDX-License-Identifier: BSL-1.0
//
// What the chaos tests send: items of all sorts that say who put them and as which, and whose every
// byte follows from that, so that half an item or a mixture of two is seen.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace chaos {

/// Who put an item, and as its how manieth.
struct Label {
    std::uint32_t producer = 0;
    std::uint32_t sequence = 0;
    friend bool operator==(const Label&, const Label&) = default;
};

/// SplitMix64: a number after the other, the same for the same seed everywhere.
class Dice {
public:
    explicit Dice(std::uint64_t seed) noexcept : state_(seed) {}
    explicit Dice(Label label) noexcept
        : state_((std::uint64_t{label.producer} << 32 | label.sequence) * 0x9e37'79b9'7f4a'7c15) {}

    std::uint64_t roll() noexcept {
        std::uint64_t z = (state_ += 0x9e37'79b9'7f4a'7c15);
        z = (z ^ (z >> 30)) * 0xbf58'476d'1ce4'e5b9;
        z = (z ^ (z >> 27)) * 0x94d0'49bb'1331'11eb;
        return z ^ (z >> 31);
    }
    /// 0 to n - 1.
    std::uint64_t below(std::uint64_t n) noexcept { return roll() % n; }
    bool once_in(std::uint64_t n) noexcept { return below(n) == 0; }

private:
    std::uint64_t state_;
};

/// Lengths in bytes: most fit a record, some are just about to, some need a block of their own.
inline std::size_t some_length(Dice& dice, std::size_t longest) noexcept {
    switch (dice.below(16)) {
    case 0: return 8'100 + dice.below(200);
    case 1: return dice.below(longest >> dice.below(8));
    case 2: return 1'000 + dice.below(7'000);
    default: return dice.below(300);
    }
}

/// Items of type T: `make` one, and `read` whose it is, nothing if it is not as it was made.
template <class T>
struct Item;

/// Nothing but its bytes: copied straight into a record, or longer than any.
template <std::size_t words>
struct Plain {
    Label label;
    std::array<std::uint64_t, words> content;
};

template <std::size_t words>
struct Item<Plain<words>> {
    static Plain<words> make(Label label) {
        Plain<words> item{label, {}};
        Dice dice(label);
        for (std::uint64_t& word : item.content) word = dice.roll();
        return item;
    }
    static std::optional<Label> read(const Plain<words>& item) {
        Dice dice(item.label);
        for (const std::uint64_t word : item.content) {
            if (word != dice.roll()) return std::nullopt;
        }
        return item.label;
    }
};

using Coin = Plain<1>;
using Tile = Plain<400>;
using Slab = Plain<2000>;

/// Words of which the first is the label.
template <>
struct Item<std::vector<std::uint64_t>> {
    static constexpr std::size_t longest = 3'000'000;

    static std::vector<std::uint64_t> make(Label label) {
        Dice dice(label);
        std::vector<std::uint64_t> item(1 + some_length(dice, longest) / 8);
        for (std::uint64_t& word : item) word = dice.roll();
        item.front() = std::bit_cast<std::uint64_t>(label);
        return item;
    }
    static std::optional<Label> read(const std::vector<std::uint64_t>& item) {
        if (item.empty()) return std::nullopt;
        const auto label = std::bit_cast<Label>(item.front());
        if (item != make(label)) return std::nullopt;
        return label;
    }
};

template <>
struct Item<std::string> {
    static std::string make(Label label) {
        Dice dice(label);
        std::string item(sizeof label + some_length(dice, 300'000), '\0');
        std::memcpy(item.data(), &label, sizeof label);
        const std::uint64_t start = dice.roll();
        for (std::size_t i = sizeof label; i < item.size(); ++i) {
            item[i] = static_cast<char>(start + i * i);
        }
        return item;
    }
    static std::optional<Label> read(const std::string& item) {
        Label label;
        if (item.size() < sizeof label) return std::nullopt;
        std::memcpy(&label, item.data(), sizeof label);
        if (item != make(label)) return std::nullopt;
        return label;
    }
};

/// What has to be pickled.
struct Parcel {
    Label label;
    std::string text;
    std::map<std::uint32_t, std::string> inside;

    template <class Archive>
    void serialize(Archive& archive, unsigned) {
        archive & label.producer & label.sequence & text & inside;
    }
    friend bool operator==(const Parcel&, const Parcel&) = default;
};

template <>
struct Item<Parcel> {
    static Parcel make(Label label) {
        Dice dice(label);
        Parcel item{label, Item<std::string>::make(label), {}};
        for (std::uint64_t i = dice.below(8); i != 0; --i) {
            const auto key = static_cast<std::uint32_t>(dice.roll());
            item.inside[key] = std::to_string(dice.roll());
        }
        return item;
    }
    static std::optional<Label> read(const Parcel& item) {
        if (item != make(item.label)) return std::nullopt;
        return item.label;
    }
};

}  // namespace chaos
