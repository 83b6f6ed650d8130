// SPDX-License-Identifier: BSL-1.0
//
// What the benchmarks share: a figure as one line, `name who value unit`; children and shared
// memory of the bare kind, for limits and peers; how far apart two processors are; and `race`,
// which measures whoever takes part in a subject one after another.
#pragma once

#include <boost/version.hpp>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <limits>
#include <new>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include <sched.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

namespace benchmark {

using Clock = std::chrono::steady_clock;

inline double since(Clock::time_point begin) {
    return std::chrono::duration<double>(Clock::now() - begin).count();
}

template <class Run>
double seconds(Run&& run) {
    const auto begin = Clock::now();
    run();
    return since(begin);
}

inline void print(const std::string& name, const std::string& who, double value,
                  const std::string& unit) {
    std::printf("%s\t%s\t%.6g\t%s\n", name.c_str(), who.c_str(), value, unit.c_str());
    std::fflush(stdout);
}

inline void pause() noexcept {
#if defined __x86_64__ || defined __i386__
    __builtin_ia32_pause();
#elif defined __aarch64__
    asm volatile("yield");
#endif
}

/// A forked child of the bare kind; waited for at the end of its scope.
class Child {
public:
    template <class Run>
    explicit Child(Run&& run) : pid_(::fork()) {
        if (pid_ < 0) throw std::system_error(errno, std::system_category(), "fork");
        if (pid_ != 0) return;
        run();
        ::_exit(0);
    }
    ~Child() {
        if (pid_ > 0) ::waitpid(pid_, nullptr, 0);
    }
    Child(Child&& other) noexcept : pid_(std::exchange(other.pid_, -1)) {}
    Child& operator=(Child&&) = delete;

private:
    pid_t pid_;
};

/// A T in memory that forked children share.
template <class T>
class Mapped {
public:
    Mapped()
        : memory_(::mmap(nullptr, sizeof(T), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
                         0)) {
        if (memory_ == MAP_FAILED) throw std::bad_alloc();
        ::new (memory_) T();
    }
    ~Mapped() { ::munmap(memory_, sizeof(T)); }
    Mapped(const Mapped&) = delete;
    Mapped& operator=(const Mapped&) = delete;

    T& operator*() const noexcept { return *static_cast<T*>(memory_); }
    T* operator->() const noexcept { return static_cast<T*>(memory_); }

private:
    void* memory_;
};

inline std::vector<int> processors() {
    ::cpu_set_t set;
    CPU_ZERO(&set);
    std::vector<int> all;
    if (::sched_getaffinity(0, sizeof set, &set) != 0) return all;
    for (int i = 0; i < CPU_SETSIZE; ++i) {
        if (CPU_ISSET(i, &set)) all.push_back(i);
    }
    return all;
}

/// The calling thread, and all that it starts from now on, runs on these processors alone.
inline void stay_on(const std::vector<int>& which) {
    ::cpu_set_t set;
    CPU_ZERO(&set);
    for (const int each : which) CPU_SET(each, &set);
    ::sched_setaffinity(0, sizeof set, &set);
}

/// One of two that work at the same time stays on a processor of its own, if there are two.
inline void stay_on_one(std::size_t which) {
    const auto all = processors();
    stay_on({all[which % all.size()]});
}

/// Within this scope there is one processor, as for a program that was started so.
class OneProcessor {
public:
    OneProcessor() { stay_on({all_.front()}); }
    ~OneProcessor() { stay_on(all_); }
    OneProcessor(const OneProcessor&) = delete;
    OneProcessor& operator=(const OneProcessor&) = delete;

private:
    std::vector<int> all_ = processors();
};

/// Two words that two sides wait for in turn, each on a cache line of its own.
struct PingPong {
    alignas(64) std::atomic<int> ping{0};
    alignas(64) std::atomic<int> pong{0};
};

/// How far apart the first two processors are: microseconds that a cache line needs to go there and
/// back. The best of some, for whatever disturbs makes it longer; 0 if there is one processor only.
inline double core_distance() {
    constexpr int trips = 2'000;
    const auto all = processors();
    if (all.size() < 2) return 0;
    double best = std::numeric_limits<double>::max();
    for (int i = 0; i < 20; ++i) {
        PingPong words;
        std::atomic<bool> ready{false};
        std::thread other([&] {
            stay_on({all[1]});
            ready = true;
            for (int trip = 1; trip <= trips; ++trip) {
                while (words.ping.load(std::memory_order_acquire) != trip) {}
                words.pong.store(trip, std::memory_order_release);
            }
        });
        std::thread one([&] {
            stay_on({all[0]});
            while (!ready) std::this_thread::yield();
            best = std::min(best, seconds([&] {
                                for (int trip = 1; trip <= trips; ++trip) {
                                    words.ping.store(trip, std::memory_order_release);
                                    while (words.pong.load(std::memory_order_acquire) != trip) {}
                                }
                            }));
        });
        one.join();
        other.join();
    }
    return best / trips * 1e6;
}

/// Who takes part in a subject: runs `count` of what is counted and returns the seconds.
struct Contender {
    std::string who;
    std::function<double(long)> run;
};

/// What a figure is made of: `scale` times counts a second, or seconds a count.
struct Unit {
    std::string name;
    double scale;
    bool of_time;
};
inline Unit rate(std::string name, double scale) { return {std::move(name), scale, false}; }
inline Unit microseconds() { return {"µs", 1e6, true}; }
inline Unit nanoseconds() { return {"ns", 1e9, true}; }

/// The figure of a run that takes `least` seconds or more, after shorter ones that find out how
/// many that are, and warm up what can be warmed. Counts are multiples of `step`.
inline double measure(const Contender& contender, const Unit& unit, long first, long step,
                      double least) {
    for (long count = (first + step - 1) / step * step;;) {
        const double taken = contender.run(count);
        if (taken >= least) {
            const auto counted = static_cast<double>(count);
            return unit.of_time ? taken / counted * unit.scale : counted / taken * unit.scale;
        }
        const double more = std::clamp(1.25 * least / std::max(taken, 1e-9), 1.5, 20.0);
        count = (static_cast<long>(static_cast<double>(count) * more) / step + 1) * step;
    }
}

/// Measures all contenders one after another and prints their figures, and before them how far
/// apart the processors are.
inline void race(const std::string& name, const Unit& unit, long first,
                 const std::vector<Contender>& contenders, long step = 1, double least = 0.3) {
    print(name, "distance", core_distance(), "µs");
    for (const Contender& each : contenders) {
        print(name, each.who, measure(each, unit, first, step, least), unit.name);
    }
}

/// A subject that can be asked for by name.
struct Subject {
    std::string name;
    std::function<void(const std::string& name)> run;
};

/// The whole of a benchmark's `main`: `--list` prints the names and `--about` what this was built
/// with; a name runs that one, nothing runs all.
inline int run(const std::vector<Subject>& subjects, int argc, char* argv[]) {
    const std::string wanted = argc > 1 ? argv[1] : "";
    if (wanted == "--about") {
#ifdef __clang__
        std::printf("compiler\tclang %d.%d.%d\n", __clang_major__, __clang_minor__,
                    __clang_patchlevel__);
#else
        std::printf("compiler\tg++ %d.%d.%d\n", __GNUC__, __GNUC_MINOR__, __GNUC_PATCHLEVEL__);
#endif
        std::printf("boost\t%d.%d.%d\n", BOOST_VERSION / 100'000, BOOST_VERSION / 100 % 1000,
                    BOOST_VERSION % 100);
        return 0;
    }
    bool found = wanted.empty() || wanted == "--list";
    for (const Subject& subject : subjects) {
        if (wanted == "--list") {
            std::printf("%s\n", subject.name.c_str());
        } else if (wanted.empty() || wanted == subject.name) {
            found = true;
            subject.run(subject.name);
        }
    }
    return found ? 0 : 2;
}

}  // namespace benchmark
