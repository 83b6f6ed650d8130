// SPDX-License-Identifier: BSL-1.0
//
// Children of the shared-memory layer's own, without the runtime above it, so that a test can have
// one end at any point; and what to synchronise with them by.
#pragma once

#include <multiprocessing/os/clock.hpp>
#include <multiprocessing/os/poll.hpp>
#include <multiprocessing/os/process.hpp>
#include <multiprocessing/shm/arena.hpp>
#include <multiprocessing/shm/processes.hpp>
#include <multiprocessing/shm/ref.hpp>
#include <multiprocessing/shm/wait.hpp>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <exception>
#include <iostream>
#include <thread>

#include <sys/wait.h>
#include <unistd.h>

namespace support {

namespace os = multiprocessing::os;
namespace shm = multiprocessing::shm;

/// When a test gives up. Far beyond what anything takes.
inline os::Deadline soon() { return os::Deadline::after(std::chrono::seconds(20)); }

/// Polls until it is true; false after a long time.
template <class Predicate>
bool eventually(Predicate predicate) {
    const os::Deadline deadline = soon();
    while (!predicate()) {
        if (deadline.expired()) return false;
        std::this_thread::yield();
    }
    return true;
}

/// A number that processes wait for each other to reach.
class Stage {
public:
    void reach(std::uint32_t stage) {
        if (stage <= reached_.load()) return;
        reached_.store(stage);
        word_.notify_all();
    }
    void add() {
        reached_.fetch_add(1);
        word_.notify_all();
    }
    bool await(std::uint32_t stage) {
        return word_.wait([&] { return reached_.load() >= stage; }, soon());
    }
    [[nodiscard]] std::uint32_t reached() const { return reached_.load(); }

private:
    std::atomic<std::uint32_t> reached_{0};
    shm::WaitWord word_;
};

inline shm::Shared<Stage> make_stage() {
    return shm::Shared<Stage>::make(0);
}

/// A forked process that runs `f` and ends with 0, or 1 when that throws or returns false.
class Child {
public:
    template <class F>
    explicit Child(F f) {
        std::cout.flush();
        shm::ChildSlot slot(shm::Inherits::handles);
        holder_ = slot.id();
        pid_ = os::fork();
        if (pid_ == 0) {
            slot.adopt();
            ::_exit(run(f));
        }
        slot.started(pid_);
    }
    Child(const Child&) = delete;
    Child& operator=(const Child&) = delete;
    ~Child() {
        if (pid_ == 0) return;
        kill();
        static_cast<void>(wait());
    }

    [[nodiscard]] int pid() const { return pid_; }
    [[nodiscard]] shm::HolderId holder() const { return holder_; }
    void kill() const { ::kill(pid_, SIGKILL); }
    /// Its end, but neither reaped nor released. 1000 is a child that hangs.
    int end() const {
        const os::Fd pidfd = os::open_pidfd(pid_);
        if (!os::poll(pidfd.get(), os::poll_in, soon())) return 1000;
        siginfo_t info{};
        ::waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOWAIT);
        return info.si_code == CLD_EXITED ? info.si_status : -info.si_status;
    }
    /// Its end; reaped, and what it held given back.
    int wait() {
        const int result = end();
        if (result == 1000) kill();
        ::waitpid(pid_, nullptr, 0);
        shm::release_process(holder_);
        pid_ = 0;
        return result;
    }
    int kill_and_wait() {
        kill();
        return wait();
    }

private:
    template <class F>
    static int run(F& f) {
        try {
            if constexpr (std::is_same_v<decltype(f()), bool>) {
                return f() ? 0 : 1;
            } else {
                f();
                return 0;
            }
        } catch (const std::exception& error) {
            std::cerr << "in a child: " << error.what() << std::endl;
            return 1;
        }
    }

    int pid_ = 0;
    shm::HolderId holder_ = 0;
};

/// Ends this process as SIGKILL does: nothing of it runs any more.
[[noreturn]] inline void die() {
    ::kill(::getpid(), SIGKILL);
    for (;;) ::pause();
}

/// Bytes of shared memory in use.
inline std::uint64_t allocated() {
    const shm::Arena& arena = shm::Arena::instance();
    const shm::Transaction tx = arena.transaction();
    return arena.header().heap.allocated;
}

/// That what a test makes is gone at its end. A first handle is made before, for the ledger's sake.
class NoLeak {
public:
    NoLeak() {
        static_cast<void>(shm::Ref::create(8));
        before_ = in_use();
    }
    /// In bytes; with the cells in use, for their slabs do not tell.
    [[nodiscard]] std::int64_t leaked() const { return in_use() - before_; }

private:
    [[nodiscard]] static std::int64_t in_use() {
        const shm::Arena& arena = shm::Arena::instance();
        const shm::Transaction tx = arena.transaction();
        const shm::ArenaHeader& header = arena.header();
        return static_cast<std::int64_t>(header.heap.allocated + 32 * header.cells.used);
    }

    std::int64_t before_ = 0;
};

}  // namespace support
