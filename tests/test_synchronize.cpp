// SPDX-License-Identifier: BSL-1.0
#include <multiprocessing/synchronize.hpp>

#include <multiprocessing/pool.hpp>
#include <multiprocessing/queues.hpp>
#include <multiprocessing/sharedctypes.hpp>

#include "conformance/helpers.hpp"
#include "shm/helpers.hpp"
#include "support/catch.hpp"
#include "support/sanitized.hpp"

#include <atomic>
#include <chrono>
#include <cmath>
#include <concepts>
#include <condition_variable>
#include <csignal>
#include <filesystem>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <sys/time.h>

#ifdef __GLIBC__
#include <malloc.h>
#endif

namespace mp = multiprocessing;
using namespace std::chrono_literals;
using Catch::Matchers::ContainsSubstring;
using support::Children;
using support::die;
using support::elapsed;
using support::NoLeak;
using support::patient;

namespace {

// One of each, as they travel in an argument or a message.
struct Everything {
    mp::Lock lock;
    mp::RLock rlock;
    mp::Semaphore semaphore;
    mp::BoundedSemaphore bounded;
    mp::Condition condition;
    mp::Condition over_lock{lock};
    mp::Event event;
    mp::Barrier barrier{1};
    mp::Value<int> value{};

    template <class Archive>
    void serialize(Archive& archive, unsigned) {
        archive & lock & rlock & semaphore & bounded & condition & over_lock & event & barrier & value;
    }
    // Returns how many times it has been used.
    int use() const {
        const std::scoped_lock all(rlock, semaphore, bounded, condition, value, over_lock);
        EXPECT(lock.locked());
        EXPECT(!condition.wait(0.001));
        over_lock.notify();
        EXPECT(barrier.wait() == 0);
        event.set();
        return ++value.value();
    }
    [[nodiscard]] bool is_as_new() const {
        return !lock.locked() && !rlock.locked() && semaphore.get_value() == 1 &&
               bounded.get_value() == 1 && !condition.locked() && barrier.n_waiting() == 0;
    }
};

// In a child, while many signals come.
void use_among_signals(const Everything& all) {
    struct ::sigaction action {};
    action.sa_handler = [](int) {};
    ::sigaction(SIGALRM, &action, nullptr);
    constexpr ::timeval often{0, 1000};
    const ::itimerval timer{often, often};
    ::setitimer(ITIMER_REAL, &timer, nullptr);
    const auto takes = [](auto f) { EXPECT(elapsed([&] { EXPECT(!f()); }) >= 60ms); };
    takes([&] { return all.lock.acquire(true, 60ms); });
    takes([&] { return all.semaphore.acquire(true, 60ms); });
    takes([&] { return all.bounded.acquire(true, 60ms); });
    takes([&] { return all.event.wait(60ms); });
    const std::lock_guard guard(all.condition);
    takes([&] { return all.condition.wait(60ms); });
}

template <class L>
void add(const L& lock, const mp::RawValue<int>& counter, int times) {
    for (int i = 0; i < times; ++i) {
        const std::lock_guard guard(lock);
        counter.value() += 1;
    }
}

template <class L>
void take_and_end(const L& lock, int times, bool by_signal) {
    for (int i = 0; i < times; ++i) lock.acquire();
    if (by_signal) die();
}

template <class L>
void test_exclusion(const std::string& method) {
    const L lock;
    const mp::RawValue<int> counter(0);
    Children children(method);
    for (int i = 0; i < 2; ++i) children.start(add<L>, lock, counter, 1000);
    add(lock, counter, 1000);
    CHECK(children.join());
    CHECK(counter.value() == 3000);
}

// A child that takes it and ends, one way or the other; then it is ours.
template <class L>
void test_abandoned(const std::string& method, int times) {
    const bool by_signal = GENERATE(false, true);
    const L lock;
    const mp::Process holder =
        mp::get_context(method).Process(take_and_end<L>, lock, times, by_signal);
    holder.start();
    support::eventually([&] { return lock.locked(); });
    CHECK(lock.acquire(true, patient));
    CHECK(lock.abandoned());
    CHECK(lock.locked());
    lock.release();
    CHECK_FALSE(lock.abandoned());
    CHECK_FALSE(lock.locked());
    holder.join(patient);
    CHECK(holder.exitcode() == (by_signal ? -SIGKILL : 0));
}

}  // namespace

TEST_CASE("locks exclude", "[lock][fork][spawn]") {
    EVERY_START_METHOD;
    test_exclusion<mp::Lock>(method);
    test_exclusion<mp::RLock>(method);
    test_exclusion<mp::Condition>(method);
}

TEST_CASE("acquire in every form", "[lock]") {
    const mp::Lock lock;
    CHECK(lock.acquire());
    CHECK_FALSE(lock.acquire(false));
    CHECK_FALSE(lock.acquire(false, 10));
    CHECK_FALSE(lock.acquire(true, 0));
    CHECK_FALSE(lock.acquire(true, -1.5));
    CHECK(elapsed([&] { CHECK_FALSE(lock.acquire(true, 0.05)); }) >= 50ms);
    CHECK(elapsed([&] { CHECK_FALSE(lock.acquire(true, 60ms)); }) >= 60ms);
    CHECK_FALSE(lock.try_lock());
    CHECK(elapsed([&] { CHECK_FALSE(lock.try_lock_for(50ms)); }) >= 50ms);
    CHECK_FALSE(lock.try_lock_until(std::chrono::steady_clock::now() + 10ms));
    lock.release();
    CHECK(lock.acquire(true, std::nullopt));
    lock.release();
    CHECK(lock.acquire(false));
    lock.unlock();
    CHECK(lock.try_lock());
    lock.unlock();
    lock.lock();
    CHECK(lock.locked());
    lock.unlock();
}

TEST_CASE("the standard's guards are the with statement", "[lock]") {
    const mp::Lock lock;
    const mp::RLock rlock;
    {
        const std::scoped_lock both(lock, rlock);
        CHECK(lock.locked());
        CHECK(rlock.locked());
    }
    {
        std::unique_lock guard(lock, std::defer_lock);
        CHECK_FALSE(lock.locked());
        CHECK(guard.try_lock_for(1s));
        guard.unlock();
        CHECK(guard.try_lock());
    }
    CHECK_FALSE(lock.locked());
    CHECK_FALSE(rlock.locked());
}

TEST_CASE("a lock may be released by another process than took it", "[lock][fork][spawn]") {
    EVERY_START_METHOD;
    const mp::Lock lock;
    lock.acquire();
    Children children(method);
    children.start([](const mp::Lock& l) { l.release(); }, lock);
    CHECK(lock.acquire(true, patient));
    lock.release();
    CHECK(children.join());
    CHECK_THROWS_AS(lock.release(), mp::ValueError);
    CHECK_THROWS_WITH(lock.release(), ContainsSubstring("released too many times"));
}

TEST_CASE("a recursive lock is released by the owning thread of the owning process alone",
          "[lock][fork][spawn]") {
    EVERY_START_METHOD;
    const mp::RLock lock;
    lock.acquire();
    std::thread([&] {
        CHECK_FALSE(lock.acquire(false));
        CHECK_THROWS_AS(lock.release(), mp::AssertionError);
    }).join();
    Children children(method);
    children.start(
        [](const mp::RLock& l) {
            EXPECT(!l.acquire(false));
            try {
                l.release();
            } catch (const mp::AssertionError&) {
                return;
            }
            support::expect(false, "it was released");
        },
        lock);
    CHECK(children.join());
    CHECK(lock.acquire());
    lock.release();
    lock.release();
    CHECK_THROWS_AS(lock.release(), mp::AssertionError);
    CHECK_THROWS_WITH(lock.release(), ContainsSubstring("not owned by thread"));
}

TEST_CASE("a lock whose holder ends goes to the next", "[lock][crash][fork][spawn]") {
    EVERY_START_METHOD;
    test_abandoned<mp::Lock>(method, 1);
}

TEST_CASE("a recursive lock comes back whole", "[lock][crash][fork][spawn]") {
    EVERY_START_METHOD;
    test_abandoned<mp::RLock>(method, 3);
}

TEST_CASE("a condition's lock is as any other", "[condition][crash][fork][spawn]") {
    EVERY_START_METHOD;
    test_abandoned<mp::Condition>(method, 2);
}

TEST_CASE("locks travel through queues", "[lock][queue]") {
    const mp::Queue<std::pair<mp::Lock, mp::RLock>> queue;
    const mp::Lock lock;
    const mp::RLock rlock;
    queue.put({lock, rlock});
    const auto [same, same_too] = queue.get();
    CHECK(same == lock);
    CHECK(same_too == rlock);
    lock.acquire();
    CHECK(same.locked());
    same.release();
    CHECK_FALSE(lock.locked());
}

TEST_CASE("semaphores", "[semaphore]") {
    const mp::Semaphore one;
    CHECK(one.get_value() == 1);
    const mp::Semaphore none(0);
    CHECK(none.locked());
    CHECK(elapsed([&] { CHECK_FALSE(none.acquire(true, 0.05)); }) >= 50ms);
    none.release();
    CHECK_FALSE(none.locked());
    CHECK(none.acquire());
    CHECK_THROWS_AS(mp::Semaphore(-1), mp::ValueError);
    CHECK_THROWS_WITH(mp::Semaphore(-1), ContainsSubstring("-1"));
    const mp::Semaphore full(0x7fff'ffff);
    CHECK(full.get_value() == 0x7fff'ffff);
    CHECK_THROWS_AS(full.release(), mp::ValueError);
}

TEST_CASE("bounded semaphores", "[semaphore]") {
    const mp::BoundedSemaphore one;
    CHECK(one.get_value() == 1);
    CHECK_THROWS_AS(one.release(), mp::ValueError);
    CHECK_THROWS_WITH(one.release(), ContainsSubstring("released too many times"));
    CHECK(one.acquire());
    CHECK(one.locked());
    one.release();
    CHECK_THROWS_AS(mp::BoundedSemaphore(-1), mp::ValueError);
    const mp::Semaphore base = one;  // the same, bound and all
    CHECK_THROWS_AS(base.release(), mp::ValueError);
}

TEST_CASE("semaphores let in as many as they say", "[semaphore][fork][spawn]") {
    EVERY_START_METHOD;
    const mp::BoundedSemaphore semaphore(2);
    const mp::Value<int> inside(0);
    Children children(method);
    for (int i = 0; i < 3; ++i) {
        children.start(
            [](const mp::BoundedSemaphore& s, const mp::Value<int>& n) {
                for (int round = 0; round < 200; ++round) {
                    s.acquire();
                    EXPECT(n.fetch_add(1) < 2);
                    n.fetch_sub(1);
                    s.release();
                }
            },
            semaphore, inside);
    }
    CHECK(children.join());
    CHECK(semaphore.get_value() == 2);
}

TEST_CASE("the counts of a bounded semaphore held by the killed come back, those of another do not",
          "[semaphore][crash][fork][spawn]") {
    EVERY_START_METHOD;
    const mp::BoundedSemaphore bounded(2);
    const mp::Semaphore signals(2);
    const mp::Process child = mp::get_context(method).Process(
        [](const mp::BoundedSemaphore& b, const mp::Semaphore& s) {
            for (int i = 0; i < 2; ++i) {
                b.acquire();
                s.acquire();
            }
            die();
        },
        bounded, signals);
    child.start();
    support::eventually([&] { return signals.locked(); });
    CHECK(bounded.acquire(true, patient));
    CHECK(bounded.get_value() == 1);
    CHECK(signals.get_value() == 0);
    bounded.release();
    CHECK_THROWS_AS(bounded.release(), mp::ValueError);
    child.join(patient);
    CHECK(child.exitcode() == -SIGKILL);
    CHECK(signals.get_value() == 0);
}

TEST_CASE("a condition without its lock is a mistake", "[condition]") {
    const mp::Condition condition;
    CHECK_THROWS_AS(condition.wait(0), mp::AssertionError);
    CHECK_THROWS_AS(condition.wait_for([] { return true; }), mp::AssertionError);
    CHECK_THROWS_AS(condition.notify(), mp::AssertionError);
    CHECK_THROWS_AS(condition.notify_all(), mp::AssertionError);
    CHECK_THROWS_WITH(condition.notify(), ContainsSubstring("not owned"));
    CHECK_THROWS_AS(condition.release(), mp::AssertionError);
    condition.acquire();
    std::thread([&] { CHECK_THROWS_AS(condition.notify(), mp::AssertionError); }).join();
    condition.notify(0);
    condition.notify(-3);
    condition.notify(5);
    condition.notify_all();
    condition.release();
}

TEST_CASE("a condition over a lock of one's own", "[condition][fork][spawn]") {
    EVERY_START_METHOD;
    const mp::Lock lock;
    const mp::Condition condition(lock);
    const mp::Value<int> state(0);
    Children children(method);
    children.start(
        [](const mp::Lock& l, const mp::Condition& c, const mp::Value<int>& s) {
            const std::lock_guard guard(l);
            s.store(1);
            c.notify_all();
        },
        lock, condition, state);
    {
        const std::lock_guard guard(condition);
        CHECK(lock.locked());
        CHECK(condition.wait_for([&] { return state.load() == 1; }, patient));
        CHECK(lock.locked());
    }
    CHECK_FALSE(lock.locked());
    CHECK(children.join());
}

TEST_CASE("wait lets go of every level and takes them again", "[condition]") {
    const mp::Condition condition;
    condition.acquire();
    condition.acquire();
    std::thread other([&] {
        const std::lock_guard guard(condition);
        condition.notify();
    });
    CHECK(condition.wait(patient));
    other.join();
    condition.release();
    CHECK(condition.locked());
    condition.release();
    CHECK_FALSE(condition.locked());
}

TEST_CASE("wait_for returns the predicate's last value", "[condition]") {
    const mp::Condition condition;
    const std::lock_guard guard(condition);
    CHECK(condition.wait_for([] { return 7; }) == 7);
    CHECK(condition.wait_for([] { return 0; }, 0) == 0);
    int calls = 0;
    CHECK(elapsed([&] {
        CHECK_FALSE(condition.wait_for([&] { return ++calls < 0; }, 0.05));
    }) >= 50ms);
    CHECK(calls >= 2);
    CHECK_THROWS_AS(condition.wait_for([]() -> bool { throw std::runtime_error("no"); }),
                    std::runtime_error);
    CHECK(condition.locked());
}

TEST_CASE("a condition travels with its lock", "[condition][queue]") {
    const mp::Queue<mp::Condition> queue;
    const mp::Condition condition;
    queue.put(condition);
    const mp::Condition same = queue.get();
    condition.acquire();
    CHECK(same.locked());
    same.notify();
    same.release();
    CHECK_FALSE(condition.locked());
}

TEST_CASE("waiters that are killed take no notification", "[condition][crash][fork][spawn]") {
    EVERY_START_METHOD;
    const NoLeak leak;
    {
        const mp::Condition condition;
        const mp::Semaphore ready(0);
        const auto wait = [](const mp::Condition& c, const mp::Semaphore& r) {
            const std::lock_guard guard(c);
            r.release();
            EXPECT(c.wait(patient));
        };
        const auto context = mp::get_context(method);
        std::vector<mp::Process> doomed;
        for (int i = 0; i < 2; ++i) doomed.push_back(context.Process(wait, condition, ready));
        for (const auto& process : doomed) process.start();
        for (int i = 0; i < 2; ++i) CHECK(ready.acquire(true, patient));
        Children children(method);
        children.start(wait, condition, ready);
        CHECK(ready.acquire(true, patient));
        { const std::lock_guard all_wait(condition); }
        for (const auto& process : doomed) {
            process.kill();
            process.join(patient);
        }
        {
            const std::lock_guard guard(condition);
            condition.notify();
        }
        CHECK(children.join());
    }
    CHECK(leak.leaked() == 0);
}

TEST_CASE("an event is set for all", "[event][fork][spawn]") {
    EVERY_START_METHOD;
    const mp::Event event;
    const mp::Event back;
    Children children(method);
    for (int i = 0; i < 2; ++i) {
        children.start(
            [](const mp::Event& e, const mp::Event& b) {
                b.set();
                EXPECT(e.wait(patient));
                EXPECT(e.is_set());
            },
            event, back);
    }
    CHECK(back.wait(patient));
    CHECK_FALSE(event.is_set());
    event.set();
    CHECK(children.join());
    event.clear();
    CHECK_FALSE(event.wait(0));
    CHECK_FALSE(event.wait(-1));
}

TEST_CASE("a barrier's forms and mistakes", "[barrier]") {
    CHECK_THROWS_AS(mp::Barrier(0), mp::ValueError);
    CHECK_THROWS_AS(mp::Barrier(-2), mp::ValueError);
    CHECK_THROWS_WITH(mp::Barrier(-2), ContainsSubstring("-2"));
    int runs = 0;
    mp::Barrier barrier({.parties = 1, .action = [&runs] { ++runs; }, .timeout = 1s});
    CHECK(barrier.parties() == 1);
    CHECK(barrier.n_waiting() == 0);
    CHECK(barrier.wait() == 0);
    CHECK(barrier.wait(0) == 0);
    CHECK(runs == 2);
    barrier.abort();
    CHECK(barrier.broken());
    CHECK_THROWS_AS(barrier.wait(), mp::BrokenBarrierError);
    CHECK_THROWS_WITH(barrier.wait(), ContainsSubstring("broken"));
    barrier.reset();
    CHECK(barrier.wait() == 0);
}

TEST_CASE("an action's exception is thrown in the party that ran it", "[barrier]") {
    const mp::Barrier barrier(2, [] { throw std::runtime_error("the action"); });
    std::atomic<int> thrown{0};
    std::atomic<int> broken{0};
    const auto wait = [&] {
        try {
            barrier.wait(patient);
        } catch (const mp::BrokenBarrierError&) {
            ++broken;
        } catch (const std::runtime_error&) {
            ++thrown;
        }
    };
    std::thread other(wait);
    wait();
    other.join();
    CHECK(thrown == 1);
    CHECK(broken == 1);
    CHECK(barrier.broken());
}

TEST_CASE("a barrier whose action cannot travel", "[barrier][queue]") {
    int captured = 0;
    const mp::Queue<mp::Barrier> queue;
    CHECK_THROWS_AS(queue.put(mp::Barrier(2, [&captured] { ++captured; })), mp::PicklingError);
    queue.put(mp::Barrier(1, [] {}, 5));
    CHECK(queue.get().wait() == 0);
}

TEST_CASE("a party that is killed while it waits breaks the barrier",
          "[barrier][crash][fork][spawn]") {
    EVERY_START_METHOD;
    const mp::Barrier three(3);
    const mp::Process doomed =
        mp::get_context(method).Process([](const mp::Barrier& b) { b.wait(); }, three);
    doomed.start();
    REQUIRE(support::eventually([&] { return three.n_waiting() == 1; }));
    std::thread killer([&] {
        support::eventually([&] { return three.n_waiting() == 2; });
        doomed.kill();
    });
    CHECK_THROWS_AS(three.wait(patient), mp::BrokenBarrierError);
    killer.join();
    doomed.join(patient);
    CHECK(three.broken());
    three.reset();
    CHECK_FALSE(three.broken());
}

TEST_CASE("synchronisation leaves nothing behind", "[lock]") {
    const NoLeak leak;
    for (int i = 0; i < 10; ++i) {
        const mp::Lock lock;
        const mp::RLock rlock;
        const mp::Semaphore semaphore;
        const mp::BoundedSemaphore bounded(100'000);
        const mp::Condition condition;
        const mp::Event event;
        const mp::Barrier barrier(3);
    }
    CHECK(leak.leaked() == 0);
}

TEST_CASE("a bare number is a timeout, and a bool says whether to block", "[lock][semaphore]") {
    const mp::Lock lock;
    const mp::Semaphore semaphore(0);
    const mp::Condition condition;
    CHECK(lock.acquire(0));
    CHECK_FALSE(lock.acquire(0));
    CHECK_FALSE(lock.acquire(false));
    CHECK_FALSE(lock.acquire(0.01));
    CHECK_FALSE(lock.acquire(10ms));
    CHECK_FALSE(semaphore.acquire(0.01));
    CHECK(condition.acquire(0.01));
    CHECK_THROWS_AS(lock.acquire(std::nan("")), mp::ValueError);
    CHECK_THROWS_WITH(lock.acquire(true, std::nan("")), ContainsSubstring("not a number"));
}

TEMPLATE_TEST_CASE("what is acquired is a mutex of the standard's", "[lock][semaphore][condition]", mp::Lock,
                   mp::RLock, mp::Semaphore, mp::BoundedSemaphore, mp::Condition, mp::Value<int>) {
    const TestType mutex;
    {
        const std::lock_guard guard(mutex);
        if constexpr (!std::same_as<TestType, mp::RLock> && !std::same_as<TestType, mp::Condition> &&
                      !std::same_as<TestType, mp::Value<int>>) {
            CHECK_FALSE(mutex.try_lock());
        }
    }
    CHECK(mutex.try_lock());
    mutex.unlock();
    CHECK(mutex.try_lock_for(10ms));
    mutex.release();
    CHECK(mutex.try_lock_until(std::chrono::steady_clock::now()));
    mutex.unlock();
    std::unique_lock lock(mutex, 10ms);
    CHECK(lock.owns_lock());
}

TEST_CASE("10,000 locks cost at most 64 bytes each, all told, and no descriptor",
          "[lock][event][footprint]") {
    constexpr std::size_t count = 10'000;
    const auto descriptors = [] {
        return std::distance(std::filesystem::directory_iterator("/proc/self/fd"), {});
    };
    const auto private_bytes = [] {
#if defined __GLIBC__ && !defined TEST_IS_SANITIZED
        const auto info = ::mallinfo2();
        return static_cast<std::int64_t>(info.uordblks + info.hblkhd);
#else
        return std::int64_t{0};  // not to be had here; what is shared still is
#endif
    };
    const auto measure = [&](auto make) {
        const NoLeak leak;
        using Handle = decltype(make());
        const auto descriptors_before = descriptors();
        const auto private_before = private_bytes();
        const std::uint64_t shared_before = support::allocated();
        {
            const auto handles = std::make_unique<std::vector<Handle>>();
            handles->reserve(count);  // the handles themselves are counted with what is private
            for (std::size_t i = 0; i < count; ++i) handles->push_back(make());
            const auto shared = static_cast<std::int64_t>(support::allocated() - shared_before);
            const auto in_private =
                std::max<std::int64_t>(private_bytes() - private_before,
                                       static_cast<std::int64_t>(count * sizeof(Handle)));
            CAPTURE(shared, in_private);
            CHECK(shared + in_private <= static_cast<std::int64_t>(64 * count));
            CHECK(descriptors() == descriptors_before);
        }
        CHECK(leak.leaked() == 0);
        // What malloc keeps at hand counts as used.
        CHECK(private_bytes() - private_before < static_cast<std::int64_t>(2 * count));
    };
    measure([] { return mp::Lock(); });
    measure([] { return mp::RLock(); });
    measure([] { return mp::Event(); });
    // Copies cost their handles.
    const mp::Lock one;
    measure([&] { return one; });
}

TEST_CASE("what they print as", "[semaphore][condition][barrier]") {
    const auto repr = [](const auto& object) {
        std::ostringstream out;
        out << object;
        return out.str();
    };
    CHECK(repr(mp::Semaphore(3)) == "<Semaphore(value=3)>");
    const mp::BoundedSemaphore bounded(2);
    bounded.acquire();
    CHECK(repr(bounded) == "<BoundedSemaphore(value=1, maxvalue=2)>");
    const mp::Condition condition;
    CHECK(repr(condition) == "<Condition(<RLock(None, 0)>, 0)>");
    std::thread waiter([&] {
        const std::lock_guard guard(condition);
        condition.wait(patient);
    });
    CHECK(
        support::eventually([&] { return repr(condition) == "<Condition(<RLock(None, 0)>, 1)>"; }));
    {
        const std::lock_guard guard(condition);
        condition.notify();
        CHECK(repr(condition) == "<Condition(<RLock(MainProcess, 1)>, 0)>");
    }
    waiter.join();
    const mp::Barrier barrier(2);
    CHECK_THAT(repr(barrier), ContainsSubstring("<multiprocessing.synchronize.Barrier at 0x"));
    CHECK_THAT(repr(barrier), ContainsSubstring(": waiters=0/2>"));
    barrier.abort();
    CHECK_THAT(repr(barrier), ContainsSubstring(": broken>"));
}

TEST_CASE("a condition's lock is the thread's that acquired it, also where anybody may release it",
          "[condition]") {
    const mp::Lock lock;
    const mp::Condition condition(lock);
    lock.acquire();
    std::thread([&] {
        CHECK_THROWS_AS(condition.wait(0), mp::AssertionError);
        CHECK_THROWS_AS(condition.notify(), mp::AssertionError);
        lock.release();
        lock.acquire();
        condition.notify();
    }).join();
    CHECK(lock.locked());
    CHECK_THROWS_AS(condition.notify_all(), mp::AssertionError);
    lock.release();
}

TEST_CASE("a lock is tried until any point of time", "[lock]") {
    const mp::Lock lock;
    using Steady = std::chrono::steady_clock;
    using System = std::chrono::system_clock;
    CHECK(lock.try_lock_until(Steady::time_point::min()));
    CHECK_FALSE(lock.try_lock_until(Steady::time_point::min()));
    CHECK_FALSE(lock.try_lock_until(System::time_point::min()));
    CHECK_FALSE(lock.try_lock_until(System::now() + 10ms));
    std::thread other([&] { lock.release(); });
    CHECK(lock.try_lock_until(Steady::time_point::max()));
    other.join();
    lock.release();
}

TEST_CASE("timeouts of any length", "[lock][semaphore][condition][event]") {
    const Everything all;
    const mp::Timeout none = GENERATE(mp::Timeout(-1e300), mp::Timeout(std::chrono::hours::min()), mp::Timeout(0));
    const mp::Timeout endless =
        GENERATE(mp::Timeout(1e300), mp::Timeout(std::chrono::hours::max()),
                 mp::Timeout(std::numeric_limits<double>::infinity()), mp::Timeout(3.1e9));
    CHECK(all.lock.acquire(true, endless));
    CHECK(all.semaphore.acquire(true, endless));
    CHECK(all.bounded.acquire(true, none));
    CHECK(all.condition.acquire(none));
    CHECK_FALSE(all.lock.acquire(true, none));
    CHECK_FALSE(all.lock.acquire(false, endless));
    CHECK_FALSE(all.semaphore.acquire(none));
    CHECK_FALSE(all.semaphore.acquire(false, endless));
    CHECK_FALSE(all.bounded.acquire(true, none));
    CHECK_FALSE(all.condition.wait(none));
    CHECK_FALSE(all.event.wait(none));
    std::thread other([&] {
        const std::lock_guard guard(all.condition);
        all.condition.notify();
        all.event.set();
        all.lock.release();
        all.semaphore.release();
    });
    CHECK(all.condition.wait(endless));
    all.condition.release();
    CHECK(all.event.wait(endless));
    CHECK(all.event.wait(none));
    CHECK(all.lock.acquire(true, endless));
    CHECK(all.semaphore.acquire(true, endless));
    other.join();
    const mp::Barrier two(2);
    CHECK_THROWS_AS(two.wait(none), mp::BrokenBarrierError);
}

TEST_CASE("a mistake changes nothing", "[lock][semaphore][condition]") {
    const Everything all;
    CHECK_THROWS_AS(all.lock.release(), mp::ValueError);
    CHECK_THROWS_AS(all.rlock.release(), mp::AssertionError);
    CHECK_THROWS_AS(all.bounded.release(), mp::ValueError);
    CHECK_THROWS_AS(all.condition.release(), mp::AssertionError);
    CHECK_THROWS_AS(all.over_lock.release(), mp::ValueError);
    CHECK_THROWS_AS(all.value.release(), mp::AssertionError);
    CHECK_THROWS_AS(all.condition.notify(), mp::AssertionError);
    CHECK_THROWS_AS(all.lock.acquire(true, std::nan("")), mp::ValueError);
    CHECK_THROWS_AS(all.condition.wait(std::nan("")), mp::ValueError);
    CHECK(all.is_as_new());
    CHECK(all.use() == 1);
    CHECK(all.is_as_new());
    const mp::BoundedSemaphore none(0);
    CHECK(none.locked());
    CHECK_THROWS_AS(none.release(), mp::ValueError);
    CHECK_FALSE(none.acquire(false));
}

TEST_CASE("a predicate that comes true at the deadline is true", "[condition]") {
    const mp::Condition condition;
    const std::lock_guard guard(condition);
    int calls = 0;
    CHECK(condition.wait_for([&] { return ++calls > 1; }, 10ms));
    CHECK(calls == 2);
    CHECK_FALSE(condition.wait_for([&] { return ++calls > 3; }, 0));  // asked but once
    CHECK(calls == 3);
}

TEST_CASE("signals interrupt no wait, and delay no timeout", "[lock][semaphore][condition][event]") {
    const Everything all;
    const std::scoped_lock taken(all.lock, all.semaphore, all.bounded);
    Children children("fork");
    children.start(use_among_signals, all);
    CHECK(children.join());
}

TEST_CASE("locks and all else in what is sent", "[lock][queue][fork][spawn]") {
    EVERY_START_METHOD;
    const NoLeak leak;
    {
        using Message = std::map<std::string, std::vector<std::optional<Everything>>>;
        const Everything all;
        const mp::Queue<Message> queue;
        Children children(method);
        children.start(
            [](const mp::Queue<Message>& q, const Everything& same) {
                const Message message = q.get();
                for (const auto& one : message.at("some")) {
                    if (one) one->use();
                }
                same.use();
            },
            queue, all);
        queue.put(Message{{"some", {all, std::nullopt, all}}, {"none", {}}});
        CHECK(children.join());
        CHECK(all.value.value() == 3);
        CHECK(all.event.is_set());
        CHECK(all.is_as_new());
    }
    CHECK(leak.leaked() == 0);
}

TEST_CASE("what a process has made outlives it", "[lock][queue][fork][spawn]") {
    EVERY_START_METHOD;
    const mp::Queue<Everything> queue;
    Children children(method);
    children.start(
        [](const mp::Queue<Everything>& q) {
            const Everything mine;
            mine.use();
            q.put(mine);
        },
        queue);
    CHECK(children.join());
    const Everything all = queue.get(patient);
    CHECK(all.is_as_new());
    CHECK(all.use() == 2);
    children.start([](const Everything& same) { EXPECT(same.is_as_new()); }, all);
    CHECK(children.join());
}

TEST_CASE("tasks of a pool use them", "[lock][pool][fork][spawn]") {
    EVERY_START_METHOD;
    const Everything all;
    const mp::Pool pool = mp::get_context(method).Pool(2);
    CHECK(pool.apply([](const Everything& same) { return same.use(); }, all) == 1);
    const auto counts = pool.map([](const Everything& same) { return same.use(); },
                                 std::vector<Everything>(10, all));
    CHECK(counts.size() == 10);
    CHECK(all.value.value() == 11);
    CHECK(all.is_as_new());
    // Two tasks at the same time.
    const mp::Barrier barrier(2);
    const auto wait = [](const mp::Barrier& b) { return b.wait(patient); };
    const auto first = pool.apply_async(wait, barrier);
    const auto second = pool.apply_async(wait, barrier);
    CHECK(first.get(patient) + second.get(patient) == 1);
}

TEST_CASE("the threads of a forked child are its own", "[lock][condition][fork]") {
    const mp::RLock lock;
    const mp::Condition condition;
    lock.acquire();
    Children children("fork");
    children.start(
        [](const mp::RLock& l, const mp::Condition& c) {
            // The thread that was forked has another's lock no more than any other.
            EXPECT(!l.acquire(false));
            bool woken = false;
            const auto wait = [&] {
                const std::lock_guard guard(c);
                if (!woken) EXPECT(c.wait(patient));
            };
            std::thread thread(wait);
            std::thread other([&] {
                const std::lock_guard guard(c);
                woken = true;
                c.notify_all();
            });
            wait();
            thread.join();
            other.join();
        },
        lock, condition);
    CHECK(children.join());
    lock.release();
}

TEST_CASE("the standard's locks in every form", "[lock][condition]") {
    mp::Lock lock;
    mp::RLock rlock;
    const mp::Condition condition;
    const mp::Value<int> value(0);
    {
        lock.lock();
        const std::lock_guard adopted(lock, std::adopt_lock);
        const std::unique_lock tried(lock, std::try_to_lock);
        CHECK_FALSE(tried.owns_lock());
        std::unique_lock deferred(rlock, std::defer_lock);
        CHECK(deferred.try_lock_until(std::chrono::system_clock::now() + 1s));
        std::unique_lock moved = std::move(deferred);
        CHECK(std::unique_lock(rlock, 10ms).owns_lock());
        moved.unlock();
        CHECK_FALSE(rlock.locked());
    }
    CHECK_FALSE(lock.locked());
    {
        const std::scoped_lock several(lock, rlock, condition, value);
        CHECK(std::try_lock(lock, rlock) == 0);
    }
    CHECK_FALSE(condition.locked());
    std::condition_variable_any any;
    bool told = false;
    std::thread other([&] {
        const std::scoped_lock both(lock, rlock);
        told = true;
        any.notify_all();
    });
    {
        std::unique_lock guard(lock);
        any.wait(guard, [&] { return told; });
        std::unique_lock other_guard(rlock);
        CHECK_FALSE(any.wait_for(other_guard, 10ms, [] { return false; }));
    }
    other.join();
}

TEST_CASE("who resets a barrier while it acts comes too late, who aborts does not", "[barrier]") {
    const bool abort = GENERATE(false, true);
    std::optional<mp::Barrier> barrier;
    barrier.emplace(2, [&] { abort ? barrier->abort() : barrier->reset(); });
    std::atomic<int> passed{0};
    const auto wait = [&] {
        try {
            barrier->wait(patient);
            ++passed;
        } catch (const mp::BrokenBarrierError&) {
        }
    };
    std::thread other(wait);
    wait();
    other.join();
    CHECK(passed == (abort ? 0 : 2));
    CHECK(barrier->broken() == abort);
    CHECK(barrier->n_waiting() == 0);
}

TEST_CASE("a party that dies in the action breaks the barrier", "[barrier][crash][fork][spawn]") {
    EVERY_START_METHOD;
    const mp::Barrier barrier(2, [] { die(); });
    std::atomic<bool> broken{false};
    std::thread other([&] {
        try {
            barrier.wait();
        } catch (const mp::BrokenBarrierError&) {
            broken = true;
        }
    });
    REQUIRE(support::eventually([&] { return barrier.n_waiting() == 1; }));
    const mp::Process doomed = mp::get_context(method).Process([](const mp::Barrier& b) { b.wait(); }, barrier);
    doomed.start();
    doomed.join(patient);
    CHECK(doomed.exitcode() == -SIGKILL);
    other.join();
    CHECK(broken);
    CHECK(barrier.broken());
}

TEST_CASE("a barrier of many more parties than processes", "[barrier][fork][spawn]") {
    EVERY_START_METHOD;
    constexpr int threads = 6;
    const mp::Barrier barrier(3 * threads);
    const mp::Value<int> indices(0);
    const auto pass = [](const mp::Barrier& b, const mp::Value<int>& sum) {
        std::vector<std::thread> all;
        for (int i = 0; i < threads; ++i) {
            all.emplace_back([&] {
                for (int round = 0; round < 5; ++round) sum.fetch_add(b.wait(patient));
            });
        }
        for (auto& thread : all) thread.join();
    };
    Children children(method);
    for (int i = 0; i < 2; ++i) children.start(pass, barrier, indices);
    pass(barrier, indices);
    CHECK(children.join());
    CHECK(indices.value() == 5 * (3 * threads) * (3 * threads - 1) / 2);
}
