// SPDX-License-Identifier: BSL-1.0
//
// What a fork server does: forks a child for each request and tells how it ended. It has one thread
// and little memory, so that its forks are cheap and find nothing half done. Answers Python's
// `forkserver.main`.
#pragma once

#include <multiprocessing/os/affinity.hpp>
#include <multiprocessing/os/fork.hpp>
#include <multiprocessing/os/module.hpp>
#include <multiprocessing/os/poll.hpp>
#include <multiprocessing/os/process.hpp>
#include <multiprocessing/os/signals.hpp>
#include <multiprocessing/os/stdio.hpp>
#include <multiprocessing/runtime/bootstrap.hpp>
#include <multiprocessing/runtime/exit.hpp>
#include <multiprocessing/runtime/forkserver/messages.hpp>
#include <multiprocessing/runtime/this_process.hpp>
#include <multiprocessing/shm/processes.hpp>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <iterator>
#include <memory>
#include <new>
#include <system_error>
#include <unordered_map>
#include <utility>
#include <vector>

namespace multiprocessing::runtime::forkserver {

/// What a server does about signals, and does not share with its children.
class Signals {
public:
    Signals() {
        os::ignore_interrupts();  // Ctrl-C is for those who work
        os::take_default_action(SIGCHLD);
    }
    /// Readable when children have ended.
    [[nodiscard]] int ends() const noexcept { return ends_.get(); }
    void clear_ends() const noexcept { ends_.clear(); }
    void close() noexcept { ends_.close(); }
    /// In a child: as the server has found them, but blocked as in the thread that started the
    /// child. In this order, so that a signal that is blocked for a while, until the child ignores
    /// it, does not come before.
    void restore(const std::vector<int>& blocked) const noexcept {
        os::SignalMask::blocking(blocked).apply();
        interrupts_.restore();
        ends_of_children_.restore();
    }

private:
    [[nodiscard]] static os::SignalFd open_ends() {
        // The thread that has launched the server may have blocked what it liked.
        os::SignalMask::blocking({}).apply();
        return os::SignalFd(SIGCHLD);
    }

    os::Disposition interrupts_{SIGINT};
    os::Disposition ends_of_children_{SIGCHLD};
    os::SignalFd ends_ = open_ends();
};

class Server {
public:
    Server(os::Fd control, const Key& key) : control_(std::move(control)), key_(key) {}

    /// Serves until its process is gone or wants no more.
    void run();

private:
    /// False at the end of all requests.
    [[nodiscard]] bool serve_request();
    [[noreturn]] void enter_child(os::Fd channel, shm::ChildSlot& slot) noexcept;
    void report_ends();

    os::Fd control_;
    Key key_;
    Signals signals_;
    std::unordered_map<int, os::Fd> channels_;  // to those who wait for a child's end, by its pid
};

/// In a child, first of all: from now on it is known, whatever becomes of the server.
inline void report_start(int channel) {
    const ForkReport report{ForkReport::Kind::started, os::this_pid(), 0};
    const os::Fd sentinel = os::open_pidfd(report.pid);
    const int number = sentinel.get();
    if (!send_message(channel, report, {&number, 1})) throw SystemExit(1);
}

/// In a child: receives what the process that wants it has prepared, and becomes that.
[[nodiscard]] inline std::unique_ptr<Target> receive_target(int channel, const Signals& signals) {
    os::ReceivedDescriptors arrived;
    std::vector<os::Fd>& received = arrived.all;
    ReceivedParcel parcel;
    if (!parcel.receive(channel, arrived)) throw SystemExit(1);  // that process is gone
    std::size_t next = 0;
    const Preparation preparation = parcel.head().told_by_file
                                        ? read_preparation(received.at(next++).get())
                                        : pickle::load<Preparation>(parcel.told());
    const os::Fd folder = std::move(received.at(next++));
    os::Fd parent_sentinel = std::move(received.at(next++));
    if (parcel.head().out) os::replace_stdout(received.at(next++).get());
    if (parcel.head().err) os::replace_stderr(received.at(next++).get());

    signals.restore(preparation.blocked_signals);
    const auto own = [&] { return received.size() - next; };
    while (own() < preparation.descriptors.size()) {
        if (!parcel.receive(channel, arrived)) throw SystemExit(1);
    }
    os::AffinityScope(preparation.surroundings.cpu_affinity).keep();
    if (preparation.environment) os::replace_environment(*preparation.environment);
    preparation.surroundings.take_up(folder.get());
    received.erase(received.begin(), received.begin() + static_cast<std::ptrdiff_t>(next));
    return unpack_target(preparation, std::move(parent_sentinel), std::move(received));
}

inline void Server::run() {
    const int parent = this_process().parent->sentinel->get();
    for (;;) {
        std::array<os::PollEntry, 3> entries{{{control_.get(), os::poll_in, 0},
                                              {signals_.ends(), os::poll_in, 0},
                                              {parent, os::poll_in, 0}}};
        os::poll(entries, os::Deadline::never());
        const auto& [request, ends, end_of_parent] = entries;
        if (end_of_parent.revents != 0) return;
        if (ends.revents != 0) report_ends();
        if (request.revents != 0 && !serve_request()) return;
    }
}

inline bool Server::serve_request() {
    os::ReceivedDescriptors received;
    const auto request = receive_message<ForkRequest>(control_.get(), &received);
    if (!request) return false;
    if (received.all.empty()) return true;  // no channel: nobody to answer
    os::Fd channel = std::move(received.all.front());
    ForkReport report{ForkReport::Kind::refused, 0, 0};
    if (request->key == key_) {
        report.kind = ForkReport::Kind::failed;
        try {
            shm::ChildSlot slot(request->child);
            os::flush_standard_streams();
            os::note_modules();  // preloading may have brought some, and threads
            const auto [place, added] = channels_.try_emplace(0);  // so that nothing fails later
            const int pid = os::fork();
            if (pid == 0) enter_child(std::move(channel), slot);
            auto node = channels_.extract(place);
            node.key() = pid;
            node.mapped() = std::move(channel);
            channels_.insert(std::move(node));
            return true;
        } catch (const std::system_error& error) {
            report.value = error.code().value();
        } catch (const std::bad_alloc&) {
            report.value = ENOMEM;
        }
        channels_.erase(0);
    }
    send_message(channel.get(), report);
    return true;
}

inline void Server::enter_child(os::Fd channel, shm::ChildSlot& slot) noexcept {
    run_and_leave([&] {
        for (auto& [pid, other] : channels_) other.reset();  // freed nodes would be pages to copy
        control_.reset();
        signals_.close();
        report_start(channel.get());
        slot.adopt();
        const std::unique_ptr<Target> target = receive_target(channel.get(), signals_);
        channel.reset();  // the server keeps it for the report of the end
        run_target(target.get());
    });
}

inline void Server::report_ends() {
    signals_.clear_ends();
    while (const auto ended = os::try_reap(-1)) {
        const auto found = channels_.find(ended->pid);
        if (found == channels_.end()) continue;
        send_message(found->second.get(),
                     ForkReport{ForkReport::Kind::ended, ended->pid, ended->exitcode});
        channels_.erase(found);
    }
}

}  // namespace multiprocessing::runtime::forkserver
