// SPDX-License-Identifier: BSL-1.0
//
// `manager.Queue<T>()` and `JoinableQueue<T>()`: a queue in a manager's server, for processes anywhere.
// Answers the proxies of `queue.Queue` that Python's SyncManager makes.
#pragma once

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/managers/proxy.hpp>
#include <multiprocessing/os/clock.hpp>
#include <multiprocessing/queue_iterator.hpp>
#include <multiprocessing/queues.hpp>
#include <multiprocessing/timeout.hpp>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <iterator>
#include <memory>
#include <optional>
#include <ranges>
#include <string>
#include <utility>
#include <vector>

namespace multiprocessing::managers {

/// A queue that clients of the server use, and processes there, too, if they have it.
template <class T>
struct ServedQueue {
    using is_thread_safe = void;

    multiprocessing::Queue<T> queue;
    std::optional<multiprocessing::JoinableQueue<T>> joinable{};

    explicit ServedQueue(multiprocessing::Queue<T> given) : queue(given) {}
    explicit ServedQueue(multiprocessing::JoinableQueue<T> given) : queue(given), joinable(given) {}

    static bool put(ServedQueue& self, const Caller& caller, const T& item, Timeout timeout) {
        return caller.wait(timeout, [&](Timeout part) { return self.queue.try_put(item, part); });
    }
    static void put_many(ServedQueue& self, const Caller& caller, const std::vector<T>& items) {
        for (const T& item : items) static_cast<void>(put(self, caller, item, {}));
    }
    static std::optional<T> get(ServedQueue& self, const Caller& caller, Timeout timeout) {
        std::optional<T> item;
        caller.wait(timeout, [&](Timeout part) {
            std::optional<T> got = self.queue.try_get(part);
            if (got) item.emplace(*std::move(got));
            return item.has_value();
        });
        return item;
    }
    static std::vector<T> get_many(ServedQueue& self, const Caller& caller, std::uint64_t most,
                                   Timeout timeout) {
        std::vector<T> items;
        caller.wait(timeout, [&](Timeout part) {
            items = self.queue.get_many(static_cast<std::size_t>(most), part);
            return !items.empty() || most == 0;
        });
        return items;
    }
    static std::uint64_t size(ServedQueue& self) { return self.queue.qsize(); }
    static bool full(ServedQueue& self) { return self.queue.full(); }
    static void shutdown(ServedQueue& self, bool immediate) { self.queue.shutdown(immediate); }
    static void task_done(ServedQueue& self) { joinable_of(self).task_done(); }
    static bool join(ServedQueue& self, const Caller& caller, Timeout timeout) {
        return caller.wait(timeout, [&](Timeout part) { return joinable_of(self).join(part); });
    }

private:
    static multiprocessing::JoinableQueue<T>& joinable_of(ServedQueue& self) {
        if (!self.joinable) {
            throw ValueError("the managed queue is a Queue: task_done() and join() are of a "
                             "JoinableQueue");
        }
        return *self.joinable;
    }
};

/// A queue in the server of a manager, with the calls of `mp::Queue`, for processes that may be on
/// other machines. (Inside of one machine a `mp::Queue` is faster by far.) See BaseProxy for what a
/// call throws. *Python*: the proxy of `queue.Queue` that `SyncManager.Queue()` makes.
/// *If a client dies* while it waits or puts, or when it has an item on its way, it costs that item at
/// most.
template <class T>
class QueueProxy : public BaseProxy {
    static_assert(pickle::Picklable<T>, "the items of a queue must be picklable: give a class a "
                                        "`serialize` member as Boost.Serialization asks for");
    using Served = ServedQueue<T>;

public:
    using Referent = Served;
    using value_type = T;

    /// *Throws* Full, ShutDown. *Blocks* while it is full.
    void put(const T& item) const { put_until(item, {}); }
    void put(const T& item, Timeout timeout) const { put_until(item, timeout); }
    template <std::same_as<bool> Block>
    void put(const T& item, Block block, Timeout timeout = {}) const {
        put_until(item, block ? timeout : Timeout(0));
    }
    void put_nowait(const T& item) const { put_until(item, 0); }
    /// The same, with false for Full.
    bool try_put(const T& item, Timeout timeout = 0) const {
        return this->template call_waiting<Served, &Served::put>(timeout, item, timeout);
    }
    /// All items of a range, in one request. *Blocks* while it is full.
    template <std::ranges::input_range Range>
        requires std::convertible_to<std::ranges::range_reference_t<Range>, T>
    void put_many(Range&& items) const {
        std::vector<T> all;
        for (auto&& item : items) all.emplace_back(item);
        this->template call_waiting<Served, &Served::put_many>(Timeout(), all);
    }
    void put_many(std::initializer_list<T> items) const {
        this->template call_waiting<Served, &Served::put_many>(Timeout(), std::vector<T>(items));
    }

    /// *Throws* Empty; ShutDown when there never will be an item. *Blocks* while it is empty.
    T get() const { return get_until({}); }
    T get(Timeout timeout) const { return get_until(timeout); }
    template <std::same_as<bool> Block>
    T get(Block block, Timeout timeout = {}) const {
        return get_until(block ? timeout : Timeout(0));
    }
    T get_nowait() const { return get_until(0); }
    /// The same, with nothing for Empty.
    std::optional<T> try_get(Timeout timeout = 0) const {
        return this->template call_waiting<Served, &Served::get>(timeout, timeout);
    }
    /// Waits for an item and takes what else is there, at most `max` in all. Nothing at the timeout.
    std::vector<T> get_many(std::size_t max, Timeout timeout = {}) const {
        return this->template call_waiting<Served, &Served::get_many>(
            timeout, static_cast<std::uint64_t>(max), timeout);
    }

    [[nodiscard]] std::size_t qsize() const {
        return static_cast<std::size_t>(this->template call<Served, &Served::size>());
    }
    [[nodiscard]] bool empty() const { return qsize() == 0; }
    [[nodiscard]] bool full() const { return this->template call<Served, &Served::full>(); }
    /// As mp::Queue's.
    void shutdown(bool immediate = false) const {
        this->template call<Served, &Served::shutdown>(immediate);
    }

    /// Takes items until the queue is shut down and drained.
    using iterator = QueueIterator<QueueProxy>;
    [[nodiscard]] iterator begin() const { return iterator(*this); }
    [[nodiscard]] std::default_sentinel_t end() const noexcept { return {}; }

    /// Has servers of this program know all that clients of others may call.
    static void expose_all() {
        expose<Served, &Served::put, &Served::put_many, &Served::get, &Served::get_many,
               &Served::size, &Served::full, &Served::shutdown, &Served::task_done,
               &Served::join>();
    }

    using BaseProxy::BaseProxy;

private:
    void put_until(const T& item, Timeout timeout) const {
        if (!try_put(item, timeout)) throw Full("QueueProxy.put(): the managed queue is full");
    }
    [[nodiscard]] T get_until(Timeout timeout) const {
        if (auto item = try_get(timeout)) return *std::move(item);
        throw Empty("QueueProxy.get(): the managed queue is empty");
    }
};

/// A queue whose consumers report back. *Python*: the proxy that `SyncManager.JoinableQueue()` makes.
template <class T>
class JoinableQueueProxy : public QueueProxy<T> {
    using Served = ServedQueue<T>;

public:
    using QueueProxy<T>::QueueProxy;

    /// An item that was got has been dealt with. *Throws* ValueError when called more often than items
    /// were put.
    void task_done() const { this->template call<Served, &Served::task_done>(); }
    /// Waits until every item that was put has been dealt with; false at the timeout.
    bool join(Timeout timeout = {}) const {
        return this->template call_waiting<Served, &Served::join>(timeout, timeout);
    }
};

}  // namespace multiprocessing::managers
