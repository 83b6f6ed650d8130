// SPDX-License-Identifier: BSL-1.0
//
// What a process knows of its fork server. Each process that starts others through one has a server
// of its own, which ends with it. Answers Python's `forkserver.ForkServer`.
#pragma once

#include <multiprocessing/os/environment.hpp>
#include <multiprocessing/os/fork.hpp>
#include <multiprocessing/os/socket.hpp>
#include <multiprocessing/runtime/children.hpp>
#include <multiprocessing/runtime/forkserver/messages.hpp>

#include <chrono>
#include <csignal>
#include <cstdint>
#include <mutex>
#include <optional>
#include <span>
#include <utility>

namespace multiprocessing::runtime::forkserver {

class Client {
public:
    /// A server that runs.
    struct Server {
        ProcessPointer process;
        os::Fd control;
        Key key;
        std::uint64_t environment = 0;  // os::environment_hash() when it was started
    };

    /// The server's process. Has one made by `launch()` if there is none, or it was killed.
    template <class Launch>
    [[nodiscard]] ProcessPointer ensure_running(Launch launch) {
        const std::lock_guard lock(mutex_);
        if (!server_.process || server_.process->poll_exitcode()) {
            server_ = {};
            server_ = launch();
        }
        return server_.process;
    }

    /// Asks for a child; false when the server is gone.
    [[nodiscard]] bool request(shm::HolderId child, int channel) {
        const std::lock_guard lock(mutex_);
        return server_.control &&
               send_message(server_.control.get(), ForkRequest{server_.key, child}, {&channel, 1});
    }

    /// Ends the server, if there is one. The children it has forked live on.
    void stop() {
        const std::lock_guard lock(mutex_);
        stop_locked();
    }
    /// The same if it still is this one, which was found gone: it may be on its way out yet. How it
    /// ended.
    std::optional<int> give_up(const ProcessPointer& server) {
        const std::lock_guard lock(mutex_);
        if (server_.process == server) stop_locked();
        return server->poll_exitcode();
    }

    /// In a forked child: the server is its parent's.
    void forget() noexcept {
        const std::lock_guard lock(mutex_);
        server_ = {};
    }

    /// Whether this process's environment is another than its server's.
    [[nodiscard]] bool environment_has_changed() {
        const std::lock_guard lock(mutex_);
        return server_.environment != os::environment_hash();
    }
    /// The server's process, or null.
    [[nodiscard]] ProcessPointer process() {
        const std::lock_guard lock(mutex_);
        return server_.process;
    }
    /// The socket on which it is asked, or -1. Valid until it ends.
    [[nodiscard]] int control() {
        const std::lock_guard lock(mutex_);
        return server_.control.get();
    }

private:
    void stop_locked() {
        using namespace std::chrono_literals;
        const Server server = std::exchange(server_, {});
        if (!server.process) return;
        // Not only closed: forked children of this process may have it open too.
        os::shutdown_writing(server.control.get());
        if (!server.process->wait_for_end(os::Deadline::after(500ms))) {
            server.process->send_signal(SIGKILL);
            server.process->wait_for_end(os::Deadline::never());
        }
    }

    os::ForkAwareMutex mutex_;
    Server server_;
};

}  // namespace multiprocessing::runtime::forkserver
