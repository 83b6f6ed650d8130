// SPDX-License-Identifier: BSL-1.0
//
// What a task is made of: a callable and the items it is called with, written by the parent, read and
// run by a worker. The function that can do the latter is an instantiation of run(), and travels as
// its place in the program.
#pragma once

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/os/backtrace.hpp>
#include <multiprocessing/pickle/callable.hpp>
#include <multiprocessing/pickle/message.hpp>
#include <multiprocessing/runtime/pool/desk.hpp>
#include <multiprocessing/runtime/pool/item_call.hpp>
#include <multiprocessing/runtime/pool/outcomes.hpp>
#include <multiprocessing/runtime/pool/shared.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <memory>
#include <optional>
#include <span>
#include <utility>

namespace multiprocessing::runtime::pool {

/// The work of calling `F` with `Item`s in a worker process of this machine.
template <Calling calling, class F, class Item>
struct Work : TravellingCall<calling, F, Item> {
    using typename TravellingCall<calling, F, Item>::R;
    using TravellingCall<calling, F, Item>::plain;

    /// In the worker: runs a grain of the task that has been claimed, and more of them.
    static void run(Task& task, std::uint32_t grain, Desk& desk);

private:
    class Runner;
};

/// Reads the items of a task's grains and calls the function with them.
template <Calling calling, class F, class Item>
class Work<calling, F, Item>::Runner {
public:
    Runner(Task& task, Desk& desk)
        : task_(task), desk_(desk),
          // Others may have to run it again, so its handles are copied.
          cargo_(pickle::Cargo::copied(shm::Arena::tickets(shm::Arena::block_of(&task)))) {
        pickle::IArchive archive(bytes_from(task.callable), &cargo_);
        try {
            pickle::while_unpickling(archive, [&] { f_.emplace(pickle::load_callable<F>(archive)); });
        } catch (const SystemExit&) {
            throw;
        } catch (...) {
            unreadable_ = std::current_exception();
        }
    }

    void run(std::uint32_t grain) {
        const os::WatchedFrame traces_end_here;
        OutcomeWriter outcomes(task_, grain);
        if (unreadable_) {
            fail_rest(outcomes, unreadable_);
        } else if constexpr (plain) {
            const std::byte* items = shm::Arena::instance().at<std::byte>(task_.items);
            while (outcomes.item() != outcomes.end() && is_wanted()) {
                alignas(Item) std::byte bytes[sizeof(Item)];
                std::memcpy(bytes, items + outcomes.item() * sizeof(Item), sizeof(Item));
                step(*reinterpret_cast<Item*>(bytes), outcomes);
            }
        } else {
            std::span rest = bytes_from(task_.all_grains()[grain].first_byte);
            for (std::uint32_t i = task_.first_of(grain); i != outcomes.end() && is_wanted(); ++i) {
                std::optional<Item> item;
                try {
                    pickle::IArchive archive(rest, &cargo_);
                    pickle::while_unpickling(
                        archive, [&] { item.emplace(pickle::load_new<Item>(archive)); });
                    rest = rest.subspan(archive.position());
                } catch (const SystemExit&) {
                    throw;
                } catch (...) {
                    // Where one item cannot be read, nobody knows where the next begins.
                    return fail_rest(outcomes, std::current_exception());
                }
                // Those before have been run by one who is dead.
                if (i == outcomes.item()) step(*item, outcomes);
            }
        }
    }

private:
    [[nodiscard]] bool is_wanted() const noexcept {
        // In the one order of all, as the store and the start of a run are: either this sees that it was
        // cancelled, or who cancels sees it run.
        return task_.cancelled.load(std::memory_order_seq_cst) == 0;
    }
    [[nodiscard]] std::span<const std::byte> bytes_from(std::uint64_t begin) const {
        return {task_.at(begin), static_cast<std::size_t>(task_.end - begin)};
    }
    void step(Item& item, OutcomeWriter& outcomes) {
        if (task_.timed != 0) {
            desk_.begin_item(outcomes.item());
            // From here on who cancels finds it running, and asks it to stop.
            if (!is_wanted()) return;
        }
        ItemCall<calling, F, Item>::run(*f_, item, outcomes, task_.keeps_exit != 0);
    }
    static void fail_rest(OutcomeWriter& outcomes, const std::exception_ptr& why) {
        while (outcomes.item() != outcomes.end()) outcomes.error(why);
    }

    Task& task_;
    Desk& desk_;
    pickle::Cargo cargo_;
    std::optional<F> f_;
    std::exception_ptr unreadable_;
};

template <Calling calling, class F, class Item>
void Work<calling, F, Item>::run(Task& task, std::uint32_t grain, Desk& desk) {
    Runner runner(task, desk);
    for (std::optional<std::uint32_t> next = grain; next; next = desk.claim(task)) {
        desk.begin(task, *next);
        runner.run(*next);
        desk.end(task, *next);
    }
}

/// How the worker finds run(): its place in the program is what the task says.
using Entry = void (*)(Task& task, std::uint32_t grain, Desk& desk);

}  // namespace multiprocessing::runtime::pool
