// SPDX-License-Identifier: BSL-1.0
//
// robust_mutex.hpp, process_mutex.hpp, lock_word.hpp, user_lock.hpp
#include <multiprocessing/shm/lock_word.hpp>
#include <multiprocessing/shm/process_mutex.hpp>
#include <multiprocessing/shm/robust_mutex.hpp>
#include <multiprocessing/shm/user_lock.hpp>

#include "shm/helpers.hpp"
#include "support/catch.hpp"

#include <array>
#include <atomic>
#include <chrono>
#include <csignal>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

using namespace support;
using namespace std::chrono_literals;

namespace {

os::Deadline within(std::chrono::milliseconds time) {
    return os::Deadline::after(time);
}

// Of its first thread, as the kernel calls it: 'S' asleep, 'Z' ended.
char state_of(int pid) {
    const std::string path = "/proc/" + std::to_string(pid) + "/stat";
    const os::ProcessStat stat(os::Fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC)));
    return *stat.field(3);
}

// The same in two threads or in two processes, counting under a lock.
struct Counter {
    shm::LockWord lock;
    std::uint64_t count = 0;
    void add(int times) {
        for (int i = 0; i < times; ++i) {
            lock.acquire(os::Deadline::never());
            count = count + 1;
            lock.release();
        }
    }
};

struct MutexCounter {
    shm::ProcessMutex mutex;
    std::uint64_t count = 0;
    void add(int times) {
        for (int i = 0; i < times; ++i) {
            static_cast<void>(mutex.lock());
            count = count + 1;
            mutex.unlock();
        }
    }
};

}  // namespace

TEST_CASE("a robust mutex tells that its holder has died", "[shm][robust_mutex][crash]") {
    const auto mutex = shm::Shared<shm::RobustMutex>::make(0);
    CHECK_FALSE(mutex->lock());
    mutex->unlock();
    Child child([&] {
        mutex->lock();
        die();
    });
    CHECK(child.wait() == -SIGKILL);
    CHECK(mutex->lock());
    mutex->unlock();
    CHECK_FALSE(mutex->lock());
    mutex->unlock();
}

#if defined(__GLIBC__)
TEST_CASE("a sleeper for a robust mutex gets it though nobody is left to wake it",
          "[shm][robust_mutex][crash]") {
    const auto mutex = shm::Shared<shm::RobustMutex>::make(0);
    const auto stage = make_stage();
    Child holder([&] {
        mutex->lock();
        stage->reach(1);
        stage->await(2);
    });
    REQUIRE(stage->await(1));
    Child sleeper([&] {
        const bool died = mutex->lock();
        mutex->unlock();
        return !died;
    });
    // The first word of glibc's mutex: the holder, and whether somebody sleeps.
    std::atomic_ref word(*reinterpret_cast<std::uint32_t*>(&*mutex));
    REQUIRE(eventually([&] {
        return (word.load() & 0x8000'0000) != 0 && state_of(sleeper.pid()) == 'S';
    }));
    // As who is killed between letting go and waking leaves it, and another who came and went then.
    word = 0;
    CHECK(holder.kill_and_wait() == -SIGKILL);
    CHECK(sleeper.wait() == 0);
}
#endif

TEST_CASE("a process mutex lets one in at a time, threads and processes", "[shm][process_mutex]") {
    const auto counter = shm::Shared<MutexCounter>::make(0);
    constexpr int times = 20'000;
    std::vector<std::unique_ptr<Child>> children;
    for (int i = 0; i < 4; ++i) {
        children.push_back(std::make_unique<Child>([&] { counter->add(times); }));
    }
    std::thread thread([&] { counter->add(times); });
    counter->add(times);
    thread.join();
    for (auto& child : children) CHECK(child->wait() == 0);
    CHECK(counter->count == 6 * times);
}

TEST_CASE("a process mutex of the dead is the next one's, also where several wait",
          "[shm][process_mutex][crash]") {
    const auto counter = shm::Shared<MutexCounter>::make(0);
    const auto stage = make_stage();
    for (std::uint32_t round = 1; round <= 5; ++round) {
        Child holder([&] {
            static_cast<void>(counter->mutex.lock());
            stage->reach(2 * round - 1);
            stage->await(2 * round);
            die();
        });
        REQUIRE(stage->await(2 * round - 1));
        Child first([&] { counter->add(1); });
        Child second([&] { counter->add(1); });
        stage->reach(2 * round);
        counter->add(1);
        CHECK(first.wait() == 0);
        CHECK(second.wait() == 0);
        CHECK(holder.wait() == -SIGKILL);
    }
    CHECK(counter->count == 15);
}

TEST_CASE("a sleeper for a process mutex that is killed keeps nobody from it",
          "[shm][process_mutex][crash]") {
    const auto counter = shm::Shared<MutexCounter>::make(0);
    for (int round = 0; round < 30; ++round) {
        static_cast<void>(counter->mutex.lock());
        Child doomed([&] { counter->add(1'000'000'000); });
        Child survivor([&] { counter->add(1000); });
        for (int i = 0; i < round * 1000; ++i) os::spin_pause();
        counter->mutex.unlock();
        doomed.kill();
        CHECK(survivor.wait() == 0);
    }
}

TEST_CASE("that a holder has died is noticed by who gets many signals, too",
          "[shm][process_mutex][lock_word][crash]") {
    struct Both {
        shm::ProcessMutex mutex;
        shm::LockWord word;
    };
    const auto both = shm::Shared<Both>::make(0);
    Child holder([&] {
        static_cast<void>(both->mutex.lock());
        both->word.acquire(os::Deadline::never());
        die();
    });
    CHECK(holder.wait() == -SIGKILL);
    Child heir([&] {
        struct ::sigaction action {};
        action.sa_handler = [](int) {};
        ::sigaction(SIGALRM, &action, nullptr);
        constexpr ::timeval often{0, 2000};
        const ::itimerval timer{often, often};
        ::setitimer(ITIMER_REAL, &timer, nullptr);
        return both->mutex.lock() && both->word.acquire(soon()).from_the_dead;
    });
    CHECK(heir.wait() == 0);
}

TEST_CASE("a process whose first thread has ended lives as long as another runs",
          "[shm][process_mutex][crash]") {
    const auto counter = shm::Shared<MutexCounter>::make(0);
    const auto stage = make_stage();
    Child child([&] {
        std::thread other([&] {
            static_cast<void>(counter->mutex.lock());
            stage->reach(1);
            const bool told = stage->await(2);
            counter->mutex.unlock();
            ::_exit(told ? 0 : 1);
        });
        stage->await(1);
        ::syscall(SYS_exit, 0);  // this thread alone
        return false;
    });
    REQUIRE(eventually([&] { return state_of(child.pid()) == 'Z'; }));
    CHECK(shm::alive(child.holder()));
    Child waiter([&] { return !counter->mutex.lock(); });  // not from the dead
    std::this_thread::sleep_for(100ms);  // in which it looks several times whether the holder lives
    stage->reach(2);
    CHECK(waiter.wait() == 0);
    CHECK(child.wait() == 0);
    CHECK_FALSE(shm::alive(child.holder()));
}

TEST_CASE("a lock word is a lock", "[shm][lock_word]") {
    const auto lock = shm::Shared<shm::LockWord>::make(0);
    CHECK_FALSE(lock->locked());
    CHECK(lock->acquire(os::Deadline::never()));
    CHECK(lock->locked());
    CHECK(lock->holder() == shm::self());
    CHECK_FALSE(lock->acquire(os::Deadline::passed()));
    CHECK_FALSE(lock->acquire(within(10ms)));
    CHECK(lock->release());
    CHECK_FALSE(lock->locked());
    CHECK_FALSE(lock->release());
    CHECK(lock->acquire(os::Deadline::passed()));
    CHECK(lock->release());
    CHECK_FALSE(lock->abandoned());
}

TEST_CASE("a lock word excludes threads and processes", "[shm][lock_word][threads]") {
    const auto counter = shm::Shared<Counter>::make(0);
    constexpr int times = 2000;
    Child first([&] { counter->add(times); });
    Child second([&] { counter->add(times); });
    std::thread thread([&] { counter->add(times); });
    counter->add(times);
    thread.join();
    CHECK(first.wait() == 0);
    CHECK(second.wait() == 0);
    CHECK(counter->count == 4 * times);
    CHECK_FALSE(counter->lock.locked());
}

TEST_CASE("another process may release a lock word", "[shm][lock_word]") {
    const auto lock = shm::Shared<shm::LockWord>::make(0);
    lock->acquire(os::Deadline::never());
    Child child([&] { return lock->locked() && lock->release(); });
    CHECK(lock->acquire(soon()));  // asleep or not when it comes free
    CHECK(child.wait() == 0);
    CHECK_FALSE(lock->abandoned());
}

TEST_CASE("a lock word of a process that ended goes to the next", "[shm][lock_word][crash]") {
    const bool orderly = GENERATE(false, true);
    const auto lock = shm::Shared<shm::LockWord>::make(0);
    const auto stage = make_stage();
    auto child = std::make_unique<Child>([&] {
        lock->acquire(os::Deadline::never());
        stage->reach(1);
        stage->await(2);
        if (!orderly) die();
    });
    REQUIRE(stage->await(1));
    CHECK_FALSE(lock->acquire(os::Deadline::passed()));

    SECTION("one that sleeps") {
        std::thread ends_it([&] { stage->reach(2); });
        CHECK(lock->acquire(soon()));
        ends_it.join();
    }
    SECTION("one that comes later, before the dead is reaped") {
        stage->reach(2);
        static_cast<void>(child->end());
        CHECK(lock->acquire(soon()));
    }
    SECTION("a poll") {
        stage->reach(2);
        static_cast<void>(child->end());
        CHECK(lock->acquire(os::Deadline::passed()));
    }
    SECTION("one that comes when the dead is forgotten") {
        stage->reach(2);
        static_cast<void>(child->wait());
        CHECK(lock->acquire(soon()));
    }
    CHECK(lock->abandoned());
    CHECK(lock->holder() == shm::self());
    CHECK(lock->release());
    CHECK_FALSE(lock->abandoned());
}

TEST_CASE("several that wait for a dead holder all get their turn", "[shm][lock_word][crash]") {
    const auto lock = shm::Shared<shm::LockWord>::make(0);
    const auto stage = make_stage();
    Child holder([&] {
        lock->acquire(os::Deadline::never());
        stage->reach(1);
        stage->await(2);
        die();
    });
    REQUIRE(stage->await(1));
    std::vector<std::unique_ptr<Child>> waiters;
    for (int i = 0; i < 4; ++i) {
        waiters.push_back(std::make_unique<Child>([&, i] {
            if (!lock->acquire(soon())) return false;
            if (i % 2 == 0) die();
            return lock->release();
        }));
    }
    stage->reach(2);
    for (int i = 0; i < 4; ++i) CHECK(waiters[std::size_t(i)]->wait() == (i % 2 == 0 ? -SIGKILL : 0));
    CHECK(lock->acquire(soon()));
    lock->release();
}

TEST_CASE("a recursive lock is its thread's", "[shm][user_lock]") {
    const auto lock = shm::Shared<shm::UserLock>::make(0, true);
    CHECK(lock->recursive());
    CHECK_FALSE(lock->is_mine());
    CHECK_FALSE(lock->release());
    for (int i = 0; i < 3; ++i) CHECK(lock->acquire(os::Deadline::never()));
    CHECK(lock->is_mine());
    std::thread([&] {
        CHECK_FALSE(lock->is_mine());
        CHECK_FALSE(lock->release());
        CHECK_FALSE(lock->acquire(os::Deadline::passed()));
    }).join();
    Child child([&] {
        return lock->locked() && !lock->is_mine() && !lock->release() &&
               !lock->acquire(os::Deadline::passed());
    });
    CHECK(child.wait() == 0);
    for (int i = 0; i < 3; ++i) {
        CHECK(lock->locked());
        CHECK(lock->release());
    }
    CHECK_FALSE(lock->locked());
    CHECK_FALSE(lock->release());
}

TEST_CASE("a lock is let go whole and comes back as deep", "[shm][user_lock]") {
    const bool recursive = GENERATE(false, true);
    const auto lock = shm::Shared<shm::UserLock>::make(0, recursive);
    lock->acquire(os::Deadline::never());
    if (recursive) lock->acquire(os::Deadline::never());
    const auto depth = lock->release_all();
    CHECK_FALSE(lock->locked());
    lock->restore(depth);
    CHECK(lock->is_mine());
    if (recursive) CHECK(lock->release());
    CHECK(lock->locked());
    CHECK(lock->release());
    CHECK_FALSE(lock->locked());
}

TEST_CASE("a recursive lock of the dead comes back whole", "[shm][user_lock][crash]") {
    const auto lock = shm::Shared<shm::UserLock>::make(0, true);
    Child child([&] {
        for (int i = 0; i < 3; ++i) lock->acquire(os::Deadline::never());
        die();
    });
    CHECK(child.end() == -SIGKILL);
    CHECK(lock->locked());
    CHECK(lock->acquire(soon()));
    CHECK(lock->abandoned());
    CHECK(lock->acquire(os::Deadline::never()));
    CHECK(lock->release());
    CHECK(lock->abandoned());
    CHECK(lock->release());
    CHECK_FALSE(lock->locked());
    CHECK_FALSE(lock->abandoned());
}
