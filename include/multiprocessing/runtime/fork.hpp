// SPDX-License-Identifier: BSL-1.0
//
// Starting a child as a copy of this process. Answers Python's `popen_fork`.
#pragma once

#include <multiprocessing/os/affinity.hpp>
#include <multiprocessing/os/fork.hpp>
#include <multiprocessing/os/module.hpp>
#include <multiprocessing/os/process.hpp>
#include <multiprocessing/os/stdio.hpp>
#include <multiprocessing/runtime/death.hpp>
#include <multiprocessing/runtime/exit.hpp>
#include <multiprocessing/runtime/fork_observer.hpp>
#include <multiprocessing/runtime/log.hpp>
#include <multiprocessing/runtime/sentinel.hpp>
#include <multiprocessing/runtime/start_method.hpp>
#include <multiprocessing/runtime/this_process.hpp>
#include <multiprocessing/shm/processes.hpp>

#include <atomic>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <utility>

namespace multiprocessing::runtime {

/// Python's DeprecationWarning, once in a process.
inline void warn_of_threads() {
    static constinit std::atomic<std::uint32_t> told{0};
    if (!log_of_this_process.enabled(log_level::warning) || os::thread_count() < 2) return;
    if (const std::uint32_t epoch = os::fork_epoch(); told.exchange(epoch) == epoch) return;
    log_at(log_level::warning, [] {
        return "This process (pid=" + std::to_string(os::this_pid()) +
               ") is multi-threaded, use of fork() may lead to deadlocks in the child.";
    });
}

/// What the parent makes ready for its child before the fork, for what a child calls or touches
/// first it has to bring in, page by page.
struct ForkPlan {
    explicit ForkPlan(const ProcessState& child, ProcessPointer this_process)
        : parent(std::move(this_process)), folder(child.surroundings.open_folder()) {}

    ProcessPointer parent;
    os::Fd folder;
    os::Fd null = os::open_null();
    bool stdin_is_buffered = os::stdin_is_buffered();
    Starter starter;
};

/// The first steps of a forked child, then its target, then its end.
[[noreturn]] inline void enter_forked_child(const ProcessPointer& state, ForkPlan plan,
                                            shm::ChildSlot& slot,
                                            const std::function<void()>& run) noexcept {
    run_and_leave([&] {
        slot.adopt();
        ThisProcess& me = this_process();
        me.become(state, std::move(plan.parent));
        ObservedFork::enter_child();
        if (state->method) default_start_method().set(state->method, true);
        if (state->daemon || state->die_with_parent) {
            end_with_parent(plan.starter, me.parent->sentinel->get());
        }
        os::replace_stdin(plan.null, plan.stdin_is_buffered);
        plan.null.reset();
        state->surroundings.take_up(plan.folder.get());
        plan.folder.reset();
        log_at(log_level::info, "child process calling run()");
        run();
    });
}

/// Forks; `run` is called in the child. Called with `state`'s mutex held, which is not held in the
/// child.
inline void start_by_fork(const ProcessPointer& state, const std::function<void()>& run) {
    ThisProcess& me = this_process();
    const ObservedFork observed;
    ForkPlan plan(*state, me.describe_as_parent());
    os::Fd reserved = os::duplicate(plan.parent->sentinel->get());
    os::AffinityScope processors(state->surroundings.cpu_affinity);
    // What is buffered now is the parent's to write, once.
    os::flush_standard_streams();
    os::note_modules();
    shm::ChildSlot slot(shm::Inherits::handles);
    int pid = 0;
    {
        const std::lock_guard whole(me.children.mutex());
        pid = os::fork();
        if (pid == 0) {
            reserved.reset();
            processors.keep();
            enter_forked_child(state, std::move(plan), slot, run);
        }
    }
    state->sentinel = open_sentinel(pid, std::move(reserved));
    state->pid = pid;
    state->holder = slot.id();
    slot.started(pid);
}

}  // namespace multiprocessing::runtime
