// SPDX-License-Identifier: BSL-1.0
//
// What a handle may ask of a process, with the rules of who may ask and when. Answers the checks in
// Python's `BaseProcess`.
#pragma once

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/os/process.hpp>
#include <multiprocessing/pickle/type_name.hpp>
#include <multiprocessing/runtime/state.hpp>
#include <multiprocessing/runtime/this_process.hpp>
#include <multiprocessing/timeout.hpp>

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <typeinfo>
#include <utility>

namespace multiprocessing::runtime {

/// Python's words, then whose fault and what to do: "can only join a started process (process
/// 'Process-1': call start() first)".
[[nodiscard]] inline std::string complaint(std::string_view rule, const ProcessState& state,
                                           std::string_view advice) {
    return std::string(rule)
        .append(" (process '")
        .append(state.name)
        .append("': ")
        .append(advice)
        .append(")");
}

/// Locks; throws ValueError if the handle has been closed.
[[nodiscard]] inline std::unique_lock<os::ForkAwareMutex> lock_open(const ProcessState& state) {
    std::unique_lock lock(state.mutex);
    if (state.closed) {
        throw ValueError(complaint("process object is closed", state, "make a new one"));
    }
    return lock;
}

/// For every copy of a handle: `type` is the class of what is copied, which may be derived from
/// mp::Process (`Process` itself is the class above; it says which it is).
template <class Process>
void note_class(ProcessState& state, const std::type_info& type) noexcept {
    if (type != typeid(Process)) state.derived.store(&type, std::memory_order_relaxed);
}

/// Throws AssertionError if the handle was copied from an object of a derived class, whose run() it
/// does not have.
inline void check_is_no_slice(const ProcessState& state) {
    const std::type_info* derived = state.derived.load(std::memory_order_relaxed);
    if (derived == nullptr) return;
    const std::string type = pickle::type_name(*derived);
    throw AssertionError(complaint("can only start an object of a derived class itself", state,
                                   "this is a copy of the mp::Process in a " + type +
                                       ", without its run(): keep the " + type +
                                       " objects, or pointers to them"));
}

/// Settings of a process that this process makes.
struct NewProcess {
    std::string name;
    std::optional<bool> daemon;
    bool die_with_parent = false;
    std::optional<bytes> authkey;
    std::optional<StartMethod> method;
    Surroundings surroundings;
};

[[nodiscard]] inline ProcessPointer make_state(NewProcess settings,
                                               std::unique_ptr<Target> target) {
    settings.surroundings.check();
    ThisProcess& me = this_process();
    auto state = std::make_shared<ProcessState>();
    state->creator = os::this_pid();
    state->identity = me.next_identity();
    state->name = settings.name.empty() ? default_name(state->identity) : std::move(settings.name);
    state->die_with_parent = settings.die_with_parent;
    state->method = settings.method;
    state->surroundings = std::move(settings.surroundings);
    state->target = std::move(target);
    const std::lock_guard lock(me.self->mutex);
    state->daemon = settings.daemon.value_or(me.self->daemon);
    state->authkey = settings.authkey ? *std::move(settings.authkey) : me.self->authkey;
    return state;
}

/// Throws AssertionError unless this process may wait for the end of that one.
inline void check_may_wait(const ProcessState& state, std::string_view what) {
    const std::string rule = "can only " + std::string(what);
    if (state.relation == Relation::parent) return;
    if (state.relation == Relation::current || state.creator != os::this_pid()) {
        throw AssertionError(complaint(rule + " a child process", state,
                                       "it is not a child of this process, whose pid is " +
                                           std::to_string(os::this_pid())));
    }
}

inline void join(ProcessState& state, const Timeout& timeout) {
    {
        const auto lock = lock_open(state);
        check_may_wait(state, "join");
        if (!state.pid) {
            throw AssertionError(
                complaint("can only join a started process", state, "call start() first"));
        }
    }
    if (state.wait_for_end(timeout)) this_process().children.remove(state);
}

[[nodiscard]] inline bool is_alive(ProcessState& state) {
    auto lock = lock_open(state);
    if (state.relation == Relation::current) return true;
    check_may_wait(state, "test");
    if (!state.pid) return false;
    lock.unlock();
    if (!state.wait_for_end(os::Deadline::passed())) return true;
    this_process().children.remove(state);
    return false;
}

[[nodiscard]] inline std::optional<int> exitcode(ProcessState& state) {
    std::optional<int> code;
    {
        const auto lock = lock_open(state);
        code = state.poll_exitcode_locked();
    }
    if (code) this_process().children.remove(state);
    return code;
}

[[nodiscard]] inline std::optional<int> pid(const ProcessState& state) {
    const auto lock = lock_open(state);
    if (state.relation == Relation::current) return os::this_pid();
    return state.pid;
}

[[nodiscard]] inline int sentinel(const ProcessState& state) {
    const auto lock = lock_open(state);
    if (!state.sentinel) {
        throw ValueError(complaint("process not started", state, "call start() first"));
    }
    return state.sentinel->get();
}

inline void send_signal(ProcessState& state, int signal, std::string_view call) {
    const auto lock = lock_open(state);
    if (state.relation == Relation::current) {
        os::signal_this_process(signal);
    } else if (!state.sentinel) {
        throw AssertionError(complaint("can only " + std::string(call) + " a started process",
                                       state, "call start() first"));
    } else if (!state.poll_exitcode_locked()) {
        os::signal_process(state.sentinel->get(), signal);
    }
}

inline void set_daemon(ProcessState& state, bool daemon) {
    const std::lock_guard lock(state.mutex);
    if (state.relation != Relation::child || state.pid) {
        throw AssertionError(
            complaint("process has already started", state, "set daemon before start()"));
    }
    state.daemon = daemon;
}

inline void close(ProcessState& state) {
    {
        const std::lock_guard lock(state.mutex);
        // The process itself and its parent are not given up by anybody.
        if (state.closed || state.relation != Relation::child) return;
        if (state.pid && state.creator == os::this_pid() && !state.poll_exitcode_locked()) {
            throw ValueError(complaint("Cannot close a process while it is still running", state,
                                       "first call join() or terminate()"));
        }
        state.closed = true;
        state.sentinel.reset();
        state.target.reset();
    }
    this_process().children.remove(state);
}

/// `<Process name='Process-1' pid=12 parent=11 stopped exitcode=-SIGTERM daemon>`
[[nodiscard]] inline std::string describe(ProcessState& state) {
    const std::lock_guard lock(state.mutex);
    std::string text = "<Process name='" + state.name + "'";
    std::string status;
    if (state.closed) {
        status = "closed";
    } else if (state.relation == Relation::current) {
        text += " pid=" + std::to_string(os::this_pid()) +
                " parent=" + std::to_string(os::parent_pid());
        status = "started";
    } else {
        if (state.pid) text += " pid=" + std::to_string(*state.pid);
        if (state.creator != 0) text += " parent=" + std::to_string(state.creator);
        if (!state.pid) {
            status = "initial";
        } else if (state.relation == Relation::parent || state.creator != os::this_pid()) {
            status = "unknown";
        } else if (const auto code = state.poll_exitcode_locked()) {
            status = "stopped";
            if (*code < 0) {
                status += " exitcode=-" + os::signal_name(-*code);
            } else {
                status += " exitcode=" + std::to_string(*code);
            }
        } else {
            status = "started";
        }
    }
    return text + " " + status + (state.daemon ? " daemon>" : ">");
}

}  // namespace multiprocessing::runtime
