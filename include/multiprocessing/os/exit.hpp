// SPDX-License-Identifier: BSL-1.0
//
// The ways out of a process: with and without the functions that std::exit runs.
#pragma once

#include <multiprocessing/os/bound.hpp>

#include <csignal>
#include <cstdlib>

#include <unistd.h>

namespace multiprocessing::os {

/// Ends the process here: no atexit function, no destructor, no flush.
[[noreturn]] inline void exit_at_once(int code) noexcept {
    bound<&::_exit>(code);
    __builtin_unreachable();
}

/// Ends the process as if it had been killed.
[[noreturn]] inline void kill_this_process() noexcept {
    ::kill(::getpid(), SIGKILL);
    ::_exit(255);  // not reached: nobody survives SIGKILL, but the compiler does not know
}

/// Has `leave` called with the code when std::exit is, before all that was registered earlier; for
/// a `leave` that does not return, this keeps what a forked child inherited from being run in it.
/// Where the C library does not tell the code, nothing is registered.
inline void intercept_exit([[maybe_unused]] void (*leave)(int code)) noexcept {
#if defined(__GLIBC__)
    bound<&::on_exit>(
        [](int code, void* function) { reinterpret_cast<void (*)(int)>(function)(code); },
        reinterpret_cast<void*>(leave));
#endif
}

}  // namespace multiprocessing::os
