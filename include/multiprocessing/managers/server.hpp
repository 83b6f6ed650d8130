// SPDX-License-Identifier: BSL-1.0
//
// A manager's server that a process runs: its own, or one that was started for it. Answers Python's
// `managers.Server` and `BaseManager._run_server`.
#pragma once

#include <multiprocessing/bytes.hpp>
#include <multiprocessing/connection/address.hpp>
#include <multiprocessing/connection/listener.hpp>
#include <multiprocessing/connection/pipe.hpp>
#include <multiprocessing/managers/registered.hpp>
#include <multiprocessing/managers/server_process.hpp>
#include <multiprocessing/managers/server_state.hpp>
#include <multiprocessing/os/clock.hpp>
#include <multiprocessing/pickle.hpp>
#include <multiprocessing/runtime/action.hpp>

#include <chrono>
#include <exception>
#include <memory>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

namespace multiprocessing::managers {

/// A server that this process runs itself. A handle. *Python*: `managers.Server`.
class Server {
public:
    /// `BaseManager::get_server()` makes them. Listens, but does not yet accept.
    Server(const std::optional<connection::Address>& address, const bytes& authkey,
           const std::vector<Registered>& registered);

    /// Serves until `stop()`, by a client's or this process's call, in as many threads as there are
    /// connections. *Blocks* until then.
    void serve_forever() const { serve(std::chrono::seconds(1)); }
    void stop() const noexcept { state_->stop(); }
    [[nodiscard]] const connection::Address& address() const noexcept { return state_->address(); }
    [[nodiscard]] const connection::Listener& listener() const noexcept { return state_->listener(); }

private:
    friend void serve_as_process(const Connection&, const std::optional<connection::Address>&,
                                 const bytes&, const std::vector<Registered>&,
                                 const runtime::Action&);
    /// And waits as long at most for what goes on at its end.
    void serve(std::chrono::nanoseconds patience) const {
        state_->serve();
        state_->finish(os::Deadline::after(patience));
    }

    std::shared_ptr<ServerState> state_;
};

/// What a process does that a manager has started to serve it.
inline void serve_as_process(const Connection& connection,
                             const std::optional<connection::Address>& address,
                             const bytes& authkey, const std::vector<Registered>& registered,
                             const runtime::Action& initializer);

// ---------------------------------------------------------------------------------------------------

inline Server::Server(const std::optional<connection::Address>& address, const bytes& authkey,
                      const std::vector<Registered>& registered) {
    Factories factories;
    for (const Registered& each : registered) factories.emplace(each.name, each.factory);
    const connection::ListenerOptions options{.backlog = 128, .authkey = authkey};
    state_ = std::make_shared<ServerState>(address ? connection::Listener(*address, options)
                                                   : connection::Listener(options),
                                           std::move(factories));
}

inline void serve_as_process(const Connection& connection,
                             const std::optional<connection::Address>& address,
                             const bytes& authkey, const std::vector<Registered>& registered,
                             const runtime::Action& initializer) {
    const ServerLine line(connection);
    ServerLine::begin(initializer);
    std::optional<Server> server;
    try {
        server.emplace(address, authkey, registered);
    } catch (...) {
        line.failed(std::current_exception());
        return;
    }
    line.ready(pickle::dumps(server->address()));
    std::thread serving([&] { server->serve(std::chrono::milliseconds(500)); });
    line.wait_for_end(server->state_->stopped().get());
    server->stop();
    serving.join();
}

}  // namespace multiprocessing::managers
