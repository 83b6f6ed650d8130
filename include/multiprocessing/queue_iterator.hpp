// SPDX-License-Identifier: BSL-1.0
//
// A loop over a queue.
#pragma once

#include <multiprocessing/exceptions.hpp>

#include <cstddef>
#include <iterator>
#include <optional>
#include <utility>

namespace multiprocessing {

/// An input iterator that takes: not before it is looked at or compared with the end, so that a loop
/// that is left (a std::views::take) has taken no more than it has seen. Items are moved out of it.
template <class Queue>
class QueueIterator {
    using T = typename Queue::value_type;

public:
    using value_type = T;
    using difference_type = std::ptrdiff_t;
    using iterator_concept = std::input_iterator_tag;

    explicit QueueIterator(Queue queue) : queue_(std::move(queue)) {}
    [[nodiscard]] T&& operator*() const {
        fetch();
        return std::move(*item_);
    }
    QueueIterator& operator++() {
        fetch();  // one that nobody has looked at is passed over all the same
        item_.reset();
        fetched_ = false;
        return *this;
    }
    void operator++(int) { ++*this; }
    friend bool operator==(const QueueIterator& it, std::default_sentinel_t) {
        it.fetch();
        return !it.item_;
    }

private:
    void fetch() const {
        if (fetched_) return;
        try {
            item_.emplace(queue_.get());
        } catch (const ShutDown&) {
        }
        fetched_ = true;
    }

    Queue queue_;
    mutable std::optional<T> item_;
    mutable bool fetched_ = false;
};

}  // namespace multiprocessing
