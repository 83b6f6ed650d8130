// SPDX-License-Identifier: BSL-1.0
//
// Starting a child as a copy of this process. Answers Python's `popen_fork`.
#pragma once

#include <multiprocessing/os/fork.hpp>
#include <multiprocessing/os/process.hpp>
#include <multiprocessing/os/stdio.hpp>
#include <multiprocessing/runtime/death.hpp>
#include <multiprocessing/runtime/exit.hpp>
#include <multiprocessing/runtime/sentinel.hpp>
#include <multiprocessing/runtime/start_method.hpp>
#include <multiprocessing/runtime/this_process.hpp>
#include <multiprocessing/shm/processes.hpp>

#include <functional>
#include <mutex>
#include <utility>

namespace multiprocessing::runtime {

/// The first steps of a forked child, then its target, then its end.
[[noreturn]] inline void enter_forked_child(const ProcessPointer& state, ProcessPointer parent,
                                            const Starter& starter, shm::ChildSlot& slot,
                                            const std::function<void()>& run) noexcept {
    run_and_leave([&] {
        slot.adopt();
        ThisProcess& me = this_process();
        me.become(state, std::move(parent));
        if (state->method) default_start_method().set(state->method, true);
        if (state->daemon || state->die_with_parent) {
            end_with_parent(starter, me.parent->sentinel->get());
        }
        os::redirect_stdin_to_null();
        run();
    });
}

/// Forks; `run` is called in the child. Called with `state`'s mutex held, which is not held in the
/// child.
inline void start_by_fork(const ProcessPointer& state, const std::function<void()>& run) {
    ThisProcess& me = this_process();
    ProcessPointer parent = me.describe_as_parent();
    os::Fd reserved = os::duplicate(parent->sentinel->get());
    const Starter starter;
    // What is buffered now is the parent's to write, once.
    os::flush_standard_streams();
    shm::ChildSlot slot(true);
    int pid = 0;
    {
        const std::lock_guard whole(me.children.mutex());
        pid = os::fork();
        if (pid == 0) {
            reserved.reset();
            enter_forked_child(state, std::move(parent), starter, slot, run);
        }
    }
    state->sentinel = open_sentinel(pid, std::move(reserved));
    state->pid = pid;
    state->holder = slot.id();
    slot.started(pid);
}

}  // namespace multiprocessing::runtime
