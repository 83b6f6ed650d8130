// SPDX-License-Identifier: BSL-1.0
//
// `SharedMemoryManager`: shared memory that lives as long as somebody who looks after it. Answers the
// class of that name in Python's `multiprocessing.managers`.
#pragma once

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/managers/server_process.hpp>
#include <multiprocessing/os/fork.hpp>
#include <multiprocessing/os/random.hpp>
#include <multiprocessing/pickle/handle.hpp>
#include <multiprocessing/process.hpp>
#include <multiprocessing/runtime/action.hpp>
#include <multiprocessing/runtime/start_method.hpp>
#include <multiprocessing/shared_memory.hpp>
#include <multiprocessing/sharedctypes.hpp>
#include <multiprocessing/shm/tracked_names.hpp>
#include <multiprocessing/timeout.hpp>

#include <cerrno>
#include <concepts>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <mutex>
#include <optional>
#include <ranges>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

namespace multiprocessing::managers {

/// The keyword arguments of `SharedMemoryManager`.
struct SharedMemoryManagerOptions {
    /// The start method of its server, as `mp::get_context("spawn")`. Left out: the default one.
    std::optional<runtime::ContextBase> ctx = std::nullopt;
    /// How long `shutdown()` waits for the server before it ends it by force.
    Timeout shutdown_timeout = 1.0;
};

/// Makes shared memory that is unlinked when the manager is shut down, and when the process that
/// has started it ends, however it does: a process of the manager's own waits for that. *Python*:
/// `multiprocessing.managers.SharedMemoryManager`.
///
///     mp::managers::SharedMemoryManager manager;
///     manager.start();
///     auto memory = manager.SharedMemory(4096);
///     auto list = manager.ShareableList({1, "two", 3.0});
///     manager.shutdown();   // or the last handle's destructor in the process that started it
///
/// A handle: a copy that was passed to another process makes memory for the same manager.
/// *If a process dies*: if the one that started it, within a second all is unlinked; if the server,
/// shutdown() does it itself.
class SharedMemoryManager {
public:
    SharedMemoryManager() : SharedMemoryManager(SharedMemoryManagerOptions{}) {}
    explicit SharedMemoryManager(SharedMemoryManagerOptions options)
        : options_(std::move(options)), group_(os::random_number() | 1), state_(initial),
          server_(std::make_shared<Server>()) {}
    // Not to be moved from: a handle is one of the same manager for as long as it lives.
    SharedMemoryManager(const SharedMemoryManager&) = default;
    SharedMemoryManager& operator=(const SharedMemoryManager&) = default;
    ~SharedMemoryManager() = default;

    /// Starts the server, which runs `initializer` first. *Throws* ProcessError when it has been
    /// started or shut down before, or when the server ends before it is ready (the initializer
    /// threw); what `Process::start` throws.
    void start(runtime::Action initializer = {}) const;
    /// Unlinks all that was made, and ends the server. A second time, and in another process than
    /// started it, it does what is left to do. *Throws* AssertionError when it was never started.
    void shutdown() const;
    /// Waits for the server's end, which shutdown() brings.
    void join(Timeout timeout = {}) const;

    /// New memory of so many bytes. *Throws* as shared_memory::SharedMemory; ValueError when the
    /// manager has not been started, std::system_error (ECONNREFUSED) when it has been shut down.
    [[nodiscard]] shared_memory::SharedMemory SharedMemory(shared_memory::ByteCount size) const;
    /// A new list of these items. *Throws* as the above, and as shared_memory::ShareableList.
    [[nodiscard]] shared_memory::ShareableList ShareableList(
        std::vector<shared_memory::ShareableItem> items) const;
    [[nodiscard]] shared_memory::ShareableList ShareableList(
        std::initializer_list<shared_memory::ShareableItem> items) const {
        return ShareableList(std::vector<shared_memory::ShareableItem>(items));
    }
    template <std::ranges::input_range Range>
        requires std::convertible_to<std::ranges::range_value_t<Range>,
                                     shared_memory::ShareableItem>
    [[nodiscard]] shared_memory::ShareableList ShareableList(Range&& items) const {
        return ShareableList(shared_memory::ShareableList::collect(items));
    }

    /// The server; nothing before start() and in other processes than the one that called it.
    [[nodiscard]] std::optional<Process> process() const;

    using travels_as_handle = void;

private:
    friend struct pickle::HandleAccess;

    // What state_ holds. It only ever grows.
    static constexpr int initial = 0;
    static constexpr int started = 1;
    static constexpr int shut_down = 2;

    /// This process's part; of another's there is nothing in it.
    struct Server {
        os::ForkAwareMutex mutex;
        std::optional<ServerProcess> process;
    };
    explicit SharedMemoryManager(pickle::Unread) : state_(initial) {}
    void save_handle(pickle::OArchive& archive) const {
        archive.put(group_);
        pickle::HandleAccess::save(archive, state_);
    }
    void load_handle(pickle::IArchive& archive) {
        group_ = archive.get<std::uint64_t>();
        pickle::HandleAccess::load(archive, state_);
        server_ = std::make_shared<Server>();
    }
    void check_serving() const;
    /// What was made while somebody shut the manager down is nobody's to unlink but its maker's.
    template <class Made>
    [[nodiscard]] Made kept(Made made, const shared_memory::SharedMemory& memory) const;

    static void serve(const Connection& line, const RawValue<int>& state, std::uint64_t group,
                      const runtime::Action& initializer);

    SharedMemoryManagerOptions options_;
    std::uint64_t group_ = 0;
    RawValue<int> state_;
    std::shared_ptr<Server> server_;
};

// ---------------------------------------------------------------------------------------------------

inline void SharedMemoryManager::start(runtime::Action initializer) const {
    const std::scoped_lock lock(server_->mutex);
    if (state_.load() == started) throw ProcessError("Already started SharedMemoryServer");
    if (state_.load() == shut_down) throw ProcessError("SharedMemoryManager has shut down");
    runtime::ensure_resource_tracker();  // one for both, as the server may be the first to need it
    const auto after = [state = state_, group = group_] {
        state.store(shut_down);
        shm::remove_names_of(group);  // of a server that was killed
    };
    server_->process.emplace("SharedMemoryManager", options_.ctx, options_.shutdown_timeout, after,
                             &SharedMemoryManager::serve, state_, group_, initializer);
    state_.store(started);
}

inline void SharedMemoryManager::serve(const Connection& connection, const RawValue<int>& state,
                                       std::uint64_t group, const runtime::Action& initializer) {
    const ServerLine line(connection);
    ServerLine::begin(initializer);
    line.ready({});
    line.wait_for_end();
    state.store(shut_down);
    shm::remove_names_of(group);
}

inline void SharedMemoryManager::shutdown() const {
    if (state_.load() == initial) {
        throw AssertionError("SharedMemoryManager.shutdown(): it has not been started");
    }
    std::optional<ServerProcess> server;
    {
        const std::scoped_lock lock(server_->mutex);
        server = server_->process;
    }
    state_.store(shut_down);
    if (server && !server->ending()) {
        server->end();
    } else {
        shm::remove_names_of(group_);
    }
}

inline std::optional<Process> SharedMemoryManager::process() const {
    const std::scoped_lock lock(server_->mutex);
    return server_->process ? server_->process->process() : std::nullopt;
}

inline void SharedMemoryManager::join(Timeout timeout) const {
    if (const auto server = process()) server->join(timeout);
}

inline void SharedMemoryManager::check_serving() const {
    if (state_.load() == initial) {
        throw ValueError("SharedMemoryManager: the server is not yet started: call start() first");
    }
    if (state_.load() == shut_down) {
        throw std::system_error(ECONNREFUSED, std::system_category(),
                                "SharedMemoryManager has shut down");
    }
}

template <class Made>
Made SharedMemoryManager::kept(Made made, const shared_memory::SharedMemory& memory) const {
    if (state_.load() == shut_down) {
        try {
            memory.unlink();
        } catch (const std::system_error&) {  // who shut it down has seen it
        }
        check_serving();
    }
    return made;
}

inline shared_memory::SharedMemory SharedMemoryManager::SharedMemory(
    shared_memory::ByteCount size) const {
    check_serving();
    const shared_memory::SharedMemory made({.create = true, .size = size}, group_, nullptr);
    return kept(made, made);
}

inline shared_memory::ShareableList SharedMemoryManager::ShareableList(
    std::vector<shared_memory::ShareableItem> items) const {
    check_serving();
    const shared_memory::ShareableList made(items, std::nullopt, group_);
    return kept(made, made.shm());
}

}  // namespace multiprocessing::managers
