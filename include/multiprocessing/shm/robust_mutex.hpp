// SPDX-License-Identifier: BSL-1.0
//
// A mutex in shared memory that outlives its holders: when one dies, the next gets the lock and is
// told. For the library's own critical sections, which are short and never block inside; what users
// lock is in shm/lock_word.hpp.
#pragma once

#include <multiprocessing/os/error.hpp>

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
    const int result = ::pthread_mutex_lock(&mutex_);
    if (result == 0) return false;
    if (result != EOWNERDEAD) os::throw_error(result, "pthread_mutex_lock");
    ::pthread_mutex_consistent(&mutex_);
    return true;
}

}  // namespace multiprocessing::shm
