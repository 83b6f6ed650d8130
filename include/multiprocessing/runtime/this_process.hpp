// SPDX-License-Identifier: BSL-1.0
//
// What this process knows of itself: its name and place in the tree, its parent, its children, what
// it is to do at its end. Answers the module state of Python's `process`.
#pragma once

#include <multiprocessing/os/fork.hpp>
#include <multiprocessing/os/process.hpp>
#include <multiprocessing/os/random.hpp>
#include <multiprocessing/runtime/children.hpp>
#include <multiprocessing/runtime/exit_functions.hpp>
#include <multiprocessing/runtime/forkserver/client.hpp>
#include <multiprocessing/runtime/log.hpp>
#include <multiprocessing/runtime/state.hpp>

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

namespace multiprocessing::runtime {

class ThisProcess {
public:
    ProcessPointer self;
    ProcessPointer parent;  // nothing in the main process
    Children children;
    ExitFunctions exit_functions;
    forkserver::Client fork_server;
    std::atomic<bool> main_is_guarded{false};  // this program's main calls freeze_support()

    ThisProcess();
    /// The place for the next child: {1, 2} after {1, 1}.
    Identity next_identity() {
        Identity identity = self->identity;
        identity.push_back(1 + children_made_.fetch_add(1));
        return identity;
    }
    /// Makes this process `child`, which `new_parent` has started.
    void become(ProcessPointer child, ProcessPointer new_parent);
    /// What this process is to a child that is about to be made. The sentinel is opened before the
    /// child is, so that it is this process's and not a later one's of the same number.
    ProcessPointer describe_as_parent();
    /// Children are counted from 1 again.
    void restart_count() noexcept { children_made_ = 0; }
    /// In a process that somebody has forked: drops what was its parent's.
    void renew_after_fork();

private:
    ProcessPointer forked_from_;  // not freed: a child would have to bring in what frees it
    std::atomic<unsigned> children_made_{0};
    std::atomic<std::uint32_t> epoch_{os::fork_epoch()};
};

/// Never destroyed: children are ended and functions run after the static destructors' time.
inline ThisProcess& this_process() {
    static constinit os::Lazy<ThisProcess> process;
    ThisProcess& made = process.get([] { return new ThisProcess; });
    made.renew_after_fork();
    return made;
}

/// `Process-1:2` for {1, 2}.
[[nodiscard]] inline std::string default_name(const Identity& identity) {
    std::string name = "Process";
    char separator = '-';
    for (const unsigned number : identity) {
        name += separator + std::to_string(number);
        separator = ':';
    }
    return name;
}

inline ThisProcess::ThisProcess() : self(std::make_shared<ProcessState>()) {
    self->relation = Relation::current;
    self->name = "MainProcess";
    self->authkey.resize(32);
    os::fill_with_random(self->authkey.span());
    log_of_this_process.set_process_name([] { return this_process().self->current_name(); });
}

inline ProcessPointer ThisProcess::describe_as_parent() {
    auto state = std::make_shared<ProcessState>();
    state->relation = Relation::parent;
    {
        const std::lock_guard lock(self->mutex);
        state->identity = self->identity;
        state->name = self->name;
        state->daemon = self->daemon;
        state->authkey = self->authkey;
    }
    state->pid = os::this_pid();
    state->sentinel = std::make_shared<const os::Fd>(os::open_pidfd(os::this_pid()));
    return state;
}

inline void ThisProcess::become(ProcessPointer child, ProcessPointer new_parent) {
    child->relation = Relation::current;
    forked_from_ = std::exchange(self, std::move(child));
    parent = std::move(new_parent);
    restart_count();
}

inline void ThisProcess::renew_after_fork() {
    const std::uint32_t current = os::fork_epoch();
    if (epoch_.load(std::memory_order_relaxed) == current) return;
    // The child of a fork has one thread until it makes more, and comes through here first.
    epoch_.store(current, std::memory_order_relaxed);
    children.forget();
    exit_functions.forget();
    fork_server.forget();
}

}  // namespace multiprocessing::runtime
