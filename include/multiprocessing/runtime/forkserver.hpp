// SPDX-License-Identifier: BSL-1.0
//
// Starting a child by having a small server fork it: at the price of a fork that does not grow with
// this process's memory, from a process that has no threads. Answers Python's `popen_forkserver`.
#pragma once

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/os/affinity.hpp>
#include <multiprocessing/os/error.hpp>
#include <multiprocessing/os/process.hpp>
#include <multiprocessing/os/random.hpp>
#include <multiprocessing/os/signals.hpp>
#include <multiprocessing/os/stdio.hpp>
#include <multiprocessing/runtime/action.hpp>
#include <multiprocessing/runtime/control.hpp>
#include <multiprocessing/runtime/forkserver/client.hpp>
#include <multiprocessing/runtime/forkserver/messages.hpp>
#include <multiprocessing/runtime/forkserver/server.hpp>
#include <multiprocessing/runtime/report.hpp>
#include <multiprocessing/runtime/shipment.hpp>
#include <multiprocessing/runtime/spawn.hpp>
#include <multiprocessing/runtime/state.hpp>
#include <multiprocessing/shm/processes.hpp>

#include <cerrno>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <utility>
#include <vector>

namespace multiprocessing::runtime::forkserver {

/// What servers run before their first fork.
class Preload {
public:
    [[nodiscard]] static std::vector<Action> get() {
        const std::scoped_lock lock(chosen().mutex);
        return chosen().functions;
    }
    static void set(std::vector<Action> functions) {
        const std::scoped_lock lock(chosen().mutex);
        chosen().functions = std::move(functions);
    }

private:
    struct Chosen {
        os::ForkAwareMutex mutex;
        std::vector<Action> functions;
    };
    [[nodiscard]] static Chosen& chosen() {
        static constinit os::Lazy<Chosen> made;
        return made.get([] { return new Chosen; });
    }
};

/// The target of a server's process.
class ServerTarget final : public Target {
public:
    /// In the server.
    explicit ServerTarget(pickle::IArchive& archive);
    /// What is written for it in the process whose server it is to be.
    static void save(pickle::OArchive& archive, const os::Fd& control, const Key& key);

    inline void run() override;
    void save(pickle::OArchive&) const override {}

private:
    static std::unique_ptr<Target> load(pickle::IArchive& archive) {
        return std::make_unique<ServerTarget>(archive);
    }

    os::Fd control_;
    Key key_{};
    std::vector<Action> preload_;
};

/// Spawns a server for this process.
[[nodiscard]] Client::Server launch_server();

/// Puts what the child is to be given into its channel, where it waits for the child.
void fill(int channel, Shipment& shipment, const shm::ChildSlot& slot);

/// Has the server fork a child. When the server was killed before there was one: how it ended.
[[nodiscard]] std::optional<int> try_to_start(ProcessState& state, const TargetSaver& save);

// -------------------------------------------------------------------------------------------------

inline void ServerTarget::save(pickle::OArchive& archive, const os::Fd& control, const Key& key) {
    archive << TargetLoader(&load);
    archive.put(static_cast<std::uint32_t>(archive.cargo().add_descriptor(control.get())));
    archive.put(key);
    const auto preload = Preload::get();
    archive.put(static_cast<std::uint32_t>(preload.size()));
    for (const Action& function : preload) function.save(archive);
}

inline ServerTarget::ServerTarget(pickle::IArchive& archive)
    : control_(archive.cargo().take_descriptor(archive.get<std::uint32_t>())),
      key_(archive.get<Key>()) {
    for (auto left = archive.get<std::uint32_t>(); left > 0; --left) {
        preload_.emplace_back().load(archive);
    }
}

inline void ServerTarget::run() {
    Server server(std::move(control_), key_);
    for (const Action& function : preload_) {
        try {
            function();
        } catch (const SystemExit&) {
            throw;
        } catch (...) {
            report_current_exception();  // the children will do without it
        }
    }
    // Who waits for the end of what his children write is not to wait for the server. They are sent
    // their streams.
    os::flush_standard_streams();
    os::redirect_output_to_null();
    server.run();
}

inline Client::Server launch_server() {
    const ThisProcess& me = this_process();
    Client::Server server;
    server.environment = os::environment_hash();
    os::fill_with_random(server.key);
    auto [ours, theirs] = os::socket_pair(os::SocketKind::messages);
    server.process = std::make_shared<ProcessState>();
    ProcessState& state = *server.process;
    state.creator = os::this_pid();
    state.identity = me.self->identity;
    state.identity.push_back(0);  // its children have the numbers from 1
    state.name = "ForkServer";
    {
        const std::lock_guard lock(me.self->mutex);
        state.authkey = me.self->authkey;
    }
    {
        const std::lock_guard lock(state.mutex);
        start_by_spawn(state, [&, control = std::cref(theirs)](pickle::OArchive& archive) {
            ServerTarget::save(archive, control, server.key);
        });
    }
    server.control = std::move(ours);
    return server;
}

inline void fill(int channel, Shipment& shipment, const shm::ChildSlot& slot) {
    pickle::Scratch told;
    shipment.seal(slot, *told);
    const os::Fd here = shipment.folder() < 0 ? os::open_directory(".") : os::Fd();
    const ParcelHead head{told->size() > most_told, os::stdout_is_open(), os::stderr_is_open()};
    os::Fd file;
    std::vector<int> descriptors;
    if (head.told_by_file) {
        file = preparation_file(told->span());
        told->clear();
        descriptors.push_back(file.get());
    }
    descriptors.push_back(here ? here.get() : shipment.folder());
    descriptors.push_back(shipment.parent_sentinel());
    if (head.out) descriptors.push_back(os::stdout_descriptor);
    if (head.err) descriptors.push_back(os::stderr_descriptor);
    const auto& own = shipment.preparation().descriptors;
    descriptors.insert(descriptors.end(), own.begin(), own.end());
    send_parcel(channel, head, told->span(), descriptors);
}

inline std::optional<int> try_to_start(ProcessState& state, const TargetSaver& save) {
    Client& client = this_process().fork_server;
    const ProcessPointer server = client.ensure_running(launch_server);

    Shipment shipment(state, save);
    // The kernel makes the child the server's, so it has to watch its parent by itself.
    shipment.preparation().starter_is_main_thread = false;
    shipment.preparation().blocked_signals = os::SignalMask::of_this_thread().blocked();
    if (client.environment_has_changed()) shipment.preparation().environment = os::environment();
    // The child will take it itself; this is to know that it can.
    static_cast<void>(os::AffinityScope(state.surroundings.cpu_affinity));
    shm::ChildSlot slot(shm::Inherits::nothing);
    auto [ours, theirs] = os::socket_pair(os::SocketKind::messages);
    fill(ours.get(), shipment, slot);

    const auto server_end = server->shared_sentinel();
    os::ReceivedDescriptors sentinel;
    std::optional<ForkReport> report;
    if (client.request(slot.id(), theirs.get())) {
        theirs.reset();
        shipment.take_reserved().reset();  // for the one that comes now
        static_cast<void>(await_report(ours.get(), server_end->get(), os::Deadline::never()));
        report = receive_message<ForkReport>(ours.get(), &sentinel);
    }
    if (!report) return client.give_up(server).value_or(os::unknown_exitcode);
    switch (report->kind) {
    case ForkReport::Kind::refused:
        throw AuthenticationError(complaint("the fork server has refused a request", state,
                                            "it did not come with the server's key"));
    case ForkReport::Kind::failed:
        os::throw_error(report->value, "fork", "in the fork server");
    case ForkReport::Kind::started:
        if (sentinel.all.empty()) {  // another thread has taken the room
            os::kill_process(report->pid);
            os::throw_error(EMFILE, "recvmsg", "the child's pidfd");
        }
        state.sentinel = std::make_shared<const os::Fd>(std::move(sentinel.all.front()));
        state.exit_reports = std::move(ours);
        state.server = server_end;
        break;
    case ForkReport::Kind::ended:  // killed before it had come to report
        state.sentinel = std::make_shared<const os::Fd>(os::pipe().first);
        state.exitcode = report->value;
        break;
    }
    state.pid = report->pid;
    state.holder = slot.id();
    slot.started(report->pid);
    if (state.exitcode) shm::release_process(state.holder);
    return std::nullopt;
}

}  // namespace multiprocessing::runtime::forkserver

namespace multiprocessing::runtime {

/// Has the fork server start it. Called with `state`'s mutex held. Whatever it throws, there is no
/// child and nothing has changed.
inline void start_by_forkserver(ProcessState& state, const TargetSaver& save) {
    check_main_is_guarded(state);
    // A server that is killed is replaced. One that always is, is not our misfortune alone.
    std::optional<int> end;
    for (int attempts = 0; attempts < 3; ++attempts) {
        end = forkserver::try_to_start(state, save);
        if (!end) return;
    }
    throw std::runtime_error(complaint(
        "the fork server ends whenever it is asked for a child", state,
        "the last one " + describe_end(*end) + "; look at what set_forkserver_preload has it run"));
}

}  // namespace multiprocessing::runtime
