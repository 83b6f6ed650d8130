// SPDX-License-Identifier: BSL-1.0
//
// `Queue`, `SimpleQueue` and `JoinableQueue` between processes. Answers Python's
// `multiprocessing.queues`.
//
// An item is written straight into shared memory by `put` and is there for every process when it
// returns: no feeder thread, no pipe, nothing to flush at exit.
#pragma once

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/os/fork.hpp>
#include <multiprocessing/pickle/channel.hpp>
#include <multiprocessing/pickle/handle.hpp>
#include <multiprocessing/queues_select.hpp>
#include <multiprocessing/queue_iterator.hpp>
#include <multiprocessing/shm/ring.hpp>
#include <multiprocessing/timeout.hpp>

#include <atomic>
#include <cerrno>
#include <concepts>
#include <cstdint>
#include <cstring>
#include <exception>
#include <initializer_list>
#include <iterator>
#include <memory>
#include <mutex>
#include <optional>
#include <ranges>
#include <span>
#include <string>
#include <system_error>
#include <type_traits>
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
                  "the items of a queue must be picklable: give a class a `serialize` member as "
                  "Boost.Serialization asks for; pointers, views, threads and std::function cannot "
                  "travel");

public:
    using value_type = T;

    /// Holds at most `maxsize` items; any number if it is 0 or negative.
    explicit Queue(int maxsize = 0)
        : ring_(shm::Ring::make(maxsize > 0 ? static_cast<std::uint64_t>(maxsize)
                                            : shm::Ring::unbounded)) {}
    // No moves, as of all handles here: what was moved from is still the queue.
    Queue(const Queue&) = default;
    Queue& operator=(const Queue&) = default;

    /// Adds an item at the end. *Throws* Full when `block` is false or the timeout passed and there
    /// is no room; ShutDown after `shutdown()`; ValueError after `close()`; PicklingError when the
    /// item cannot be written. Then the queue is as before. *Blocks* while it is full.
    void put(const T& item) const { put_until(item, os::Deadline::never()); }
    void put(const T& item, Timeout timeout) const { put_until(item, until(timeout)); }
    template <std::same_as<bool> Block>
    void put(const T& item, Block block, Timeout timeout = {}) const {
        put_until(item, block ? until(timeout) : os::Deadline::passed());
    }
    void put_nowait(const T& item) const { put_until(item, os::Deadline::passed()); }
    /// The same, with false for Full.
    bool try_put(const T& item, Timeout timeout = 0) const {
        return push(item, until(timeout)) != shm::Outcome::timed_out;
    }
    /// Adds all items of a range in their order: those of a container many at a time as far as there
    /// is room, those that a range makes as it goes one by one. What throws (the range, or an item that
    /// cannot be pickled) throws after the items before it have been put. *Blocks* while the queue is
    /// full.
    template <std::ranges::input_range Range>
        requires std::convertible_to<std::ranges::range_reference_t<Range>, const T&>
    void put_many(Range&& items) const;
    void put_many(std::initializer_list<T> items) const { put_many(std::span<const T>(items)); }

    /// Takes the oldest item. *Throws* Empty when `block` is false or the timeout passed and there is
    /// none; ShutDown when there never will be; ValueError after `close()`; UnpicklingError when what
    /// the producer wrote cannot be read (the item is gone). *Blocks* while the queue is empty.
    T get() const { return get_until(os::Deadline::never()); }
    T get(Timeout timeout) const { return get_until(until(timeout)); }
    template <std::same_as<bool> Block>
    T get(Block block, Timeout timeout = {}) const {
        return get_until(block ? until(timeout) : os::Deadline::passed());
    }
    T get_nowait() const { return get_until(os::Deadline::passed()); }
    /// The same, with nothing for Empty.
    std::optional<T> try_get(Timeout timeout = 0) const;
    /// Waits for an item and takes what else is there, at most `max` in all. Nothing at the timeout.
    /// When an item cannot be read the others are returned, and this process's next `get` of any kind
    /// by this handle or its copies throws the UnpicklingError; at once if there are no others.
    /// *If this process dies* while it takes them, they are lost with it.
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

    /// Takes items until the queue is shut down and drained, each when the loop comes to it.
    using iterator = QueueIterator<Queue>;
    [[nodiscard]] iterator begin() const {
        use();
        return iterator(*this);
    }
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
    friend class Selectable;
    void save_handle(pickle::OArchive& archive) const { pickle::save_ref(archive, ring_); }
    void load_handle(pickle::IArchive& archive) {
        ring_ = shm::Shared<shm::Ring>(pickle::load_ref(archive, sizeof(shm::Ring)));
    }

    // What is this process's own: the queue itself goes on.
    struct Local {
        std::atomic<bool> closed{false};
        std::atomic<bool> used{false};
        // What get_many() could not read beside what it could, for the process that called it. A forked
        // child does not look at its parent's, which the fork may have caught in the middle of a
        // change, and does not destroy it.
        std::atomic<std::uint32_t> failed_in{0};  // a fork epoch; 0: there is nothing to tell
        std::unique_ptr<std::vector<std::exception_ptr>> failures;
        os::ForkAwareMutex mutex;  // guards `failures`

        [[nodiscard]] bool has_failures() const noexcept {
            return failed_in.load(std::memory_order_relaxed) == os::fork_epoch();
        }
        ~Local() {
            if (!has_failures()) static_cast<void>(failures.release());
        }
    };

    static os::Deadline until(const Timeout& timeout) {
        return os::Deadline::from_first_wait(timeout);
    }
    void use() const;
    void use_for_getting() const;
    void keep_failures(std::vector<std::exception_ptr> failures) const;
    shm::Outcome push(const T& item, os::Deadline deadline) const;
    void put_until(const T& item, os::Deadline deadline) const;
    [[nodiscard]] T get_until(os::Deadline deadline) const;

    shm::Shared<shm::Ring> ring_;
    std::shared_ptr<Local> local_ = std::make_shared<Local>();
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
    SimpleQueue(const SimpleQueue&) = default;
    SimpleQueue& operator=(const SimpleQueue&) = default;
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

    friend class Selectable;
    Queue<T> queue_;
    std::shared_ptr<std::atomic<bool>> closed_ = std::make_shared<std::atomic<bool>>(false);
};

// ---------------------------------------------------------------------------------------------------

template <class T>
void Queue<T>::use() const {
    if (local_->closed.load(std::memory_order_relaxed)) [[unlikely]] {
        throw ValueError("Queue: the queue is closed in this process");
    }
    if (!local_->used.load(std::memory_order_relaxed)) [[unlikely]] {
        local_->used.store(true, std::memory_order_relaxed);
    }
}

template <class T>
shm::Outcome Queue<T>::push(const T& item, os::Deadline deadline) const {
    use();
    const shm::Outcome outcome = pickle::send(*ring_, item, deadline);
    if (outcome == shm::Outcome::shut_down) {
        throw ShutDown("Queue: nothing can be put, for the queue has been shut down");
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
    use();
    auto outcome = shm::Outcome::done;
    if constexpr (pickle::RecordSized<T> && std::ranges::contiguous_range<Range> &&
                  std::ranges::sized_range<Range> &&
                  std::same_as<std::ranges::range_value_t<Range>, T>) {
        const T* next = std::ranges::data(items);
        const T* const end = next + std::ranges::size(items);
        while (next != end && outcome == shm::Outcome::done) {
            outcome = ring_->put_many(os::Deadline::never(), [&](shm::Ring::Putter& ring) {
                std::memcpy(ring.reserve(sizeof(T)), next, sizeof(T));
                return ++next != end;
            });
        }
    } else if constexpr (std::ranges::forward_range<Range> && std::ranges::sized_range<Range> &&
                         std::is_lvalue_reference_v<std::ranges::range_reference_t<Range>> &&
                         std::same_as<std::ranges::range_value_t<Range>, T>) {
        outcome = pickle::send_many<T>(*ring_, items);
    } else {
        // What the range makes as it goes may take its time, or wait for an answer to what it made.
        for (auto&& item : items) put(item);
    }
    if (outcome == shm::Outcome::shut_down) {
        throw ShutDown("Queue.put_many(): the queue has been shut down");
    }
}

template <class T>
void Queue<T>::use_for_getting() const {
    use();
    if (!local_->has_failures()) [[likely]] return;
    const std::lock_guard lock(local_->mutex);
    auto& failures = local_->failures;
    if (failures == nullptr) return;  // another thread was faster
    const std::exception_ptr failure = failures->front();
    failures->erase(failures->begin());
    if (failures->empty()) {
        failures.reset();
        local_->failed_in = 0;
    }
    std::rethrow_exception(failure);
}

template <class T>
void Queue<T>::keep_failures(std::vector<std::exception_ptr> failures) const {
    const std::lock_guard lock(local_->mutex);
    if (local_->has_failures()) {
        local_->failures->insert(local_->failures->end(), failures.begin(), failures.end());
        return;
    }
    auto kept = std::make_unique<std::vector<std::exception_ptr>>(std::move(failures));
    static_cast<void>(local_->failures.release());  // nothing, or the parent's
    local_->failures = std::move(kept);
    local_->failed_in = os::fork_epoch();
}

template <class T>
T Queue<T>::get_until(os::Deadline deadline) const {
    use_for_getting();
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
    use_for_getting();
    std::optional<T> item;
    if (pickle::receive(*ring_, item, until(timeout)) == shm::Outcome::shut_down) {
        throw ShutDown("Queue.try_get(): the queue has been shut down");
    }
    return item;
}

template <class T>
std::vector<T> Queue<T>::get_many(std::size_t max, Timeout timeout) const {
    use_for_getting();
    std::vector<T> items;
    if (max == 0) return items;
    std::vector<std::exception_ptr> failures;
    if (pickle::receive_many(*ring_, items, max, until(timeout), failures) ==
        shm::Outcome::shut_down) {
        throw ShutDown("Queue.get_many(): the queue has been shut down");
    }
    if (!failures.empty()) {
        keep_failures(std::move(failures));
        if (items.empty()) use_for_getting();
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
