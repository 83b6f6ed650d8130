// SPDX-License-Identifier: BSL-1.0
//
// `mp::select`: waiting for several queues at once. Part of queues.hpp.
#pragma once

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/shm/ref.hpp>
#include <multiprocessing/shm/ring.hpp>
#include <multiprocessing/shm/selector.hpp>
#include <multiprocessing/timeout.hpp>

#include <concepts>
#include <cstddef>
#include <initializer_list>
#include <ranges>
#include <span>
#include <vector>

namespace multiprocessing {

template <class T>
class Queue;
template <class T>
class SimpleQueue;

/// A queue of any kind and any type, for select(): made from a queue or a pointer to one.
class Selectable {
public:
    template <class T>
    Selectable(const Queue<T>& queue) : ring_(queue.ring_) {
        queue.use();
    }
    template <class T>
    Selectable(const SimpleQueue<T>& queue) : ring_(queue.queue_.ring_) {
        queue.use();
    }
    template <class T>
    Selectable(const Queue<T>* queue) : Selectable(at(queue)) {}
    template <class T>
    Selectable(const SimpleQueue<T>* queue) : Selectable(at(queue)) {}

    [[nodiscard]] shm::Ring& ring() const noexcept { return *ring_; }

private:
    template <class Q>
    static const Q& at(const Q* queue) {
        if (queue == nullptr) throw ValueError("select(): a null pointer is no queue");
        return *queue;
    }

    shm::Shared<shm::Ring> ring_;
};

/// Waits until one of several queues has an item, or has been shut down, so that `get` would not wait.
///
///     for (const std::size_t ready : mp::select({&numbers, &names}, 1s)) …
///
/// Returns the indices of all that are ready, in order, and nothing at the timeout. Another process
/// may still be faster to `get`: use `get_nowait` or `try_get` where there are several consumers.
/// *Throws* ValueError for a queue closed by this process, and for no queues without a timeout, which
/// would be a wait for ever. *Blocks* without polling; costs each `put` into one of the queues nothing
/// while nobody waits. *Python*: `connection.wait([queue._reader, …])`.
[[nodiscard]] std::vector<std::size_t> select(std::span<const Selectable> queues,
                                              Timeout timeout = {});
[[nodiscard]] inline std::vector<std::size_t> select(std::initializer_list<Selectable> queues,
                                                     Timeout timeout = {}) {
    return select(std::span<const Selectable>(queues.begin(), queues.size()), timeout);
}
/// The same for a range of queues, or of pointers to queues.
template <std::ranges::input_range Range>
    requires std::convertible_to<std::ranges::range_reference_t<Range>, Selectable>
[[nodiscard]] std::vector<std::size_t> select(Range&& queues, Timeout timeout = {}) {
    std::vector<Selectable> all;
    for (auto&& queue : queues) all.emplace_back(queue);
    return select(std::span<const Selectable>(all), timeout);
}

// ---------------------------------------------------------------------------------------------------

inline std::vector<std::size_t> select(std::span<const Selectable> queues, Timeout timeout) {
    if (queues.empty() && timeout.forever()) {
        throw ValueError("select(): no queues and no timeout: this would wait for ever");
    }
    std::vector<shm::Ring*> rings;
    rings.reserve(queues.size());
    for (const Selectable& queue : queues) rings.push_back(&queue.ring());
    const os::Deadline deadline(timeout);
    std::vector<std::size_t> ready;
    // Others may have taken what there was.
    while (ready.empty() && shm::wait_for_any(rings, deadline)) {
        for (std::size_t i = 0; i < rings.size(); ++i) {
            if (rings[i]->settled()) ready.push_back(i);
        }
    }
    return ready;
}

}  // namespace multiprocessing
