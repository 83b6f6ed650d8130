// SPDX-License-Identifier: BSL-1.0
//
// The orderly end of a process: its exit functions run, its daemons are terminated, its other
// children joined; a child then leaves without what it inherited from its parent being run or
// destroyed. Answers Python's `util._exit_function`.
#pragma once

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/os/backtrace.hpp>
#include <multiprocessing/os/clock.hpp>
#include <multiprocessing/os/exit.hpp>
#include <multiprocessing/os/fork.hpp>
#include <multiprocessing/os/stdio.hpp>
#include <multiprocessing/runtime/log.hpp>
#include <multiprocessing/runtime/report.hpp>
#include <multiprocessing/runtime/this_process.hpp>
#include <multiprocessing/shm/processes.hpp>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <functional>
#include <limits>
#include <string>
#include <utility>

#include <cxxabi.h>

namespace multiprocessing::runtime {

/// Terminates daemons (kills those that do not listen) and joins the rest.
inline void end_children() {
    using namespace std::chrono_literals;
    Children& children = this_process().children;
    for (auto running = children.reap_finished(); !running.empty();
         running = children.reap_finished()) {
        for (const ProcessPointer& child : running) {
            if (!child->daemon) continue;
            log_at(log_level::info,
                   [&] { return "calling terminate() for daemon " + child->current_name(); });
            child->send_signal(SIGTERM);
        }
        const auto patience = os::Deadline::after(500ms);
        for (const ProcessPointer& child : running) {
            if (child->daemon && !child->wait_for_end(patience)) child->send_signal(SIGKILL);
        }
        for (const ProcessPointer& child : running) {
            log_at(log_level::info,
                   [&] { return "calling join() for process " + child->current_name(); });
            child->wait_for_end(os::Deadline::never());
        }
    }
}

/// In this process, whatever its parent was about.
inline bool first_to_finish() noexcept {
    static constinit std::atomic<std::uint32_t> finishing{0};
    const std::uint32_t epoch = os::fork_epoch();
    return finishing.exchange(epoch) != epoch;
}

/// What is to be done at the end of any process; harmless when done twice.
inline void finish_process() noexcept {
    try {
        ExitFunctions& functions = this_process().exit_functions;
        if (first_to_finish()) log_at(log_level::info, "process shutting down");
        log_at(log_level::debug, "running all \"atexit\" finalizers with priority >= 0");
        functions.run(0, report_current_exception);
        end_children();
        this_process().fork_server.stop();
        log_at(log_level::debug, "running the remaining \"atexit\" finalizers");
        functions.run(std::numeric_limits<int>::min(), report_current_exception);
    } catch (...) {
        report_current_exception();
    }
}

/// Has main's return and std::exit finish the process. Called before there is anything to finish.
inline void finish_at_exit() {
    static constinit os::Lazy<const int> registered;
    static_cast<void>(registered.get([] { return new const int(std::atexit(finish_process)); }));
}

/// Has `function` run when this very process ends in an orderly way: the higher priority first,
/// those of negative priority after its children have been ended. A forked child forgets it.
inline ExitFunctions::Id register_exit(std::function<void()> function, int priority = 0) {
    finish_at_exit();
    return this_process().exit_functions.add(std::move(function), priority);
}

/// Takes one back; whether it had not run yet.
inline bool unregister_exit(ExitFunctions::Id id) {
    return this_process().exit_functions.remove(id);
}

/// The only way out of a child.
[[noreturn]] inline void leave_child(int code) noexcept {
    finish_process();
    log_at(log_level::info,
           [code] { return "process exiting with exitcode " + std::to_string(code); });
    os::flush_standard_streams();
    try {
        shm::note_exit(code);
    } catch (...) {  // it has come to no place in the arena: the kernel will tell
    }
    os::exit_at_once(code);
}

namespace exit_detail {

/// Says what there is to say; returns the exit code.
inline int heed(const SystemExit& exit) {
    if (exit.message()) os::write_to_stderr(*exit.message() + "\n");
    return exit.code();
}

inline constinit std::atomic<std::terminate_handler> terminate_handler{nullptr};

/// std::terminate's part: an uncaught SystemExit is an exit, anything else is for who was here before.
[[noreturn]] inline void end_on_system_exit() {
    try {
        if (std::current_exception()) throw;
    } catch (const SystemExit& exit) {
        std::exit(heed(exit));
    } catch (...) {
    }
    if (const auto before = terminate_handler.load()) before();
    std::abort();
}

}  // namespace exit_detail

/// Throws it, such that it ends the process in an orderly way where nobody catches it.
[[noreturn]] inline void throw_system_exit(SystemExit exit) {
    const auto before = std::set_terminate(exit_detail::end_on_system_exit);
    if (before != exit_detail::end_on_system_exit) exit_detail::terminate_handler = before;
    throw exit;
}

/// Runs a child's target and leaves. Nothing gets out of here: below are the parent's frames.
/// (What is caught for a forced unwinding is a reference to nothing, which UBSan minds.)
template <class Run>
[[noreturn]] __attribute__((no_sanitize("null"))) void run_and_leave(Run&& run) noexcept {
    int code = 1;
    // A target may call std::exit: that is another way to leave_child, not to the parent's own
    // atexit functions and static objects.
    os::intercept_exit(leave_child);
    try {
        os::watch_throws(run);
        code = 0;
    } catch (const SystemExit& exit) {
        code = exit_detail::heed(exit);
    } catch (const abi::__forced_unwind&) {
        // pthread_exit or a cancellation. To go on unwinding is to run the parent's destructors.
        leave_child(0);
    } catch (const os::ThrowWatch&) {
        // Never: those that come as far as this clause have their backtrace taken.
    } catch (...) {
        report_with_backtrace(os::last_watched_throw());
    }
    leave_child(code);
}

}  // namespace multiprocessing::runtime
