// SPDX-License-Identifier: BSL-1.0
//
// Starting a child as this program anew, with nothing of this process's memory. Answers Python's
// `popen_spawn_posix`.
#pragma once

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/os/spawn.hpp>
#include <multiprocessing/os/stdio.hpp>
#include <multiprocessing/pickle/message.hpp>
#include <multiprocessing/runtime/preparation.hpp>
#include <multiprocessing/runtime/sentinel.hpp>
#include <multiprocessing/runtime/this_process.hpp>
#include <multiprocessing/shm/luggage.hpp>
#include <multiprocessing/shm/processes.hpp>

#include <functional>
#include <stdexcept>
#include <utility>
#include <vector>

namespace multiprocessing::runtime {

/// Writes what the child is to run: a Target.
using TargetSaver = std::function<void(pickle::OArchive&)>;

/// Spawns. Called with `state`'s mutex held. Whatever it throws, there is no child and nothing has
/// changed.
inline void start_by_spawn(const ProcessPointer& state, const TargetSaver& save) {
    ThisProcess& me = this_process();
    if (!me.main_is_guarded) {
        throw std::runtime_error(
            "cannot spawn process '" + state->name +
            "': the child runs this program from the start, so make `mp::freeze_support();` the "
            "first line of main, before anything is started; or start it by fork");
    }
    const ProcessPointer parent = me.describe_as_parent();
    Preparation preparation(*state, *parent, Starter());

    pickle::Cargo cargo(true);
    pickle::Buffer target;
    {
        pickle::OArchive archive(target, &cargo);
        pickle::while_pickling([&] { save(archive); });
    }
    preparation.target.assign(target.span().begin(), target.span().end());
    std::vector<int> keep{preparation.parent_sentinel, shm::arena_descriptor()};
    for (const os::Fd& descriptor : cargo.descriptors()) {
        preparation.descriptors.push_back(descriptor.get());
        keep.push_back(descriptor.get());
    }
    os::Fd reserved = os::duplicate(preparation.parent_sentinel);
    os::flush_standard_streams();

    shm::ChildSlot slot(false);
    preparation.luggage = shm::leave_luggage(slot, cargo.tickets());
    const os::Fd data = preparation.write();
    keep.push_back(data.get());
    const int pid = os::spawn_this_program({shm::arena_descriptor(), slot.id(), data.get()}, keep);
    state->sentinel = open_sentinel(pid, std::move(reserved));
    cargo.ship();
    state->pid = pid;
    state->holder = slot.id();
    slot.started(pid);
}

}  // namespace multiprocessing::runtime
