// SPDX-License-Identifier: BSL-1.0
//
// How workers are told to stop: those whose task has been cancelled, and those that take too long. The
// rest of runtime/pool/process_engine.hpp, which includes this.
#pragma once

#include <multiprocessing/runtime/pool/process_engine.hpp>

namespace multiprocessing::runtime::pool {

/// Has a worker know that it is to stop what it is at, if it still is at that.
inline bool ProcessEngine::ask_to_stop(std::uint32_t number, std::uint64_t run,
                                       std::chrono::nanoseconds grace) {
    const std::uint64_t asked = (run & ~WorkerSlot::run_mask) | WorkerSlot::asked;
    if (!workers_[number].slot->run.compare_exchange_strong(run, asked)) return false;
    stops_.push_back({number, asked, os::Clock::now() + grace, grace});
    return true;
}

/// The task that a worker is at; `run` is what its slot says.
inline ProcessEngine::GivenPointer ProcessEngine::task_in_hand(std::uint32_t number,
                                                               std::uint64_t& run) const {
    const WorkerSlot& slot = *workers_[number].slot;
    run = slot.run.load();  // in the one order of all, see Work
    if ((run & WorkerSlot::run_mask) != WorkerSlot::running) return nullptr;
    return find_given(std::atomic_ref(const_cast<std::uint64_t&>(slot.id)).load());
}

inline void ProcessEngine::stop_cancelled() {
    {
        const std::lock_guard lock(mutex_);
        if (!std::exchange(has_cancelled_, false)) return;
    }
    for (std::uint32_t number = 0; number < workers_.size(); ++number) {
        if (workers_[number].gone) continue;
        std::uint64_t run = 0;
        const GivenPointer given = task_in_hand(number, run);
        if (!given) continue;
        bool is_cancelled = false;
        {
            const std::lock_guard lock(mutex_);
            is_cancelled = given->cancelled;
        }
        // One that is between two items sees it by itself.
        if (is_cancelled) ask_to_stop(number, run, given->settings.grace);
    }
}

/// Ends the items that have been run for longer than they may.
inline void ProcessEngine::stop_overdue() {
    std::chrono::nanoseconds shortest{0};
    {
        const std::lock_guard lock(mutex_);
        if (timeouts_.empty()) return;
        shortest = timeouts_.begin()->first;
    }
    const auto now = os::Clock::now();
    next_look_ = next_look_.earlier(os::Deadline::at(now + shortest));  // for what begins from now on
    for (std::uint32_t number = 0; number < workers_.size(); ++number) {
        if (workers_[number].gone) continue;
        std::uint64_t run = 0;
        const GivenPointer given = task_in_hand(number, run);
        if (!given || given->settings.timeout.count() == 0) continue;
        const WorkerSlot& slot = *workers_[number].slot;
        const os::Clock::time_point started{std::chrono::nanoseconds(slot.started.load())};
        const std::uint32_t grain = slot.grain;
        const std::uint32_t item = slot.item;
        if (slot.run.load(std::memory_order_acquire) != run) continue;
        if (now < started + given->settings.timeout) {
            next_look_ = next_look_.earlier(os::Deadline::at(started + given->settings.timeout));
        } else {
            give_up(number, run, given, grain, item);
        }
    }
}

inline void ProcessEngine::give_up(std::uint32_t number, std::uint64_t run, const GivenPointer& given,
                                   std::uint32_t index, std::uint32_t late) {
    const Reading reading(*this);
    if (given->grains[index].over) return;
    Task& task = task_of(*given);
    // It may have ended already, and the worker be on its way to the next one, which is not late.
    const std::uint32_t finished = task.all_grains()[index].finished.load(std::memory_order_acquire);
    if (task.first_of(index) + finished != late) return;
    if (!ask_to_stop(number, run, given->settings.grace)) return;
    given->given_up.insert(late);
    const std::uint64_t item = given->base + late;
    const ProcessState& worker = *workers_[number].process;
    given->job->error(item, task_timeout(item, given->settings,
                                         "worker " + worker.current_name() + " (pid " +
                                             std::to_string(worker.pid.value_or(0)) + ")"));
}

/// Those who were asked and go on are sent SIGTERM, and then SIGKILL.
inline void ProcessEngine::go_on_stopping() {
    const auto now = os::Clock::now();
    std::erase_if(stops_, [&](Stop& stop) {
        WorkerSlot& slot = *workers_[stop.worker].slot;
        if (now >= stop.when) {
            if (stop.terminated) {
                workers_[stop.worker].process->send_signal(SIGKILL);
                return true;
            }
            // From here on it begins nothing else, so nothing else is hit.
            const std::uint64_t doomed = (stop.run & ~WorkerSlot::run_mask) | WorkerSlot::doomed;
            if (!slot.run.compare_exchange_strong(stop.run, doomed)) return true;
            workers_[stop.worker].process->send_signal(SIGTERM);
            stop.terminated = true;
            stop.when = now + stop.grace;
        } else if (!stop.terminated && slot.run.load() != stop.run) {
            return true;
        }
        next_look_ = next_look_.earlier(os::Deadline::at(stop.when));
        return false;
    });
}

}  // namespace multiprocessing::runtime::pool
