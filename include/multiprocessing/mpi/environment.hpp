// SPDX-License-Identifier: BSL-1.0
//
// MPI in this process: its start, its end, and who serves whom.
#pragma once

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/mpi/error.hpp>
#include <multiprocessing/mpi/fleet.hpp>
#include <multiprocessing/mpi/peers.hpp>
#include <multiprocessing/mpi/server.hpp>
#include <multiprocessing/mpi/wire.hpp>
#include <multiprocessing/os/clock.hpp>
#include <multiprocessing/os/memory.hpp>
#include <multiprocessing/os/module.hpp>
#include <multiprocessing/os/exit.hpp>
#include <multiprocessing/os/process.hpp>
#include <multiprocessing/os/stdio.hpp>
#include <multiprocessing/process.hpp>
#include <multiprocessing/runtime/exit.hpp>
#include <multiprocessing/runtime/log.hpp>
#include <multiprocessing/timeout.hpp>

#include <boost/mpi/communicator.hpp>
#include <boost/mpi/environment.hpp>
#include <boost/mpi/intercommunicator.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace multiprocessing::mpi {

/// The keyword arguments of `mpi::freeze_support`.
struct EnvironmentOptions {
    /// What is done when a rank is lost.
    ErrorHandler error_handler = ErrorHandler::abort();
    /// A rank of which nothing has been heard for so long, though it has a part in a pool, is lost. (Those on
    /// the same machine are watched: their end is known at once. And launchers watch as well.)
    Timeout rank_timeout = std::chrono::seconds(60);
    /// How long the end of the program waits for ranks that are still at tasks whose pools have been
    /// terminated, before it ends the run by force.
    Timeout patience = std::chrono::seconds(10);
};

/// Of a process; there is one, and it is never destroyed.
class Environment {
public:
    /// Starts MPI if it is not. *Throws* std::runtime_error where it has been started in a way that a pool
    /// cannot work with.
    Environment(int& argc, char**& argv, EnvironmentOptions options);
    Environment(const Environment&) = delete;
    Environment& operator=(const Environment&) = delete;

    /// Serves the rank 0 of a communicator, until it has no use for this rank any more.
    void serve(const boost::mpi::communicator& communicator);
    /// If this process was started by spawn(): serves who did, then ends.
    void serve_if_spawned(int argc, char** argv);
    /// Becomes the master of all ranks of the run, for good.
    void lead(const boost::mpi::communicator& world) {
        world_ = std::make_shared<Fleet>(world, options_.error_handler, options_.rank_timeout.span());
        check_builds(*world_);
    }
    /// Those ranks; null: there are no others than this.
    [[nodiscard]] const std::shared_ptr<Fleet>& world() const noexcept { return world_; }
    /// The ranks of a communicator, which call serve(), for as long as anybody has it.
    [[nodiscard]] std::shared_ptr<Fleet> fleet(const boost::mpi::communicator& communicator) {
        return make_fleet(communicator, MPI_COMM_NULL);
    }
    /// So many new ranks, for as long as anybody has them. *Throws* std::runtime_error where MPI cannot
    /// start them.
    [[nodiscard]] std::shared_ptr<Fleet> spawn(int ranks,
                                               const std::map<std::string, std::string>& info);
    /// Ends MPI, if it was started here, and this process in order.
    [[noreturn]] void leave() noexcept;

private:
    // What tells a spawned rank from one that somebody else has spawned.
    static constexpr const char* spawned_mark = "--multiprocessing-mpi-rank";

    /// A fleet that nobody uses any more.
    struct Leaving {
        std::shared_ptr<Fleet> fleet;
        MPI_Comm to_spawned;  // or null
    };

    static void check_builds(Fleet& fleet);
    [[nodiscard]] std::shared_ptr<Fleet> make_fleet(const boost::mpi::communicator& communicator,
                                                    MPI_Comm to_spawned);
    void release(Leaving leaving) noexcept;
    static void close(Leaving& leaving) noexcept;
    static int at_finalize(MPI_Comm, int, void*, void*);
    void dismiss_all() noexcept;
    void finalize() noexcept;

    /// A forked child has no part in MPI, whatever it has copies of.
    [[nodiscard]] bool is_foreign() const noexcept { return creator_ != os::this_pid(); }

    const int creator_ = os::this_pid();
    const EnvironmentOptions options_;
    std::optional<boost::mpi::environment> started_;  // by this; else by the program
    std::shared_ptr<Fleet> world_;
    std::atomic<bool> is_serving_{false};
    std::mutex mutex_;  // guards what follows
    std::vector<Leaving> leaving_;  // whose ranks have not all come to it yet
};

inline constinit Environment* environment = nullptr;

/// The process's. *Throws* AssertionError where there is none.
[[nodiscard]] inline Environment& this_environment() {
    if (environment == nullptr) {
        throw AssertionError("multiprocessing::mpi is not ready: call mp::mpi::freeze_support(argc, argv) at "
                             "the beginning of main");
    }
    return *environment;
}

/// The same in a program that has started MPI itself, and not called freeze_support, which would have all
/// ranks serve the first.
[[nodiscard]] inline Environment& environment_for_a_group(EnvironmentOptions options = {}) {
    int no_arguments = 0;
    char** nothing = nullptr;
    if (environment == nullptr) environment = new Environment(no_arguments, nothing, std::move(options));
    return *environment;
}

// ---------------------------------------------------------------------------------------------------

inline Environment::Environment(int& argc, char**& argv, EnvironmentOptions options)
    : options_(std::move(options)) {
    if (boost::mpi::environment::finalized()) {
        throw std::runtime_error("MPI has been ended, and cannot be started again");
    }
    if (!boost::mpi::environment::initialized()) {
        // The program's own threads may call MPI while a pool does.
        started_.emplace(argc, argv, boost::mpi::threading::multiple, false);
    }
    int level = MPI_THREAD_SINGLE;
    MPI_Query_thread(&level);
    if (level < MPI_THREAD_SERIALIZED) {
        throw std::runtime_error(
            "MPI was started for a program without threads, and a pool has one: let "
            "mp::mpi::freeze_support start MPI, or call MPI_Init_thread with MPI_THREAD_MULTIPLE");
    }
    // Whoever ends MPI: before that the ranks are let go.
    int key = MPI_KEYVAL_INVALID;
    MPI_Comm_create_keyval(MPI_COMM_NULL_COPY_FN, at_finalize, &key, nullptr);
    MPI_Comm_set_attr(MPI_COMM_SELF, key, this);
    if (started_) {
        // After pools and children.
        constexpr int last = -1000;
        runtime::register_exit([this] { finalize(); }, last);
    }
}

inline int Environment::at_finalize(MPI_Comm, int, void* self, void*) {
    static_cast<Environment*>(self)->dismiss_all();
    return MPI_SUCCESS;
}

inline void Environment::dismiss_all() noexcept {
    std::vector<Leaving> all;
    {
        const std::lock_guard lock(mutex_);
        all.swap(leaving_);
    }
    if (world_) all.push_back({world_, MPI_COMM_NULL});
    for (const Leaving& each : all) each.fleet->dismiss();
    const os::Deadline deadline(options_.patience);
    for (Leaving& each : all) {
        Fleet& fleet = *each.fleet;
        if (fleet.await_end(deadline)) {
            close(each);
            continue;
        }
        if (!fleet.peers().is_any_lost()) {
            fleet.peers().lost(RankLostError(
                std::to_string(fleet.staying()) + " of " + std::to_string(fleet.ranks()) +
                " ranks are still at tasks of a pool that was terminated, though the program has ended"));
        }
        // MPI cannot end in order without them.
        MPI_Abort(MPI_COMM_WORLD, 1);
    }
}

inline void Environment::close(Leaving& leaving) noexcept {
    leaving.fleet->wire().close();
    if (leaving.to_spawned == MPI_COMM_NULL) return;
    const std::lock_guard lock(mpi_mutex);
    MPI_Comm_free(&leaving.to_spawned);
}

inline void Environment::finalize() noexcept {
    if (is_foreign()) return;
    if (is_serving_) {
        // MPI would wait for all others to end with it, and they for this one's task.
        os::write_to_stderr("multiprocessing::mpi: a task has ended the process of its rank\n");
        os::exit_at_once(1);
    }
    started_.reset();
}

inline void Environment::leave() noexcept {
    // MPI waits for all ranks to end it together: not for ever for one that never will.
    std::thread([until_lost = options_.rank_timeout, patience = options_.patience] {
        const os::Deadline others_are_waited_for(patience);
        constexpr std::chrono::milliseconds nap(100);
        while (!others_are_waited_for.expired()) std::this_thread::sleep_for(nap);
        const os::Deadline deadline(until_lost);
        while (!deadline.expired()) std::this_thread::sleep_for(nap);
        os::write_to_stderr("multiprocessing::mpi: MPI_Finalize does not return; a rank ends without it\n");
        os::exit_at_once(1);
    }).detach();
    if (started_) {
        finalize();
    } else if (!boost::mpi::environment::finalized()) {
        MPI_Finalize();
    }
    std::exit(0);
}

inline void Environment::check_builds(Fleet& fleet) {
    const std::string others = fleet.peers().other_builds();
    if (others.empty()) return;
    throw std::runtime_error("mpi: another build of this program runs in " + others +
                             ": a function travels as its place in the program, so all ranks must run the "
                             "same file");
}

inline void Environment::serve(const boost::mpi::communicator& communicator) {
    // A rank takes large messages in one after the other, for which memory is to stay.
    os::keep_freed_memory();
    Wire wire(communicator);
    Peers peers(wire, options_.error_handler, options_.rank_timeout.span());
    peers.watch(0);
    current_process().set_name("MpiRank-" + std::to_string(wire.rank()));
    runtime::log_at(runtime::log_level::info,
                    [&] { return "mpi: " + peers.at(wire.rank()).describe(wire.rank()) + " serves"; });
    is_serving_ = true;
    try {
        Server(wire, peers, 0).serve();
        is_serving_ = false;
    } catch (const RankLostError& error) {
        peers.lost(error);
        throw;
    }
    wire.close();
    peers.expect_end(0);
}

inline void Environment::serve_if_spawned(int argc, char** argv) {
    const bool is_spawned = std::any_of(argv, argv + argc, [](const char* argument) {
        return std::strcmp(argument, spawned_mark) == 0;
    });
    MPI_Comm parent = MPI_COMM_NULL;
    if (!is_spawned || MPI_Comm_get_parent(&parent) != MPI_SUCCESS || parent == MPI_COMM_NULL) return;
    {
        const boost::mpi::intercommunicator to_parent(parent, boost::mpi::comm_attach);
        serve(to_parent.merge(true));
    }
    MPI_Comm_free(&parent);
    leave();
}

inline std::shared_ptr<Fleet> Environment::make_fleet(const boost::mpi::communicator& communicator,
                                                      MPI_Comm to_spawned) {
    std::shared_ptr<Fleet> fleet(
        new Fleet(communicator, options_.error_handler, options_.rank_timeout.span()),
        [this, to_spawned](Fleet* unused) { release({std::shared_ptr<Fleet>(unused), to_spawned}); });
    check_builds(*fleet);
    return fleet;
}

inline std::shared_ptr<Fleet> Environment::spawn(int ranks,
                                                 const std::map<std::string, std::string>& info) {
    const std::string program = os::this_executable();
    std::string mark = spawned_mark;
    char* arguments[] = {mark.data(), nullptr};
    MPI_Info hints = MPI_INFO_NULL;
    MPI_Info_create(&hints);
    for (const auto& [key, value] : info) MPI_Info_set(hints, key.c_str(), value.c_str());
    MPI_Comm to_spawned = MPI_COMM_NULL;
    {
        const std::lock_guard lock(mpi_mutex);
        MPI_Comm_set_errhandler(MPI_COMM_SELF, MPI_ERRORS_RETURN);
        std::vector<int> codes(static_cast<std::size_t>(ranks));
        const int code = MPI_Comm_spawn(program.c_str(), arguments, ranks, hints, 0, MPI_COMM_SELF,
                                        &to_spawned, codes.data());
        MPI_Info_free(&hints);
        if (code != MPI_SUCCESS) {
            throw std::runtime_error("mpi: " + std::to_string(ranks) + " ranks of " + program +
                                     " cannot be spawned: " + error_text(code));
        }
    }
    const boost::mpi::intercommunicator children(to_spawned, boost::mpi::comm_attach);
    return make_fleet(children.merge(false), to_spawned);
}

/// Its ranks may go. Those that are at something that takes long are waited for at the end of the program.
inline void Environment::release(Leaving leaving) noexcept {
    if (is_foreign()) {
        new Leaving(std::move(leaving));  // never destroyed
        return;
    }
    leaving.fleet->dismiss();
    if (leaving.fleet->await_end(os::Deadline::after(std::chrono::seconds(1)))) return close(leaving);
    const std::lock_guard lock(mutex_);
    leaving_.push_back(std::move(leaving));
}

}  // namespace multiprocessing::mpi
