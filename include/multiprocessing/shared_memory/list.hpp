// SPDX-License-Identifier: BSL-1.0
//
// `ShareableList`: a list of fixed length and of fixed room for each item, in memory with a name.
// Byte for byte what Python's is, so that each opens the other's.
#pragma once

#include <multiprocessing/bytes.hpp>
#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/pickle/handle.hpp>
#include <multiprocessing/shared_memory/block.hpp>
#include <multiprocessing/shared_memory/item.hpp>
#include <multiprocessing/shared_memory/layout.hpp>

#include <algorithm>
#include <compare>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <iterator>
#include <memory>
#include <optional>
#include <ostream>
#include <ranges>
#include <span>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace multiprocessing::shared_memory {

/// The arguments of `ShareableList` by name.
struct ShareableListOptions {
    std::optional<std::string> name = std::nullopt;
};

/// A list of None, bools, numbers, strings and bytes. *Python*: `shared_memory.ShareableList`.
///
///     mp::shared_memory::ShareableList l({1, "x", mp::bytes("y"), mp::None}, {.name = "n"});
///     mp::shared_memory::ShareableList same({.name = "n"});
///     same.set(0, "new");   // what fits the room that the item began with
///     std::string s = l[0].get<std::string>();
///
/// Its length never changes. An item has 8 bytes, a string or bytes what was needed in the
/// beginning, rounded up to more than that. Negative indices count from the end. As in Python,
/// NULs at the end of a string or bytes are not kept, and there is no lock: an item that is read
/// while it is written may be half of each. A handle: copies are the same list; to another process
/// it travels by name. (To copy the items, give the options too: `ShareableList(l, {})`.)
class ShareableList {
public:
    class Iterator;
    using value_type = ShareableItem;

    /// An empty one.
    ShareableList() : ShareableList(std::initializer_list<ShareableItem>{}) {}
    /// Attaches to the list of that name. Without a name: an empty one. *Throws* as SharedMemory,
    /// ValueError where the memory holds no list.
    explicit ShareableList(ShareableListOptions options);
    /// *Throws* as SharedMemory, ValueError for items that no list can hold.
    ShareableList(std::initializer_list<ShareableItem> items, ShareableListOptions options = {})
        : ShareableList(std::vector<ShareableItem>(items), std::move(options)) {}
    // clang-format off (version 14 takes the constraint for a part of the constructor)
    template <std::ranges::input_range Range>
        requires std::convertible_to<std::ranges::range_value_t<Range>, ShareableItem> &&
                 (!std::same_as<std::remove_cvref_t<Range>, ShareableList>)
    explicit ShareableList(Range&& items, ShareableListOptions options = {})
        : ShareableList(collect(items), std::move(options)) {}
    ShareableList(const ShareableList& items, ShareableListOptions options)
        : ShareableList(collect(items), std::move(options)) {}
    explicit ShareableList(std::vector<ShareableItem> items, ShareableListOptions options = {})
        : ShareableList(items, std::move(options.name), 0) {}
    // clang-format on

    // Not to be moved from, as SharedMemory.
    ShareableList(const ShareableList&) noexcept = default;
    ShareableList& operator=(const ShareableList&) noexcept = default;
    ~ShareableList() = default;

    /// *Throws* std::out_of_range, as do get() and set().
    [[nodiscard]] ShareableItem operator[](std::ptrdiff_t index) const {
        return layout_->read(memory_.buf(), position(index));
    }
    template <class T>
    [[nodiscard]] T get(std::ptrdiff_t index) const {
        return (*this)[index].template get<T>();
    }
    /// Changes an item, its type too. *Throws* ValueError for a string or bytes that are longer
    /// than the item's room; then it is what it was.
    void set(std::ptrdiff_t index, const ShareableItem& value) const;

    [[nodiscard]] std::size_t size() const noexcept { return layout_->count(); }
    [[nodiscard]] bool empty() const noexcept { return size() == 0; }
    [[nodiscard]] std::size_t count(const ShareableItem& value) const;
    /// Where it is first. *Throws* ValueError if it is nowhere.
    [[nodiscard]] std::size_t index(const ShareableItem& value) const;
    /// As Python's `struct` says it: "8sdq".
    [[nodiscard]] std::string format() const;
    /// The memory that it is in, to be closed and unlinked.
    [[nodiscard]] SharedMemory shm() const { return memory_; }

    /// Over the items, by value.
    [[nodiscard]] Iterator begin() const noexcept;
    [[nodiscard]] Iterator end() const noexcept;

    /// The same list, by the same handle?
    friend bool operator==(const ShareableList& a, const ShareableList& b) noexcept {
        return a.memory_ == b.memory_;
    }
    /// ShareableList([1, 'x'], name='psm_1234abcd')
    friend std::ostream& operator<<(std::ostream& out, const ShareableList& list);

    using travels_as_handle = void;

private:
    friend struct pickle::HandleAccess;
    friend class managers::SharedMemoryManager;

    ShareableList(const std::vector<ShareableItem>& items, std::optional<std::string> name,
                  std::uint64_t group);
    explicit ShareableList(pickle::Unread unread) noexcept : memory_(unread) {}
    void save_handle(pickle::OArchive& archive) const {
        pickle::HandleAccess::save(archive, memory_);
    }
    void load_handle(pickle::IArchive& archive) {
        pickle::HandleAccess::load(archive, memory_);
        layout_ = read_layout();
    }

    template <class Range>
    [[nodiscard]] static std::vector<ShareableItem> collect(Range& items) {
        std::vector<ShareableItem> collected;
        // By the value's type: a vector<bool> refers to its own by something else.
        for (auto&& item : items)
            collected.emplace_back(std::ranges::range_value_t<Range>(item));
        return collected;
    }
    [[nodiscard]] std::shared_ptr<const Layout> read_layout() const {
        return std::make_shared<const Layout>(memory_.buf(), memory_.name());
    }
    [[nodiscard]] std::size_t position(std::ptrdiff_t index) const;

    SharedMemory memory_;
    std::shared_ptr<const Layout> layout_;
};

/// The items of a ShareableList one after the other, each as it is when it is looked at.
class ShareableList::Iterator {
public:
    using iterator_concept = std::random_access_iterator_tag;
    using iterator_category = std::input_iterator_tag;  // what it points at is made anew
    using value_type = ShareableItem;
    using difference_type = std::ptrdiff_t;

    Iterator() noexcept = default;
    Iterator(const ShareableList& list, std::ptrdiff_t at) noexcept : list_(&list), at_(at) {}
    [[nodiscard]] ShareableItem operator*() const { return (*list_)[at_]; }
    [[nodiscard]] ShareableItem operator[](std::ptrdiff_t n) const { return (*list_)[at_ + n]; }
    Iterator& operator++() noexcept { return *this += 1; }
    Iterator operator++(int) noexcept { return std::exchange(*this, *this + 1); }
    Iterator& operator--() noexcept { return *this -= 1; }
    Iterator operator--(int) noexcept { return std::exchange(*this, *this - 1); }
    Iterator& operator+=(std::ptrdiff_t n) noexcept {
        at_ += n;
        return *this;
    }
    Iterator& operator-=(std::ptrdiff_t n) noexcept { return *this += -n; }
    friend Iterator operator+(Iterator it, std::ptrdiff_t n) noexcept { return it += n; }
    friend Iterator operator+(std::ptrdiff_t n, Iterator it) noexcept { return it += n; }
    friend Iterator operator-(Iterator it, std::ptrdiff_t n) noexcept { return it -= n; }
    friend std::ptrdiff_t operator-(const Iterator& a, const Iterator& b) noexcept {
        return a.at_ - b.at_;
    }
    friend bool operator==(const Iterator& a, const Iterator& b) noexcept { return a.at_ == b.at_; }
    friend auto operator<=>(const Iterator& a, const Iterator& b) noexcept {
        return a.at_ <=> b.at_;
    }

private:
    const ShareableList* list_ = nullptr;
    std::ptrdiff_t at_ = 0;
};

// ---------------------------------------------------------------------------------------------------

inline ShareableList::Iterator ShareableList::begin() const noexcept { return {*this, 0}; }
inline ShareableList::Iterator ShareableList::end() const noexcept {
    return {*this, static_cast<std::ptrdiff_t>(size())};
}

inline ShareableList::ShareableList(ShareableListOptions options) : memory_(pickle::Unread{}) {
    if (!options.name) {
        *this = ShareableList();
        return;
    }
    memory_ = SharedMemory(std::move(options.name));
    layout_ = read_layout();
}

inline ShareableList::ShareableList(const std::vector<ShareableItem>& items,
                                    std::optional<std::string> name, std::uint64_t group)
    : memory_(pickle::Unread{}) {
    auto layout = std::make_shared<const Layout>(items);
    // Before it has its name: nobody finds a list that is half written.
    const auto fill = [&](std::span<std::byte> memory) {
        layout->write_frame(memory);
        for (std::size_t i = 0; i < items.size(); ++i) layout->write(memory, i, items[i]);
    };
    memory_ = SharedMemory({.name = std::move(name), .create = true, .size = layout->size()}, group,
                           fill);
    layout_ = std::move(layout);
}

inline std::size_t ShareableList::position(std::ptrdiff_t index) const {
    const auto count = static_cast<std::ptrdiff_t>(size());
    const std::ptrdiff_t position = index < 0 ? index + count : index;
    if (position < 0 || position >= count) {
        throw std::out_of_range("ShareableList: index " + std::to_string(index) +
                                " is not in a list of " + std::to_string(count));
    }
    return static_cast<std::size_t>(position);
}

inline void ShareableList::set(std::ptrdiff_t index, const ShareableItem& value) const {
    const std::size_t i = position(index);
    std::size_t size = 0;
    if (const auto* text = std::get_if<std::string>(&value.variant())) size = text->size();
    if (const auto* raw = std::get_if<multiprocessing::bytes>(&value.variant())) size = raw->size();
    if (size > layout_->room(i)) {
        throw ValueError("ShareableList: the bytes/str item exceeds available storage: it has " +
                         std::to_string(size) + " bytes, and item " + std::to_string(i) +
                         " has room for " + std::to_string(layout_->room(i)));
    }
    layout_->write(memory_.buf(), i, value);
}

inline std::size_t ShareableList::count(const ShareableItem& value) const {
    return static_cast<std::size_t>(std::ranges::count(*this, value));
}

inline std::size_t ShareableList::index(const ShareableItem& value) const {
    for (std::size_t i = 0; i < size(); ++i) {
        if ((*this)[static_cast<std::ptrdiff_t>(i)] == value) return i;
    }
    std::ostringstream text;
    text << value << " not in this container";
    throw ValueError(text.str());
}

inline std::string ShareableList::format() const {
    const View<std::byte> memory = memory_.buf();
    std::string format;
    for (std::size_t i = 0; i < size(); ++i) format += layout_->format(memory, i);
    return format;
}

inline std::ostream& operator<<(std::ostream& out, const ShareableList& list) {
    out << "ShareableList([";
    const char* separator = "";
    for (const ShareableItem& item : list) {
        out << std::exchange(separator, ", ") << item;
    }
    return out << "], name='" << list.memory_.name() << "')";
}

}  // namespace multiprocessing::shared_memory
