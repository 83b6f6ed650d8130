// SPDX-License-Identifier: BSL-1.0
//
// CPython's tests of the types that a manager shares between a parent and a child: each is made here,
// used by a process, and looked at again.
#include <multiprocessing/managers.hpp>

#include "conformance/helpers.hpp"
#include "support/catch.hpp"

#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace mp = multiprocessing;
using namespace support;
using namespace mp::managers;

namespace {

/// Runs it in a child of the start method, which is to end well.
template <class F, class P>
void run_worker(const std::string& method, F worker, const P& proxy) {
    Children children(method);
    children.start(mp::ProcessOptions{.daemon = true}, worker, proxy);
    CHECK(children.join());
}

SyncManager start_manager(const std::string& method) {
    const SyncManager manager({.ctx = mp::get_context(method), .shutdown_timeout = patient});
    manager.start();
    return manager;
}

void use_queue(const QueueProxy<int>& queue) {
    EXPECT(queue.qsize() == 2);
    EXPECT(queue.full());
    EXPECT(!queue.empty());
    EXPECT(queue.get() == 5);
    EXPECT(!queue.empty());
    EXPECT(queue.get() == 6);
    EXPECT(queue.empty());
}

template <class Queue>
void test_queue(const std::string& method, const Queue& queue) {
    queue.put(5);
    queue.put(6);
    run_worker(method, use_queue, queue);
    CHECK(queue.empty());
    CHECK_FALSE(queue.full());
}

}  // namespace

TEST_CASE("TestSyncManagerTypes.test_event", "[managers][conformance]") {
    EVERY_START_METHOD;
    const auto manager = start_manager(method);
    const EventProxy event = manager.Event();
    event.set();
    run_worker(
        method,
        [](const EventProxy& shared) {
            EXPECT(shared.is_set());
            EXPECT(shared.wait());
            shared.clear();
            EXPECT(!shared.wait(0.001));
        },
        event);
    CHECK_FALSE(event.is_set());
    CHECK_FALSE(event.wait(0.001));
}

TEST_CASE("TestSyncManagerTypes.test_lock", "[managers][conformance]") {
    EVERY_START_METHOD;
    const auto manager = start_manager(method);
    const LockProxy lock = manager.Lock();
    run_worker(
        method,
        [](const LockProxy& shared) {
            EXPECT(!shared.locked());
            EXPECT(shared.acquire());
            EXPECT(shared.locked());
        },
        lock);
    lock.release();
    CHECK_THROWS_AS(lock.release(), std::runtime_error);  // already released
}

TEST_CASE("TestSyncManagerTypes.test_rlock", "[managers][conformance]") {
    EVERY_START_METHOD;
    const auto manager = start_manager(method);
    run_worker(
        method,
        [](const RLockProxy& shared) {
            EXPECT(shared.acquire());
            EXPECT(shared.acquire());
            shared.release();
            shared.release();
        },
        manager.RLock());
}

TEST_CASE("TestSyncManagerTypes.test_semaphore", "[managers][conformance]") {
    EVERY_START_METHOD;
    const auto manager = start_manager(method);
    const SemaphoreProxy semaphore = manager.Semaphore();
    run_worker(method, [](const SemaphoreProxy& shared) { EXPECT(shared.acquire()); }, semaphore);
    semaphore.release();
    CHECK(semaphore.get_value() == 1);
}

TEST_CASE("TestSyncManagerTypes.test_bounded_semaphore", "[managers][conformance]") {
    EVERY_START_METHOD;
    const auto manager = start_manager(method);
    const SemaphoreProxy semaphore = manager.BoundedSemaphore();
    run_worker(method, [](const SemaphoreProxy& shared) { EXPECT(shared.acquire()); }, semaphore);
    semaphore.release();
    CHECK_THROWS_AS(semaphore.release(), mp::ValueError);
}

TEST_CASE("TestSyncManagerTypes.test_condition", "[managers][conformance]") {
    EVERY_START_METHOD;
    const auto manager = start_manager(method);
    run_worker(
        method,
        [](const ConditionProxy& shared) {
            EXPECT(shared.acquire());
            shared.release();
        },
        manager.Condition());
}

TEST_CASE("TestSyncManagerTypes.test_barrier", "[managers][conformance]") {
    EVERY_START_METHOD;
    const auto manager = start_manager(method);
    run_worker(
        method,
        [](const BarrierProxy& shared) {
            EXPECT(shared.parties() == 5);
            shared.reset();
        },
        manager.Barrier(5));
}

TEST_CASE("TestSyncManagerTypes.test_pool", "[managers][conformance]") {
    EVERY_START_METHOD;
    const auto manager = start_manager(method);
    const PoolProxy pool = manager.Pool(4);
    CHECK(pool.processes() == 4);
    run_worker(
        method,
        [](const PoolProxy& shared) {
            EXPECT(shared.apply([](int x) { return x * x; }, 7) == 49);
            EXPECT(shared.map([](int x) { return x + 1; }, {1, 2, 3}) == std::vector({2, 3, 4}));
            shared.terminate();
        },
        pool);
    CHECK_THROWS_AS(pool.apply([](int x) { return x; }, 1), mp::ValueError);
}

TEST_CASE("TestSyncManagerTypes.test_queue", "[managers][conformance]") {
    EVERY_START_METHOD;
    const auto manager = start_manager(method);
    test_queue(method, manager.Queue<int>(2));
}

TEST_CASE("TestSyncManagerTypes.test_joinable_queue", "[managers][conformance]") {
    EVERY_START_METHOD;
    const auto manager = start_manager(method);
    test_queue(method, manager.JoinableQueue<int>(2));
}

TEST_CASE("TestSyncManagerTypes.test_list", "[managers][conformance]") {
    EVERY_START_METHOD;
    const auto manager = start_manager(method);
    const auto list = manager.list<int>();
    list.append(5);
    run_worker(
        method,
        [](const ListProxy<int>& shared) {
            EXPECT(shared[0] == 5);
            EXPECT(shared.count(5) == 1);
            EXPECT(shared.index(5) == 0);
            shared.sort();
            shared.reverse();
            for (const int x : shared) EXPECT(x == 5);
            EXPECT(shared.size() == 1);
            EXPECT(shared.pop(0) == 5);
            shared.insert(0, 1);
            EXPECT(shared.copy() == std::vector({1}));
            shared.remove(1);
            shared.extend({1, 2});
            shared.clear();
        },
        list);
    CHECK(list.size() == 0);
}

TEST_CASE("TestSyncManagerTypes.test_dict", "[managers][conformance]") {
    EVERY_START_METHOD;
    const auto manager = start_manager(method);
    const auto dict = manager.dict<std::string, int>();
    dict["foo"] = 5;
    run_worker(
        method,
        [](const DictProxy<std::string, int>& shared) {
            EXPECT(shared.size() == 1);
            EXPECT(shared["foo"] == 5);
            EXPECT(shared.get("foo") == 5);
            EXPECT(shared.items() == (std::vector<std::pair<std::string, int>>{{"foo", 5}}));
            EXPECT(shared.keys() == std::vector<std::string>({"foo"}));
            EXPECT(shared.values() == std::vector({5}));
            EXPECT(shared.copy() == (std::map<std::string, int>{{"foo", 5}}));
            EXPECT(shared.popitem() == (std::pair<std::string, int>("foo", 5)));
            shared.update({{"a", 1}, {"b", 2}});
            EXPECT(shared.popitem() == (std::pair<std::string, int>("b", 2)));
            EXPECT(shared.setdefault("a", 9) == 1);
            EXPECT(shared.pop("none", 3) == 3);
            shared.clear();
        },
        dict);
    CHECK(dict.size() == 0);
}

TEST_CASE("TestSyncManagerTypes.test_value", "[managers][conformance]") {
    EVERY_START_METHOD;
    const auto manager = start_manager(method);
    const auto value = manager.Value<int>(1);
    run_worker(
        method,
        [](const ValueProxy<int>& shared) {
            EXPECT(shared.value() == 1);
            EXPECT(shared.get() == 1);
            shared.set(2);
        },
        value);
    CHECK(value.value() == 2);
    CHECK(value.get() == 2);
}

TEST_CASE("TestSyncManagerTypes.test_array", "[managers][conformance]") {
    EVERY_START_METHOD;
    const auto manager = start_manager(method);
    run_worker(
        method,
        [](const ArrayProxy<int>& shared) {
            EXPECT(shared[0] == 0);
            EXPECT(shared[1] == 1);
            EXPECT(shared.size() == 2);
            EXPECT(std::vector<int>(shared.begin(), shared.end()) == std::vector({0, 1}));
        },
        manager.Array<int>({0, 1}));
}

TEST_CASE("TestSyncManagerTypes.test_namespace", "[managers][conformance]") {
    EVERY_START_METHOD;
    const auto manager = start_manager(method);
    const NamespaceProxy ns = manager.Namespace();
    ns.set("x", 0);
    ns.set("y", 1);
    run_worker(
        method,
        [](const NamespaceProxy& shared) {
            EXPECT(shared.get<int>("x") == 0);
            EXPECT(shared.get<int>("y") == 1);
        },
        ns);
}

TEST_CASE("TestSyncManagerTypes.test_set", "[managers][conformance]") {
    EVERY_START_METHOD;
    const auto manager = start_manager(method);
    const auto set = manager.set<int>();
    run_worker(
        method,
        [](const SetProxy<int>& shared) {
            for (int i = 0; i < 5; ++i) EXPECT(shared.add(i));
            EXPECT(!shared.add(0));
            EXPECT(shared.contains(4));
            EXPECT((shared & std::set<int>({1, 9})) == std::set<int>({1}));
            EXPECT((shared | std::set<int>({9})) == std::set<int>({0, 1, 2, 3, 4, 9}));
            EXPECT((shared - std::set<int>({0, 1})) == std::set<int>({2, 3, 4}));
            EXPECT((shared ^ std::set<int>({4, 5})) == std::set<int>({0, 1, 2, 3, 5}));
            EXPECT(shared.issuperset({1, 2}));
            EXPECT(!shared.issubset({1, 2}));
            EXPECT(shared.isdisjoint({7, 8}));
            shared |= std::set<int>({10});
            shared -= std::set<int>({0});
            shared &= std::set<int>({1, 2, 10});
            shared ^= std::set<int>({1, 3});
            EXPECT(shared.copy() == std::set<int>({2, 3, 10}));
            shared.discard(99);
            shared.remove(10);
            EXPECT(shared.pop() == 2);
        },
        set);
    CHECK(set.copy() == std::set{3});
    CHECK_THROWS_AS(set.remove(99), mp::KeyError);
}

TEST_CASE("TestSyncManagerTypes.test_set_init", "[managers][conformance]") {
    const auto manager = mp::Manager();
    CHECK(manager.set<int>({1, 2, 3}).copy() == std::set{1, 2, 3});
    CHECK(manager.set<std::string>().empty());
    CHECK(manager.set<int>(std::vector{1, 1}).size() == 1);
}
