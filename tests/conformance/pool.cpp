// SPDX-License-Identifier: BSL-1.0
//
// CPython's tests of multiprocessing.pool, under their own names.

#include <multiprocessing/pool.hpp>

#include <multiprocessing/context.hpp>
#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/process.hpp>
#include <multiprocessing/sharedctypes.hpp>
#include <multiprocessing/synchronize.hpp>

#include "conformance/helpers.hpp"
#include "runtime/helpers.hpp"
#include "runtime/pool_helpers.hpp"
#include "support/catch.hpp"

#include <algorithm>
#include <chrono>
#include <csignal>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include <sys/resource.h>

namespace mp = multiprocessing;
using namespace std::chrono_literals;
using Catch::Matchers::ContainsSubstring;
using support::outcomes_of;
using support::pids_of;

namespace {

auto contexts() {
    EVERY_START_METHOD;
    return mp::get_context(method);
}

std::optional<mp::Pool> problem;

int sqr(int x) { return x * x; }
int mul(int x, int y) { return x * y; }
int wait_then_sqr(const mp::Event& event, int x) {
    event.wait();
    return x * x;
}
int raising() { throw std::out_of_range("key"); }

std::vector<int> serial(int count) {
    std::vector<int> result;
    for (int i = 0; i < count; ++i) result.push_back(sqr(i));
    return result;
}
std::vector<std::pair<int, int>> pairs(int count) {
    std::vector<std::pair<int, int>> result;
    for (int i = 0; i < count; ++i) result.emplace_back(i, count - 1 - i);
    return result;
}
std::vector<int> serial_products(int count) {
    std::vector<int> result;
    for (const auto& [x, y] : pairs(count)) result.push_back(mul(x, y));
    return result;
}

struct SayWhenError : std::runtime_error {
    SayWhenError() : std::runtime_error("Somebody said when") {}
    explicit SayWhenError(const std::string& what) : std::runtime_error(what) {}
};

// exception_throwing_generator(total, when): throws at the first step for when == -1.
class Throwing {
public:
    Throwing(int total, int when) : total_(total), when_(when) {}
    class iterator {
    public:
        using value_type = int;
        using difference_type = std::ptrdiff_t;
        using iterator_concept = std::input_iterator_tag;
        iterator(int total, int when) : total_(total), when_(when) {}
        int operator*() const { return at_; }
        iterator& operator++() {
            if (++at_ == when_) throw SayWhenError();
            return *this;
        }
        void operator++(int) { ++*this; }
        friend bool operator==(const iterator& it, std::default_sentinel_t) { return it.at_ >= it.total_; }

    private:
        int total_;
        int when_;
        int at_ = 0;
    };
    [[nodiscard]] iterator begin() const {
        if (when_ == -1) throw SayWhenError();
        return {total_, when_};
    }
    [[nodiscard]] std::default_sentinel_t end() const { return {}; }

private:
    int total_;
    int when_;
};

// An argument, and a result, that says no to being pickled.
struct Unpickleable {
    int number = 0;
    template <class Archive>
    void save(Archive&, unsigned) const {
        throw std::runtime_error("not this one");
    }
    template <class Archive>
    void load(Archive&, unsigned) {}
    BOOST_SERIALIZATION_SPLIT_MEMBER()
};
int take_unpickleable(const Unpickleable& u) { return u.number; }
Unpickleable unpickleable_result() { return {42}; }

// Counts those that there are in this process.
struct CountedObject {
    static inline int n_instances = 0;
    CountedObject() { ++n_instances; }
    CountedObject(const CountedObject&) { ++n_instances; }
    CountedObject& operator=(const CountedObject&) = default;
    ~CountedObject() { --n_instances; }
    template <class Archive>
    void serialize(Archive&, unsigned) {}
};
CountedObject identity(const CountedObject& object) { return object; }

}  // namespace

TEST_CASE("_TestPool.test_apply", "[pool][fork][spawn]") {
    const mp::Pool pool = contexts().Pool(4);
    CHECK(pool.apply(sqr, 5) == sqr(5));
    CHECK(pool.apply(mp::partial(mul, 3), 5) == 15);
}

TEST_CASE("_TestPool.test_map", "[pool][fork][spawn]") {
    const mp::Pool pool = contexts().Pool(4);
    CHECK(pool.map(sqr, mp::range(10)) == serial(10));
    CHECK(pool.map(sqr, mp::range(100), 20) == serial(100));
}

TEST_CASE("_TestPool.test_starmap", "[pool][fork][spawn]") {
    const mp::Pool pool = contexts().Pool(4);
    CHECK(pool.starmap(mul, pairs(10)) == serial_products(10));
    CHECK(pool.starmap(mul, pairs(100), 20) == serial_products(100));
}

TEST_CASE("_TestPool.test_starmap_async", "[pool][fork][spawn]") {
    const mp::Pool pool = contexts().Pool(4);
    CHECK(pool.starmap_async(mul, pairs(100)).get() == serial_products(100));
}

TEST_CASE("_TestPool.test_map_async", "[pool][fork][spawn]") {
    const mp::Pool pool = contexts().Pool(4);
    CHECK(pool.map_async(sqr, mp::range(10)).get() == serial(10));
}

TEST_CASE("_TestPool.test_map_async_callbacks", "[pool][fork][spawn]") {
    const mp::Pool pool = contexts().Pool(4);
    std::vector<std::vector<int>> lists;
    std::vector<std::exception_ptr> errors;
    const auto on_value = [&](const std::vector<int>& list) { lists.push_back(list); };
    const auto on_error = [&](const std::exception_ptr& error) { errors.push_back(error); };
    pool.map_async(sqr, {1}).then(on_value, on_error).wait();
    CHECK(lists == std::vector<std::vector<int>>{{1}});
    const auto raise = [](int) { return raising(); };
    pool.map_async(raise, {1, 2}).then(on_value, on_error).wait();
    CHECK(lists.size() == 1);
    REQUIRE(errors.size() == 1);
    CHECK_THROWS_AS(std::rethrow_exception(errors.front()), std::out_of_range);
}

TEST_CASE("_TestPool.test_map_unplicklable", "[pool][fork][spawn]") {
    const mp::Pool pool = contexts().Pool(2);
    CHECK_THROWS_WITH(pool.map(take_unpickleable, std::vector<Unpickleable>(10)),
                      ContainsSubstring("not this one"));
    CHECK(pool.map(sqr, mp::range(3)) == serial(3));
}

TEST_CASE("_TestPool.test_map_chunksize", "[pool][fork][spawn]") {
    const mp::Pool pool = contexts().Pool(4);
    CHECK(pool.map_async(sqr, std::vector<int>{}, 1).get(30s).empty());
}

TEST_CASE("_TestPool.test_map_handle_iterable_exception", "[pool][fork][spawn]") {
    const mp::Pool pool = contexts().Pool(4);
    CHECK_THROWS_AS(pool.map(sqr, Throwing(1, -1), 1), SayWhenError);
    CHECK_THROWS_AS(pool.map(sqr, Throwing(10, 3), 1), SayWhenError);
    CHECK_THROWS_AS(pool.map(sqr, Throwing(10, 3), 4), SayWhenError);
    CHECK(pool.map(sqr, mp::range(3)) == serial(3));
}

TEST_CASE("_TestPool.test_async", "[pool][fork][spawn]") {
    const mp::Pool pool = contexts().Pool(4);
    const mp::Event event;
    const auto result = pool.apply_async(wait_then_sqr, event, 7);
    CHECK_FALSE(result.ready());
    event.set();
    CHECK(result.get() == 49);
}

TEST_CASE("_TestPool.test_async_timeout", "[pool][fork][spawn]") {
    const mp::Pool pool = contexts().Pool(4);
    const mp::Event event;
    const auto result = pool.apply_async(wait_then_sqr, event, 6);
    CHECK_THROWS_AS(result.get(0.02), mp::TimeoutError);
    event.set();
    CHECK(result.get() == 36);
}

TEST_CASE("_TestPool.test_imap", "[pool][fork][spawn]") {
    const mp::Pool pool = contexts().Pool(4);
    CHECK(outcomes_of(pool.imap(sqr, mp::range(10))).values == serial(10));
    const auto it = pool.imap(sqr, mp::range(10));
    for (int i = 0; i < 10; ++i) CHECK(it.next() == i * i);
    CHECK_THROWS_AS(it.next(), mp::StopIteration);
    const auto chunked = pool.imap(sqr, mp::range(1000), 100);
    for (int i = 0; i < 1000; ++i) CHECK(chunked.next() == i * i);
    CHECK_THROWS_AS(chunked.next(), mp::StopIteration);
}

TEST_CASE("_TestPool.test_imap_handle_iterable_exception", "[pool][fork][spawn]") {
    const mp::Pool pool = contexts().Pool(4);
    CHECK_THROWS_AS(pool.imap(sqr, Throwing(1, -1), 1).next(), SayWhenError);
    const auto one = pool.imap(sqr, Throwing(10, 3), 1);
    for (int i = 0; i < 3; ++i) CHECK(one.next() == i * i);
    CHECK_THROWS_AS(one.next(), SayWhenError);
    // A chunk that cannot be read to its end is not begun.
    const auto two = pool.imap(sqr, Throwing(20, 7), 2);
    for (int i = 0; i < 6; ++i) CHECK(two.next() == i * i);
    CHECK_THROWS_AS(two.next(), SayWhenError);
    const auto four = pool.imap(sqr, Throwing(20, 7), 4);
    for (int i = 0; i < 4; ++i) CHECK(four.next() == i * i);
    CHECK_THROWS_AS(four.next(), SayWhenError);
}

TEST_CASE("_TestPool.test_imap_unordered", "[pool][fork][spawn]") {
    const mp::Pool pool = contexts().Pool(4);
    for (const int chunksize : {1, 100}) {
        auto results = outcomes_of(pool.imap_unordered(sqr, mp::range(1000), chunksize)).values;
        std::sort(results.begin(), results.end());
        CHECK(results == serial(1000));
    }
}

TEST_CASE("_TestPool.test_imap_unordered_handle_iterable_exception", "[pool][fork][spawn]") {
    const mp::Pool pool = contexts().Pool(4);
    CHECK_THROWS_AS(pool.imap_unordered(sqr, Throwing(1, -1), 1).next(), SayWhenError);
    for (const int chunksize : {1, 3}) {
        const auto it = pool.imap_unordered(sqr, Throwing(10, 3), chunksize);
        const auto expected = serial(10);
        const auto read_on = [&] {
            for (int i = 0; i < 10; ++i) {
                const int value = it.next();
                CHECK(std::find(expected.begin(), expected.end(), value) != expected.end());
            }
        };
        CHECK_THROWS_AS(read_on(), SayWhenError);
    }
}

TEST_CASE("_TestPool.test_make_pool", "[pool][fork][spawn]") {
    const auto ctx = contexts();
    CHECK_THROWS_AS(ctx.Pool(-1), mp::ValueError);
    CHECK_THROWS_AS(ctx.Pool(0), mp::ValueError);
    const mp::Pool p = ctx.Pool(3);
    CHECK(p.workers().size() == 3);
    p.close();
    p.join();
}

TEST_CASE("_TestPool.test_terminate", "[pool][fork][spawn]") {
    const mp::Pool pool = contexts().Pool(3);
    const mp::Event never;
    const auto result = pool.map_async(mp::partial(wait_then_sqr, never), mp::range(10000), 1);
    pool.terminate();
    pool.join();  // not after tasks that never end
    CHECK_THROWS_AS(result.get(0), mp::CancelledError);
}

TEST_CASE("_TestPool.test_empty_iterable", "[pool][fork][spawn]") {
    const mp::Pool p = contexts().Pool(1);
    const std::vector<int> empty;
    CHECK(p.map(sqr, empty).empty());
    CHECK(outcomes_of(p.imap(sqr, empty)).values.empty());
    CHECK(outcomes_of(p.imap_unordered(sqr, empty)).values.empty());
    CHECK(p.map_async(sqr, empty).get().empty());
    p.close();
    p.join();
}

TEST_CASE("_TestPool.test_context", "[pool][fork][spawn]") {
    const auto ctx = contexts();
    const mp::Pool p = ctx.Pool(2);
    CHECK(p.map_async(sqr, mp::range(10)).get() == serial(10));
    p.terminate();
    CHECK_THROWS_AS(p.map_async(sqr, mp::range(10)), mp::ValueError);
    p.join();
}

TEST_CASE("_TestPool.test_traceback", "[pool][fork][spawn]") {
    const mp::Pool p = contexts().Pool(1);
    const auto raise = [] { throw std::system_error(123, std::generic_category(), "some comment"); };
    try {
        p.apply(raise);
        FAIL("nothing thrown");
    } catch (const std::system_error& error) {
        CHECK(error.code().value() == 123);
        const auto* remote = dynamic_cast<const mp::RemoteTraceback*>(&error);
        REQUIRE(remote != nullptr);
        CHECK_THAT(remote->text(), ContainsSubstring("some comment"));
        CHECK(remote->pid() == p.workers().front().pid());
    }
    // What the input range throws is of this process.
    try {
        static_cast<void>(p.map(sqr, Throwing(1, -1), 1));
        FAIL("nothing thrown");
    } catch (const SayWhenError& error) {
        CHECK(dynamic_cast<const mp::RemoteTraceback*>(&error) == nullptr);
    }
    p.close();
    p.join();
}

TEST_CASE("_TestPool.test_wrapped_exception", "[pool][fork][spawn]") {
    const mp::Pool p = contexts().Pool(1);
    CHECK_THROWS_AS(p.apply(raising), std::out_of_range);
    p.close();
    p.join();
}

TEST_CASE("_TestPool.test_map_no_failfast", "[pool][fork][spawn]") {
    const mp::Pool p = contexts().Pool(2);
    const mp::Value<int> done(0);
    const auto slow = [](const mp::Value<int>& n, int x) {
        // An error that fills any pipe.
        if (x == 0) throw std::runtime_error(std::string(std::size_t{1} << 20, '.'));
        n.fetch_add(1);
        return x;
    };
    CHECK_THROWS_AS(p.map(mp::partial(slow, done), mp::range(20), 1), std::runtime_error);
    CHECK(done.load() == 19);
    p.close();
    p.join();
}

TEST_CASE("_TestPool.test_release_task_refs", "[pool][fork][spawn]") {
    const mp::Pool pool = contexts().Pool(4);
    {
        const std::vector<CountedObject> objects(10);
        CHECK(pool.map(identity, objects).size() == 10);
        CHECK(CountedObject::n_instances == 10);
    }
    CHECK(CountedObject::n_instances == 0);
}

TEST_CASE("_TestPool.test_enter", "[pool][fork][spawn]") {
    const mp::Pool pool = contexts().Pool(1);
    {
        const mp::Pool entered = pool;
        entered.terminate();
    }
    CHECK_THROWS_AS(pool.apply(sqr, 1), mp::ValueError);
    pool.join();
}

TEST_CASE("_TestPoolWorkerErrors.test_async_error_callback", "[pool][fork][spawn]") {
    const mp::Pool p = contexts().Pool(2);
    std::exception_ptr seen;
    const auto res = p.apply_async(raising);
    res.then(nullptr, [&](const std::exception_ptr& error) { seen = error; });
    CHECK_THROWS_AS(res.get(), std::out_of_range);
    REQUIRE(seen != nullptr);
    CHECK_THROWS_AS(std::rethrow_exception(seen), std::out_of_range);
    p.close();
    p.join();
}

TEST_CASE("_TestPoolWorkerErrors.test_unpickleable_result", "[pool][fork][spawn]") {
    const mp::Pool p = contexts().Pool(2);
    for (int iteration = 0; iteration < 20; ++iteration) {
        std::exception_ptr seen;
        const auto res = p.apply_async(unpickleable_result);
        res.then(nullptr, [&](const std::exception_ptr& error) { seen = error; });
        CHECK_THROWS_AS(res.get(), mp::PicklingError);
        CHECK_THROWS_WITH(res.get(), ContainsSubstring("not this one"));
        CHECK(seen != nullptr);
    }
    p.close();
    p.join();
}

TEST_CASE("_TestPoolWorkerLifetime.test_pool_worker_lifetime", "[pool][fork][spawn]") {
    const mp::Pool p = contexts().Pool({.processes = 3, .maxtasksperchild = 10});
    REQUIRE(p.workers().size() == 3);
    const auto before = pids_of(p);
    std::vector<mp::AsyncResult<int>> results;
    for (int i = 0; i < 100; ++i) results.push_back(p.apply_async(sqr, i));
    for (int i = 0; i < 100; ++i) CHECK(results[static_cast<std::size_t>(i)].get() == i * i);
    // More, until the last of the first three has had its ten.
    const auto is_new = [&](int pid) { return !before.contains(pid); };
    for (;;) {
        const auto now = pids_of(p);
        if (now.size() == 3 && std::all_of(now.begin(), now.end(), is_new)) break;
        static_cast<void>(p.map(sqr, mp::range(10), 1));
    }
    CHECK(p.workers().size() == 3);
    p.close();
    p.join();
}

TEST_CASE("_TestPoolWorkerLifetime.test_pool_worker_lifetime_early_close", "[pool][fork][spawn]") {
    const mp::Pool p = contexts().Pool({.processes = 3, .maxtasksperchild = 1});
    const mp::Event event;
    std::vector<mp::AsyncResult<int>> results;
    for (int i = 0; i < 6; ++i) results.push_back(p.apply_async(wait_then_sqr, event, i));
    p.close();
    event.set();
    p.join();
    for (int i = 0; i < 6; ++i) CHECK(results[static_cast<std::size_t>(i)].get() == i * i);
}

TEST_CASE("_TestPoolWorkerLifetime.test_pool_maxtasksperchild_invalid", "[pool][fork][spawn]") {
    const auto ctx = contexts();
    for (const int value : {0, -1}) {
        CHECK_THROWS_AS(ctx.Pool({.processes = 3, .maxtasksperchild = value}), mp::ValueError);
    }
}

TEST_CASE("_TestPoolWorkerLifetime.test_worker_finalization_via_atexit_handler_of_multiprocessing",
          "[pool][fork][spawn]") {
    const auto ctx = contexts();
    // A pool in a global variable is there until the program ends, and does not keep it from ending.
    const mp::Process program([ctx] {
        problem.emplace(ctx.Pool(1));
        CHECK(problem->map(sqr, mp::range(10)) == serial(10));
    });
    CHECK(support::run(program) == 0);
}

TEST_CASE("TestInitializers.test_pool_initializer", "[pool][fork][spawn]") {
    const mp::Value<int> ns(0);
    const auto initializer = [](const mp::Value<int>& n) { n.fetch_add(1); };
    const mp::Pool p =
        contexts().Pool({.processes = 1, .initializer = mp::partial(initializer, ns)});
    CHECK(p.apply(sqr, 2) == 4);
    p.close();
    p.join();
    CHECK(ns.load() == 1);
}

TEST_CASE("TestPoolNotLeakOnFailure.test_release_unused_processes", "[pool][fork]") {
    // CPython makes the third start fail; here the descriptors run out at about that.
    static_cast<void>(mp::Pool(1));
    rlimit before{};
    ::getrlimit(RLIMIT_NOFILE, &before);
    for (int room = 4; room < 16; ++room) {
        rlimit few = before;
        few.rlim_cur = static_cast<rlim_t>(support::open_descriptors() + room);
        ::setrlimit(RLIMIT_NOFILE, &few);
        CHECK_THROWS_AS(mp::Pool(20), std::system_error);
        ::setrlimit(RLIMIT_NOFILE, &before);
        CHECK(mp::active_children().empty());
    }
}

TEST_CASE("MiscTestCase.test_large_pool", "[pool][fork]") {
    const mp::Pool p(200);
    CHECK(p.map(sqr, mp::range(200)) == serial(200));
}
