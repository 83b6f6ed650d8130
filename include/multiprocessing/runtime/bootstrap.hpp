// SPDX-License-Identifier: BSL-1.0
//
// The first and the last of a spawned child: it reads who it is, runs its target, and leaves
// without having come to the program's own main. Answers Python's `spawn.spawn_main`.
#pragma once

#include <multiprocessing/os/fd.hpp>
#include <multiprocessing/os/spawn.hpp>
#include <multiprocessing/pickle/cargo.hpp>
#include <multiprocessing/pickle/message.hpp>
#include <multiprocessing/runtime/death.hpp>
#include <multiprocessing/runtime/exit.hpp>
#include <multiprocessing/runtime/log.hpp>
#include <multiprocessing/runtime/preparation.hpp>
#include <multiprocessing/runtime/target.hpp>
#include <multiprocessing/runtime/this_process.hpp>
#include <multiprocessing/shm/luggage.hpp>

#include <memory>
#include <utility>
#include <vector>

namespace multiprocessing::runtime {

/// Becomes the process that the parent has prepared, and reads its target.
[[nodiscard]] inline std::unique_ptr<Target> prepare_spawned_child(int data_fd) {
    const os::Fd data(data_fd);
    const Preparation preparation = Preparation::read(data.get());
    std::vector<os::Fd> descriptors;
    for (const int descriptor : preparation.descriptors) {
        os::close_on_exec(descriptor);
        descriptors.emplace_back(descriptor);
    }
    os::close_on_exec(preparation.parent_sentinel);
    ThisProcess& me = this_process();
    me.become(preparation.child_state(), preparation.parent_state());
    if (preparation.daemon || preparation.die_with_parent) {
        end_with_parent({preparation.parent_pid, preparation.starter_is_main_thread},
                        preparation.parent_sentinel);
    }
    log_of_this_process.adopt(preparation.log);
    if (preparation.default_method) {
        default_start_method().set(static_cast<StartMethod>(*preparation.default_method), true);
    }
    pickle::Cargo cargo(shm::find_luggage(preparation.luggage), std::move(descriptors));
    pickle::IArchive archive(preparation.target, &cargo);
    return pickle::while_unpickling(archive, [&] { return load_target(archive); });
}

/// What `freeze_support` does in a spawned child.
[[noreturn]] inline void run_spawned_child(int data_fd) noexcept {
    run_and_leave([data_fd] {
        const std::unique_ptr<Target> target = prepare_spawned_child(data_fd);
        log_at(log_level::info, "child process calling run()");
        if (target) target->run();
    });
}

/// Runs the child if this process is one; in any other it notes that spawned children of it will.
inline void freeze_support() {
    ThisProcess& me = this_process();
    const bool first = !me.main_is_guarded.exchange(true);
    if (first && os::spawn_environment()) run_spawned_child(os::spawn_environment()->data_fd);
}

}  // namespace multiprocessing::runtime
