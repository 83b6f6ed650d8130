// SPDX-License-Identifier: BSL-1.0
//
// Queues beside Boost's `message_queue` and bare rings in shared memory. What each subject is, and
// the same in CPython, is in queues.py.
#include <multiprocessing/process.hpp>
#include <multiprocessing/queues.hpp>
#include <multiprocessing/sharedctypes.hpp>
#include <multiprocessing/synchronize.hpp>

#include "measure.hpp"
#include "rings.hpp"

#include <boost/interprocess/ipc/message_queue.hpp>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include <linux/futex.h>
#include <sys/syscall.h>

namespace mp = multiprocessing;
namespace bip = boost::interprocess;
using namespace std::chrono_literals;

namespace {

// Throughput --------------------------------------------------------------------------------------

/// Ours: the children put, this process gets.
template <class T>
double ours_to_here(const T& item, long count) {
    const mp::Queue<T> queue;
    const mp::Process producer([&] {
        for (long i = 0; i < count; ++i) queue.put(item);
    });
    return benchmark::seconds([&] {
        producer.start();
        for (long i = 0; i < count; ++i) static_cast<void>(queue.get());
        producer.join();
    });
}

template <class T>
double ours_between(int producers, int consumers, const T& item, long count) {
    const mp::Queue<T> queue;
    std::vector<mp::Process> processes;
    for (int i = 0; i < producers; ++i) {
        processes.emplace_back([&] {
            for (long n = count / producers; n > 0; --n) queue.put(item);
        });
    }
    for (int i = 0; i < consumers; ++i) {
        processes.emplace_back([&] {
            for (long n = count / consumers; n > 0; --n) static_cast<void>(queue.get());
        });
    }
    return benchmark::seconds([&] {
        for (const auto& each : processes) each.start();
        for (const auto& each : processes) each.join();
    });
}

constexpr std::size_t ring_slots = 4096;

double bare_to_here(long count) {
    const benchmark::Mapped<benchmark::MpmcRing<ring_slots>> ring;
    return benchmark::seconds([&] {
        const benchmark::Child producer([&] {
            for (long i = 0; i < count; ++i) ring->put(static_cast<std::uint64_t>(i));
        });
        for (long i = 0; i < count; ++i) asm volatile("" ::"r"(ring->get()));
    });
}

double bare_between(int producers, int consumers, long count) {
    const benchmark::Mapped<benchmark::MpmcRing<ring_slots>> ring;
    return benchmark::seconds([&] {
        std::vector<benchmark::Child> children;
        for (int i = 0; i < producers; ++i) {
            children.emplace_back([&] {
                for (long n = count / producers; n > 0; --n) ring->put(7);
            });
        }
        for (int i = 0; i < consumers; ++i) {
            children.emplace_back([&] {
                for (long n = count / consumers; n > 0; --n) asm volatile("" ::"r"(ring->get()));
            });
        }
    });
}

double bare_spsc(long count) {
    const benchmark::Mapped<benchmark::SpscRing<int, ring_slots>> ring;
    return benchmark::seconds([&] {
        const benchmark::Child producer([&] {
            for (long i = 0; i < count; ++i) {
                ring->back() = static_cast<int>(i);
                ring->push();
            }
        });
        for (long i = 0; i < count; ++i) {
            asm volatile("" ::"r"(ring->front()));
            ring->pop();
        }
    });
}

/// Boost's queue under a name that nobody else has, and that is gone again at once.
class BoostQueue {
public:
    BoostQueue(std::size_t slots, std::size_t size)
        : BoostQueue("multiprocessing-benchmark-" + std::to_string(::getpid()), slots, size) {}

    void send(const void* item, std::size_t size) { queue_.send(item, size, 0); }
    void receive(void* item, std::size_t size) {
        bip::message_queue::size_type got = 0;
        unsigned priority = 0;
        queue_.receive(item, size, got, priority);
    }

private:
    BoostQueue(const std::string& name, std::size_t slots, std::size_t size)
        : queue_((bip::message_queue::remove(name.c_str()), bip::create_only), name.c_str(), slots,
                 size) {
        bip::message_queue::remove(name.c_str());
    }
    bip::message_queue queue_;
};

double boost_between(int producers, int consumers, std::size_t slots, std::size_t size,
                     long count) {
    BoostQueue queue(slots, size);
    std::vector<char> buffer(size, 'x');
    return benchmark::seconds([&] {
        std::vector<benchmark::Child> children;
        for (int i = 0; i < producers; ++i) {
            children.emplace_back([&] {
                for (long n = count / producers; n > 0; --n) queue.send(buffer.data(), size);
            });
        }
        const auto consume = [&] {
            for (long n = count / consumers; n > 0; --n) queue.receive(buffer.data(), size);
        };
        for (int i = 1; i < consumers; ++i) children.emplace_back(consume);
        consume();
    });
}

void ints(const std::string& name) {
    benchmark::race(name, benchmark::rate("M/s", 1e-6), 100'000,
                    {{"ours", [](long n) { return ours_to_here(7, n); }},
                     {"limit", bare_to_here},
                     {"spsc", bare_spsc},
                     {"boost", [](long n) { return boost_between(1, 1, 1024, sizeof(int), n); }}});
}

void ints_between_four(const std::string& name) {
    benchmark::race(name, benchmark::rate("M/s", 1e-6), 100'000,
                    {{"ours", [](long n) { return ours_between(2, 2, 7, n); }},
                     {"limit", [](long n) { return bare_between(2, 2, n); }},
                     {"boost", [](long n) { return boost_between(2, 2, 1024, sizeof(int), n); }}},
                    2);
}

void strings(const std::string& name) {
    benchmark::race(name, benchmark::rate("GB/s", 1024e-9), 50'000,
                    {{"ours", [](long n) { return ours_to_here(std::string(1024, 'x'), n); }},
                     {"limit", benchmark::copy_through_ring<1024, 256>},
                     {"boost", [](long n) { return boost_between(1, 1, 256, 1024, n); }}});
}

template <std::size_t Size, std::size_t Slots>
void arrays(const std::string& name) {
    benchmark::race(
        name, benchmark::rate("GB/s", static_cast<double>(Size) * 1e-9),
        static_cast<long>((std::size_t{128} << 20) / Size),
        {{"ours",
          [](long n) { return ours_to_here(std::vector<double>(Size / sizeof(double), 1.5), n); }},
         {"limit", benchmark::copy_through_ring<Size, Slots>},
         {"boost", [](long n) { return boost_between(1, 1, Slots, Size, n); }}});
}

// faster-fifo's table -----------------------------------------------------------------------------

using Message = std::tuple<int, int, int, int, int>;

/// The test that the table in faster-fifo's README is from: bounds, timeouts and all.
double fifo(int producers, int consumers, std::size_t at_once, long count) {
    const mp::Queue<Message> queue(100'000);
    const mp::RawValue<bool> all_put(false);
    const mp::RawValue<long> got(0);
    const auto produce = [&] {
        for (int i = 0; i < count / producers;) {
            try {
                queue.put({i, i, i, i, i}, 10ms);
                ++i;
            } catch (const mp::Full&) {}
        }
    };
    const auto consume = [&] {
        long here = 0;
        for (;;) {
            try {
                if (at_once == 1) {
                    static_cast<void>(queue.get(1ms));
                    ++here;
                } else {
                    const auto messages = queue.get_many(at_once, 1ms);
                    if (messages.empty()) throw mp::Empty("get_many: nothing in time");
                    here += static_cast<long>(messages.size());
                }
            } catch (const mp::Empty&) {
                if (all_put.load()) break;
            }
        }
        got.fetch_add(here);
    };
    std::vector<mp::Process> all_producers;
    std::vector<mp::Process> all_consumers;
    const double taken = benchmark::seconds([&] {
        for (int i = 0; i < producers; ++i) all_producers.emplace_back(produce).start();
        for (int i = 0; i < consumers; ++i) all_consumers.emplace_back(consume).start();
        for (const auto& each : all_producers) each.join();
        all_put.store(true);
        for (const auto& each : all_consumers) each.join();
    });
    if (got.load() != count) {
        std::fprintf(stderr, "%d to %d: %ld messages put, %ld got\n", producers, consumers, count,
                     got.load());
        std::exit(1);
    }
    return taken;
}

template <int Producers, int Consumers>
void fifo_cell(const std::string& name) {
    benchmark::race(name, benchmark::rate("k/s", 1e-3), 20'000,
                    {{"ours", [](long n) { return fifo(Producers, Consumers, 1, n); }},
                     {"ours, get_many", [](long n) { return fifo(Producers, Consumers, 100, n); }}},
                    Producers);
}

// Round trips -------------------------------------------------------------------------------------

/// Mean of `count` round trips; before each, `rest` for both sides to fall asleep.
template <class Trip>
double trips(long count, std::chrono::microseconds rest, const Trip& trip) {
    double taken = 0;
    for (long i = 0; i < count; ++i) {
        if (rest.count() > 0) std::this_thread::sleep_for(rest);
        taken += benchmark::seconds(trip);
    }
    return taken;
}

double our_trips(std::chrono::microseconds rest, long count) {
    const mp::Queue<int> there;
    const mp::Queue<int> back;
    const mp::Process echo([&] {
        for (long i = 0; i < count; ++i) back.put(there.get());
    });
    echo.start();
    const double taken = trips(count, rest, [&] {
        there.put(7);
        static_cast<void>(back.get());
    });
    echo.join();
    return taken;
}

double boost_trips(std::chrono::microseconds rest, long count) {
    const auto name = [](const char* which) {
        return "multiprocessing-benchmark-" + std::string(which) + std::to_string(::getpid());
    };
    bip::message_queue there(bip::create_only, name("there").c_str(), 16, sizeof(int));
    bip::message_queue back(bip::create_only, name("back").c_str(), 16, sizeof(int));
    bip::message_queue::remove(name("there").c_str());
    bip::message_queue::remove(name("back").c_str());
    const auto receive = [](bip::message_queue& queue) {
        int item = 0;
        bip::message_queue::size_type got = 0;
        unsigned priority = 0;
        queue.receive(&item, sizeof item, got, priority);
        return item;
    };
    const benchmark::Child echo([&] {
        for (long i = 0; i < count; ++i) {
            const int item = receive(there);
            back.send(&item, sizeof item, 0);
        }
    });
    return trips(count, rest, [&] {
        const int item = 7;
        there.send(&item, sizeof item, 0);
        static_cast<void>(receive(back));
    });
}

double spinning_trips(long count) {
    const benchmark::Mapped<benchmark::PingPong> words;
    const benchmark::Child echo([&] {
        for (int trip = 1; trip <= count; ++trip) {
            for (benchmark::Patience patience;
                 words->ping.load(std::memory_order_acquire) != trip;) {
                patience.wait();
            }
            words->pong.store(trip, std::memory_order_release);
        }
    });
    int trip = 0;
    return benchmark::seconds([&] {
        while (++trip <= count) {
            words->ping.store(trip, std::memory_order_release);
            for (benchmark::Patience patience;
                 words->pong.load(std::memory_order_acquire) != trip;) {
                patience.wait();
            }
        }
    });
}

void tell(std::atomic<int>& word, int value) {
    word.store(value, std::memory_order_release);
    ::syscall(SYS_futex, &word, FUTEX_WAKE, 1, nullptr, nullptr, 0);
}

void sleep_until(std::atomic<int>& word, int value) {
    for (int seen; (seen = word.load(std::memory_order_acquire)) != value;) {
        ::syscall(SYS_futex, &word, FUTEX_WAIT, seen, nullptr, nullptr, 0);
    }
}

double futex_trips(std::chrono::microseconds rest, long count) {
    const benchmark::Mapped<benchmark::PingPong> words;
    const benchmark::Child echo([&] {
        for (int trip = 1; trip <= count; ++trip) {
            sleep_until(words->ping, trip);
            tell(words->pong, trip);
        }
    });
    int trip = 0;
    return trips(count, rest, [&] {
        tell(words->ping, ++trip);
        sleep_until(words->pong, trip);
    });
}

void spinning(const std::string& name) {
    benchmark::race(name, benchmark::microseconds(), 10'000,
                    {{"ours", [](long n) { return our_trips(0us, n); }},
                     {"limit", spinning_trips},
                     {"boost", [](long n) { return boost_trips(0us, n); }}});
}

void asleep_on_one_core(const std::string& name) {
    const benchmark::OneProcessor here;
    benchmark::race(name, benchmark::microseconds(), 1000,
                    {{"ours", [](long n) { return our_trips(0us, n); }},
                     {"limit", [](long n) { return futex_trips(0us, n); }},
                     {"boost", [](long n) { return boost_trips(0us, n); }}});
}

void asleep_after_a_rest(const std::string& name) {
    benchmark::race(name, benchmark::microseconds(), 300,
                    {{"ours", [](long n) { return our_trips(1ms, n); }},
                     {"limit", [](long n) { return futex_trips(1ms, n); }},
                     {"boost", [](long n) { return boost_trips(1ms, n); }}},
                    1, 0.0);
}

// Sleepers ----------------------------------------------------------------------------------------

/// Nanoseconds on a processor so far, of all threads of a process.
std::int64_t time_on_processor(int pid) {
    std::int64_t sum = 0;
    const auto threads = "/proc/" + std::to_string(pid) + "/task";
    for (const auto& each : std::filesystem::directory_iterator(threads)) {
        std::int64_t time = 0;
        std::ifstream(each.path() / "schedstat") >> time;
        sum += time;
    }
    return sum;
}

void sleepers(const std::string& name) {
    constexpr int count = 50;
    constexpr auto while_measured = 10s;
    const mp::Queue<int> queue;
    const mp::Semaphore about_to_get(0);
    std::vector<mp::Process> processes;
    for (int i = 0; i < count; ++i) {
        processes
            .emplace_back([&] {
                about_to_get.release();
                static_cast<void>(queue.get());
            })
            .start();
    }
    for (int i = 0; i < count; ++i) about_to_get.acquire();
    std::this_thread::sleep_for(1s);  // whatever they do first does not count
    const auto sum = [&] {
        std::int64_t all = 0;
        for (const auto& each : processes) all += time_on_processor(*each.pid());
        return all;
    };
    const auto before = sum();
    std::this_thread::sleep_for(while_measured);
    const auto used = static_cast<double>(sum() - before);
    const double percent =
        100 * used / static_cast<double>(std::chrono::nanoseconds(while_measured).count());
    benchmark::print(name, "ours", percent, "%");
    for (int i = 0; i < count; ++i) queue.put(i);
    for (const auto& each : processes) each.join();
}

}  // namespace

int main(int argc, char* argv[]) {
    return benchmark::run({{"queue of ints, 1 to 1", ints},
                           {"queue of ints, 2 to 2", ints_between_four},
                           {"queue of 1 KiB strings", strings},
                           {"queue of 1 MiB arrays", arrays<(1 << 20), 4>},
                           {"queue of 16 MiB arrays", arrays<(16 << 20), 2>},
                           {"queue round trip, spinning", spinning},
                           {"queue round trip, asleep on one core", asleep_on_one_core},
                           {"queue round trip, asleep for 1 ms", asleep_after_a_rest},
                           {"fifo, 1 to 1", fifo_cell<1, 1>},
                           {"fifo, 1 to 10", fifo_cell<1, 10>},
                           {"fifo, 10 to 1", fifo_cell<10, 1>},
                           {"fifo, 3 to 20", fifo_cell<3, 20>},
                           {"fifo, 20 to 3", fifo_cell<20, 3>},
                           {"fifo, 20 to 20", fifo_cell<20, 20>},
                           {"queue with 50 sleepers in get", sleepers}},
                          argc, argv);
}
