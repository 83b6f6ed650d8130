// SPDX-License-Identifier: BSL-1.0
//
// Pools of processes that run what a pool over ranks gives to a node: those of a rank that stands for
// its node, and of a master that works itself.
#pragma once

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/mpi/answers.hpp>
#include <multiprocessing/mpi/messages.hpp>
#include <multiprocessing/mpi/setup.hpp>
#include <multiprocessing/mpi/work.hpp>
#include <multiprocessing/pickle/code.hpp>
#include <multiprocessing/runtime/pool/job.hpp>
#include <multiprocessing/runtime/pool/process_engine.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <utility>
#include <vector>

namespace multiprocessing::mpi {

/// A function as its bytes, with all that a local pool must know of it.
struct FunctionBytes {
    Function head;
    SliceInHand::Message message;
    std::span<const std::byte> callable;
};

/// A slice as the local pool's job: passes its outcomes on as they come.
class NodeJob final : public runtime::pool::Job {
public:
    /// `last`: when there was an outcome of its local pool.
    NodeJob(Answers& answers, bool eager, std::uint64_t pool, const Slice& slice, std::uint32_t element,
            std::uint32_t processes, std::shared_ptr<std::atomic<std::uint64_t>> last)
        : answers_(answers), eager_(eager), pool_(pool), slice_(slice), element_(element),
          at_once_(std::min(processes, slice.grains())), last_(std::move(last)),
          open_(slice.count, true) {}

    void array(std::uint64_t item, const std::byte* array, std::uint32_t from,
               std::uint32_t count) override {
        const std::uint32_t begin = of_task(item);
        for (std::uint32_t first = begin; first != begin + count;) {
            const std::uint32_t some = close(first, begin + count - first);
            const std::size_t size = std::size_t{some} * element_;
            if (some != 0) {
                answers_.add(pool_, {slice_.task, Outcome::What::array, first, some, 0, size},
                             {array + std::size_t{from + first - begin} * element_, size});
            }
            first += std::max(some, std::uint32_t{1});
        }
        sent();
    }
    void value(std::uint64_t item, std::span<const std::byte> bytes, pickle::Cargo& cargo) override {
        if (cargo.has_arrived()) {
            return error(item, std::make_exception_ptr(PicklingError(
                                   "the result refers to an object in shared memory (a Queue, Lock, Value, "
                                   "Array, ...), which only the processes of one machine have in common")));
        }
        const std::uint32_t first = of_task(item);
        if (close(first, 1) == 0) return;
        answers_.add(pool_, {slice_.task, Outcome::What::value, first, 1, 0, bytes.size()}, bytes);
        sent();
    }
    void error(std::uint64_t item, std::exception_ptr exception) override {
        const std::uint32_t first = of_task(item);
        if (close(first, 1) == 0) return;
        answers_.error(pool_, slice_.task, first, exception);
        sent();
    }
    void task_done(std::uint64_t) override {
        // As if its workers had been at it all the time.
        const std::uint64_t taken = os::nanoseconds_now() - began_;
        answers_.add(pool_, spent(slice_, 0, taken * at_once_));
        answers_.flush();
    }
    bool fail(std::exception_ptr exception) override {
        std::vector<std::uint32_t> rest;
        {
            const std::lock_guard lock(mutex_);
            for (std::uint32_t i = 0; i < slice_.count; ++i) {
                if (open_[i]) rest.push_back(slice_.first + i);
                open_[i] = false;
            }
        }
        if (rest.empty()) return false;
        bool is_cancelled = false;
        try {
            std::rethrow_exception(exception);
        } catch (const CancelledError&) {  // by the master, who need not be told
            is_cancelled = true;
        } catch (...) {
        }
        for (const std::uint32_t item : rest) {
            if (is_cancelled) {
                answers_.add(pool_, {slice_.task, Outcome::What::freed, item, 1, 0, 0});
            } else {
                answers_.error(pool_, slice_.task, item, exception);
            }
        }
        answers_.flush();
        return true;
    }

    [[nodiscard]] std::uint64_t task() const noexcept { return slice_.task; }
    /// It is this task of the local pool's.
    void is_given_as(std::uint64_t local_id) noexcept { local_id_.store(local_id); }
    [[nodiscard]] bool has_begun(const runtime::pool::ProcessEngine& engine) const {
        return engine.has_begun(local_id_.load());
    }
    [[nodiscard]] bool is_over() const {
        const std::lock_guard lock(mutex_);
        return std::find(open_.begin(), open_.end(), true) == open_.end();
    }
    /// What has not begun is for other nodes to run.
    void give_back(runtime::pool::ProcessEngine& engine) {
        for (const auto& [first, count] : engine.take_rest(local_id_.load())) {
            if (close(slice_.first + first, count) != count) continue;  // it has been cancelled meanwhile
            answers_.add(pool_, {slice_.task, Outcome::What::returned, slice_.first + first, count, 0, 0});
        }
    }

private:
    // The local pool counts as the job does that everything is part of.
    [[nodiscard]] std::uint32_t of_task(std::uint64_t item) const noexcept {
        return static_cast<std::uint32_t>(item - slice_.base);
    }
    /// These have an outcome now: how many of them, from the first on, had none. A worker may be at an
    /// item that has been cancelled.
    [[nodiscard]] std::uint32_t close(std::uint32_t first, std::uint32_t count) {
        last_->store(os::nanoseconds_now(), std::memory_order_relaxed);
        const std::lock_guard lock(mutex_);
        std::uint32_t closed = 0;
        for (; closed != count && open_[first - slice_.first + closed]; ++closed) {
            open_[first - slice_.first + closed] = false;
        }
        return closed;
    }
    void sent() { eager_ ? answers_.flush() : answers_.flush_some(); }

    Answers& answers_;
    const bool eager_;
    const std::uint64_t pool_;
    const Slice slice_;
    const std::uint32_t element_;
    const std::uint32_t at_once_;
    const std::shared_ptr<std::atomic<std::uint64_t>> last_;
    std::atomic<std::uint64_t> local_id_{0};
    const std::uint64_t began_ = os::nanoseconds_now();
    mutable std::mutex mutex_;
    std::vector<bool> open_;  // items without an outcome
};

/// The local pools, by the number of the pool that each is a part of.
class Node {
public:
    /// `eager`: every outcome is passed on at once. Else the owner sees to it that `answers` are flushed
    /// now and then.
    Node(Answers& answers, bool eager) noexcept : answers_(answers), eager_(eager) {}
    ~Node() {
        for (auto& [number, pool] : pools_) pool->engine->abandon();
    }
    Node(const Node&) = delete;
    Node& operator=(const Node&) = delete;

    void open(std::uint64_t pool, const PoolSetup& setup) {
        auto made = std::make_shared<Pool>();
        made->engine = runtime::pool::ProcessEngine::start(setup.local_settings());
        made->service.emplace(made->engine);
        const std::lock_guard lock(mutex_);
        pools_.emplace(pool, std::move(made));
    }
    [[nodiscard]] bool has(std::uint64_t pool) const { return find(pool) != nullptr; }
    /// Ends it; what it still has is failed first. *Blocks* until its workers have ended.
    void close(std::uint64_t number) {
        const PoolPointer pool = find(number);
        if (!pool) return;
        {
            const std::lock_guard lock(mutex_);
            pools_.erase(number);
        }
        pool->service.reset();
        pool->engine->abandon();
        answers_.flush();
    }
    void run(const std::shared_ptr<SliceInHand>& work, const FunctionBytes& function);
    void cancel(std::uint64_t pool, std::span<const std::uint64_t> tasks);
    /// Takes in what has come.
    void look() {
        for (const auto& [number, pool] : all()) pool->engine->look();
    }
    /// Where all workers of a pool have been at the same for long, what waits for them is given back.
    void give_back_what_waits();
private:
    struct Pool {
        std::shared_ptr<runtime::pool::ProcessEngine> engine;
        std::optional<runtime::pool::Service> service;
        std::vector<std::weak_ptr<NodeJob>> jobs;
        std::shared_ptr<std::atomic<std::uint64_t>> last = std::make_shared<std::atomic<std::uint64_t>>(0);
    };
    using PoolPointer = std::shared_ptr<Pool>;
    [[nodiscard]] PoolPointer find(std::uint64_t number) const {
        const std::lock_guard lock(mutex_);
        const auto found = pools_.find(number);
        return found != pools_.end() ? found->second : nullptr;
    }
    [[nodiscard]] std::map<std::uint64_t, PoolPointer> all() const {
        const std::lock_guard lock(mutex_);
        return pools_;
    }
    [[nodiscard]] std::vector<std::shared_ptr<NodeJob>> jobs_of(Pool& pool) const {
        std::vector<std::shared_ptr<NodeJob>> jobs;
        const std::lock_guard lock(mutex_);
        for (const auto& each : pool.jobs) {
            if (auto job = each.lock()) jobs.push_back(std::move(job));
        }
        return jobs;
    }

    Answers& answers_;
    const bool eager_;
    mutable std::mutex mutex_;  // guards these, and their jobs
    std::map<std::uint64_t, PoolPointer> pools_;
};

// ---------------------------------------------------------------------------------------------------

inline void Node::run(const std::shared_ptr<SliceInHand>& work, const FunctionBytes& function) {
    const Slice& slice = work->slice;
    const PoolPointer held = find(work->pool);
    if (!held) return;
    Pool& pool = *held;
    const auto job =
        std::make_shared<NodeJob>(answers_, eager_, work->pool, slice, function.head.element,
                                  pool.engine->size(), pool.last);
    try {
        const auto entry = reinterpret_cast<runtime::pool::Entry>(
            const_cast<void*>(pickle::code_at(function.head.entry)));
        const std::span<const std::byte> items = work->items();
        runtime::pool::Task& task = pool.engine->make_task(
            {entry, slice.count, std::min(slice.grain, slice.count), function.head.element,
             function.callable.size(), items.size(), function.head.item != 0, slice.timeout != 0},
            {});
        std::memcpy(task.at(task.callable), function.callable.data(), function.callable.size());
        if (function.head.item != 0) {
            std::memcpy(shm::Arena::instance().at<std::byte>(task.items), items.data(), items.size());
        } else {
            const std::uint64_t begin = task.end - items.size();
            if (!items.empty()) std::memcpy(task.at(begin), items.data(), items.size());
            for (std::uint32_t i = 0; i < task.grains; ++i) {
                task.all_grains()[i].first_byte = begin + work->place_of(i);
            }
        }
        runtime::pool::TaskSettings settings;
        settings.timeout = std::chrono::nanoseconds(slice.timeout);
        settings.grace = std::chrono::nanoseconds(slice.grace);
        settings.retries = slice.retries;
        {
            const std::lock_guard lock(mutex_);
            std::erase_if(pool.jobs, [](const auto& each) { return each.expired(); });
            if (pool.jobs.empty()) pool.last->store(os::nanoseconds_now());
            pool.jobs.push_back(job);
        }
        job->is_given_as(pool.engine->submit(job, slice.base + slice.first, task, settings));
    } catch (...) {
        job->fail(std::current_exception());
    }
}

inline void Node::cancel(std::uint64_t number, std::span<const std::uint64_t> tasks) {
    const PoolPointer pool = find(number);
    if (!pool) return;
    for (const auto& job : jobs_of(*pool)) {
        if (std::find(tasks.begin(), tasks.end(), job->task()) != tasks.end()) pool->engine->cancel(job);
    }
}

inline void Node::give_back_what_waits() {
    for (const auto& [number, pool] : all()) {
        const std::uint64_t last = pool->last->load(std::memory_order_relaxed);
        if (last == 0 || os::nanoseconds_now() - last < std::uint64_t(too_long.count())) continue;
        const auto jobs = jobs_of(*pool);
        // If nobody has begun anything the workers are about to.
        if (std::none_of(jobs.begin(), jobs.end(),
                         [&](const auto& job) { return job->has_begun(*pool->engine); })) {
            continue;
        }
        for (const auto& job : jobs) job->give_back(*pool->engine);
        // The next outcome tells that it is free again; where none will come this does.
        if (std::all_of(jobs.begin(), jobs.end(), [](const auto& job) { return job->is_over(); })) {
            answers_.add(number, Outcome{0, Outcome::What::freed, 0, 0, 0, 0});
        }
    }
    answers_.flush();
}

}  // namespace multiprocessing::mpi
