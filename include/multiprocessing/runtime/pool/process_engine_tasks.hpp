// SPDX-License-Identifier: BSL-1.0
//
// How tasks are made, given, taken back and freed. The rest of runtime/pool/process_engine.hpp, which
// includes this.
#pragma once

#include <multiprocessing/runtime/pool/process_engine.hpp>

namespace multiprocessing::runtime::pool {

inline Task& ProcessEngine::make_task(const TaskPlan& plan, std::span<const shm::Ticket> tickets) const {
    const auto aligned = [](std::uint64_t bytes, std::uint64_t to) { return (bytes + to - 1) & ~(to - 1); };
    const shm::Arena& arena = shm::Arena::instance();
    const std::uint32_t grains = (plan.count + plan.grain - 1) / plan.grain;
    const std::uint64_t results = sizeof(Task) + grains * sizeof(Grain);
    const std::uint64_t callable = results + aligned(plan.element * plan.count, 64);
    const std::uint64_t items =
        plan.aligned ? aligned(callable + plan.callable, 64) : callable + plan.callable;
    const std::uint64_t end = items + plan.items;
    const std::uint64_t size = aligned(end, 8) + tickets.size_bytes();

    const auto code = pickle::code_address(reinterpret_cast<const void*>(plan.entry));
    shm::Transaction tx = arena.transaction();
    shm::Block& block = arena.allocate(tx, size, channel_.owned());
    std::byte* const memory = shm::Arena::payload(block);
    if (!tickets.empty()) {
        std::memcpy(memory + size - tickets.size_bytes(), tickets.data(), tickets.size_bytes());
        tx.set(block.tickets, tickets.size());
    }
    tx.commit();
    auto* task = new (memory) Task{};
    task->entry = code;
    task->count = plan.count;
    task->grain = plan.grain;
    task->grains = grains;
    task->timed = plan.timed ? 1 : 0;
    task->keeps_exit = settings_.is_executors ? 1 : 0;
    task->callable = callable;
    task->end = end;
    task->results = plan.element != 0 ? results : 0;
    task->items = arena.offset_of(memory) + items;
    for (std::uint32_t i = 0; i < grains; ++i) new (memory + sizeof(Task) + i * sizeof(Grain)) Grain{};
    return *task;
}

inline std::uint64_t ProcessEngine::submit(const std::shared_ptr<Job>& job, std::uint64_t base,
                                           Task& task, const TaskSettings& settings) {
    const std::uint64_t id = next_id_.fetch_add(1);
    task.id = id;
    task.base = base;
    const shm::Ticket ticket = shm::Arena::instance().ticket(shm::Arena::block_of(&task));
    auto given = std::make_shared<Given>(
        Given{job, base, ticket, settings, std::vector<GrainBook>(task.grains), {}, task.grains});
    std::exception_ptr refused;
    bool thread_is_wanted = false;
    {
        const std::lock_guard lock(mutex_);
        refused = refusal();
        if (!refused) {
            outstanding_.fetch_add(task.grains);
            given_.emplace(id, std::move(given));
            if (settings.timeout.count() != 0) {
                thread_is_wanted = timeouts_.empty() || settings.timeout < timeouts_.begin()->first;
                ++timeouts_[settings.timeout];
            }
            const std::uint32_t workers =
                settings_.on_demand
                    ? static_cast<std::uint32_t>(std::clamp<std::uint64_t>(outstanding_, wanted_, size()))
                    : size();
            thread_is_wanted = thread_is_wanted || std::exchange(wanted_, workers) != workers;
        }
    }
    if (refused) {
        free_task(ticket);
        job->fail(refused);
        return id;
    }
    try {
        offer(ticket, Offer::any);
    } catch (...) {
        if (const auto mine = find_given(id)) {
            mine->job->fail(std::current_exception());
            const std::uint32_t grains = task.grains;
            for (std::uint32_t i = 0; i < grains; ++i) grain_over(mine, id, i);
        }
        throw;
    }
    if (thread_is_wanted) wake();
    return id;
}

/// By its ticket: somebody may have cancelled it, and the block be another's by now.
inline void ProcessEngine::offer(shm::Ticket block, std::uint32_t grain) {
    const Offer offer{block, grain, 0};
    static_cast<void>(channel_.tasks().put(os::Deadline::never(), [&](shm::Ring::Putter& end) {
        std::memcpy(end.reserve(sizeof offer), &offer, sizeof offer);
    }));
}

/// Keeps the grains that nobody has begun from being begun. How many those were. With the mutex.
inline std::size_t ProcessEngine::withdraw(Given& given) noexcept {
    Task& task = task_of(given);
    task.cancelled.store(1);
    std::size_t taken = 0;
    for (Grain& grain : task.all_grains()) {
        if (withdraw(grain)) ++taken;
    }
    return taken;
}

inline bool ProcessEngine::cancel(const std::shared_ptr<Job>& job) {
    check_own();
    std::vector<shm::Ticket> unused;
    {
        const std::lock_guard lock(mutex_);
        for (auto at = given_.begin(); at != given_.end();) {
            Given& given = *at->second;
            if (given.job != job || given.cancelled) {
                ++at;
                continue;
            }
            given.cancelled = true;
            const std::size_t withdrawn = withdraw(given);
            given.left -= withdrawn;
            outstanding_.fetch_sub(withdrawn);
            if (given.left != 0) {
                has_cancelled_ = has_cancelled_ || given.settings.may_be_stopped;
                ++at;
                continue;
            }
            unused.push_back(given.block);
            at = forget(at);
        }
    }
    for (const shm::Ticket& block : unused) free_task(block);
    const bool in_time =
        job->fail(std::make_exception_ptr(CancelledError("the task was cancelled")));
    rouse_reader();
    wake();
    return in_time;
}

inline bool ProcessEngine::take_back(std::uint64_t id) {
    if (is_foreign()) return false;
    GivenPointer given;
    {
        const std::lock_guard lock(mutex_);
        const auto found = given_.find(id);
        if (found == given_.end() || found->second->grains.size() != 1) return false;
        if (!withdraw(task_of(*found->second).all_grains()[0])) return false;
        given = found->second;
        outstanding_.fetch_sub(1);
        forget(found);
    }
    free_task(given->block);
    wake();
    return true;
}

inline std::vector<std::pair<std::uint32_t, std::uint32_t>> ProcessEngine::take_rest(std::uint64_t id) {
    std::vector<std::pair<std::uint32_t, std::uint32_t>> taken;
    GivenPointer unused;
    {
        const std::lock_guard lock(mutex_);
        const auto found = given_.find(id);
        if (found == given_.end()) return taken;
        Given& given = *found->second;
        Task& task = task_of(given);
        taken.reserve(task.grains);
        for (std::uint32_t i = 0; i < task.grains; ++i) {
            if (!withdraw(task.all_grains()[i])) continue;
            taken.emplace_back(task.first_of(i), task.items_of(i));
            --given.left;
            outstanding_.fetch_sub(1);
        }
        if (given.left == 0) {
            unused = found->second;
            forget(found);
        }
    }
    if (unused) free_task(unused->block);
    return taken;
}

inline bool ProcessEngine::has_begun(std::uint64_t id) const {
    if (is_foreign()) return false;
    const std::lock_guard lock(mutex_);
    const auto found = given_.find(id);
    return found != given_.end() &&
           task_of(*found->second).all_grains()[0].holder.load() != Grain::waiting;
}

inline void ProcessEngine::cancel_waiting() {
    struct Chunk {
        std::shared_ptr<Job> job;
        std::uint64_t first;
        std::uint32_t items;
    };
    std::vector<Chunk> chunks;
    std::vector<shm::Ticket> unused;
    {
        const std::lock_guard lock(mutex_);
        refuse_more();
        for (auto at = given_.begin(); at != given_.end();) {
            Given& given = *at->second;
            Task& task = task_of(given);
            for (std::uint32_t i = 0; i < task.grains; ++i) {
                if (!withdraw(task.all_grains()[i])) continue;
                chunks.push_back({given.job, given.base + task.first_of(i), task.items_of(i)});
                --given.left;
                outstanding_.fetch_sub(1);
            }
            if (given.left != 0) {
                ++at;
                continue;
            }
            unused.push_back(given.block);
            at = forget(at);
        }
    }
    for (const shm::Ticket& block : unused) free_task(block);
    for (const Chunk& chunk : chunks) {
        for (std::uint32_t i = 0; i < chunk.items; ++i) chunk.job->taken_back(chunk.first + i);
    }
    wake();
}

inline void ProcessEngine::end_by(int signal) {
    check_own();
    {
        const std::lock_guard lock(mutex_);
        if (phase_ == Phase::running) phase_ = Phase::closing;
        dismissed_by_ = signal;
    }
    cancel_waiting();
    for (const ProcessPointer& worker : workers()) worker->send_signal(signal);
    wake();
}

inline ProcessEngine::GivenPointer ProcessEngine::find_given(std::uint64_t id) const {
    const std::lock_guard lock(mutex_);
    const auto found = given_.find(id);
    return found != given_.end() ? found->second : nullptr;
}

/// Of a task there is nothing more to come. With the mutex.
inline ProcessEngine::GivenMap::iterator ProcessEngine::forget(GivenMap::iterator at) {
    const auto timeout = timeouts_.find(at->second->settings.timeout);
    if (timeout != timeouts_.end() && --timeout->second == 0) timeouts_.erase(timeout);
    return given_.erase(at);
}

/// Of a grain there is nothing more to come.
inline void ProcessEngine::grain_over(const GivenPointer& given, std::uint64_t id, std::uint32_t grain) {
    if (std::exchange(given->grains[grain].over, true)) return;
    {
        const std::lock_guard lock(mutex_);
        if (--given->left != 0) return;
        if (const auto found = given_.find(id); found != given_.end()) forget(found);
    }
    const shm::Arena& arena = shm::Arena::instance();
    const std::uint64_t bytes = arena.size_of(arena.named(given->block));
    free_task(given->block);
    try {
        given->job->task_done(bytes);
    } catch (...) {  // for lack of memory: whoever reads goes on for the others
        given->job->fail(std::current_exception());
    }
}

inline void ProcessEngine::free_task(shm::Ticket ticket) noexcept {
    const shm::Arena& arena = shm::Arena::instance();
    const std::lock_guard lock(mutex_);
    retired_.push_back(ticket);
    std::erase_if(retired_, [&](shm::Ticket task) {
        // In a transaction, so that nobody picks it up in between.
        shm::Transaction tx = arena.transaction();
        if (is_picked_up(task)) return false;
        if (shm::Block* block = arena.heap().find(task.offset, task.serial)) arena.destroy(tx, *block);
        return true;
    });
}

/// Of a grain that is finished and read.
inline void ProcessEngine::free_outcomes(Grain& grain) noexcept {
    const shm::Arena& arena = shm::Arena::instance();
    for (shm::Ticket next = std::exchange(grain.spill, {}); next.serial != 0;) {
        shm::Transaction tx = arena.transaction();
        shm::Block* const block = arena.heap().find(next.offset, next.serial);
        if (block == nullptr) return;
        next = shm::Arena::payload<Spill>(*block)->next;
        arena.destroy(tx, *block);
    }
}

/// Does a worker still look at it? With the mutex.
inline bool ProcessEngine::is_picked_up(shm::Ticket ticket) const noexcept {
    return std::any_of(workers_.begin(), workers_.end(), [&](const Worker& worker) {
        if (worker.slot == nullptr) return false;
        shm::Ticket& held = worker.slot->task;
        return std::atomic_ref(held.serial).load(std::memory_order_acquire) == ticket.serial &&
               held.offset == ticket.offset;
    });
}

}  // namespace multiprocessing::runtime::pool
