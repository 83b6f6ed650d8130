// SPDX-License-Identifier: BSL-1.0
//
// `wait` and `as_completed`: waiting for several futures. Answers the functions of these names in
// Python's `concurrent.futures`.
#pragma once

#include <multiprocessing/concurrent/futures/future.hpp>
#include <multiprocessing/os/clock.hpp>
#include <multiprocessing/runtime/future_group.hpp>
#include <multiprocessing/runtime/future_state.hpp>
#include <multiprocessing/timeout.hpp>

#include <cstddef>
#include <initializer_list>
#include <iterator>
#include <memory>
#include <ranges>
#include <span>
#include <utility>
#include <vector>

namespace multiprocessing::concurrent::futures {

/// When `wait` returns: when all futures are done; when one is; or when one has ended with an
/// exception, for which being cancelled is none, and else when all are done.
using runtime::ReturnWhen;
inline constexpr ReturnWhen ALL_COMPLETED = ReturnWhen::ALL_COMPLETED;
inline constexpr ReturnWhen FIRST_COMPLETED = ReturnWhen::FIRST_COMPLETED;
inline constexpr ReturnWhen FIRST_EXCEPTION = ReturnWhen::FIRST_EXCEPTION;

/// What `wait` returns: each future once, in the order they were given in.
template <class R>
struct DoneAndNotDoneFutures {
    std::vector<Future<R>> done;
    std::vector<Future<R>> not_done;
};

template <class T>
inline constexpr bool is_future = false;
template <class R>
inline constexpr bool is_future<Future<R>> = true;

/// A range of futures of one type: a vector, a set, the keys of a map.
template <class Range>
concept FutureRange =
    std::ranges::input_range<Range> && is_future<std::ranges::range_value_t<Range>>;

/// What the futures of a range result in.
template <FutureRange Range>
using future_result_t = typename std::ranges::range_value_t<Range>::value_type;

/// Waits until all futures are done, one is, or one has failed; or the time is over, which is no
/// error. Returns {done, not_done}.
///
///     auto [done, not_done] = wait(futures, 1s, FIRST_COMPLETED);
///
/// One that is there several times counts once. *Blocks* without polling. *Python*:
/// `concurrent.futures.wait`, where a cancelled future counts only when its executor has noticed.
template <FutureRange Range>
DoneAndNotDoneFutures<future_result_t<Range>> wait(Range&& fs, Timeout timeout = {},
                                                   ReturnWhen return_when = ALL_COMPLETED);
template <class R>
DoneAndNotDoneFutures<R> wait(std::initializer_list<Future<R>> fs, Timeout timeout = {},
                              ReturnWhen return_when = ALL_COMPLETED) {
    return wait(std::span(fs.begin(), fs.size()), timeout, return_when);
}
/// The same without a timeout.
template <FutureRange Range>
DoneAndNotDoneFutures<future_result_t<Range>> wait(Range&& fs, ReturnWhen return_when) {
    return wait(std::forward<Range>(fs), Timeout(), return_when);
}
template <class R>
DoneAndNotDoneFutures<R> wait(std::initializer_list<Future<R>> fs, ReturnWhen return_when) {
    return wait(fs, Timeout(), return_when);
}

/// Futures in the order in which they become done, by `as_completed`: an input range, for one
/// thread. A handle: copies go through the same futures.
template <class R>
class AsCompleted : public std::ranges::view_base {
public:
    using value_type = Future<R>;
    class iterator;

    /// Waits for the first. *Throws* TimeoutError.
    [[nodiscard]] iterator begin() const { return iterator(futures_); }
    [[nodiscard]] std::default_sentinel_t end() const noexcept { return {}; }

private:
    struct Futures {
        Futures(runtime::FutureStates states, os::Deadline until)
            : group(std::move(states)), deadline(until) {}
        runtime::FutureGroup group;
        os::Deadline deadline;
    };
    template <FutureRange Range>
    friend AsCompleted<future_result_t<Range>> as_completed(Range&& fs, Timeout timeout);
    AsCompleted(runtime::FutureStates states, os::Deadline deadline)
        : futures_(std::make_shared<Futures>(std::move(states), deadline)) {}

    std::shared_ptr<Futures> futures_;
};

/// Gives each of the futures once, as soon as it is done; those that are done first.
///
///     for (auto& future : as_completed(futures, 10s)) use(future.result());
///
/// Going on *throws* TimeoutError when that would take longer than the timeout, which counts from
/// this call: "2 (of 4) futures unfinished". No reference is kept to a future once the iterator
/// has gone on to the next. *Blocks* without polling. *Python*: `concurrent.futures.as_completed`.
template <FutureRange Range>
[[nodiscard]] AsCompleted<future_result_t<Range>> as_completed(Range&& fs, Timeout timeout = {});
template <class R>
[[nodiscard]] AsCompleted<R> as_completed(std::initializer_list<Future<R>> fs,
                                          Timeout timeout = {}) {
    return as_completed(std::span(fs.begin(), fs.size()), timeout);
}

// ---------------------------------------------------------------------------------------------------

template <FutureRange Range>
DoneAndNotDoneFutures<future_result_t<Range>> wait(Range&& fs, Timeout timeout,
                                                   ReturnWhen return_when) {
    const os::Deadline deadline(timeout);
    auto states = runtime::states_of(fs);
    runtime::wait_for(states, return_when, deadline);
    using R = future_result_t<Range>;
    DoneAndNotDoneFutures<R> result;
    for (auto& state : states) {
        auto& where = state->done() ? result.done : result.not_done;
        where.push_back(runtime::FutureAccess::handle<Future<R>>(std::move(state)));
    }
    return result;
}

template <FutureRange Range>
AsCompleted<future_result_t<Range>> as_completed(Range&& fs, Timeout timeout) {
    const os::Deadline deadline(timeout);
    return AsCompleted<future_result_t<Range>>(runtime::states_of(fs), deadline);
}

template <class R>
class AsCompleted<R>::iterator {
public:
    using value_type = Future<R>;
    using difference_type = std::ptrdiff_t;
    using iterator_concept = std::input_iterator_tag;

    explicit iterator(std::shared_ptr<Futures> futures) : futures_(std::move(futures)) { ++*this; }
    [[nodiscard]] Future<R>& operator*() const noexcept { return current_; }
    [[nodiscard]] Future<R>* operator->() const noexcept { return &current_; }
    iterator& operator++() {
        // Gone before the next is waited for.
        current_ = none();
        auto next = futures_->group.next(futures_->deadline);
        at_end_ = next == nullptr;
        current_ = runtime::FutureAccess::handle<Future<R>>(std::move(next));
        return *this;
    }
    void operator++(int) { ++*this; }
    friend bool operator==(const iterator& it, std::default_sentinel_t) noexcept {
        return it.at_end_;
    }

private:
    static Future<R> none() noexcept { return runtime::FutureAccess::handle<Future<R>>(nullptr); }

    std::shared_ptr<Futures> futures_;
    mutable Future<R> current_ = none();
    bool at_end_ = false;
};

}  // namespace multiprocessing::concurrent::futures
