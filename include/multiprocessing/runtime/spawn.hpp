// SPDX-License-Identifier: BSL-1.0
//
// Starting a child as this program anew, with nothing of this process's memory. Answers Python's
// `popen_spawn_posix`.
#pragma once

#include <multiprocessing/os/affinity.hpp>
#include <multiprocessing/os/module.hpp>
#include <multiprocessing/os/spawn.hpp>
#include <multiprocessing/runtime/sentinel.hpp>
#include <multiprocessing/runtime/shipment.hpp>
#include <multiprocessing/runtime/state.hpp>
#include <multiprocessing/shm/processes.hpp>

#include <utility>

namespace multiprocessing::runtime {

/// Spawns. Called with `state`'s mutex held. Whatever it throws, there is no child and nothing has
/// changed.
inline void start_by_spawn(ProcessState& state, const TargetSaver& save) {
    check_main_is_guarded(state);
    Shipment shipment(state, save);
    shm::ChildSlot slot(shm::Inherits::nothing);
    pickle::Scratch told;
    shipment.seal(slot, *told);
    const os::Fd data = preparation_file(told->span());

    os::SpawnAttributes attributes;
    attributes.variables = state.surroundings.variables();
    attributes.folder = shipment.folder();
    attributes.keep = shipment.preparation().descriptors;
    for (const int fd : {shipment.parent_sentinel(), shm::arena_descriptor(), data.get()}) {
        attributes.keep.push_back(fd);
    }
    const os::SpawnEnvironment environment{shm::arena_descriptor(), slot.id(), data.get(),
                                           os::this_program()};
    const os::AffinityScope processors(state.surroundings.cpu_affinity);
    const int pid = os::spawn_this_program(environment, std::move(attributes));
    state.sentinel = open_sentinel(pid, shipment.take_reserved());
    state.pid = pid;
    state.holder = slot.id();
    slot.started(pid);
}

}  // namespace multiprocessing::runtime
