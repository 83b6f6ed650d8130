// SPDX-License-Identifier: BSL-1.0
//
// The end of a child whose parent is gone. Nothing can run in a parent that is killed, so the child
// sees to it: no daemon outlives its parent by more than a moment, however the parent died.
#pragma once

#include <multiprocessing/os/exit.hpp>
#include <multiprocessing/os/poll.hpp>
#include <multiprocessing/os/process.hpp>
#include <multiprocessing/os/signals.hpp>

#include <thread>

namespace multiprocessing::runtime {

/// Who starts a child, seen before the fork.
struct Starter {
    int pid = os::this_pid();
    // The kernel ties a child to the *thread* that made it: only the main thread lasts as long as
    // its process.
    bool is_main_thread = os::this_thread_id() == os::this_pid();
};

/// In a child, first thing: has it killed when its parent ends. `parent_sentinel` is a pidfd that
/// stays open for the life of this process.
inline void end_with_parent(const Starter& starter, int parent_sentinel) {
    if (starter.is_main_thread) {
        if (!os::die_with_parent_thread(starter.pid)) os::kill_this_process();
        return;
    }
    const os::BlockSignals for_the_thread;
    std::thread([parent_sentinel] {
        os::poll(parent_sentinel, os::poll_in, os::Deadline::never());
        os::kill_this_process();
    }).detach();
}

}  // namespace multiprocessing::runtime
