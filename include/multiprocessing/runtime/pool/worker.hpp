// SPDX-License-Identifier: BSL-1.0
//
// What a worker of a Pool does: takes a task, writes down that it holds it, runs it, sends the
// outcomes, and again. Answers Python's `pool.worker`.
#pragma once

#include <multiprocessing/os/signals.hpp>
#include <multiprocessing/pickle/code.hpp>
#include <multiprocessing/runtime/action.hpp>
#include <multiprocessing/runtime/pool/outcomes.hpp>
#include <multiprocessing/runtime/pool/shared.hpp>
#include <multiprocessing/runtime/pool/work.hpp>

#include <cstdint>
#include <cstring>
#include <exception>
#include <functional>
#include <utility>

namespace multiprocessing::runtime::pool {

/// A worker's place: what its process is started with.
class Seat {
public:
    Seat(Channel to, std::uint32_t worker, std::uint64_t most, const os::SignalMask& mask, Action init)
        : channel(std::move(to)), number(worker), most_tasks(most), signals(mask),
          initializer(std::move(init)) {}

    Channel channel;
    std::uint32_t number = 0;
    std::uint64_t most_tasks = 0;  // it leaves after so many; 0: never
    os::SignalMask signals{};      // that of whoever made the pool
    Action initializer;

    using travels_as_handle = void;

private:
    friend struct pickle::HandleAccess;
    explicit Seat(pickle::Unread unread) : channel(unread) {}
    void save_handle(pickle::OArchive& archive) const {
        pickle::HandleAccess::save(archive, channel);
        archive.put(number);
        archive.put(most_tasks);
        archive.put(signals);
        initializer.save(archive);
    }
    void load_handle(pickle::IArchive& archive) {
        pickle::HandleAccess::load(archive, channel);
        number = archive.get<std::uint32_t>();
        most_tasks = archive.get<std::uint64_t>();
        signals = archive.get<os::SignalMask>();
        initializer.load(archive);
    }
};

/// What the worker of this process is, for those who ask from inside a task.
struct ThisWorker {
    bool is_worker = false;
    std::uint32_t number = 0;
};
inline ThisWorker& this_worker() noexcept {
    static ThisWorker worker;
    return worker;
}

/// Takes the next task that is still to be run. Nothing when the pool is stopping.
[[nodiscard]] inline Task* take_task(const Channel& channel, std::uint32_t number) {
    using shm::Ring;
    Control& control = channel.control();
    WorkerSlot& slot = control.slots()[number];
    const shm::Arena& arena = shm::Arena::instance();
    const auto stop = [&] { return control.stopping.load(std::memory_order_acquire) != 0; };
    for (;;) {
        Task* task = nullptr;
        const auto claim = [&](Ring::Getter& end, const Ring::Getter::Record& record) {
            shm::Ticket ticket;
            std::memcpy(&ticket, record.bytes.data(), sizeof ticket);
            {
                // In this order: what a worker claims it has written down, and what it has claimed is
                // known to be lost if it dies before the record is taken, which the next one passes
                // over. In a transaction, so that the parent does not free the block meanwhile.
                shm::Transaction tx = arena.transaction();
                if (shm::Block* block = arena.heap().find(ticket.offset, ticket.serial)) {
                    tx.set(slot.task.offset, ticket.offset);
                    tx.set(slot.task.serial, ticket.serial);
                    tx.commit();
                    auto* candidate = shm::Arena::payload<Task>(*block);
                    std::uint32_t waiting = Task::waiting;
                    if (candidate->holder.compare_exchange_strong(waiting, number + 1)) {
                        task = candidate;
                    }
                }
            }
            end.take(record);
        };
        if (channel.tasks().take(os::Deadline::never(), claim, stop, [] {}) != shm::Outcome::done) {
            return nullptr;
        }
        if (task != nullptr) return task;
    }
}

inline void run_task(const Channel& channel, std::uint32_t number, Task& task) {
    const auto entry = reinterpret_cast<Entry>(const_cast<void*>(pickle::code_at(task.entry)));
    // Others may have to run it again, so its handles are copied.
    pickle::Cargo cargo =
        pickle::Cargo::copied(shm::Arena::tickets(shm::Arena::block_of(&task)));
    entry(task, cargo, channel, number);
}

/// Tells the parent that this worker could not begin.
inline void report_failed_start(const Channel& channel, std::uint32_t number,
                                const std::exception_ptr& exception) {
    Task none{};
    none.count = 1;
    OutcomeWriter outcomes(channel, number, none, 0);
    outcomes.fail_start(exception);
    outcomes.send();
}

/// The target of a worker's process.
inline void work(const Seat& seat) {
    os::ignore_interrupts();  // Ctrl-C is for the parent, who decides
    seat.signals.apply();     // a replacement is started by a thread that takes none
    this_worker() = {true, seat.number};
    WorkerSlot& slot = seat.channel.control().slots()[seat.number];
    slot.stage = WorkerSlot::Stage::initializing;
    try {
        seat.initializer();
    } catch (const SystemExit&) {
        throw;
    } catch (...) {
        report_failed_start(seat.channel, seat.number, std::current_exception());
        throw SystemExit(1);
    }
    slot.stage = WorkerSlot::Stage::ready;
    for (std::uint64_t done = 0; seat.most_tasks == 0 || done < seat.most_tasks; ++done) {
        Task* task = take_task(seat.channel, seat.number);
        if (task == nullptr) return;
        run_task(seat.channel, seat.number, *task);
        slot.task = {};
    }
}

}  // namespace multiprocessing::runtime::pool
