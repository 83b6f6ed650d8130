// SPDX-License-Identifier: BSL-1.0
//
// A thread that waits for some of several futures, and what it leaves with each of them.
#pragma once

#include <multiprocessing/os/clock.hpp>
#include <multiprocessing/runtime/wait_until.hpp>

#include <boost/intrusive/list.hpp>

#include <condition_variable>
#include <cstddef>
#include <limits>
#include <mutex>

namespace multiprocessing::runtime {

class FutureWaiter;

/// What a waiter leaves with one future. It is in a list of the future's until that is done, then
/// in the waiter's: so nothing is allocated when a future is done.
class FutureWatch : public boost::intrusive::list_base_hook<> {
public:
    FutureWatch() = default;
    FutureWatch(const FutureWatch&) = delete;
    FutureWatch& operator=(const FutureWatch&) = delete;
    ~FutureWatch() = default;

    FutureWaiter* waiter = nullptr;
    std::size_t number = 0;  // the waiter's own
};

/// Where a thread sleeps until enough of its futures are done. Outlives its watches' being with
/// futures, and must not outlive the watches themselves.
class FutureWaiter {
public:
    /// By a future that is done, under its lock, or for one that was found done.
    void add_done(FutureWatch& watch, bool failed);
    /// Waits until `count` futures that are done have not been taken; or one has failed, if that
    /// is enough. Whether it came to that.
    bool wait(std::size_t count, bool or_failure, os::Deadline deadline);
    /// The first of those that are done; nullptr if there is none.
    [[nodiscard]] FutureWatch* take();

private:
    [[nodiscard]] bool satisfied() const noexcept {
        return done_.size() >= wanted_ || (or_failure_ && failed_);
    }

    std::mutex mutex_;
    std::condition_variable changed_;
    boost::intrusive::list<FutureWatch> done_;
    std::size_t wanted_ = std::numeric_limits<std::size_t>::max();
    bool or_failure_ = false;
    bool failed_ = false;
};

// ---------------------------------------------------------------------------------------------------

inline void FutureWaiter::add_done(FutureWatch& watch, bool failed) {
    const std::lock_guard lock(mutex_);
    done_.push_back(watch);
    failed_ = failed_ || failed;
    // Under the lock, for the waiter may be gone as soon as it is free.
    if (satisfied()) changed_.notify_one();
}

inline bool FutureWaiter::wait(std::size_t count, bool or_failure, os::Deadline deadline) {
    std::unique_lock lock(mutex_);
    wanted_ = count;
    or_failure_ = or_failure;
    return wait_until(changed_, lock, deadline, [this] { return satisfied(); });
}

inline FutureWatch* FutureWaiter::take() {
    const std::lock_guard lock(mutex_);
    if (done_.empty()) return nullptr;
    FutureWatch& first = done_.front();
    done_.pop_front();
    return &first;
}

}  // namespace multiprocessing::runtime
