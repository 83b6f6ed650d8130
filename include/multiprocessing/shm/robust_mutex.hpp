// SPDX-License-Identifier: BSL-1.0
//
// A mutex in shared memory that outlives its holders: when one dies, the next gets the lock and is
// told. For the library's own critical sections, which are short and never block inside; what users
// lock is in shm/lock_word.hpp.
#pragma once

#include <multiprocessing/os/error.hpp>

#include <cerrno>
#include <chrono>
#include <ctime>

#include <pthread.h>

namespace multiprocessing::shm {

/// A robust process-shared pthread mutex. Lives in shared memory and is never destroyed: the kernel
/// keeps nothing for it.
class RobustMutex {
public:
    RobustMutex();
    RobustMutex(const RobustMutex&) = delete;
    RobustMutex& operator=(const RobustMutex&) = delete;

    /// Returns true when the last holder died inside; what it left behind is the caller's to judge.
    bool lock();
    void unlock() noexcept { ::pthread_mutex_unlock(&mutex_); }

private:
    /// Who is killed in unlock(), between letting go and waking a sleeper, wakes nobody; the kernel does
    /// so for it, but not if another has the mutex by then, who knows of no sleepers. So none sleeps
    /// for longer at a time.
    static constexpr std::chrono::milliseconds nap{20};

    [[nodiscard]] int wait();

    ::pthread_mutex_t mutex_;
};

inline RobustMutex::RobustMutex() {
    ::pthread_mutexattr_t attributes;
    ::pthread_mutexattr_init(&attributes);
    ::pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    ::pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    const int result = ::pthread_mutex_init(&mutex_, &attributes);
    ::pthread_mutexattr_destroy(&attributes);
    if (result != 0) os::throw_error(result, "pthread_mutex_init");
}

inline bool RobustMutex::lock() {
    int result = ::pthread_mutex_trylock(&mutex_);
    if (result == EBUSY) result = wait();
    if (result == 0) return false;
    if (result != EOWNERDEAD) os::throw_error(result, "pthread_mutex_lock");
    ::pthread_mutex_consistent(&mutex_);
    return true;
}

inline int RobustMutex::wait() {
    constexpr long second = 1'000'000'000;
    int result;
    do {
        ::timespec until{};  // of the clock that there is everywhere; should it be set back, the nap is long
        ::clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += std::chrono::nanoseconds(nap).count();
        until.tv_sec += until.tv_nsec / second;
        until.tv_nsec %= second;
        result = ::pthread_mutex_timedlock(&mutex_, &until);
    } while (result == ETIMEDOUT);
    return result;
}

}  // namespace multiprocessing::shm
