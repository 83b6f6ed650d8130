// SPDX-License-Identifier: BSL-1.0
//
// The beginning and the end of a pool over ranks, and what its thread does. The rest of mpi/engine.hpp,
// which includes this.
#pragma once

#include <multiprocessing/mpi/engine.hpp>

namespace multiprocessing::mpi {

inline RankEngine::RankEngine(Settings settings, std::uint32_t size)
    : Engine(size, settings.is_executors), fleet_(std::move(settings.fleet)),
      is_executors_(settings.is_executors), setup_(std::move(settings.setup)) {
    std::uint32_t worker = 0;
    const auto add = [&](int rank, std::uint32_t processes) {
        const std::uint32_t capacity = std::max(processes, std::uint32_t{1});
        seats_.emplace_back(rank, worker, capacity, processes, seats_.size());
        if (rank >= 0) {
            if (by_rank_.size() <= static_cast<std::size_t>(rank)) by_rank_.resize(std::size_t(rank) + 1);
            by_rank_[static_cast<std::size_t>(rank)] = &seats_.back();
        }
        seats_.back().place = hungry_.insert(hungry_.end(), &seats_.back());
        seats_.back().tally.began.store(os::nanoseconds_now());
        seats_.back().tally.ready.store(os::nanoseconds_now());
        worker += capacity;
    };
    if (settings.local_processes != 0) add(-1, settings.local_processes);
    for (std::size_t i = 0; i < settings.ranks.size(); ++i) {
        add(settings.ranks[i], settings.capacities[i]);
    }
}

inline RankEngine::~RankEngine() {
    if (fleet_ && !is_foreign()) fleet_->leave(number_);
}

inline std::shared_ptr<RankEngine> RankEngine::start(Settings settings) {
    std::uint32_t size = settings.local_processes;
    for (const std::uint32_t each : settings.capacities) size += std::max(each, std::uint32_t{1});
    auto engine = std::make_shared<RankEngine>(std::move(settings), size);
    if (engine->fleet_) {
        engine->number_ = engine->fleet_->join(std::weak_ptr<Customer>(engine));
    }
    // What cannot travel is found out before anybody is told of the pool.
    std::vector<std::pair<int, pickle::Buffer>> messages;
    for (Seat& seat : engine->seats_) {
        PoolSetup setup = engine->setup_;
        setup.processes = seat.processes;
        if (seat.rank < 0) {
            engine->local_ = std::make_unique<LocalNode>(*engine, seat);
            engine->local_->open(setup);
            continue;
        }
        pickle::Buffer message;
        append(message, Open{Kind::open, seat.worker, engine->number_, seat.processes, 0});
        pickle::OArchive archive(message, nullptr);
        pickle::while_pickling([&] { setup.save(archive); });
        messages.emplace_back(seat.rank, std::move(message));
    }
    engine->start_thread();
    for (auto& [rank, message] : messages) engine->fleet_->send(rank, std::move(message));
    return engine;
}

inline bool RankEngine::wait(const Awaited& awaited, os::Deadline deadline) {
    if (awaited.ready()) return true;
    deadline.is_never() ? check_may_wait() : check_own();
    // In a callback: the thread that cannot bring what it waits for. And where there is nobody to be
    // asked, outcomes come by themselves.
    if (brings_outcomes() || !fleet_) return awaited.sleep(deadline);
    Backoff backoff(spin_time());
    while (!awaited.ready()) {
        if (deadline.expired()) return awaited.ready();
        if (poll()) {
            backoff.reset();
            continue;
        }
        const auto nap = backoff.next();
        if (nap.count() != 0) awaited.sleep(deadline.earlier(os::Deadline::after(nap)));
    }
    return true;
}

inline void RankEngine::look() {
    if (is_foreign() || brings_outcomes()) return;
    poll();
}

inline void RankEngine::attend() {
    came_some_ = false;
    if (!fleet_ || outstanding_.load() == 0) return;
    if (local_) local_->tend();
    listen_for_the_lost();
    // Where somebody waits, he does it.
    if (others_poll()) return;
    came_some_ = poll();
}

/// Who has a part in this pool says something now and then, whatever it is at.
inline void RankEngine::listen_for_the_lost() {
    constexpr std::uint64_t interval = 100'000'000;
    const std::uint64_t now = os::nanoseconds_now();
    if (now - listened_ < interval) return;
    listened_ = now;
    for (const Seat& seat : seats_) {
        if (seat.rank >= 0) fleet_->expect_word_of(seat.rank);
    }
}

inline void RankEngine::sleep() {
    if (!thread_backoff_) thread_backoff_.emplace(spin_time());
    const bool is_quiet = !fleet_ || outstanding_.load() == 0;
    if (!is_quiet && came_some_) return thread_backoff_->reset();
    std::chrono::nanoseconds nap{0};
    if (!is_quiet) {
        nap = others_poll() ? std::chrono::milliseconds(1) : thread_backoff_->next();
        if (nap.count() == 0) return;
    } else {
        thread_backoff_->reset();
    }
    std::unique_lock lock(nap_);
    if (is_quiet) {
        is_parked_.store(true);
        // Counted before the look whether it is parked.
        if (!fleet_ || outstanding_.load() == 0) nap_ends_.wait(lock, [this] { return woken_; });
        is_parked_.store(false);
    } else {
        nap_ends_.wait_for(lock, nap, [this] { return woken_; });
    }
    woken_ = false;
}

inline void RankEngine::wake() noexcept {
    {
        const std::lock_guard lock(nap_);
        woken_ = true;
    }
    nap_ends_.notify_one();
}

inline void RankEngine::send_to_all(const Head& head) {
    for (const Seat& seat : seats_) {
        if (seat.rank < 0) continue;
        pickle::Buffer message;
        append(message, head);
        fleet_->send(seat.rank, std::move(message));
    }
}

inline void RankEngine::see_workers_off() {
    if (fleet_) {
        send_to_all({Kind::close, 0, number_});
        Backoff backoff(spin_time());
        const auto all_closed = [this] {
            const std::lock_guard lock(mutex_);
            return std::all_of(seats_.begin(), seats_.end(),
                               [](const Seat& seat) { return seat.rank < 0 || seat.is_closed; });
        };
        while (!all_closed() && !should_hurry() && !fleet_->peers().is_any_lost()) {
            if (poll()) {
                backoff.reset();
            } else {
                std::this_thread::sleep_for(backoff.next());
            }
        }
    }
    if (local_) local_->close();
}

/// A rank cannot be ended: it is told, and goes on to what others want of it when its task has returned.
inline void RankEngine::end_workers() {
    bool is_over = true;
    {
        const std::lock_guard lock(mutex_);
        for (const Seat& seat : seats_) is_over = is_over && seat.is_closed;
    }
    if (fleet_ && !is_over) send_to_all({Kind::close, 1, number_});
    if (local_) local_->close();
    if (fleet_) fleet_->leave(number_);
}

inline void RankEngine::fail_all(const Failure& failure, bool workers_run) {
    std::vector<std::shared_ptr<Job>> jobs;
    std::deque<GivenPointer> dropped;  // without the mutex
    std::vector<Post> posts;
    {
        const std::lock_guard lock(mutex_);
        dropped.swap(queue_);
        waiting_items_ = 0;
        for (auto at = given_.begin(); at != given_.end();) {
            Given& given = *at->second;
            jobs.push_back(given.job);
            given.left -= given.waiting_items;
            given.waiting.clear();
            given.waiting_items = 0;
            given.is_queued = false;
            given.cancelled = true;
            if (workers_run && given.left != 0) {
                tell_cancelled(given, posts);
                ++at;
            } else {
                dropped.push_back(at->second);
                at = given_.erase(at);
            }
        }
        if (!workers_run) outstanding_.store(0);
    }
    for (const auto& job : jobs) job->fail(failure());
    for (Post& each : posts) post(each);
}

inline std::vector<RankInfo> RankEngine::ranks() const {
    std::vector<RankInfo> all;
    for (const Seat& seat : seats_) {
        const Peer peer = seat.rank < 0 ? Peer::self() : fleet_->peers().at(seat.rank);
        all.push_back({seat.rank, peer.host, peer.pid, static_cast<int>(seat.capacity)});
    }
    return all;
}

inline PoolStats RankEngine::stats() const {
    check_own();
    PoolStats stats;
    const std::lock_guard lock(mutex_);
    for (const Seat& seat : seats_) {
        WorkerStats one;
        one.worker_id = static_cast<int>(seat.worker);
        one.pid = seat.rank < 0 ? os::this_pid() : fleet_->peers().at(seat.rank).pid;
        one.alive = !seat.is_closed;
        add_to(one, seat.tally);
        add_to(stats, one, seat.tally);
    }
    return stats;
}

}  // namespace multiprocessing::mpi
