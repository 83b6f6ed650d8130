// SPDX-License-Identifier: BSL-1.0
//
// The calling thread's signal mask: threads of the library take no signals from the program, and a
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

}  // namespace multiprocessing::os
