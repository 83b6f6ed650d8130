// SPDX-License-Identifier: BSL-1.0
#include "support/catch.hpp"

#include <multiprocessing/os/fork.hpp>
#include <multiprocessing/os/module.hpp>
#include <multiprocessing/os/process.hpp>

#include <atomic>
#include <chrono>
#include <latch>
#include <stdexcept>
#include <thread>
#include <vector>

namespace os = multiprocessing::os;
using namespace std::chrono_literals;

namespace {

/// Forks; what `f` returns in the child, or -1 when the child hangs.
template <class F>
int in_child(F f) {
    const int pid = os::fork();
    if (pid == 0) ::_exit(f());
    const os::Fd pidfd = os::open_pidfd(pid);
    if (!os::poll(pidfd.get(), os::poll_in, os::Deadline::after(10s))) {
        os::kill_and_reap(pid);
        return -1;
    }
    return os::reap(pid).value_or(-1);
}

}  // namespace

TEST_CASE("every fork begins another epoch", "[os][fork]") {
    const std::uint32_t here = os::fork_epoch();
    CHECK(in_child([&] { return os::fork_epoch() != here ? 0 : 1; }) == 0);
    CHECK(os::fork_epoch() == here);
}

TEST_CASE("a mutex that another thread holds is free in a forked child", "[os][fork]") {
    os::ForkAwareMutex mutex;
    std::latch held(1);
    std::latch enough(1);
    std::thread holder([&] {
        const std::scoped_lock lock(mutex);
        held.count_down();
        enough.wait();
    });
    held.wait();
    CHECK_FALSE(mutex.try_lock());
    CHECK(in_child([&] {
              const std::scoped_lock lock(mutex);
              return 0;
          }) == 0);
    CHECK_FALSE(mutex.try_lock());
    enough.count_down();
    holder.join();
    CHECK(mutex.try_lock());
    mutex.unlock();
}

TEST_CASE("who forks with a mutex held may unlock it on both sides", "[os][fork]") {
    os::ForkAwareMutex mutex;
    mutex.lock();
    CHECK(in_child([&] {
              mutex.unlock();
              if (!mutex.try_lock()) return 1;
              if (mutex.try_lock()) return 2;
              mutex.unlock();
              return 0;
          }) == 0);
    CHECK_FALSE(mutex.try_lock());
    mutex.unlock();
}

TEST_CASE("no fork falls into a scope that does not want it", "[os][fork]") {
    std::latch held(1);
    std::atomic<bool> left{false};
    std::atomic<bool> forks{false};
    std::thread holder([&] {
        const os::NoFork scope;
        held.count_down();
        while (!forks) std::this_thread::yield();
        for (int i = 0; i < 1000; ++i) std::this_thread::yield();
        left = true;
    });
    held.wait();
    forks = true;
    CHECK(in_child([&] {
              const os::NoFork again;
              return left ? 0 : 1;
          }) == 0);
    holder.join();
}

TEST_CASE("a child forked while another thread asks the loader can ask it too", "[os][fork]") {
    const auto ask = [] { return os::resolve({1, 0}) == nullptr ? 0 : 1; };  // no module: looks anew
    std::atomic<bool> enough{false};
    std::thread asking([&] {
        while (!enough) {
            ask();
            std::this_thread::yield();
        }
    });
    int hung = 0;
    for (int i = 0; i < 100 && hung == 0; ++i) hung += in_child(ask) == 0 ? 0 : 1;
    enough = true;
    asking.join();
    CHECK(hung == 0);
}

TEST_CASE("a forked child makes anew what another thread was making", "[os][fork]") {
    static constinit os::Lazy<const int> lazy;  // kept, and so is what it makes
    std::latch making(1);
    std::latch enough(1);
    std::thread maker([&] {
        lazy.get([&] {
            making.count_down();
            enough.wait();
            return new const int(1);
        });
    });
    making.wait();
    CHECK(in_child([&] { return lazy.get([] { return new const int(2); }); }) == 2);
    enough.count_down();
    maker.join();
    CHECK(lazy.get([] { return new const int(3); }) == 1);
    CHECK(in_child([&] { return lazy.get([] { return new const int(4); }); }) == 1);
}

TEST_CASE("one of several threads makes the object, and all get it", "[os][fork]") {
    static constinit os::Lazy<int> lazy;
    std::atomic<int> made = 0;
    std::latch together(4);
    std::vector<int*> got(4);
    std::vector<std::thread> threads;
    for (int*& place : got) {
        threads.emplace_back([&] {
            together.arrive_and_wait();
            place = &lazy.get([&] { return new int(++made); });
        });
    }
    for (std::thread& thread : threads) thread.join();
    CHECK(made == 1);
    for (const int* place : got) CHECK(place == got.front());
}

TEST_CASE("an object whose making throws is made by the next who asks", "[os][fork]") {
    static constinit os::Lazy<int> lazy;
    CHECK_THROWS_AS(lazy.get([]() -> int* { throw std::runtime_error("no"); }), std::runtime_error);
    CHECK(lazy.get([] { return new int(5); }) == 5);
}
