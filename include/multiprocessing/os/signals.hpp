// SPDX-License-Identifier: BSL-1.0
//
// Signal masks and dispositions: threads of the library take no signals from the program, and a
// child that is about to be made takes none before it is ready.
#pragma once

#include <csignal>

#include <pthread.h>

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
    void apply() const noexcept { ::pthread_sigmask(SIG_SETMASK, &set_, nullptr); }

private:
    sigset_t set_{};
};

/// Has this process ignore Ctrl-C.
inline void ignore_interrupts() noexcept { ::signal(SIGINT, SIG_IGN); }

}  // namespace multiprocessing::os
