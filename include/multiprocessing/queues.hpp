// SPDX-License-Identifier: BSL-1.0
//
// `Queue`, `SimpleQueue` and `JoinableQueue` between processes. Answers Python's
// `multiprocessing.queues`.
//
// An item is written straight into shared memory by `put` and is there for every process when it
// returns: no feeder thread, no pipe, nothing to flush at exit.
#pragma once

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/pickle/channel.hpp>
#include <multiprocessing/pickle/handle.hpp>
#include <multiprocessing/shm/ring.hpp>
#include <multiprocessing/timeout.hpp>

#include <atomic>
#include <cerrno>
#include <concepts>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <memory>
#include <optional>
#include <ranges>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

namespace multiprocessing {

/// Many producers, many consumers, first in, first out. *Python*: `multiprocessing.Queue`.
///
///     mp::Queue<std::string> queue;
///     mp::Process p(produce, queue);
///     p.start();
///     for (const std::string& line : queue) std::cout << line;  // until queue.shutdown()
///
/// A handle: copies are the same queue, in whatever process they are.
/// *Process safety*: all calls, from any thread of any process; items of one producer keep their
/// order.
/// *If a peer dies*: killed at any point of `put` or `get`, it takes at most the one item it was at
/// with it. An item is there for good once `put` has returned.
template <class T>
class Queue {
    static_assert(pickle::Picklable<T>,
                  "the items of a queue must be picklable: give the type a `serialize` member as "
                  "Boost.Serialization asks for");

public:
    using value_type = T;

    /// Holds at most `maxsize` items; any number if it is 0 or negative.
    explicit Queue(int maxsize = 0)
        : ring_(shm::Ring::make(maxsize > 0 ? static_cast<std::uint64_t>(maxsize)
                                            : shm::Ring::unbounded)) {}

    /// Adds an item at the end. *Throws* Full when `block` is false or the timeout passed and there
    /// is no room; ShutDown after `shutdown()`; ValueError after `close()`; PicklingError when the
    /// item cannot be written. Then the queue is as before. *Blocks* while it is full.
    void put(const T& item) const { put_until(item, os::Deadline::never()); }
    void put(const T& item, Timeout timeout) const { put_until(item, timeout); }
    template <std::same_as<bool> Block>
    void put(const T& item, Block block, Timeout timeout = {}) const {
        put_until(item, block ? os::Deadline(timeout) : os::Deadline::passed());
    }
    void put_nowait(const T& item) const { put_until(item, os::Deadline::passed()); }
    /// The same, with false for Full.
    bool try_put(const T& item, Timeout timeout = 0) const {
        return push(item, timeout) != shm::Outcome::timed_out;
    }
    /// Adds all items of a range, one by one as `put` does; those that stand side by side in memory and
    /// need no pickling become visible together as far as there is room. *Blocks* while the queue is
    /// full.
    template <std::ranges::input_range Range>
        requires std::convertible_to<std::ranges::range_reference_t<Range>, const T&>
    void put_many(Range&& items) const;

    /// Takes the oldest item. *Throws* Empty when `block` is false or the timeout passed and there is
    /// none; ShutDown when there never will be; ValueError after `close()`; UnpicklingError when what
    /// the producer wrote cannot be read (the item is gone). *Blocks* while the queue is empty.
    T get() const { return get_until(os::Deadline::never()); }
    T get(Timeout timeout) const { return get_until(timeout); }
    template <std::same_as<bool> Block>
    T get(Block block, Timeout timeout = {}) const {
        return get_until(block ? os::Deadline(timeout) : os::Deadline::passed());
    }
    T get_nowait() const { return get_until(os::Deadline::passed()); }
    /// The same, with nothing for Empty.
    std::optional<T> try_get(Timeout timeout = 0) const;
    /// Waits for an item and takes what else is there, at most `max` in all. Nothing at the timeout.
    std::vector<T> get_many(std::size_t max, Timeout timeout = {}) const;

    /// How many items there are, exactly, at some moment during the call.
    [[nodiscard]] std::size_t qsize() const { return static_cast<std::size_t>(ring_->size()); }
    /// *Throws* std::system_error (EBADF) if the queue was used by this process and closed.
    [[nodiscard]] bool empty() const;
    [[nodiscard]] bool full() const { return ring_->full(); }

    /// No more use by this process: `put` and `get` throw ValueError from now on.
    void close() const { local_->closed = true; }
    /// Returns at once: `put` leaves nothing to be flushed. *Throws* AssertionError before `close()`.
    void join_thread() const;
    void cancel_join_thread() const noexcept {}

    /// No more items: `put` throws ShutDown from now on in every process, and `get` when the queue is
    /// drained, or at once if `immediate`, which discards what is there. Wakes all that wait.
    void shutdown(bool immediate = false) const;

    /// Takes items until the queue is shut down and drained.
    class iterator;
    [[nodiscard]] iterator begin() const { return iterator(*this); }
    [[nodiscard]] std::default_sentinel_t end() const noexcept { return {}; }

    /// The same queue?
    friend bool operator==(const Queue& a, const Queue& b) noexcept { return a.ring_ == b.ring_; }

    using travels_as_handle = void;

protected:
    explicit Queue(pickle::Unread) noexcept {}
    [[nodiscard]] shm::Ring& ring() const noexcept { return *ring_; }

private:
    friend struct pickle::HandleAccess;
    template <class U>
    friend class SimpleQueue;
    void save_handle(pickle::OArchive& archive) const { pickle::save_ref(archive, ring_); }
    void load_handle(pickle::IArchive& archive) {
        ring_ = shm::Shared<shm::Ring>(pickle::load_ref(archive, sizeof(shm::Ring)));
    }

    // What is this process's own: the queue itself goes on.
    struct Local {
        std::atomic<bool> closed{false};
        std::atomic<bool> used{false};
    };

    void use() const;
    shm::Outcome push(const T& item, os::Deadline deadline) const;
    void put_until(const T& item, os::Deadline deadline) const;
    [[nodiscard]] T get_until(os::Deadline deadline) const;

    shm::Shared<shm::Ring> ring_;
    std::shared_ptr<Local> local_ = std::make_shared<Local>();
};

/// An input iterator that takes.
template <class T>
class Queue<T>::iterator {
public:
    using value_type = T;
    using difference_type = std::ptrdiff_t;
    using iterator_concept = std::input_iterator_tag;

    explicit iterator(Queue queue) : queue_(std::move(queue)) { ++*this; }
    [[nodiscard]] T& operator*() const noexcept { return *item_; }
    iterator& operator++() {
        item_.reset();
        try {
            item_.emplace(queue_.get());
        } catch (const ShutDown&) {
        }
        return *this;
    }
    void operator++(int) { ++*this; }
    friend bool operator==(const iterator& it, std::default_sentinel_t) noexcept { return !it.item_; }

private:
    Queue queue_;
    mutable std::optional<T> item_;
};

/// A queue whose consumers report back. *Python*: `multiprocessing.JoinableQueue`.
template <class T>
class JoinableQueue : public Queue<T> {
public:
    explicit JoinableQueue(int maxsize = 0) : Queue<T>(maxsize) {}

    /// An item that was got has been dealt with. *Throws* ValueError when called more often than items
    /// were put.
    void task_done() const {
        if (!this->ring().task_done()) {
            throw ValueError("JoinableQueue.task_done(): task_done() called too many times");
        }
    }
    /// Waits until every item that was put has been dealt with; false at the timeout.
    /// *If a peer dies*: nobody reports for a consumer that was killed: give a timeout.
    bool join(Timeout timeout = {}) const { return this->ring().join(timeout); }

private:
    friend struct pickle::HandleAccess;
    explicit JoinableQueue(pickle::Unread unread) noexcept : Queue<T>(unread) {}
};

/// A queue with the four calls of Python's `multiprocessing.SimpleQueue`.
template <class T>
class SimpleQueue {
public:
    using value_type = T;

    SimpleQueue() = default;
    /// *Throws* std::system_error (EBADF) after `close()`, as do all calls.
    void put(const T& item) const {
        use();
        queue_.put(item);
    }
    T get() const {
        use();
        return queue_.get();
    }
    [[nodiscard]] bool empty() const {
        use();
        return queue_.qsize() == 0;
    }
    void close() const { *closed_ = true; }

    using travels_as_handle = void;

private:
    friend struct pickle::HandleAccess;
    explicit SimpleQueue(pickle::Unread unread) : queue_(unread) {}
    void save_handle(pickle::OArchive& archive) const { pickle::HandleAccess::save(archive, queue_); }
    void load_handle(pickle::IArchive& archive) { pickle::HandleAccess::load(archive, queue_); }
    void use() const {
        if (*closed_) {
            throw std::system_error(EBADF, std::system_category(), "SimpleQueue: handle is closed");
        }
    }

    Queue<T> queue_;
    std::shared_ptr<std::atomic<bool>> closed_ = std::make_shared<std::atomic<bool>>(false);
};

// ---------------------------------------------------------------------------------------------------

template <class T>
void Queue<T>::use() const {
    if (local_->closed) throw ValueError("Queue: the queue is closed in this process");
    local_->used = true;
}

template <class T>
shm::Outcome Queue<T>::push(const T& item, os::Deadline deadline) const {
    use();
    const shm::Outcome outcome = pickle::send(*ring_, item, deadline);
    if (outcome == shm::Outcome::shut_down) {
        throw ShutDown("Queue.put(): the queue has been shut down");
    }
    return outcome;
}

template <class T>
void Queue<T>::put_until(const T& item, os::Deadline deadline) const {
    if (push(item, deadline) == shm::Outcome::timed_out) {
        throw Full("Queue.put(): the queue is full (maxsize " + std::to_string(ring_->bound()) + ")");
    }
}

template <class T>
template <std::ranges::input_range Range>
    requires std::convertible_to<std::ranges::range_reference_t<Range>, const T&>
void Queue<T>::put_many(Range&& items) const {
    // Under the ring's lock nothing of the user's runs: an iterator could block, or put something.
    if constexpr (pickle::RecordSized<T> && std::ranges::contiguous_range<Range> &&
                  std::ranges::sized_range<Range> &&
                  std::same_as<std::ranges::range_value_t<Range>, T>) {
        use();
        const T* next = std::ranges::data(items);
        const T* const end = next + std::ranges::size(items);
        while (next != end) {
            const auto outcome =
                ring_->put_many(os::Deadline::never(), [&](shm::Ring::Putter& ring) {
                    std::memcpy(ring.reserve(sizeof(T)), next, sizeof(T));
                    return ++next != end;
                });
            if (outcome == shm::Outcome::shut_down) {
                throw ShutDown("Queue.put_many(): the queue has been shut down");
            }
        }
    } else {
        for (const T& item : items) put(item);
    }
}

template <class T>
T Queue<T>::get_until(os::Deadline deadline) const {
    use();
    std::optional<T> item;
    switch (pickle::receive(*ring_, item, deadline)) {
    case shm::Outcome::done: break;
    case shm::Outcome::timed_out: throw Empty("Queue.get(): the queue is empty");
    case shm::Outcome::shut_down: throw ShutDown("Queue.get(): the queue has been shut down");
    }
    return std::move(*item);
}

template <class T>
std::optional<T> Queue<T>::try_get(Timeout timeout) const {
    use();
    std::optional<T> item;
    if (pickle::receive(*ring_, item, timeout) == shm::Outcome::shut_down) {
        throw ShutDown("Queue.try_get(): the queue has been shut down");
    }
    return item;
}

template <class T>
std::vector<T> Queue<T>::get_many(std::size_t max, Timeout timeout) const {
    use();
    std::vector<T> items;
    if (max == 0) return items;
    if (pickle::receive_many(*ring_, items, max, timeout) == shm::Outcome::shut_down) {
        throw ShutDown("Queue.get_many(): the queue has been shut down");
    }
    return items;
}

template <class T>
bool Queue<T>::empty() const {
    if (local_->closed && local_->used) {
        throw std::system_error(EBADF, std::system_category(), "Queue.empty(): handle is closed");
    }
    return ring_->size() == 0;
}

template <class T>
void Queue<T>::join_thread() const {
    if (!local_->closed) {
        throw AssertionError("Queue.join_thread(): the queue is not closed: call close() first");
    }
}

template <class T>
void Queue<T>::shutdown(bool immediate) const {
    ring_->shut_down();
    if (immediate) ring_->discard();
}

}  // namespace multiprocessing
