// SPDX-License-Identifier: BSL-1.0
//
// The first and the last of a child that has none of its parent's memory: it reads who it is, runs
// its target, and leaves without having come to the program's own main. Answers Python's
// `spawn.spawn_main`.
#pragma once

#include <multiprocessing/os/fd.hpp>
#include <multiprocessing/os/module.hpp>
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
#include <stdexcept>
#include <utility>
#include <vector>

namespace multiprocessing::runtime {

/// Makes this process what has been prepared for it, and reads its target.
[[nodiscard]] inline std::unique_ptr<Target> unpack_target(const Preparation& preparation,
                                                           os::Fd parent_sentinel,
                                                           std::vector<os::Fd> descriptors) {
    ThisProcess& me = this_process();
    const int sentinel = parent_sentinel.get();
    me.become(preparation.child_state(), preparation.parent_state(std::move(parent_sentinel)));
    if (preparation.daemon || preparation.die_with_parent) {
        end_with_parent({preparation.parent_pid, preparation.starter_is_main_thread}, sentinel);
    }
    log_of_this_process.adopt(preparation.log);
    if (preparation.default_method) {
        default_start_method().set(static_cast<StartMethod>(*preparation.default_method), true);
    }
    pickle::Cargo cargo(shm::find_luggage(preparation.luggage), std::move(descriptors));
    pickle::IArchive archive(preparation.target, &cargo);
    return pickle::while_unpickling(archive, [&] { return load_target(archive); });
}

/// A spawned child's part: what it is told lies in a file that it was executed with.
[[nodiscard]] inline std::unique_ptr<Target> read_target(const os::SpawnEnvironment& environment) {
    const os::Fd data(environment.data_fd);
    if (environment.program != os::this_program()) {  // nothing it says could be relied on
        throw std::runtime_error(
            "this program is another build than the one that started it (their build ids differ): "
            "set_executable names another");
    }
    const Preparation preparation = read_preparation(data.get());
    std::vector<os::Fd> descriptors;
    for (const int descriptor : preparation.descriptors) {
        os::close_on_exec(descriptor);
        descriptors.emplace_back(descriptor);
    }
    os::Fd parent_sentinel(preparation.parent_sentinel);
    os::close_on_exec(parent_sentinel.get());
    return unpack_target(preparation, std::move(parent_sentinel), std::move(descriptors));
}

inline void run_target(Target* target) {
    log_at(log_level::info, "child process calling run()");
    if (target != nullptr) target->run();
}

/// What `freeze_support` does in a spawned child.
[[noreturn]] inline void run_spawned_child(const os::SpawnEnvironment& environment) noexcept {
    run_and_leave([&environment] {
        const std::unique_ptr<Target> target = read_target(environment);
        run_target(target.get());
    });
}

/// Runs the child if this process is one; in any other it notes that spawned children of it will.
inline void freeze_support() {
    ThisProcess& me = this_process();
    const bool first = !me.main_is_guarded.exchange(true);
    if (first && os::spawn_environment()) run_spawned_child(*os::spawn_environment());
}

}  // namespace multiprocessing::runtime
