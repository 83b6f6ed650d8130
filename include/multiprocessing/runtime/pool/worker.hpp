// SPDX-License-Identifier: BSL-1.0
//
// What a worker process of a Pool does: prepares itself, then takes tasks until it is to leave. Answers
// Python's `pool.worker`.
#pragma once

#include <multiprocessing/os/signals.hpp>
#include <multiprocessing/pickle/code.hpp>
#include <multiprocessing/runtime/action.hpp>
#include <multiprocessing/runtime/pool/desk.hpp>
#include <multiprocessing/runtime/pool/outcomes.hpp>
#include <multiprocessing/runtime/pool/shared.hpp>
#include <multiprocessing/runtime/pool/this_task.hpp>
#include <multiprocessing/runtime/pool/work.hpp>

#include <cstdint>
#include <exception>
#include <utility>

namespace multiprocessing::runtime::pool {

/// A worker's place: what its process is started with.
class Seat {
public:
    Seat(Channel to, std::uint32_t worker, const WorkerSlot& at, WorkerLimits most,
         const os::SignalMask& mask, Action init)
        : channel(std::move(to)), number(worker), slot(shm::Arena::instance().offset_of(&at)),
          limits(most), signals(mask), initializer(std::move(init)) {}

    Channel channel;
    std::uint32_t number = 0;
    shm::Offset slot = 0;
    WorkerLimits limits{};
    os::SignalMask signals{};  // that of whoever made the pool
    Action initializer;

    using travels_as_handle = void;

private:
    friend struct pickle::HandleAccess;
    explicit Seat(pickle::Unread unread) : channel(unread) {}
    void save_handle(pickle::OArchive& archive) const {
        pickle::HandleAccess::save(archive, channel);
        archive.put(number);
        archive.put(slot);
        archive.put(limits);
        archive.put(signals);
        initializer.save(archive);
    }
    void load_handle(pickle::IArchive& archive) {
        pickle::HandleAccess::load(archive, channel);
        number = archive.get<std::uint32_t>();
        slot = archive.get<shm::Offset>();
        limits = archive.get<WorkerLimits>();
        signals = archive.get<os::SignalMask>();
        initializer.load(archive);
    }
};

/// Tells the parent that this worker could not begin.
inline void report_failed_start(const Seat& seat, WorkerSlot& slot, const std::exception_ptr& why) {
    shm::Ticket last;
    shm::Ticket first;
    SpillWriter(seat.channel.owned(), first, last).error(0, why, true);
    slot.spill = first;
    seat.channel.report({0, 0, seat.number});
}

/// The target of a worker's process.
inline void work(const Seat& seat) {
    os::ignore_interrupts();  // Ctrl-C is for the parent, who decides
    seat.signals.apply();     // a replacement is started by a thread that takes none
    WorkerSlot& slot = *shm::Arena::instance().at<WorkerSlot>(seat.slot);
    process_as_worker = {&slot.run, seat.number};
    slot.stage = WorkerSlot::Stage::initializing;
    try {
        seat.initializer();
    } catch (const SystemExit&) {
        throw;
    } catch (...) {
        report_failed_start(seat, slot, std::current_exception());
        throw SystemExit(1);
    }
    slot.stage = WorkerSlot::Stage::ready;
    slot.tally.ready.store(os::nanoseconds_now());
    Desk desk(seat.channel, seat.number, slot, seat.limits);
    while (Task* task = desk.next()) {
        const void* const entry = pickle::code_at(task->entry);
        reinterpret_cast<Entry>(const_cast<void*>(entry))(*task, desk.claimed(), desk);
        desk.put_down();
    }
    slot.stage = WorkerSlot::Stage::left;
}

}  // namespace multiprocessing::runtime::pool
