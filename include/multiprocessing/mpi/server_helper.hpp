// SPDX-License-Identifier: BSL-1.0
//
// The thread that sees to what must not wait until the user's code returns. The rest of mpi/server.hpp,
// which includes this.
#pragma once

#include <multiprocessing/mpi/server.hpp>

namespace multiprocessing::mpi {

inline void Server::look_after() noexcept {
    int idle_ticks = 0;
    for (;;) {
        {
            std::unique_lock lock(nap_);
            if (stops_) return;
            if (!is_busy_.load() && idle_ticks > 20) {
                helper_rests_.store(true);
                nap_ends_.wait(lock, [this] { return stops_ || is_busy_.load(); });
                helper_rests_.store(false);
                idle_ticks = 0;
            } else {
                nap_ends_.wait_for(lock, wire_.all_sent() ? tick_length : tick_length / 50);
            }
            if (stops_) return;
        }
        if (!is_busy_.load()) {
            ++idle_ticks;
            continue;
        }
        idle_ticks = 0;
        try {
            tick();
        } catch (const RankLostError& error) {
            peers_.lost(error);
            return;
        }
    }
}

inline void Server::tick() {
    const std::uint64_t now = os::nanoseconds_now();
    const auto since = [now](std::uint64_t then) {
        return std::chrono::nanoseconds(static_cast<std::int64_t>(now - std::min(now, then)));
    };
    if (since(received_.load(std::memory_order_relaxed)) >= tick_length) {
        receive();
        answers_.flush();
        check_master();
    }
    end_what_is_late();
    const std::uint64_t run = state_.run().load();
    if (run != seen_run_) {
        seen_run_ = run;
        seen_at_ = now;
        has_given_back_ = false;
    } else if ((run & runtime::pool::WorkerSlot::run_mask) != runtime::pool::WorkerSlot::idle &&
               since(seen_at_) >= too_long && !has_given_back_) {
        has_given_back_ = true;
        give_back();
    }
    // New slices come to one who is still at the same: they are given back too.
    if (has_given_back_) give_back();
}

inline void Server::end_what_is_late() {
    using runtime::pool::WorkerSlot;
    WorkPointer work;
    {
        const std::lock_guard lock(mutex_);
        work = current_;
    }
    if (!work || work->slice.timeout == 0) return;
    const std::uint64_t run = state_.run().load();
    const std::uint64_t started = state_.started();
    const std::uint32_t item = state_.item();
    if ((run & WorkerSlot::run_mask) != WorkerSlot::running) return;
    if (os::nanoseconds_now() - started < static_cast<std::uint64_t>(work->slice.timeout)) return;
    {
        const std::lock_guard lock(mutex_);
        if (current_ != work) return;
    }
    if (!state_.ask_to_stop(run)) return;
    answers_.add(work->pool, Outcome{work->slice.task, Outcome::What::late, item, 1, 0, 0});
    answers_.flush();
}

/// What has not begun is for others, while this rank is at something that takes long.
inline void Server::give_back() {
    bool any = false;
    {
        const std::lock_guard lock(mutex_);
        // It has ended, and those who would get something back would not hear of that.
        if (!current_) return;
        const auto give = [&](SliceInHand& work) {
            const auto [first, grains] = work.claim_rest();
            if (grains == 0) return;
            free(work, first, grains, Outcome::What::returned);
            given_back_to_.insert(work.pool);
            any = true;
        };
        give(*current_);
        std::erase_if(errands_, [&](const Errand& errand) {
            if (!errand.work) return false;
            give(*errand.work);
            return true;
        });
    }
    if (any) answers_.flush();
}

}  // namespace multiprocessing::mpi
