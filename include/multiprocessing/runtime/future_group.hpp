// SPDX-License-Identifier: BSL-1.0
//
// Waiting for several futures. Behind `wait` and `as_completed`.
#pragma once

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/os/clock.hpp>
#include <multiprocessing/runtime/future_state.hpp>
#include <multiprocessing/runtime/future_waiter.hpp>

#include <cstddef>
#include <exception>
#include <memory>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

namespace multiprocessing::runtime {

/// When a wait for several futures is over. In Python's words.
enum class ReturnWhen { ALL_COMPLETED, FIRST_COMPLETED, FIRST_EXCEPTION };

using FutureStates = std::vector<std::shared_ptr<FutureState>>;

/// Futures that one thread waits for, each of them there once. Those that are done are given out as
/// they become so, and no reference to them is kept.
class FutureGroup {
public:
    explicit FutureGroup(FutureStates futures);
    FutureGroup(const FutureGroup&) = delete;
    FutureGroup& operator=(const FutureGroup&) = delete;
    ~FutureGroup();

    /// Waits until `count` of those not given out are done, or one of all has failed, if that is
    /// enough. *Throws* AssertionError for who would wait for ever.
    void wait(std::size_t count, bool or_failure, os::Deadline deadline) {
        check_may_wait(count, deadline);
        waiter_.wait(count, or_failure, deadline);
    }
    /// The next that is done; nullptr when all have been given out. *Throws* TimeoutError.
    std::shared_ptr<FutureState> next(os::Deadline deadline);

private:
    struct Member {
        std::shared_ptr<FutureState> state;
        FutureWatch watch;
    };
    /// One that is done now, or nullptr.
    std::shared_ptr<FutureState> take();
    void check_may_wait(std::size_t count, os::Deadline deadline) const {
        if (in_vain_ != 0 && deadline.is_never() && left_ - in_vain_ < count) {
            std::rethrow_exception(why_in_vain_);
        }
    }

    // Before the waiter, which may have their watches at the end.
    std::vector<Member> members_;
    FutureWaiter waiter_;
    std::size_t left_;
    // For which this thread would wait for ever.
    std::size_t in_vain_ = 0;
    std::exception_ptr why_in_vain_{};
};

/// Waits for futures, each of them there once.
inline void wait_for(const FutureStates& futures, ReturnWhen when, os::Deadline deadline);

/// The states of the futures of a range, each once, in order.
template <class Range>
[[nodiscard]] FutureStates states_of(Range&& futures) {
    FutureStates states;
    std::unordered_set<const FutureState*> seen;
    for (auto&& future : futures) {
        const auto& state = FutureAccess::state(future);
        if (seen.insert(state.get()).second) states.push_back(state);
    }
    return states;
}

// ---------------------------------------------------------------------------------------------------

inline FutureGroup::FutureGroup(FutureStates futures)
    : members_(futures.size()), left_(futures.size()) {
    for (std::size_t i = 0; i < futures.size(); ++i) {
        members_[i].state = std::move(futures[i]);
        members_[i].watch.waiter = &waiter_;
        members_[i].watch.number = i;
    }
    // Those that are done come first, in their order.
    std::vector<Member*> pending;
    pending.reserve(futures.size());
    for (Member& member : members_) {
        if (member.state->done()) {
            waiter_.add_done(member.watch, member.state->failed());
        } else {
            pending.push_back(&member);
        }
    }
    for (Member* member : pending) {
        if (!member->state->add(member->watch)) {
            waiter_.add_done(member->watch, member->state->failed());
            continue;
        }
        try {
            member->state->check_may_wait(os::Deadline::never());
        } catch (const AssertionError&) {
            ++in_vain_;
            why_in_vain_ = std::current_exception();
        }
    }
}

inline FutureGroup::~FutureGroup() {
    while (take() != nullptr) {}
    for (Member& member : members_) {
        if (member.state != nullptr) member.state->remove(member.watch);
    }
}

inline std::shared_ptr<FutureState> FutureGroup::take() {
    const FutureWatch* watch = waiter_.take();
    if (watch == nullptr) return nullptr;
    --left_;
    return std::move(members_[watch->number].state);
}

inline std::shared_ptr<FutureState> FutureGroup::next(os::Deadline deadline) {
    if (left_ == 0) return nullptr;
    if (auto state = take()) return state;
    if (!deadline.is_passed()) wait(1, false, deadline);
    if (auto state = take()) return state;
    throw TimeoutError(std::to_string(left_) + " (of " + std::to_string(members_.size()) +
                       ") futures unfinished");
}

inline void wait_for(const FutureStates& futures, ReturnWhen when, os::Deadline deadline) {
    FutureStates pending;
    bool failed = false;
    for (const auto& future : futures) {
        if (!future->done()) {
            pending.push_back(future);
        } else {
            failed = failed || future->failed();
        }
    }
    const bool some_done = pending.size() < futures.size();
    if (pending.empty() || (when == ReturnWhen::FIRST_COMPLETED && some_done) ||
        (when == ReturnWhen::FIRST_EXCEPTION && failed) || deadline.is_passed()) {
        return;
    }
    const std::size_t enough = when == ReturnWhen::FIRST_COMPLETED ? 1 : pending.size();
    FutureGroup(std::move(pending)).wait(enough, when == ReturnWhen::FIRST_EXCEPTION, deadline);
}

}  // namespace multiprocessing::runtime
