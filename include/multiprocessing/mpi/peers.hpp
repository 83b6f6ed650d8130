// SPDX-License-Identifier: BSL-1.0
//
// The ranks of a communicator: where they are, whether they run this very program, and whether they live.
#pragma once

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/mpi/error.hpp>
#include <multiprocessing/mpi/messages.hpp>
#include <multiprocessing/mpi/wire.hpp>
#include <multiprocessing/os/clock.hpp>
#include <multiprocessing/os/fd.hpp>
#include <multiprocessing/os/host.hpp>
#include <multiprocessing/os/module.hpp>
#include <multiprocessing/os/poll.hpp>
#include <multiprocessing/os/process.hpp>
#include <multiprocessing/process.hpp>
#include <multiprocessing/runtime/log.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <mutex>
#include <optional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

namespace multiprocessing::mpi {

/// One rank, as all others know it.
struct Peer {
    char host[65] = {};
    char table[64] = {};      // of processes, that its pid is of
    std::int32_t pid = 0;
    std::int32_t processors = 1;  // that it may use
    std::uint64_t program = 0;    // its build

    [[nodiscard]] static Peer self();
    /// "rank 3 (pid 4711 on node7)"
    [[nodiscard]] std::string describe(int rank) const {
        return "rank " + std::to_string(rank) + " (pid " + std::to_string(pid) + " on " + host + ")";
    }
};

class Peers {
public:
    /// Of a communicator, all ranks of which do this at the same time.
    /// `patience`: how long a rank may be silent that should not be.
    Peers(const Wire& wire, ErrorHandler handler, std::optional<std::chrono::nanoseconds> patience);
    Peers(const Peers&) = delete;
    Peers& operator=(const Peers&) = delete;

    [[nodiscard]] const Peer& at(int rank) const { return all_.at(static_cast<std::size_t>(rank)); }
    [[nodiscard]] int size() const noexcept { return static_cast<int>(all_.size()); }
    /// Those that were built from something else than this one, in words; empty: there is none.
    [[nodiscard]] std::string other_builds() const;

    /// Watches a rank that is on this machine, until it has left. Others are MPI's own affair.
    void watch(int rank);
    /// It ends now, as it should.
    void expect_end(int rank) {
        const std::lock_guard lock(mutex_);
        std::erase_if(watched_, [rank](const Watched& each) { return each.rank == rank; });
    }
    /// *Throws* RankLostError when one that is watched has ended, after the handler has returned. Looks
    /// a thousand times a second at most.
    void check();
    [[nodiscard]] std::chrono::nanoseconds patience() const noexcept { return patience_; }
    /// Nothing has been heard of it for so long. *Throws* RankLostError, as check(), if that is too long.
    void check_silence(int rank, std::chrono::nanoseconds silent) {
        if (silent < patience_) return;
        const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(silent).count();
        raise(RankLostError(at(rank).describe(rank) + " has not been heard of for " +
                                std::to_string(seconds) + " s",
                            rank));
    }
    /// One has been found to be gone, by whatever sign. *Throws* the same where the handler returns.
    [[noreturn]] void raise(const RankLostError& error) {
        lost(error);
        throw error;
    }
    /// The same where nobody could catch it.
    void lost(const RankLostError& error) noexcept;
    [[nodiscard]] bool is_any_lost() const noexcept { return is_any_lost_.load(); }

    /// For how long to look for an answer before the first nap: not for long where ranks have to share
    /// processors.
    [[nodiscard]] std::chrono::nanoseconds spin_time() const noexcept { return spin_; }

private:
    struct Watched {
        int rank;
        os::Fd pidfd;
    };

    const int self_;
    const ErrorHandler handler_;
    const std::chrono::nanoseconds patience_;
    std::vector<Peer> all_;
    std::chrono::nanoseconds spin_{0};
    std::atomic<bool> is_any_lost_{false};
    std::atomic<std::uint64_t> checked_{0};
    std::mutex mutex_;
    std::vector<Watched> watched_;
};

// ---------------------------------------------------------------------------------------------------

inline Peer Peer::self() {
    Peer self;
    std::strncpy(self.host, os::host_name().c_str(), sizeof self.host - 1);
    std::strncpy(self.table, os::process_table().c_str(), sizeof self.table - 1);
    self.pid = os::this_pid();
    self.processors = process_cpu_count();
    self.program = os::this_program();
    return self;
}

inline Peers::Peers(const Wire& wire, ErrorHandler handler,
                    std::optional<std::chrono::nanoseconds> patience)
    : self_(wire.rank()), handler_(std::move(handler)),
      patience_(patience.value_or(std::chrono::nanoseconds::max())),
      all_(static_cast<std::size_t>(wire.size())) {
    const Peer self = Peer::self();
    {
        const std::lock_guard lock(mpi_mutex);
        MPI_Allgather(&self, sizeof self, MPI_BYTE, all_.data(), sizeof self, MPI_BYTE,
                      wire.communicator());
    }
    const auto here = std::count_if(all_.begin(), all_.end(), [&](const Peer& each) {
        return std::strcmp(each.table, self.table) == 0;
    });
    const bool is_crowded = here > os::cpu_count() || here > os::quota_cpu_count().value_or(os::cpu_count());
    spin_ = is_crowded ? std::chrono::microseconds(20) : std::chrono::microseconds(200);
}

inline std::string Peers::other_builds() const {
    std::string others;
    for (int rank = 0; rank < size(); ++rank) {
        if (at(rank).program == at(self_).program) continue;
        others += (others.empty() ? "" : ", ") + at(rank).describe(rank);
    }
    return others;
}

inline void Peers::watch(int rank) {
    if (rank == self_ || std::strcmp(at(rank).table, at(self_).table) != 0) return;
    try {
        os::Fd pidfd = os::open_pidfd(at(rank).pid);
        const std::lock_guard lock(mutex_);
        watched_.push_back({rank, std::move(pidfd)});
    } catch (const std::system_error& error) {
        // Where that is not allowed, or there is no descriptor left, it is up to MPI.
        runtime::log_at(runtime::log_level::subwarning, [&] {
            return "mpi: " + at(rank).describe(rank) + " is not watched: " + error.what();
        });
    }
}

inline void Peers::check() {
    constexpr std::uint64_t interval = 1'000'000;
    const std::uint64_t now = os::nanoseconds_now();
    std::uint64_t before = checked_.load(std::memory_order_relaxed);
    if (now - before < interval || !checked_.compare_exchange_strong(before, now)) return;
    std::vector<os::PollEntry> entries;
    std::vector<int> ranks;
    const auto look = [&] {
        const std::lock_guard lock(mutex_);
        for (const Watched& each : watched_) {
            entries.push_back({each.pidfd.get(), os::poll_in, 0});
            ranks.push_back(each.rank);
        }
        return !entries.empty() && os::poll(entries, os::Deadline::passed()) != 0;
    };
    if (!look()) return;
    for (std::size_t i = 0; i < entries.size(); ++i) {
        if (entries[i].revents == 0) continue;
        expect_end(ranks[i]);
        raise(RankLostError(at(ranks[i]).describe(ranks[i]) + " has died", ranks[i]));
    }
}

inline void Peers::lost(const RankLostError& error) noexcept {
    if (is_any_lost_.exchange(true)) return;
    try {
        handler_(error);
    } catch (...) {
        runtime::report_current_exception();
    }
}

}  // namespace multiprocessing::mpi
