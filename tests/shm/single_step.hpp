// SPDX-License-Identifier: BSL-1.0
//
// Death at any instruction: children that are run one instruction after the other and killed in
// between, which no kill(2) from outside can be aimed at.
#pragma once

#include "shm/helpers.hpp"
#include "support/catch.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <unordered_map>
#include <vector>

#include <sys/ptrace.h>
#include <sys/user.h>

#if defined(__x86_64__)

namespace support {

/// A child that stands before the first instruction of `f`.
class SteppedChild {
public:
    template <class F>
    explicit SteppedChild(F f)
        : child_([&] {
              if (::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) != 0) ::_exit(not_allowed);
              ::raise(SIGSTOP);
              f();
              ::_exit(0);
          }) {
        wait();
    }
    [[nodiscard]] bool ended() const { return ended_; }
    /// Whether this system lets a process trace its children at all.
    [[nodiscard]] static bool possible() {
        SteppedChild child([] {});
        return !child.ended() && child.kill_and_wait() == -SIGKILL;
    }
    /// The address of the next instruction.
    [[nodiscard]] std::uint64_t at() const {
        ::user_regs_struct registers{};
        ::ptrace(PTRACE_GETREGS, child_.pid(), nullptr, &registers);
        return registers.rip;
    }
    /// One instruction, or one system call. False when it has come to its end.
    bool step() { return resume(PTRACE_SINGLESTEP); }
    /// Goes on until `address` is about to be executed for the `count`th time. False when it has come
    /// to its end.
    bool run_to(std::uint64_t address, std::uint64_t count) {
        if (at() == address) --count;
        for (; count != 0; --count) {
            // Not while the breakpoint is there.
            if (!step()) return false;
            if (at() == address) continue;
            const auto code = peek(address);
            poke(address, (code & ~0xffull) | breakpoint);
            const bool runs = resume(PTRACE_CONT);
            if (!runs) return false;
            poke(address, code);
            ::user_regs_struct registers{};
            ::ptrace(PTRACE_GETREGS, child_.pid(), nullptr, &registers);
            registers.rip = address;
            ::ptrace(PTRACE_SETREGS, child_.pid(), nullptr, &registers);
        }
        return true;
    }
    [[nodiscard]] shm::HolderId holder() const { return child_.holder(); }
    /// It is dead then, but neither reaped nor released.
    void kill() {
        child_.kill();
        static_cast<void>(child_.end());
    }
    int kill_and_wait() { return child_.kill_and_wait(); }

private:
    static constexpr int not_allowed = 77;
    static constexpr std::uint64_t breakpoint = 0xcc;  // int3

    template <class Request>
    bool resume(Request request) {
        if (ended_) return false;
        ::ptrace(request, child_.pid(), nullptr, nullptr);
        wait();
        return !ended_;
    }
    void wait() {
        siginfo_t info{};
        const auto id = static_cast<id_t>(child_.pid());
        ::waitid(P_PID, id, &info, WEXITED | WSTOPPED | WNOWAIT);
        ended_ = info.si_code == CLD_EXITED || info.si_code == CLD_KILLED;
        if (!ended_) ::waitid(P_PID, id, &info, WSTOPPED);
    }
    [[nodiscard]] std::uint64_t peek(std::uint64_t address) const {
        return static_cast<std::uint64_t>(::ptrace(PTRACE_PEEKTEXT, child_.pid(), address, nullptr));
    }
    void poke(std::uint64_t address, std::uint64_t code) const {
        ::ptrace(PTRACE_POKETEXT, child_.pid(), address, code);
    }

    Child child_;
    bool ended_ = false;
};

/// Tells whether the shared memory in use has changed.
class SharedMemoryWatch {
public:
    explicit SharedMemoryWatch(shm::HolderId holder) {
        const shm::Arena& arena = shm::Arena::instance();
        const shm::HeapState& heap = arena.header().heap;
        add(&arena.header(), sizeof(shm::ArenaHeader));
        add(&shm::Processes::instance().slot(holder), sizeof(shm::ProcessSlot));
        add(arena.at<std::byte>(heap.start), std::min<std::uint64_t>(heap.frontier, 1 << 20));
    }
    [[nodiscard]] bool changed() {
        bool any = false;
        for (Region& region : regions_) {
            if (std::memcmp(region.start, region.before.data(), region.before.size()) == 0) continue;
            std::memcpy(region.before.data(), region.start, region.before.size());
            any = true;
        }
        return any;
    }

private:
    struct Region {
        const void* start;
        std::vector<std::byte> before;
    };
    void add(const void* start, std::size_t size) {
        if (size == 0) return;  // a heap that nobody has used yet
        const auto* bytes = static_cast<const std::byte*>(start);
        regions_.push_back({start, {bytes, bytes + size}});
    }

    std::vector<Region> regions_;
};

/// Every state of the shared memory that `operation` goes through: for each, prepare(), a child that
/// is killed in that state, check(). In between a process that was there before calls heir(): the first
/// to come upon what the child has left behind, before anybody has tidied up.
template <class Prepare, class Operation, class Heir, class Check>
void kill_anywhere(Prepare prepare, Operation operation, Heir heir, Check check) {
    if (!SteppedChild::possible()) SKIP("this system does not let processes trace their children");
    struct Point {
        std::uint64_t address;  // of the instruction that brought the change
        std::uint64_t count;    // how often it had been executed by then
    };
    std::vector<Point> points;
    {
        prepare();
        SteppedChild whole(operation);
        SharedMemoryWatch memory(whole.holder());
        std::unordered_map<std::uint64_t, std::uint64_t> counts;
        for (std::uint64_t at = whole.at();; at = whole.at()) {
            const std::uint64_t count = ++counts[at];
            const bool runs = whole.step();
            if (memory.changed()) {
                // Of those that repeat themselves (rep movs) the last will do.
                if (!points.empty() && points.back().address == at) points.pop_back();
                points.push_back({at, count});
            }
            if (!runs) break;
        }
        REQUIRE(whole.kill_and_wait() == 0);
        heir();
        check();
    }
    REQUIRE_FALSE(points.empty());
    for (std::size_t i = 0; i < points.size(); ++i) {
        CAPTURE(i, points.size());
        prepare();
        int death[2];  // the end of a pipe, for the shared memory is not to be touched
        REQUIRE(::pipe(death) == 0);
        Child after([&] {
            ::close(death[1]);
            char none;
            static_cast<void>(::read(death[0], &none, 1));
            heir();
        });
        ::close(death[0]);
        SteppedChild child(operation);
        if (child.run_to(points[i].address, points[i].count)) child.step();
        child.kill();
        ::close(death[1]);
        CHECK(after.wait() == 0);
        child.kill_and_wait();
        check();
    }
}
template <class Prepare, class Operation, class Check>
void kill_anywhere(Prepare prepare, Operation operation, Check check) {
    kill_anywhere(prepare, operation, [] {}, check);
}

}  // namespace support

#else

namespace support {

template <class... Parts>
void kill_anywhere(Parts...) {
    SKIP("single steps are written for x86-64 alone");
}

}  // namespace support

#endif
