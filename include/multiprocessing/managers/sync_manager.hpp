// SPDX-License-Identifier: BSL-1.0
//
// `mp::Manager()`: containers, queues, locks and pools in the server of a manager. Answers Python's
// `managers.SyncManager` and `multiprocessing.Manager`.
#pragma once

#include <multiprocessing/managers/base_manager.hpp>
#include <multiprocessing/managers/dict.hpp>
#include <multiprocessing/managers/list.hpp>
#include <multiprocessing/managers/locks.hpp>
#include <multiprocessing/managers/meetings.hpp>
#include <multiprocessing/managers/pool.hpp>
#include <multiprocessing/managers/queue.hpp>
#include <multiprocessing/managers/set.hpp>
#include <multiprocessing/managers/values.hpp>
#include <multiprocessing/pool.hpp>
#include <multiprocessing/runtime/action.hpp>
#include <multiprocessing/synchronize/barrier.hpp>
#include <multiprocessing/timeout.hpp>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <ranges>
#include <utility>
#include <vector>

namespace multiprocessing::managers {

/// A manager with a call for each of Python's types; see BaseManager for what it is and how it is
/// started. Each object ends with its last proxy, in whatever process that is.
///
///     auto m = mp::Manager();
///     auto d = m.dict<std::string, int>({{"a", 1}});
///     mp::Process p([](auto shared) { shared["b"] = 2; }, d);
///
/// *Python*: `multiprocessing.managers.SyncManager`.
class SyncManager : public BaseManager {
public:
    explicit SyncManager(BaseManagerOptions options = {}) : BaseManager(std::move(options)) {}

    template <class K, class V>
    [[nodiscard]] DictProxy<K, V> dict() const {
        return make<DictProxy<K, V>>();
    }
    /// With the items of a range of pairs.
    template <class K, class V, std::ranges::input_range Range>
        requires std::constructible_from<std::pair<K, V>, std::ranges::range_reference_t<Range>>
    [[nodiscard]] DictProxy<K, V> dict(Range&& items) const {
        std::vector<std::pair<K, V>> all;
        for (auto&& item : items) all.emplace_back(item);
        return make<DictProxy<K, V>>(all);
    }
    template <class K, class V>
    [[nodiscard]] DictProxy<K, V> dict(std::initializer_list<std::pair<K, V>> items) const {
        return make<DictProxy<K, V>>(std::vector<std::pair<K, V>>(items));
    }

    template <class T>
    [[nodiscard]] ListProxy<T> list() const {
        return make<ListProxy<T>>();
    }
    /// With the elements of a range.
    template <class T, std::ranges::input_range Range>
        requires std::constructible_from<T, std::ranges::range_reference_t<Range>>
    [[nodiscard]] ListProxy<T> list(Range&& values) const {
        return make<ListProxy<T>>(gather<T>(values));
    }
    template <class T>
    [[nodiscard]] ListProxy<T> list(std::initializer_list<T> values) const {
        return make<ListProxy<T>>(std::vector<T>(values));
    }

    template <class T>
    [[nodiscard]] SetProxy<T> set() const {
        return make<SetProxy<T>>();
    }
    template <class T, std::ranges::input_range Range>
        requires std::constructible_from<T, std::ranges::range_reference_t<Range>>
    [[nodiscard]] SetProxy<T> set(Range&& values) const {
        std::set<T> all;
        for (auto&& value : values) all.emplace(value);
        return make<SetProxy<T>>(all);
    }
    template <class T>
    [[nodiscard]] SetProxy<T> set(std::initializer_list<T> values) const {
        return make<SetProxy<T>>(std::set<T>(values));
    }

    // The proxy is a parameter so that programs which call none of these are not compiled with them.
    template <class P = NamespaceProxy>
    [[nodiscard]] P Namespace() const {
        return make<P>();
    }
    template <class T>
    [[nodiscard]] ValueProxy<T> Value(const T& value = T()) const {
        return make<ValueProxy<T>>(value);
    }
    /// Of so many zeros.
    template <class T>
    [[nodiscard]] ArrayProxy<T> Array(std::size_t size) const {
        return make<ArrayProxy<T>>(std::vector<T>(size));
    }
    template <class T>
    [[nodiscard]] ArrayProxy<T> Array(std::initializer_list<T> elements) const {
        return make<ArrayProxy<T>>(std::vector<T>(elements));
    }
    template <class T, std::ranges::input_range Range>
        requires std::constructible_from<T, std::ranges::range_reference_t<Range>>
    [[nodiscard]] ArrayProxy<T> Array(Range&& elements) const {
        return make<ArrayProxy<T>>(gather<T>(elements));
    }

    /// Of at most `maxsize` items; any number if it is 0 or negative.
    template <class T>
    [[nodiscard]] QueueProxy<T> Queue(int maxsize = 0) const {
        return make_by<QueueProxy<T>, MakeQueue<multiprocessing::Queue<T>>>(
            [&](pickle::OArchive& out) { out.put(maxsize); });
    }
    template <class T>
    [[nodiscard]] JoinableQueueProxy<T> JoinableQueue(int maxsize = 0) const {
        return make_by<JoinableQueueProxy<T>, MakeQueue<multiprocessing::JoinableQueue<T>>>(
            [&](pickle::OArchive& out) { out.put(maxsize); });
    }

    template <class P = LockProxy>
    [[nodiscard]] P Lock() const {
        return make<P>(LockKind::lock, 1);
    }
    template <class P = RLockProxy>
    [[nodiscard]] P RLock() const {
        return make<P>(LockKind::recursive, 1);
    }
    /// *Throws* ValueError for a negative value.
    template <class P = SemaphoreProxy>
    [[nodiscard]] P Semaphore(int value = 1) const {
        return make<P>(LockKind::semaphore, value);
    }
    template <class P = SemaphoreProxy>
    [[nodiscard]] P BoundedSemaphore(int value = 1) const {
        return make<P>(LockKind::bounded, value);
    }
    /// With an RLock of its own, or with a Lock or RLock of this manager.
    template <class P = ConditionProxy>
    [[nodiscard]] P Condition() const {
        return make_by<P, typename P::Referent::Make>(
            [](pickle::OArchive& out) { out.put(false); });
    }
    template <std::derived_from<AcquirerProxy> L, class P = ConditionProxy>
    [[nodiscard]] P Condition(const L& lock) const {
        return make_by<P, typename P::Referent::Make>([&](pickle::OArchive& out) {
            out.put(true);
            out.put(object_of(lock));
        });
    }
    template <class P = EventProxy>
    [[nodiscard]] P Event() const {
        return make<P>();
    }
    /// The action runs in the server.
    template <class P = BarrierProxy>
    [[nodiscard]] P Barrier(int parties, runtime::Action action = {}, Timeout timeout = {}) const {
        return make<P>(parties, action, timeout);
    }
    template <class P = BarrierProxy>
    [[nodiscard]] P Barrier(const BarrierOptions& options) const {
        return make<P>(options.parties, options.action, options.timeout);
    }
    /// Of `processes`, `initializer` and `maxtasksperchild`; the others of the options are for pools
    /// of one's own. *Throws* ValueError.
    template <class P = PoolProxy>
    [[nodiscard]] P Pool(const PoolOptions& options = {}) const {
        return make_by<P, MakePool>([&](pickle::OArchive& out) {
            pickle::save_value(out, options.processes);
            pickle::save_value(out, options.initializer);
            pickle::save_value(out, options.maxtasksperchild);
        });
    }
    template <class P = PoolProxy>
    [[nodiscard]] P Pool(int processes) const {
        return Pool<P>(PoolOptions{.processes = processes});
    }

private:
    friend struct pickle::HandleAccess;
    explicit SyncManager(pickle::Unread unread) : BaseManager(unread) {}

    template <class T, class Range>
    [[nodiscard]] static std::vector<T> gather(Range&& values) {
        std::vector<T> all;
        for (auto&& value : values) all.emplace_back(value);
        return all;
    }
    template <class Q>
    struct MakeQueue {
        static void run(Call& call) {
            using Served = ServedQueue<typename Q::value_type>;
            const int maxsize = call.in.get<int>();
            call.out.put(
                call.caller.give(std::make_shared<Managed<Served>>(std::in_place, Q(maxsize))));
        }
    };
    struct MakePool {
        static void run(Call& call) {
            PoolOptions options;
            pickle::load_value(call.in, options.processes);
            pickle::load_value(call.in, options.initializer);
            pickle::load_value(call.in, options.maxtasksperchild);
            call.out.put(call.caller.give(
                std::make_shared<Managed<multiprocessing::Pool>>(std::in_place, std::move(options))));
        }
    };
};

}  // namespace multiprocessing::managers

namespace multiprocessing {

/// A manager that has been started. *Python*: `multiprocessing.Manager`.
/// *Throws* what Process::start throws.
[[nodiscard]] inline managers::SyncManager Manager() {
    const managers::SyncManager manager;
    manager.start();
    return manager;
}

}  // namespace multiprocessing
