// SPDX-License-Identifier: BSL-1.0
//
// How outcomes get from the ranks to the jobs. The rest of mpi/engine.hpp, which includes this.
#pragma once

#include <multiprocessing/mpi/engine.hpp>

namespace multiprocessing::mpi {

inline void RankEngine::accept(int rank, Kind kind, MessageReader message) {
    const auto index = static_cast<std::size_t>(rank);
    Seat* const seat = index < by_rank_.size() ? by_rank_[index] : nullptr;
    if (seat == nullptr) return;
    switch (kind) {
    case Kind::outcomes: return accept_outcomes(*seat, message);
    case Kind::failed: {
        const std::exception_ptr why = Job::load(message.rest());
        if (!is_executors_) return break_down(why);
        break_down(Failure([text = "the pool of ranks can do no more work: its initializer threw " +
                                   pickle::describe(why)] {
            return std::make_exception_ptr(BrokenProcessPool(text));
        }));
        return;
    }
    case Kind::closed: {
        const std::lock_guard lock(mutex_);
        seat->is_closed = true;
        return;
    }
    default: throw UnpicklingError("the master of a pool has been sent a message that is for a rank");
    }
}

inline void RankEngine::lose_all(const std::exception_ptr& why) {
    break_down(why);
    fail_all(runtime::pool::always(why), false);  // nobody is left to be waited for
    wake();
}

inline void RankEngine::accept_outcomes(Seat& seat, MessageReader message) {
    GivenPointer given;  // of the outcome before: most are of the same
    while (!message.at_end()) {
        const auto outcome = message.get<Outcome>();
        std::span<const std::byte> bytes;
        using What = Outcome::What;
        if (outcome.what == What::array || outcome.what == What::value || outcome.what == What::error) {
            bytes = message.take(outcome.size);
        }
        if (outcome.what == What::spent) {
            note_time(seat, outcome);
            continue;
        }
        if (!given || given->id != outcome.task) {
            if (auto other = find_given(outcome.task)) {
                given = std::move(other);
            } else if (outcome.task == 0) {  // the rank is free again
                const std::lock_guard lock(mutex_);
                seat.is_stuck = false;
                feed(seat);
                continue;
            } else {
                continue;
            }
        }
        take_outcome(seat, given, outcome, bytes);
    }
    dispatch();
}

inline void RankEngine::take_outcome(Seat& seat, const GivenPointer& given, const Outcome& outcome,
                                     std::span<const std::byte> bytes) {
    const std::uint64_t item = given->base + outcome.item;
    using What = Outcome::What;
    try {
        switch (outcome.what) {
        case What::array: given->job->array(item, bytes.data(), 0, outcome.count); break;
        case What::value: {
            pickle::Cargo nothing;
            given->job->value(item, bytes, nothing);
            break;
        }
        case What::error: given->job->error(item, Job::load(bytes)); break;
        case What::late: {
            const std::string worker = fleet_ && seat.rank >= 0
                                           ? fleet_->peers().at(seat.rank).describe(seat.rank)
                                           : std::string("a worker");
            given->job->error(item, runtime::pool::task_timeout(item, given->settings, worker));
            return;  // it goes on, though nobody wants to know
        }
        case What::returned: return take_again(seat, *given, outcome);
        case What::freed:
        case What::spent: break;
        }
    } catch (...) {  // a job that cannot take its outcome in, for lack of memory, ends with that
        given->job->fail(std::current_exception());
    }
    settle(seat, given, outcome);
}

/// Items have ended.
inline void RankEngine::settle(Seat& seat, const GivenPointer& given, const Outcome& outcome) {
    {
        const std::lock_guard lock(mutex_);
        seat.is_stuck = false;
        seat.items -= std::min<std::uint64_t>(seat.items, outcome.count);
        seat.bytes -= std::min(seat.bytes, given->bytes_of(outcome.count));
        if (seat.items == 0) seat.bytes = 0;
        feed(seat);
        outstanding_.fetch_sub(outcome.count);
        given->left -= outcome.count;
        if (given->left != 0) return;
        given_.erase(given->id);
    }
    try {
        given->job->task_done(given->parts.items.size());
    } catch (...) {
        given->job->fail(std::current_exception());
    }
    if (!is_running()) wake();
}

/// How long items of a function take: the latest count most.
inline void RankEngine::note_time(Seat& seat, const Outcome& outcome) {
    constexpr double most = 4;
    const std::lock_guard lock(mutex_);
    seat.tally.ran(outcome.size, outcome.item, outcome.count);
    runtime::pool::WorkerTally::add(seat.tally.waiting, std::uint64_t{outcome.waited} * 1000);
    const auto found =
        std::find_if(functions_.begin(), functions_.end(),
                     [&](const FunctionPointer& each) { return each->head.id == outcome.task; });
    if (found == functions_.end()) return;
    SentFunction& function = **found;
    const double each = static_cast<double>(outcome.size) / outcome.count;
    function.nanoseconds = (function.nanoseconds * function.samples + each) / (function.samples + 1);
    function.samples = std::min(function.samples + 1, most);
}

/// A rank that is at something that takes long gives back what it has not begun.
inline void RankEngine::take_again(Seat& seat, Given& given, const Outcome& outcome) {
    const std::lock_guard lock(mutex_);
    seat.is_stuck = true;
    seat.items -= std::min<std::uint64_t>(seat.items, outcome.count);
    if (given.cancelled) {
        given.left -= outcome.count;
        outstanding_.fetch_sub(outcome.count);
        if (given.left == 0) given_.erase(given.id);
        return;
    }
    const std::uint32_t grain = given.parts.grain;
    given.waiting.push_front({outcome.item / grain, (outcome.item + outcome.count + grain - 1) / grain});
    given.waiting_items += outcome.count;
    waiting_items_ += outcome.count;
    if (!std::exchange(given.is_queued, true)) queue_.push_front(given_.at(given.id));
    // It takes longer than had been thought.
    given.parts.function->nanoseconds = std::max(given.parts.function->nanoseconds, 5e6);
    given.parts.function->samples = std::max(given.parts.function->samples, 1.0);
    for (Seat& other : seats_) {
        if (&other != &seat && !other.is_stuck) feed(other);
    }
}

}  // namespace multiprocessing::mpi
