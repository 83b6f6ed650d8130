// SPDX-License-Identifier: BSL-1.0
//
// Signal masks and dispositions: threads of the library take no signals from the program, and a
// child that is about to be made takes none before it is ready.
#pragma once

#include <multiprocessing/os/fd.hpp>

#include <csignal>
#include <utility>
#include <vector>

#include <pthread.h>
#include <sys/signalfd.h>

namespace multiprocessing::os {

/// Blocks every signal for the calling thread; the destructor restores what was before. A thread
/// started meanwhile keeps them blocked.
class BlockSignals {
public:
    BlockSignals() noexcept {
        sigset_t all;
        ::sigfillset(&all);
        ::pthread_sigmask(SIG_SETMASK, &all, &before_);
    }
    ~BlockSignals() { ::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
    BlockSignals(const BlockSignals&) = delete;
    BlockSignals& operator=(const BlockSignals&) = delete;

    /// The mask that the destructor restores.
    [[nodiscard]] const sigset_t& before() const noexcept { return before_; }

private:
    sigset_t before_;
};

/// A thread's signal mask as a value, for a process that is to have another's.
class SignalMask {
public:
    [[nodiscard]] static SignalMask of_this_thread() noexcept {
        SignalMask mask;
        ::pthread_sigmask(SIG_SETMASK, nullptr, &mask.set_);
        return mask;
    }
    /// The signals it blocks, by number, to travel.
    [[nodiscard]] std::vector<int> blocked() const {
        std::vector<int> numbers;
        for (int number = 1; number < NSIG; ++number) {
            if (::sigismember(&set_, number) == 1) numbers.push_back(number);
        }
        return numbers;
    }
    [[nodiscard]] static SignalMask blocking(const std::vector<int>& numbers) noexcept {
        SignalMask mask;
        ::sigemptyset(&mask.set_);
        for (const int number : numbers) ::sigaddset(&mask.set_, number);
        return mask;
    }
    void apply() const noexcept { ::pthread_sigmask(SIG_SETMASK, &set_, nullptr); }

private:
    sigset_t set_{};
};

/// Has this process ignore Ctrl-C.
inline void ignore_interrupts() noexcept { ::signal(SIGINT, SIG_IGN); }
/// Undoes what was set for a signal, here or by who executed this program.
inline void take_default_action(int signal) noexcept { ::signal(signal, SIG_DFL); }

/// What a process does at a signal, as a value.
class Disposition {
public:
    explicit Disposition(int signal) noexcept : signal_(signal) {
        ::sigaction(signal, nullptr, &action_);
    }
    void restore() const noexcept { ::sigaction(signal_, &action_, nullptr); }

private:
    int signal_;
    struct ::sigaction action_ {};
};

/// Makes a signal readable instead of delivered, for a process of one thread.
class SignalFd {
public:
    explicit SignalFd(int signal) {
        sigset_t set;
        ::sigemptyset(&set);
        ::sigaddset(&set, signal);
        ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
        fd_ = Fd(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
        if (!fd_) throw_errno("signalfd");
        fd_ = clear_of_standard_streams(std::move(fd_));
    }
    [[nodiscard]] int get() const noexcept { return fd_.get(); }
    void close() noexcept { fd_.reset(); }
    /// Takes the signals that have come.
    void clear() const noexcept {
        ::signalfd_siginfo signal;
        while (::read(fd_.get(), &signal, sizeof signal) > 0) {}
    }

private:
    Fd fd_;
};

}  // namespace multiprocessing::os
