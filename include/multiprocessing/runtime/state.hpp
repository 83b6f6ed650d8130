// SPDX-License-Identifier: BSL-1.0
//
// What a Process handle is a handle to: the settings made before the start, and after it the
// child's pid, its sentinel and how it ended. Answers the fields of Python's `BaseProcess` and
// `Popen`.
#pragma once

#include <multiprocessing/bytes.hpp>
#include <multiprocessing/os/fork.hpp>
#include <multiprocessing/os/process.hpp>
#include <multiprocessing/runtime/forkserver/messages.hpp>
#include <multiprocessing/runtime/start_method.hpp>
#include <multiprocessing/runtime/surroundings.hpp>
#include <multiprocessing/runtime/target.hpp>
#include <multiprocessing/shm/processes.hpp>

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <typeinfo>
#include <utility>
#include <vector>

namespace multiprocessing::runtime {

/// The place of a process in its tree: {1, 2} is the second child of the first child.
using Identity = std::vector<unsigned>;

/// What a process is to the one that looks at it.
enum class Relation { child, current, parent };

/// One process. `mutex` guards what may change once other threads can see it: everything but
/// `identity` and `creator`.
struct ProcessState {
    mutable os::ForkAwareMutex mutex;
    Relation relation = Relation::child;
    Identity identity;
    std::atomic<const std::type_info*> derived{nullptr};  // whose object it is, if not mp::Process
    int creator = 0;  // the pid of the process that made this object; it alone may start and join

    std::string name;
    bool daemon = false;
    bool die_with_parent = false;
    bytes authkey;
    std::optional<StartMethod> method;  // nothing: the default, looked up at the start
    Surroundings surroundings;
    std::unique_ptr<Target> target;

    bool closed = false;
    std::optional<int> pid;
    std::optional<int> exitcode;
    // Shared, so that closing the process does not close it under the poll of another thread.
    std::shared_ptr<const os::Fd> sentinel;
    // If a fork server forked it: where that tells of its end, and the server's own sentinel.
    os::Fd exit_reports;
    std::shared_ptr<const os::Fd> server;
    shm::HolderId holder = 0;
    std::function<void()> after_end;  // run once, when the child has been reaped

    /// Reaps the child if it has ended, and gives back what it held. The exit code, or nothing
    /// while it runs, was never started, or is not this process's child.
    std::optional<int> poll_exitcode();
    /// The same with the mutex held.
    std::optional<int> poll_exitcode_locked();
    /// The sentinel, or nothing before the start.
    [[nodiscard]] std::shared_ptr<const os::Fd> shared_sentinel() const {
        const std::lock_guard lock(mutex);
        return sentinel;
    }
    [[nodiscard]] std::string current_name() const {
        const std::lock_guard lock(mutex);
        return name;
    }
    [[nodiscard]] bytes current_authkey() const {
        const std::lock_guard lock(mutex);
        return authkey;
    }
    /// Sends a signal; to one that has ended it is nothing.
    void send_signal(int signal) const {
        const std::lock_guard lock(mutex);
        if (sentinel && !exitcode) os::signal_process(sentinel->get(), signal);
    }
    /// Whether the end came before the deadline. Called in the parent of a started child, or in a
    /// child for its parent.
    bool wait_for_end(os::Deadline deadline);

private:
    [[nodiscard]] bool is_servers_child() const {
        const std::lock_guard lock(mutex);
        return static_cast<bool>(exit_reports);
    }
    [[nodiscard]] std::optional<int> find_exitcode() const;
};

inline std::optional<int> ProcessState::poll_exitcode() {
    const std::lock_guard lock(mutex);
    return poll_exitcode_locked();
}

inline std::optional<int> ProcessState::poll_exitcode_locked() {
    if (exitcode || !pid || relation != Relation::child || creator != os::this_pid()) {
        return exitcode;
    }
    exitcode = find_exitcode();
    if (exitcode) {
        exit_reports.reset();
        server.reset();
        shm::release_process(holder);
        if (after_end) std::exchange(after_end, nullptr)();
    }
    return exitcode;
}

inline std::optional<int> ProcessState::find_exitcode() const {
    if (!exit_reports) {
        const auto code = os::reap(*pid);
        // Somebody else has reaped it, or had the kernel do so. It may have said how it ends.
        return code == os::unknown_exitcode ? shm::noted_exit(holder).value_or(*code) : code;
    }
    // Not this process's child by the kernel's reckoning.
    if (!os::poll(sentinel->get(), os::poll_in, os::Deadline::passed())) return std::nullopt;
    if (const auto noted = shm::noted_exit(holder)) return noted;
    // It did not end in order, so the server knows how, if it lives; a moment after the kernel, but
    // it may have been stopped.
    constexpr std::chrono::seconds patience{1};
    if (!forkserver::await_report(exit_reports.get(), server->get(),
                                  os::Deadline::after(patience))) {
        return std::nullopt;
    }
    const auto report = forkserver::receive_message<forkserver::ForkReport>(exit_reports.get());
    return report ? report->value : os::unknown_exitcode;
}

inline bool ProcessState::wait_for_end(os::Deadline deadline) {
    const auto fd = shared_sentinel();
    if (!fd) return true;
    if (relation == Relation::parent) return os::poll(fd->get(), os::poll_in, deadline);
    const bool through_server = is_servers_child();
    if (poll_exitcode()) return true;
    if (!os::poll(fd->get(), os::poll_in, deadline)) return false;
    // A sentinel may be ready just before the child can be reaped (its last thread is on its way
    // out), so this is asked, not assumed. The kernel closes the gap at once, and so does a fork
    // server, unless it has been stopped.
    while (!poll_exitcode()) {
        if (deadline.expired() && through_server) return false;
        std::this_thread::yield();
    }
    return true;
}

}  // namespace multiprocessing::runtime
