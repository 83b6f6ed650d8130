// SPDX-License-Identifier: BSL-1.0
//
// The engine whose workers are processes: the tasks they have been given, the outcomes they report, and
// what becomes of what they had in hand when they die.
#pragma once

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/os/poll.hpp>
#include <multiprocessing/os/process.hpp>
#include <multiprocessing/os/memory.hpp>
#include <multiprocessing/os/signals.hpp>
#include <multiprocessing/pool_stats.hpp>
#include <multiprocessing/runtime/pool/engine.hpp>
#include <multiprocessing/runtime/pool/shared.hpp>
#include <multiprocessing/runtime/pool/statistics.hpp>
#include <multiprocessing/runtime/pool/work.hpp>
#include <multiprocessing/runtime/pool/worker.hpp>
#include <multiprocessing/runtime/start.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

namespace multiprocessing::runtime::pool {

/// What a pool of processes is made with.
struct Settings {
    std::uint32_t processes;
    Action initializer;
    WorkerLimits limits;
    std::optional<StartMethod> method;
    std::vector<int> cpu_affinity;
    std::optional<std::chrono::nanoseconds> idle_timeout;
    // An executor's: workers may have children, are started when there is something for them to do, and
    // the death of one breaks it. What has been submitted is finished, at the end of the process too.
    bool is_executors = false;
    bool on_demand = false;
};

/// What a task is to be made of.
struct TaskPlan {
    Entry entry;
    std::uint32_t count;         // of items
    std::uint32_t grain;         // of them
    std::size_t element;         // bytes of a result in the array, or 0
    std::size_t callable;        // bytes of it
    std::size_t items;           // bytes of them all
    bool aligned;                // they are an array
    bool timed;
};

class ProcessEngine final : public Engine {
public:
    /// Starts the workers and the thread. When one cannot be started those that were are ended.
    [[nodiscard]] static std::shared_ptr<ProcessEngine> start(Settings settings);
    explicit ProcessEngine(Settings settings)
        : Engine(settings.processes, settings.is_executors), settings_(std::move(settings)),
          wanted_(settings_.on_demand ? 0 : settings_.processes) {}

    [[nodiscard]] std::vector<ProcessPointer> workers() const;
    [[nodiscard]] PoolStats stats() const;
    /// Has so many workers, soon.
    void resize(std::uint32_t workers);

    /// A task's block, in which the caller writes the callable and the items.
    [[nodiscard]] Task& make_task(const TaskPlan& plan, std::span<const shm::Ticket> tickets) const;
    /// Gives a task to the workers; its items are the job's from `base` on. Returns the number by which
    /// it can be asked for.
    std::uint64_t submit(const std::shared_ptr<Job>& job, std::uint64_t base, Task& task,
                         const TaskSettings& settings);
    /// Takes a task back if nobody has begun it. Whether that is so; false if it is over.
    bool take_back(std::uint64_t id);
    /// Takes back the grains of a task that nobody has begun: of each the first item in the task, and how
    /// many it has. Their outcomes will not come.
    [[nodiscard]] std::vector<std::pair<std::uint32_t, std::uint32_t>> take_rest(std::uint64_t id);
    /// Has a worker begun it? False if it is over.
    [[nodiscard]] bool has_begun(std::uint64_t id) const;
    /// Takes back what nobody has begun, and takes no more.
    void cancel_waiting();
    /// No new work, what waits is given up, and all workers are sent a signal.
    void end_by(int signal);

    // Inline here, as all that is virtual is in a header: a first one that is not would have each file that
    // includes it compile the whole class.
    inline bool wait(const Awaited& awaited, os::Deadline deadline) override;
    inline void look() override;
    inline bool cancel(const std::shared_ptr<Job>& job) override;

private:
    struct Worker {
        ProcessPointer process;
        std::shared_ptr<const os::Fd> sentinel;  // the user may close the process
        WorkerSlot* slot = nullptr;
        WorkerStats before{};  // of those whose place it took
        bool gone = true;      // it has ended, and was not replaced
    };
    /// What is known of a grain beside what stands in the task. Whoever has the reader's role changes it.
    struct GrainBook {
        std::uint32_t read = 0;      // outcomes that the job has
        std::uint32_t attempts = 0;  // at the first item that it has not, that have ended in deaths
        bool over = false;
    };
    struct Given {
        std::shared_ptr<Job> job;
        std::uint64_t base;
        shm::Ticket block;
        TaskSettings settings;
        std::vector<GrainBook> grains;
        std::set<std::uint32_t> given_up;  // items that have been failed, though they may still run
        std::size_t left;        // grains that are not over; with the mutex
        bool cancelled = false;  // with the mutex
    };
    using GivenPointer = std::shared_ptr<Given>;
    using GivenMap = std::unordered_map<std::uint64_t, GivenPointer>;
    /// A worker that has been told to stop what it is at, and what comes next if it does not.
    struct Stop {
        std::uint32_t worker;
        std::uint64_t run;  // what its slot says as long as it is at that
        os::Clock::time_point when;
        std::chrono::nanoseconds grace;
        bool terminated = false;
    };
    class Reading;
    class Turn;

    // Workers.
    [[nodiscard]] WorkerStats stats_of(std::uint32_t number) const;
    void start_worker(std::uint32_t number);
    void adjust_crew();
    void see_to_the_dead();
    void settle(std::uint32_t number, int exitcode);
    [[nodiscard]] bool replace(std::uint32_t number, int exitcode);
    void cannot_start();

    // Tasks.
    [[nodiscard]] GivenPointer find_given(std::uint64_t id) const;
    void offer(shm::Ticket block, std::uint32_t grain);
    void grain_over(const GivenPointer& given, std::uint64_t id, std::uint32_t grain);
    GivenMap::iterator forget(GivenMap::iterator at);
    void free_task(shm::Ticket ticket) noexcept;
    static void free_outcomes(Grain& grain) noexcept;
    [[nodiscard]] bool is_picked_up(shm::Ticket ticket) const noexcept;
    static std::size_t withdraw(Given& given) noexcept;
    static bool withdraw(Grain& grain) noexcept {
        std::uint32_t waiting = Grain::waiting;
        return grain.holder.compare_exchange_strong(waiting, Grain::cancelled);
    }
    /// Of a task that is given.
    [[nodiscard]] static Task& task_of(const Given& given) noexcept {
        return *shm::Arena::payload<Task>(shm::Arena::instance().named(given.block));
    }

    // Outcomes: who has the reader's role takes them in.
    [[nodiscard]] bool try_to_read() noexcept {
        if (reading_.exchange(true)) return false;
        reader_.store(std::this_thread::get_id(), std::memory_order_relaxed);
        return true;
    }
    void stop_reading() noexcept;
    std::size_t take_reports();
    void take_report(const Report& report);
    enum class Waited { ready, in_vain, gave_way };
    Waited read_until(const Awaited& awaited, os::Deadline deadline);
    [[nodiscard]] bool thread_should_read() const {
        return waiting_.load() != 0 || services() != 0 || !is_running();
    }
    static void hand_over(Given& given, Task& task, std::uint32_t grain) noexcept;
    void lose_task(std::uint32_t number, int exitcode);
    void lose_grain(const GivenPointer& given, Task& task, std::uint32_t grain, std::uint32_t number,
                    int exitcode);
    void break_executor(const std::string& why);
    [[nodiscard]] std::exception_ptr loss(std::uint32_t number, int exitcode, std::uint64_t item,
                                          std::uint32_t attempts) const;
    void rouse_reader() noexcept {
        if (reading_.load()) channel_.reports().wake_all();
    }

    // Time.
    void stop_cancelled();
    void stop_overdue();
    void go_on_stopping();
    bool ask_to_stop(std::uint32_t number, std::uint64_t run, std::chrono::nanoseconds grace);
    void give_up(std::uint32_t number, std::uint64_t run, const GivenPointer& given,
                 std::uint32_t grain, std::uint32_t item);
    [[nodiscard]] GivenPointer task_in_hand(std::uint32_t number, std::uint64_t& run) const;

    // Engine's.
    inline void attend() override;
    [[nodiscard]] bool is_idle() const override { return given_.empty(); }
    inline void sleep() override;
    inline void see_workers_off() override;
    inline void end_workers() override;
    inline void fail_all(const Failure& failure, bool workers_run) override;
    void wake() noexcept override { channel_.doorbell().ring(); }
    [[nodiscard]] bool brings_outcomes() const noexcept override {
        return is_own_thread() || reader_.load(std::memory_order_relaxed) == std::this_thread::get_id();
    }
    void deferred_done() noexcept override { rouse_reader(); }

    static constexpr std::chrono::nanoseconds least_idle_timeout = std::chrono::milliseconds(10);

    Settings settings_;
    Channel channel_;
    os::SignalMask signals_ = os::SignalMask::of_this_thread();
    std::atomic<std::uint64_t> next_id_{1};

    // The reader's role, and who would have it.
    std::atomic<bool> reading_{false};
    std::atomic<std::thread::id> reader_{};     // who has it
    std::atomic<bool> give_way_{false};         // the pool's thread needs it
    std::atomic<std::uint32_t> waiting_{0};     // callers

    std::atomic<std::uint64_t> outstanding_{0};  // grains whose outcomes nobody has

    // With the mutex.
    std::vector<Worker> workers_;
    GivenMap given_;
    std::map<std::chrono::nanoseconds, std::size_t> timeouts_;  // of tasks given
    std::vector<shm::Ticket> retired_;  // tasks whose blocks a worker may still look at
    std::uint32_t wanted_;  // workers: fewer than size() where there is not so much to do
    bool has_cancelled_ = false;
    int dismissed_by_ = 0;              // the crew, for good: the signal

    // The thread's own.
    std::uint64_t workers_made_ = 0;
    std::uint64_t fruitless_deaths_ = 0;  // in a row, of workers that were not ready yet
    bool somebody_died_ = false;
    std::vector<Stop> stops_;
    os::Deadline next_look_ = os::Deadline::never();
    os::Clock::time_point idle_since_ = os::Clock::now();
    std::uint64_t last_seen_id_ = 1;  // of a task
};

/// Has the reader's role, for which whoever has it gives way. By the pool's thread alone.
class ProcessEngine::Reading {
public:
    explicit Reading(ProcessEngine& engine) noexcept : engine_(engine) {
        if (engine_.try_to_read()) return;
        engine_.give_way_.store(true);
        do {
            engine_.rouse_reader();
            engine_.reading_.wait(true);
        } while (!engine_.try_to_read());
        engine_.give_way_.store(false);
    }
    Reading(const Reading&) = delete;
    Reading& operator=(const Reading&) = delete;
    ~Reading() { engine_.stop_reading(); }

private:
    ProcessEngine& engine_;
};

// ---------------------------------------------------------------------------------------------------

inline std::shared_ptr<ProcessEngine> ProcessEngine::start(Settings settings) {
    auto engine = std::make_shared<ProcessEngine>(std::move(settings));
    try {
        for (std::uint32_t i = 0; i < engine->wanted_; ++i) engine->start_worker(i);
        engine->start_thread();
    } catch (...) {
        engine->end_workers();
        throw;
    }
    return engine;
}

}  // namespace multiprocessing::runtime::pool

#include <multiprocessing/runtime/pool/process_engine_crew.hpp>
#include <multiprocessing/runtime/pool/process_engine_reader.hpp>
#include <multiprocessing/runtime/pool/process_engine_tasks.hpp>
#include <multiprocessing/runtime/pool/process_engine_time.hpp>
