// SPDX-License-Identifier: BSL-1.0
//
// The start of a process, whichever way. Answers Python's `BaseProcess.start`.
#pragma once

#include <multiprocessing/runtime/control.hpp>
#include <multiprocessing/runtime/fork.hpp>
#include <multiprocessing/runtime/forkserver.hpp>
#include <multiprocessing/runtime/log.hpp>
#include <multiprocessing/runtime/spawn.hpp>

#include <functional>
#include <memory>
#include <mutex>
#include <utility>

namespace multiprocessing::runtime {

/// Throws AssertionError unless `state` can be started, now and by this process.
inline void check_may_start(const ProcessState& state) {
    const ThisProcess& me = this_process();
    if (state.relation != Relation::child || state.pid) {
        throw AssertionError(
            complaint("cannot start a process twice", state, "make a new Process for every start"));
    }
    if (state.creator != os::this_pid()) {
        throw AssertionError(complaint("can only start a process object created by current process",
                                       state, "make it in the process that is to be its parent"));
    }
    const std::lock_guard lock(me.self->mutex);
    if (me.self->daemon) {
        throw AssertionError(complaint("daemonic processes are not allowed to have children", state,
                                       "it would be a child of '" + me.self->name +
                                           "', which is a daemon, as a Pool's workers are"));
    }
}

/// Logs it. Called after the start, when no lock is held.
inline void tell_of_start(const ProcessState& state) {
    if (!log_of_this_process.enabled(log_level::warning)) return;
    const StartMethod method =
        state.method ? *state.method : default_start_method().peek().value_or(StartMethod::fork);
    if (method == StartMethod::fork) warn_of_threads();
    log_at(log_level::info, [&] {
        const std::lock_guard lock(state.mutex);
        return name_and_pid(state) + " started by " + name_of(method);
    });
}

/// Starts `state`. A forked child calls `run`; for others `save` writes what they are to run.
inline void start(const ProcessPointer& state, const std::function<void()>& run,
                  const TargetSaver& save) {
    ThisProcess& me = this_process();
    me.children.reap_finished();
    std::unique_ptr<Target> used;
    {
        const auto lock = lock_open(*state);
        check_may_start(*state);
        finish_at_exit();
        // Only the use of the default fixes it.
        switch (state->method ? *state->method : default_start_method().get()) {
        case StartMethod::fork:
            start_by_fork(state, run);
            break;
        case StartMethod::spawn:
            start_by_spawn(*state, save);
            break;
        case StartMethod::forkserver:
            start_by_forkserver(*state, save);
            break;
        }
        used = std::move(state->target);
    }
    me.children.add(state);
    tell_of_start(*state);
}

}  // namespace multiprocessing::runtime
