// SPDX-License-Identifier: BSL-1.0
//
// Locks, semaphores, events, conditions, barriers and values beside what the system has. What each
// subject is, and the same in CPython, is in synchronize.py.
#include <multiprocessing/process.hpp>
#include <multiprocessing/sharedctypes.hpp>
#include <multiprocessing/synchronize.hpp>

#include "measure.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include <linux/futex.h>
#include <pthread.h>
#include <semaphore.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace mp = multiprocessing;
using namespace std::chrono_literals;

namespace {

/// A robust mutex between processes, and a number.
class BareMutex {
public:
    explicit BareMutex(int type) {
        ::pthread_mutexattr_t attributes;
        ::pthread_mutexattr_init(&attributes);
        ::pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
        ::pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
        ::pthread_mutexattr_settype(&attributes, type);
        ::pthread_mutex_init(&mutex_, &attributes);
        ::pthread_mutexattr_destroy(&attributes);
    }
    BareMutex() : BareMutex(PTHREAD_MUTEX_NORMAL) {}
    void lock() { ::pthread_mutex_lock(&mutex_); }
    void unlock() { ::pthread_mutex_unlock(&mutex_); }

    alignas(64) volatile int number = 0;

private:
    alignas(64)::pthread_mutex_t mutex_;
};
struct BareRecursiveMutex : BareMutex {
    BareRecursiveMutex() : BareMutex(PTHREAD_MUTEX_RECURSIVE) {}
};

/// `step` so many times, alone.
template <class Step>
double alone(long count, Step&& step) {
    return benchmark::seconds([&] {
        for (long i = 0; i < count; ++i) step();
    });
}

/// Half of so many times `step`, on a processor of its own.
template <class Step>
auto half(long count, const Step& step, std::size_t processor) {
    return [=] {
        benchmark::stay_on_one(processor);
        // Copies of its own. A locked instruction has everything read anew that is reached through
        // others, and how far away that is would be what is measured.
        const Step mine = step;
        const long times = count / 2;
        for (long i = 0; i < times; ++i) mine();
    };
}
/// `step` so many times altogether, by two processes on a processor each.
template <class Step>
double by_two(long count, const Step& step) {
    return benchmark::seconds([&] {
        const benchmark::Child one(half(count, step, 0));
        const benchmark::Child other(half(count, step, 1));
    });
}
/// The same, by processes of the library's. That each has a processor of its own is as if by
/// chance: of how many there are it is to judge by all.
template <class Step>
double by_two_of_ours(long count, const Step& step) {
    static_cast<void>(mp::shm::one_processor());
    const mp::Process one(half(count, step, 0));
    const mp::Process other(half(count, step, 1));
    return benchmark::seconds([&] {
        one.start();
        other.start();
        one.join();
        other.join();
    });
}

// Locks -------------------------------------------------------------------------------------------

template <class L, class Bare>
void lock_alone(const std::string& name) {
    const L lock;
    const benchmark::Mapped<Bare> bare;
    benchmark::race(name, benchmark::nanoseconds(), 1'000'000,
                    {{"ours",
                      [&](long count) {
                          return alone(count, [&] {
                              lock.acquire();
                              lock.release();
                          });
                      }},
                     {"limit", [&](long count) {
                          return alone(count, [&] {
                              bare->lock();
                              bare->unlock();
                          });
                      }}});
}

void lock_by_two(const std::string& name) {
    const mp::Lock lock;
    const benchmark::Mapped<BareMutex> bare;
    benchmark::race(name, benchmark::rate("M/s", 1e-6), 1'000'000,
                    {{"ours",
                      [&](long count) {
                          return by_two_of_ours(count, [&] {
                              lock.acquire();
                              lock.release();
                          });
                      }},
                     {"limit",
                      [&](long count) {
                          return by_two(count, [&] {
                              bare->lock();
                              bare->unlock();
                          });
                      }}},
                    2);
}

void addition_by_two(const std::string& name) {
    const mp::Value<int> value(0);
    const benchmark::Mapped<BareMutex> bare;
    benchmark::race(name, benchmark::rate("M/s", 1e-6), 1'000'000,
                    {{"ours",
                      [&](long count) {
                          return by_two_of_ours(count, [&] {
                              const std::lock_guard guard(value.get_lock());
                              value.value() += 1;
                          });
                      }},
                     {"limit",
                      [&](long count) {
                          return by_two(count, [&] {
                              const std::lock_guard guard(*bare);
                              bare->number = bare->number + 1;
                          });
                      }}},
                    2);
}

void fetch_add(const std::string& name) {
    const mp::Value<int> value(0);
    const benchmark::Mapped<std::atomic<int>> bare;
    benchmark::race(
        name, benchmark::rate("M/s", 1e-6), 1'000'000,
        {{"ours", [&](long count) { return alone(count, [&] { value.fetch_add(1); }); }},
         {"limit", [&](long count) { return alone(count, [&] { bare->fetch_add(1); }); }}});
}

void fetch_add_by_two(const std::string& name) {
    const mp::Value<int> value(0);
    const benchmark::Mapped<std::atomic<int>> bare;
    benchmark::race(
        name, benchmark::rate("M/s", 1e-6), 1'000'000,
        {{"ours", [&](long count) { return by_two_of_ours(count, [&] { value.fetch_add(1); }); }},
         {"limit", [&](long count) { return by_two(count, [&] { bare->fetch_add(1); }); }}},
        2);
}

// Wake-ups ----------------------------------------------------------------------------------------

struct Trip {
    std::atomic<std::int64_t> sent{0};
    std::atomic<std::int64_t> took{0};  // 0: not there yet
};

std::int64_t now() { return benchmark::Clock::now().time_since_epoch().count(); }

/// The waiting side: `wait` for each trip, note how long it was on its way, and make `ready` for
/// the next.
template <class Wait, class Ready>
void wait_for_trips(Trip& trip, long count, const Wait& wait, const Ready& ready) {
    benchmark::stay_on_one(1);
    for (long i = 0; i < count; ++i) {
        wait(i);
        const auto took = now() - trip.sent.load();
        ready();
        trip.took.store(took);
    }
}

/// The other side: `wake` for each trip, when who waits has fallen asleep. As many times the
/// median.
template <class Wake>
double wake_up(Trip& trip, long count, const Wake& wake) {
    const benchmark::OneProcessor here;
    std::vector<std::int64_t> ways;
    for (long i = 0; i < count; ++i) {
        std::this_thread::sleep_for(1ms);
        wake(i);
        while (trip.took.load() == 0) std::this_thread::sleep_for(100us);
        ways.push_back(trip.took.exchange(0));
    }
    const auto middle = ways.begin() + count / 2;
    std::nth_element(ways.begin(), middle, ways.end());
    return static_cast<double>(*middle) * static_cast<double>(count) * 1e-9;
}

double event_wakes(long count) {
    const mp::Event event;
    const benchmark::Mapped<Trip> trip;
    const mp::Process waiter([&] {
        wait_for_trips(
            *trip, count, [&](long) { event.wait(); }, [&] { event.clear(); });
    });
    waiter.start();
    const double taken = wake_up(*trip, count, [&](long) {
        trip->sent.store(now());
        event.set();
    });
    waiter.join();
    return taken;
}

double condition_wakes(long count) {
    const mp::Condition condition;
    const mp::RawValue<long> told(0);
    const benchmark::Mapped<Trip> trip;
    const mp::Process waiter([&] {
        const auto wait = [&](long i) {
            const std::lock_guard guard(condition);
            while (told.value() <= i) condition.wait();
        };
        wait_for_trips(*trip, count, wait, [] {});
    });
    waiter.start();
    const double taken = wake_up(*trip, count, [&](long i) {
        const std::lock_guard guard(condition);
        told.value() = i + 1;
        trip->sent.store(now());
        condition.notify();
    });
    waiter.join();
    return taken;
}

double futex_wakes(long count) {
    struct Shared {
        Trip trip;
        alignas(64) std::atomic<std::uint32_t> word{0};
    };
    const benchmark::Mapped<Shared> shared;
    const auto futex = [&](int operation, std::uint32_t value) {
        ::syscall(SYS_futex, &shared->word, operation, value, nullptr, nullptr, 0);
    };
    const benchmark::Child waiter([&] {
        const auto wait = [&](long i) {
            const auto before = static_cast<std::uint32_t>(i);
            while (shared->word.load() == before) futex(FUTEX_WAIT, before);
        };
        wait_for_trips(shared->trip, count, wait, [] {});
    });
    return wake_up(shared->trip, count, [&](long) {
        shared->trip.sent.store(now());
        shared->word.fetch_add(1);
        futex(FUTEX_WAKE, 1);
    });
}

void event_wake_up(const std::string& name) {
    benchmark::race(name, benchmark::microseconds(), 300,
                    {{"ours", event_wakes}, {"limit", futex_wakes}}, 1, 0.0);
}
void condition_wake_up(const std::string& name) {
    benchmark::race(name, benchmark::microseconds(), 300,
                    {{"ours", condition_wakes}, {"limit", futex_wakes}}, 1, 0.0);
}
template <void (*subject)(const std::string&)>
void on_one_core(const std::string& name) {
    const benchmark::OneProcessor here;
    subject(name);
}

// Barriers and semaphores -------------------------------------------------------------------------

double bare_barrier(long count) {
    const benchmark::Mapped<::pthread_barrier_t> barrier;
    ::pthread_barrierattr_t attributes;
    ::pthread_barrierattr_init(&attributes);
    ::pthread_barrierattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    ::pthread_barrier_init(&*barrier, &attributes, 2);
    ::pthread_barrierattr_destroy(&attributes);
    return by_two(2 * count, [&] { ::pthread_barrier_wait(&*barrier); });
}

void barrier_of_two(const std::string& name) {
    const mp::Barrier barrier(2);
    benchmark::race(
        name, benchmark::rate("k/s", 1e-3), 10'000,
        {{"ours", [&](long n) { return by_two_of_ours(2 * n, [&] { barrier.wait(); }); }},
         {"limit", bare_barrier}});
}

template <class S>
void semaphore_alone(const std::string& name) {
    const S semaphore(1);
    const benchmark::Mapped<::sem_t> bare;
    ::sem_init(&*bare, 1, 1);
    benchmark::race(name, benchmark::nanoseconds(), 1'000'000,
                    {{"ours",
                      [&](long count) {
                          return alone(count, [&] {
                              semaphore.acquire();
                              semaphore.release();
                          });
                      }},
                     {"limit", [&](long count) {
                          return alone(count, [&] {
                              ::sem_wait(&*bare);
                              ::sem_post(&*bare);
                          });
                      }}});
}

// Memory ------------------------------------------------------------------------------------------

/// Bytes of data that this process has in memory, private and shared. (statm counts by the way.)
double resident() {
    std::ifstream smaps("/proc/self/smaps_rollup");
    double kilobytes = 0;
    for (std::string line; std::getline(smaps, line);) {
        if (line.starts_with("Pss_Anon:") || line.starts_with("Pss_Shmem:")) {
            kilobytes += std::stod(line.substr(line.find(':') + 1));
        }
    }
    return 1024 * kilobytes;
}
double descriptors() {
    return static_cast<double>(
        std::distance(std::filesystem::directory_iterator("/proc/self/fd"), {}));
}

void memory_of_a_lock(const std::string& name) {
    constexpr std::size_t count = 10'000;
    const mp::Lock first;
    std::vector<mp::Lock> locks;
    const double before = resident() + 1000 * descriptors();
    locks.reserve(count);
    while (locks.size() < count) locks.emplace_back();
    for (const mp::Lock& lock : locks) const std::lock_guard use(lock);
    benchmark::print(name, "ours",
                     (resident() + 1000 * descriptors() - before) / static_cast<double>(count),
                     "bytes");
}

}  // namespace

int main(int argc, char* argv[]) {
    return benchmark::run(
        {{"lock and unlock, alone", lock_alone<mp::Lock, BareMutex>},
         {"recursive lock and unlock, alone", lock_alone<mp::RLock, BareRecursiveMutex>},
         {"lock and unlock, two processes", lock_by_two},
         {"value += 1 under its lock, two processes", addition_by_two},
         {"fetch_add", fetch_add},
         {"fetch_add, two processes", fetch_add_by_two},
         {"event wake-up", event_wake_up},
         {"event wake-up, on one core", on_one_core<event_wake_up>},
         {"condition wake-up", condition_wake_up},
         {"condition wake-up, on one core", on_one_core<condition_wake_up>},
         {"barrier of two", barrier_of_two},
         {"semaphore, alone", semaphore_alone<mp::Semaphore>},
         {"bounded semaphore, alone", semaphore_alone<mp::BoundedSemaphore>},
         {"memory of a lock", memory_of_a_lock}},
        argc, argv);
}
