// SPDX-License-Identifier: BSL-1.0
//
// What is measured, ours beside the bare limit and a peer from Boost: each subject is run once and
// its figure printed as one line, `name who value unit`. tests/benchmark/run calls this again and
// again, in turn with CPython, and makes the table.
#include <multiprocessing.hpp>

#include <boost/interprocess/ipc/message_queue.hpp>
#include <boost/interprocess/sync/scoped_lock.hpp>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <iostream>
#include <numeric>
#include <string>
#include <vector>

#include <pthread.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

namespace mp = multiprocessing;
namespace bip = boost::interprocess;

namespace {

double seconds(const std::function<void()>& run) {
    const auto begin = std::chrono::steady_clock::now();
    run();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

void print(const char* name, const char* who, double value, const char* unit) {
    std::printf("%s\t%s\t%.6g\t%s\n", name, who, value, unit);
    std::fflush(stdout);
}

/// A child of the bare kind, for limits and peers.
class Child {
public:
    explicit Child(const std::function<void()>& run) : pid_(::fork()) {
        if (pid_ != 0) return;
        run();
        ::_exit(0);
    }
    ~Child() { ::waitpid(pid_, nullptr, 0); }
    Child(const Child&) = delete;
    Child& operator=(const Child&) = delete;

private:
    pid_t pid_;
};

int square(int x) { return x * x; }

void pool_map() {
    constexpr int items = 1'000'000;
    std::vector<int> numbers(items);
    std::iota(numbers.begin(), numbers.end(), 0);
    const mp::Pool pool(2);
    pool.map(square, mp::range(1000));
    print("pool.map of 10^6 squares", "ours", items / seconds([&] { pool.map(square, numbers); }) / 1e6,
          "M/s");
    // The limit: what one process needs to do it, write it down and read it back.
    std::vector<int> squares(items);
    print("pool.map of 10^6 squares", "limit", items / seconds([&] {
              for (int i = 0; i < items; ++i) squares[static_cast<std::size_t>(i)] = square(numbers[static_cast<std::size_t>(i)]);
              asm volatile("" ::"r"(squares.data()) : "memory");
          }) / 1e6, "M/s");
}

void pool_apply() {
    constexpr int calls = 5000;
    const mp::Pool pool(2);
    pool.apply(square, 1);
    print("pool.apply round trip", "ours", seconds([&] {
              for (int i = 0; i < calls; ++i) static_cast<void>(pool.apply(square, i));
          }) / calls * 1e6, "µs");
    int there[2];
    int back[2];
    if (::pipe(there) != 0 || ::pipe(back) != 0) return;
    {
        const Child echo([&] {
            ::close(there[1]);
            for (char byte; ::read(there[0], &byte, 1) == 1;) {
                if (::write(back[1], &byte, 1) != 1) break;
            }
        });
        print("pool.apply round trip", "limit", seconds([&] {
                  for (int i = 0; i < calls; ++i) {
                      char byte = 0;
                      if (::write(there[1], &byte, 1) != 1 || ::read(back[0], &byte, 1) != 1) return;
                  }
              }) / calls * 1e6, "µs");
        ::close(there[1]);
    }
    for (const int fd : {there[0], back[0], back[1]}) ::close(fd);
}

void pool_imap() {
    constexpr int items = 50'000;
    const mp::Pool pool(2);
    pool.map(square, mp::range(1000));
    print("pool.imap_unordered, chunks of 1", "ours", items / seconds([&] {
              for (const int each : pool.imap_unordered(square, mp::range(items))) static_cast<void>(each);
          }) / 1e3, "k/s");
}

template <class T>
void queue_of(const char* name, const T& item, int items, double scale, const char* unit) {
    const mp::Queue<T> queue;
    const mp::Process producer([=] {
        for (int i = 0; i < items; ++i) queue.put(item);
    });
    print(name, "ours", items / seconds([&] {
              producer.start();
              for (int i = 0; i < items; ++i) static_cast<void>(queue.get());
              producer.join();
          }) * scale, unit);
}

void queue_peer(const char* name, std::size_t size, int items, double scale, const char* unit) {
    const std::string id = "multiprocessing-benchmark-" + std::to_string(::getpid());
    bip::message_queue::remove(id.c_str());
    bip::message_queue queue(bip::create_only, id.c_str(), 64, size);
    bip::message_queue::remove(id.c_str());
    std::vector<char> buffer(size);
    print(name, "boost", items / seconds([&] {
              const Child producer([&] {
                  for (int i = 0; i < items; ++i) queue.send(buffer.data(), size, 0);
              });
              bip::message_queue::size_type got = 0;
              unsigned priority = 0;
              for (int i = 0; i < items; ++i) queue.receive(buffer.data(), size, got, priority);
          }) * scale, unit);
}

/// A bare ring of one producer and one consumer: no lock, no types, no growth, spins.
void queue_limit() {
    constexpr std::uint64_t slots = 4096;
    constexpr std::uint64_t items = 4'000'000;
    struct Ring {
        alignas(64) std::atomic<std::uint64_t> head;
        alignas(64) std::atomic<std::uint64_t> tail;
        alignas(64) int items[slots];
    };
    auto* ring = static_cast<Ring*>(::mmap(nullptr, sizeof(Ring), PROT_READ | PROT_WRITE,
                                           MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    print("queue of ints, 1 to 1", "limit", items / seconds([&] {
              const Child producer([&] {
                  for (std::uint64_t i = 0; i < items; ++i) {
                      while (i - ring->head.load(std::memory_order_acquire) == slots) {
                      }
                      ring->items[i % slots] = static_cast<int>(i);
                      ring->tail.store(i + 1, std::memory_order_release);
                  }
              });
              for (std::uint64_t i = 0; i < items; ++i) {
                  while (ring->tail.load(std::memory_order_acquire) == i) {
                  }
                  asm volatile("" ::"r"(ring->items[i % slots]));
                  ring->head.store(i + 1, std::memory_order_release);
              }
          }) / 1e6, "M/s");
    ::munmap(ring, sizeof(Ring));
}

void locks() {
    constexpr int pairs = 2'000'000;
    const mp::Lock lock;
    print("lock and unlock, alone", "ours", seconds([&] {
              for (int i = 0; i < pairs; ++i) {
                  lock.acquire();
                  lock.release();
              }
          }) / pairs * 1e9, "ns");
    mp::shm::RobustMutex bare;
    print("lock and unlock, alone", "limit", seconds([&] {
              for (int i = 0; i < pairs; ++i) {
                  bare.lock();
                  bare.unlock();
              }
          }) / pairs * 1e9, "ns");
}

}  // namespace

int main() {
    mp::freeze_support();
    pool_map();
    pool_apply();
    pool_imap();
    queue_of<int>("queue of ints, 1 to 1", 7, 2'000'000, 1e-6, "M/s");
    queue_peer("queue of ints, 1 to 1", sizeof(int), 200'000, 1e-6, "M/s");
    queue_limit();
    queue_of<std::string>("queue of 1 KiB strings", std::string(1024, 'x'), 500'000, 1024e-9, "GB/s");
    queue_peer("queue of 1 KiB strings", 1024, 200'000, 1024e-9, "GB/s");
    queue_of<std::vector<double>>("queue of 1 MiB arrays", std::vector<double>(131072), 1000,
                                  1048576e-9, "GB/s");
    queue_peer("queue of 1 MiB arrays", 1 << 20, 1000, 1048576e-9, "GB/s");
    locks();
}
