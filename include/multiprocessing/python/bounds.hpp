// SPDX-License-Identifier: BSL-1.0
//
// What a pickle was read into may be small and stand for something endless: a list that is in
// itself, or a list of references to one list of references to one list. Whoever turns it into
// objects recurses and copies, so its depth and its size without sharing are measured first.
#pragma once

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/os/stack.hpp>
#include <multiprocessing/python/value.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>

namespace multiprocessing::python {

/// How many containers may be in one another. Python's own pickler, which recurses too, gives up at
/// a thousand.
inline constexpr std::size_t most_levels = 500;

/// The same on the calling thread's stack, which may be small: to turn them into objects takes 2
/// KiB a level in a program that is not optimised.
[[nodiscard]] inline std::size_t most_levels_here() noexcept {
    constexpr std::size_t for_a_level = 3 * 1024;
    std::size_t levels = most_levels;
    while (levels > 8 && !os::stack_has_room(levels * for_a_level)) levels = levels / 4 * 3;
    return levels;
}

/// What is said of one more.
[[nodiscard]] inline std::string too_deep(std::size_t levels) {
    return "is nested deeper than " + std::to_string(levels) + " containers in one another" +
           (levels < most_levels ? ", all that this thread's stack has room for" : "");
}

namespace machine {

class Bounds {
public:
    /// *Throws* UnpicklingError for what is too deep, or too large for a pickle of so many bytes.
    static void check(const Value& root, std::size_t pickle_size) {
        static_cast<void>(Bounds(pickle_size).measure(root, 0));
    }

private:
    struct Measure {
        std::uint64_t weight;  // about the memory that it takes as an object
        std::uint32_t height;
    };
    static constexpr std::uint64_t object_size = 40;
    static constexpr std::uint64_t index_size = 16;  // of a dict or set, for each item
    // While a node is being measured, it has this height.
    static constexpr std::uint32_t in_hand = ~std::uint32_t{0};

    explicit Bounds(std::size_t pickle_size) noexcept
        : pickle_size_(pickle_size),
          most_((std::uint64_t{64} << 20) + 256 * std::uint64_t{pickle_size}) {}

    Measure measure(const Value& value, std::size_t level) {
        if (!value.is_container()) {
            const bool is_long = value.is(Kind::text, Kind::raw);
            return {object_size + (is_long ? value.length() : 0), 0};
        }
        Node& node = value.node();
        if (node.height == in_hand) {
            throw UnpicklingError("python::loads: the pickle holds a container that is in itself");
        }
        if (node.height == 0) measure(node, value.kind(), level);
        check_levels(level + node.height);
        return {node.weight, node.height};
    }

    void measure(Node& node, Kind kind, std::size_t level) {
        check_levels(level + 1);
        // Sets made of one list share its items, and to look at them takes time.
        visited_ += object_size * node.size;
        check_weight(visited_);
        node.height = in_hand;
        const bool is_hashed = kind == Kind::dict || kind == Kind::set;
        std::uint64_t weight = object_size + (is_hashed ? index_size * node.size : 0);
        std::uint32_t height = 0;
        for (std::size_t i = 0; i < node.size; ++i) {
            const Measure item = measure(node.items[i], level + 1);
            // What is in sets in sets is hashed with each of them.
            weight += kind == Kind::set && item.height != 0 ? 2 * item.weight : item.weight;
            check_weight(weight);
            height = std::max(height, item.height);
        }
        node.weight = weight;
        node.height = height + 1;
    }

    void check_levels(std::size_t levels) const {
        if (levels > most_levels_)
            throw UnpicklingError("python::loads: the pickle " + too_deep(most_levels_));
    }
    void check_weight(std::uint64_t weight) const {
        if (weight > most_) {
            throw UnpicklingError(
                "python::loads: the pickle has " + std::to_string(pickle_size_) +
                " bytes and refers to the same objects so often that it would take more than " +
                std::to_string(most_ >> 20) +
                " MiB: send what is shared once, or pickle it as often as it is there "
                "(pickle.Pickler(file).fast = True)");
        }
    }

    std::size_t pickle_size_;
    std::uint64_t most_;
    std::uint64_t visited_ = 0;
    std::size_t most_levels_ = most_levels_here();
};

}  // namespace machine

}  // namespace multiprocessing::python
