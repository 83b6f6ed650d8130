// SPDX-License-Identifier: BSL-1.0
//
// The engine whose workers are ranks: the tasks it has been given, which slices of them are where, and
// the outcomes that come back.
#pragma once

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/mpi/backoff.hpp>
#include <multiprocessing/mpi/broadcast.hpp>
#include <multiprocessing/mpi/fleet.hpp>
#include <multiprocessing/mpi/messages.hpp>
#include <multiprocessing/mpi/node.hpp>
#include <multiprocessing/mpi/setup.hpp>
#include <multiprocessing/os/fork.hpp>
#include <multiprocessing/pool_stats.hpp>
#include <multiprocessing/runtime/pool/engine.hpp>
#include <multiprocessing/runtime/pool/statistics.hpp>
#include <multiprocessing/runtime/wait_until.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <thread>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

namespace multiprocessing::mpi {

using runtime::pool::Awaited;
using runtime::pool::Failure;
using runtime::pool::Job;
using runtime::pool::TaskSettings;

/// A function that tasks call, as it goes to ranks.
struct SentFunction {
    Function head;
    pickle::Buffer callable;
    double nanoseconds = 0;  // that an item takes, as far as is known; with the engine's mutex
    double samples = 0;
};
using FunctionPointer = std::shared_ptr<SentFunction>;

/// Memory of items that have been sent, for the next: what is large would be given back to the system each
/// time, and come back page by page.
class SpareBuffers {
public:
    [[nodiscard]] pickle::Buffer take() noexcept {
        const std::scoped_lock lock(mutex_);
        if (buffers_.empty()) return {};
        pickle::Buffer buffer = std::move(buffers_.back());
        buffers_.pop_back();
        bytes_ -= buffer.capacity();
        return buffer;
    }
    void put(pickle::Buffer&& buffer) noexcept {
        if (buffer.capacity() < least) return;
        const std::scoped_lock lock(mutex_);
        if (bytes_ + buffer.capacity() > most || buffers_.size() == buffers_.capacity()) return;
        buffer.clear();
        bytes_ += buffer.capacity();
        buffers_.push_back(std::move(buffer));
    }
    SpareBuffers() { buffers_.reserve(most_buffers); }

private:
    static constexpr std::size_t least = std::size_t{128} << 10;
    static constexpr std::size_t most = std::size_t{64} << 20;
    static constexpr std::size_t most_buffers = 64;

    os::ForkAwareMutex mutex_;
    std::vector<pickle::Buffer> buffers_;
    std::size_t bytes_ = 0;
};
inline SpareBuffers spare_buffers;

/// Where a rank is that works for a pool.
struct RankInfo {
    int rank = 0;  ///< in its communicator; -1: this process, which has a pool of processes
    std::string host;
    int pid = 0;
    int processes = 1;  ///< that it runs tasks with
};

/// What a task is made of.
struct TaskParts {
    FunctionPointer function;
    std::uint32_t count;                      // of items
    std::uint32_t grain;                      // of them
    pickle::Buffer items;
    std::vector<std::uint64_t> first_bytes;   // of each grain, where items are not plain
};

class RankEngine final : public runtime::pool::Engine, public Customer {
public:
    struct Settings {
        std::shared_ptr<Fleet> fleet;       // null: there are no ranks
        std::vector<int> ranks;             // that are to work
        std::vector<std::uint32_t> capacities;  // of each: how many processes it has for that; 0: itself
        std::uint32_t local_processes = 0;  // of the master's own node
        PoolSetup setup;
        bool is_executors = false;
    };

    [[nodiscard]] static std::shared_ptr<RankEngine> start(Settings settings);
    RankEngine(Settings settings, std::uint32_t size);
    inline ~RankEngine() override;

    /// The function as it is sent, once for all tasks and calls that it is the same for.
    [[nodiscard]] FunctionPointer function(const Function& head, pickle::Buffer&& callable);
    /// Gives a task to the ranks; its items are the job's from `base` on. Returns the number by which it
    /// can be asked for.
    std::uint64_t submit(const std::shared_ptr<Job>& job, std::uint64_t base, TaskParts&& parts,
                         const TaskSettings& settings);
    /// Takes a task back if nothing of it has left. Whether that is so; false if it is over.
    bool take_back(std::uint64_t id);
    /// Has any of it left? False if it is over.
    [[nodiscard]] bool has_begun(std::uint64_t id) const;
    /// Takes back what has not left, and takes no more.
    void cancel_waiting();
    [[nodiscard]] PoolStats stats() const;
    [[nodiscard]] std::vector<RankInfo> ranks() const;

    inline bool wait(const Awaited& awaited, os::Deadline deadline) override;
    inline void look() override;
    inline bool cancel(const std::shared_ptr<Job>& job) override;

    inline void accept(int rank, Kind kind, MessageReader message) override;
    inline void lose_all(const std::exception_ptr& why) override;

private:
    struct Given;
    using GivenPointer = std::shared_ptr<Given>;
    /// Grains of a task, from one to before another.
    struct Grains {
        std::uint32_t first;
        std::uint32_t end;
    };
    struct Given {
        std::uint64_t id;
        std::shared_ptr<Job> job;
        std::uint64_t base;
        TaskParts parts;
        TaskSettings settings;
        std::deque<Grains> waiting;  // to be sent
        std::uint64_t waiting_items; // of them all
        std::uint64_t left;          // items that have not ended, wherever they are
        std::vector<std::size_t> seats{};  // that some have been sent to, some more than once
        bool cancelled = false;
        bool is_queued = true;

        ~Given() { spare_buffers.put(std::move(parts.items)); }
        [[nodiscard]] std::uint32_t items_of(Grains grains) const noexcept {
            return std::min(grains.end * parts.grain, parts.count) - grains.first * parts.grain;
        }
        [[nodiscard]] std::uint64_t bytes_of(std::uint64_t items) const noexcept {
            return items * parts.items.size() / parts.count;
        }
    };
    /// A rank's part in the pool.
    struct Seat {
        int rank;                 // -1: this process's own node
        std::uint32_t worker;     // the number of its first
        std::uint32_t capacity;   // how many items it runs at a time
        std::uint32_t processes;  // of its local pool; 0: it runs them itself
        std::size_t index;        // among the seats
        std::uint64_t items = 0;  // that it has been sent
        std::uint64_t bytes = 0;  // of them
        bool is_stuck = false;    // it is at something that takes long, and gives back the rest
        bool is_hungry = true;    // it has room, as far as is known
        std::list<Seat*>::iterator place{};  // in hungry_ or full_
        bool is_closed = false;
        std::unordered_set<std::uint64_t> functions{};  // that it has
        runtime::pool::WorkerTally tally{};
    };
    struct Post {
        Seat* seat;
        pickle::Buffer message;
        std::vector<std::int32_t> others{};  // of a function: that are to have it from there
        std::span<const std::byte> rest{};   // of the message, where it lies
        std::shared_ptr<const void> keeps_rest{};
    };
    class LocalNode;

    // Tasks.
    void dispatch() noexcept;
    [[nodiscard]] bool prepare(std::vector<Post>& posts);
    [[nodiscard]] std::uint32_t grains_for(const Seat& seat, const Given& given) const noexcept;
    [[nodiscard]] static std::span<const std::byte> add_slice(const Given& given, Grains grains,
                                                              pickle::Buffer& message);
    void teach(Seat& seat, const FunctionPointer& function, std::vector<Post>& posts);
    void post(Post& post);
    void forget_functions(std::vector<Post>& posts);
    [[nodiscard]] std::uint64_t horizon_items(const Seat& seat, const SentFunction& function) const noexcept;
    void take_off_queue(Given& given) noexcept;
    [[nodiscard]] GivenPointer find_given(std::uint64_t id) const;

    // Outcomes.
    void accept_outcomes(Seat& seat, MessageReader message);
    void take_outcome(Seat& seat, const GivenPointer& given, const Outcome& outcome,
                      std::span<const std::byte> bytes);
    void settle(Seat& seat, const GivenPointer& given, const Outcome& outcome);
    void note_time(Seat& seat, const Outcome& outcome);
    void take_again(Seat& seat, Given& given, const Outcome& outcome);
    void tell_cancelled(const Given& given, std::vector<Post>& posts);
    /// With the mutex. Who was busy last is the first to be sent more, for it is awake.
    void feed(Seat& seat) {
        auto& from = std::exchange(seat.is_hungry, true) ? hungry_ : full_;
        hungry_.splice(hungry_.begin(), from, seat.place);
    }

    // Engine's.
    inline void attend() override;
    [[nodiscard]] bool is_idle() const override { return given_.empty(); }
    inline void sleep() override;
    inline void see_workers_off() override;
    inline void end_workers() override;
    inline void fail_all(const Failure& failure, bool workers_run) override;
    inline void wake() noexcept override;
    [[nodiscard]] bool brings_outcomes() const noexcept override {
        return is_own_thread() || (fleet_ && fleet_->is_passing_on());
    }
    void listen_for_the_lost();
    void send_to_all(const Head& head);
    bool poll() noexcept { return fleet_ && fleet_->poll(); }
    /// The pool's thread need not, for somebody waits who does.
    [[nodiscard]] bool others_poll() const noexcept {
        return services() == 0 && fleet_->is_polled(std::chrono::microseconds(500));
    }
    [[nodiscard]] std::chrono::nanoseconds spin_time() const noexcept {
        return fleet_ ? fleet_->peers().spin_time() : std::chrono::nanoseconds(0);
    }

    const std::shared_ptr<Fleet> fleet_;
    const bool is_executors_;
    PoolSetup setup_;
    std::uint64_t number_ = 0;  // of the pool
    std::unique_ptr<LocalNode> local_;
    std::atomic<std::uint64_t> next_id_{1};
    std::atomic<std::uint64_t> outstanding_{0};  // items that have been given and have not ended

    std::atomic<bool> dispatching_{false};
    std::atomic<bool> dispatch_again_{false};

    // With the mutex.
    std::deque<Seat> seats_;
    std::vector<Seat*> by_rank_;  // null for those that have none
    std::unordered_map<std::uint64_t, GivenPointer> given_;
    std::deque<GivenPointer> queue_;  // those with grains to be sent
    std::uint64_t waiting_items_ = 0;
    std::list<Seat*> hungry_;
    std::list<Seat*> full_;
    std::vector<FunctionPointer> functions_;

    // The thread's sleep.
    std::mutex nap_;
    std::condition_variable nap_ends_;
    bool woken_ = false;
    std::atomic<bool> is_parked_{false};
    std::optional<Backoff> thread_backoff_;
    bool came_some_ = false;
    std::uint64_t listened_ = 0;  // when
};

// ---------------------------------------------------------------------------------------------------

/// The pool of processes that a master has itself. It is told what a rank would be, in the same words.
class RankEngine::LocalNode {
public:
    LocalNode(RankEngine& engine, Seat& seat)
        : engine_(engine), seat_(seat), answers_([this](pickle::Buffer&& message) {
              MessageReader reader(message.span());
              static_cast<void>(reader.get<Head>());
              engine_.accept_outcomes(seat_, reader);
          }),
          node_(answers_, true) {}

    void open(const PoolSetup& setup) { node_.open(1, setup); }
    void close() { node_.close(1); }
    void tend() { node_.give_back_what_waits(); }
    void take(pickle::Buffer&& buffer) {
        const auto message = std::make_shared<const pickle::Buffer>(std::move(buffer));
        MessageReader reader(message->span());
        switch (kind_of(message->span())) {
        case Kind::function: {
            const auto head = reader.get<Function>();
            const std::lock_guard lock(mutex_);
            functions_[head.id] = {head, message, reader.take(head.size)};
            break;
        }
        case Kind::forget: {
            const auto head = reader.get<Head>();
            const std::lock_guard lock(mutex_);
            for (std::uint32_t i = 0; i < head.number; ++i) functions_.erase(reader.get<std::uint64_t>());
            break;
        }
        case Kind::slices: {
            const auto head = reader.get<Head>();
            for (std::uint32_t i = 0; i < head.number; ++i) {
                const auto [slice, places, items] = read_slice(reader);
                FunctionBytes function;
                {
                    const std::lock_guard lock(mutex_);
                    function = functions_.at(slice.function);
                }
                node_.run(std::make_shared<SliceInHand>(1, slice, places, items, message), function);
            }
            break;
        }
        case Kind::cancel: {
            const auto head = reader.get<Cancel>();
            std::vector<std::uint64_t> tasks(head.count);
            for (std::uint64_t& each : tasks) each = reader.get<std::uint64_t>();
            node_.cancel(1, tasks);
            break;
        }
        default: break;
        }
    }

private:
    RankEngine& engine_;
    Seat& seat_;
    Answers answers_;
    Node node_;
    std::mutex mutex_;
    std::unordered_map<std::uint64_t, FunctionBytes> functions_;
};

}  // namespace multiprocessing::mpi

#include <multiprocessing/mpi/engine_life.hpp>
#include <multiprocessing/mpi/engine_outcomes.hpp>
#include <multiprocessing/mpi/engine_tasks.hpp>
