// SPDX-License-Identifier: BSL-1.0
//
// The parent's side of a Pool: its workers, the tasks they have been given, and one thread that takes
// in outcomes and sees to the dead. Answers the handler threads of Python's `pool.Pool`.
#pragma once

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/os/poll.hpp>
#include <multiprocessing/os/process.hpp>
#include <multiprocessing/os/signals.hpp>
#include <multiprocessing/runtime/pool/job.hpp>
#include <multiprocessing/runtime/pool/shared.hpp>
#include <multiprocessing/runtime/pool/worker.hpp>
#include <multiprocessing/runtime/start.hpp>
#include <multiprocessing/shm/run.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

namespace multiprocessing::runtime::pool {

/// What a pool is made with.
struct Settings {
    std::uint32_t processes;
    Action initializer;
    std::uint64_t most_tasks = 0;
    std::optional<StartMethod> method;
};

/// A pool. Lives in a shared_ptr, which its thread has too.
class Engine : public std::enable_shared_from_this<Engine> {
public:
    /// Starts the workers and the thread. When one cannot be started those that were are ended.
    [[nodiscard]] static std::shared_ptr<Engine> start(Settings settings);
    explicit Engine(Settings settings);
    Engine(const Engine&) = delete;
    Engine& operator=(const Engine&) = delete;

    [[nodiscard]] std::uint32_t size() const noexcept { return settings_.processes; }
    [[nodiscard]] std::vector<ProcessPointer> workers() const;

    /// A task's block, of which the caller writes the payload.
    [[nodiscard]] Task& make_task(Entry entry, std::uint32_t count, std::size_t bytes,
                                  std::span<const shm::Ticket> tickets) const;
    /// Gives a task to the workers; its items are the job's from `base` on.
    void submit(const std::shared_ptr<Job>& job, std::uint64_t base, Task& task);
    /// Takes back the tasks of a job that nobody has begun, and fails it. What comes of those that
    /// have been begun is dropped. False if it was over already.
    bool cancel(const std::shared_ptr<Job>& job);

    /// Throws ValueError unless new work may be given, and counts a caller that may give more; until
    /// it calls end_feeding() the pool does not stop.
    void begin_feeding();
    void end_feeding() noexcept;
    /// The same for a job that gives more as its outcomes are taken. For it join() does not wait: who
    /// joins may be the one that was to take them.
    void begin_stream(const std::shared_ptr<Job>& job);
    void end_stream(const Job& job) noexcept;

    /// Throws AssertionError in a process forked from the pool's.
    void check_own() const;
    /// Throws AssertionError in the pool's thread, which would wait for itself.
    void check_may_wait() const;

    void close();
    void terminate();
    /// Waits for the end. Throws ValueError when the pool has not been told to.
    void join();
    /// What the last handle does.
    void abandon() noexcept;

private:
    enum class Phase { running, closing, terminating, ended };
    struct Worker {
        ProcessPointer process;
        std::shared_ptr<const os::Fd> sentinel;  // the user may close the process
        bool gone = false;                       // it has ended, and was not replaced
    };
    struct Given {
        std::shared_ptr<Job> job;
        std::uint64_t base;
        shm::Ticket block;
    };

    void start_worker(std::uint32_t number);
    void run() noexcept;
    void serve();
    bool take_results();
    void take_result(std::span<const std::byte> bytes, shm::Run run);
    static void hand_over(const Given& given, const Result& result, std::span<shm::Ticket> tickets);
    void see_to_the_dead();
    void settle(std::uint32_t number, int exitcode);
    void lose_task(std::uint32_t number, int exitcode);
    bool replace(std::uint32_t number, int exitcode);
    [[nodiscard]] bool wait_for_news();
    void see_workers_off();
    void break_down(const std::exception_ptr& exception);
    void end_workers();
    void fail_all(const std::exception_ptr& exception, bool workers_run);
    void free_block(shm::Ticket ticket) noexcept;
    /// Whether no worker had begun it; then none will.
    [[nodiscard]] static bool take_back(const Given& given) noexcept {
        std::uint32_t waiting = Task::waiting;
        return task_of(given.block).holder.compare_exchange_strong(waiting, Task::cancelled);
    }
    /// Of a task that is given.
    [[nodiscard]] static Task& task_of(shm::Ticket block) noexcept {
        return *shm::Arena::payload<Task>(shm::Arena::instance().named(block));
    }
    [[nodiscard]] std::optional<Given> take_given(std::uint64_t id);
    [[nodiscard]] std::optional<Given> find_given(std::uint64_t id) const;
    void give_again(const Given& given, Task& task);
    void finish(const Given& given);
    void post(shm::Ticket block);
    void check_running() const;  // with the mutex held
    void wake() noexcept { channel_.doorbell().ring(); }
    [[nodiscard]] bool is_foreign() const noexcept { return creator_ != os::this_pid(); }
    [[nodiscard]] bool is_own_thread() const noexcept {
        return std::this_thread::get_id() == thread_id_;
    }

    Settings settings_;
    Channel channel_;
    int creator_ = os::this_pid();
    os::SignalMask signals_ = os::SignalMask::of_this_thread();
    std::uint64_t workers_made_ = 0;
    std::uint64_t fruitless_deaths_ = 0;  // in a row, of workers that were not ready yet

    mutable std::mutex mutex_;  // guards what follows
    std::condition_variable ended_;
    Phase phase_ = Phase::running;
    bool joined_ = false;
    std::uint64_t feeders_ = 0;
    std::unordered_map<const Job*, std::weak_ptr<Job>> streams_;
    std::exception_ptr broken_;
    std::vector<Worker> workers_;
    std::unordered_map<std::uint64_t, Given> given_;

    std::atomic<std::uint64_t> next_id_{1};
    std::thread thread_;
    std::thread::id thread_id_;
    ExitFunctions::Id at_exit_ = 0;
};

inline Engine::Engine(Settings settings)
    : settings_(std::move(settings)), channel_(settings_.processes), workers_(settings_.processes) {}

inline std::shared_ptr<Engine> Engine::start(Settings settings) {
    auto engine = std::make_shared<Engine>(std::move(settings));
    try {
        for (std::uint32_t i = 0; i < engine->size(); ++i) engine->start_worker(i);
        const os::BlockSignals for_the_thread;
        engine->thread_ = std::thread([engine] { engine->run(); });
    } catch (...) {
        engine->end_workers();
        throw;
    }
    engine->thread_id_ = engine->thread_.get_id();
    // Before the children are ended, or the thread would replace them.
    constexpr int before_others = 15;
    engine->at_exit_ = register_exit(
        [weak = std::weak_ptr(engine)] {
            if (const auto pool = weak.lock()) pool->terminate();
        },
        before_others);
    return engine;
}

inline void Engine::start_worker(std::uint32_t number) {
    const StartMethod method = settings_.method ? *settings_.method : default_start_method().get();
    NewProcess process;
    process.name = std::string(worker_prefix(method)) + "PoolWorker-" + std::to_string(++workers_made_);
    process.daemon = true;
    process.method = method;
    auto state = make_state(
        std::move(process),
        make_target(&work, Seat(channel_, number, settings_.most_tasks, signals_,
                                settings_.initializer)));
    WorkerSlot& slot = channel_.control().slots()[number];
    slot = {};
    const os::BlockSignals until_it_ignores_interrupts;
    runtime::start(
        state, [target = state->target.get()] { target->run(); },
        [target = state->target.get()](pickle::OArchive& archive) { target->save(archive); });
    const std::lock_guard lock(mutex_);
    auto sentinel = state->shared_sentinel();
    workers_[number] = {std::move(state), std::move(sentinel), false};
}

inline std::vector<ProcessPointer> Engine::workers() const {
    const std::lock_guard lock(mutex_);
    std::vector<ProcessPointer> running;
    running.reserve(workers_.size());
    for (const Worker& worker : workers_) {
        if (worker.process && !worker.gone) running.push_back(worker.process);
    }
    return running;
}

inline Task& Engine::make_task(Entry entry, std::uint32_t count, std::size_t bytes,
                               std::span<const shm::Ticket> tickets) const {
    const shm::Arena& arena = shm::Arena::instance();
    const auto code = pickle::code_address(reinterpret_cast<const void*>(entry));
    const std::size_t aligned = (sizeof(Task) + bytes + 7) & ~std::size_t{7};
    shm::Transaction tx = arena.transaction();
    shm::Block& block = arena.allocate(tx, aligned + tickets.size_bytes(), channel_.owned());
    if (!tickets.empty()) {
        std::memcpy(shm::Arena::payload(block) + aligned, tickets.data(), tickets.size_bytes());
        tx.set(block.tickets, tickets.size());
    }
    tx.commit();
    return *new (shm::Arena::payload(block)) Task{0, code, 0, count, bytes, Task::waiting};
}

inline void Engine::submit(const std::shared_ptr<Job>& job, std::uint64_t base, Task& task) {
    const std::uint64_t id = next_id_.fetch_add(1);
    task.id = id;
    const shm::Ticket ticket = shm::Arena::instance().ticket(shm::Arena::block_of(&task));
    std::exception_ptr refused;
    {
        const std::lock_guard lock(mutex_);
        if (broken_) {
            refused = broken_;
        } else if (phase_ == Phase::terminating || phase_ == Phase::ended) {
            refused = std::make_exception_ptr(CancelledError("the pool was terminated"));
        } else {
            given_.emplace(id, Given{job, base, ticket});
        }
    }
    if (refused) {
        free_block(ticket);
        job->fail(refused);
        return;
    }
    try {
        post(ticket);
    } catch (...) {
        if (take_given(id)) free_block(ticket);
        throw;
    }
}

/// By its ticket: somebody may have cancelled it, and the block be another's by now.
inline void Engine::post(shm::Ticket block) {
    static_cast<void>(channel_.tasks().put(os::Deadline::never(), [&](shm::Ring::Putter& end) {
        std::memcpy(end.reserve(sizeof block), &block, sizeof block);
    }));
}

inline bool Engine::cancel(const std::shared_ptr<Job>& job) {
    std::vector<shm::Ticket> unused;
    {
        const std::lock_guard lock(mutex_);
        for (auto at = given_.begin(); at != given_.end();) {
            if (at->second.job != job) {
                ++at;
                continue;
            }
            if (take_back(at->second)) {
                unused.push_back(at->second.block);
                at = given_.erase(at);
            } else {
                ++at;
            }
        }
    }
    for (const shm::Ticket& block : unused) free_block(block);
    const bool in_time =
        job->fail(std::make_exception_ptr(CancelledError("the task was cancelled")));
    wake();
    return in_time;
}

inline void Engine::check_own() const {
    if (is_foreign()) {
        throw AssertionError("a Pool can be used by the process that made it only (pid " +
                             std::to_string(creator_) + ")");
    }
}

inline void Engine::check_may_wait() const {
    check_own();
    if (is_own_thread()) {
        throw AssertionError("a callback runs in the thread that brings the pool's results, and so "
                             "cannot wait for them: use AsyncResult.then(), or another thread");
    }
}

inline void Engine::check_running() const {
    if (phase_ != Phase::running) {
        throw ValueError("Pool not running: it was closed or terminated, make a new one");
    }
}

inline void Engine::begin_feeding() {
    check_own();
    const std::lock_guard lock(mutex_);
    check_running();
    ++feeders_;
}

inline void Engine::begin_stream(const std::shared_ptr<Job>& job) {
    check_own();
    const std::lock_guard lock(mutex_);
    check_running();
    streams_.emplace(job.get(), job);
}

inline void Engine::end_stream(const Job& job) noexcept {
    if (is_foreign()) return;
    {
        const std::lock_guard lock(mutex_);
        streams_.erase(&job);
    }
    wake();
}

inline void Engine::end_feeding() noexcept {
    {
        const std::lock_guard lock(mutex_);
        --feeders_;
    }
    wake();
}

inline void Engine::close() {
    check_own();
    {
        const std::lock_guard lock(mutex_);
        if (phase_ == Phase::running) phase_ = Phase::closing;
    }
    wake();
}

inline void Engine::terminate() {
    if (is_foreign()) return;
    std::unique_lock lock(mutex_);
    if (phase_ != Phase::ended) phase_ = Phase::terminating;
    wake();
    // From a callback it is asked for, and done when the callback returns.
    if (is_own_thread()) return;
    ended_.wait(lock, [this] { return phase_ == Phase::ended; });
}

inline void Engine::join() {
    check_own();
    std::unique_lock lock(mutex_);
    if (phase_ == Phase::running) {
        throw ValueError("Pool is still running: call close() or terminate() before join()");
    }
    check_may_wait();
    // Who waits here takes no outcomes meanwhile, so nobody but the pool will have the rest read.
    std::vector<std::shared_ptr<Job>> unread;
    for (const auto& [address, stream] : streams_) {
        if (auto job = stream.lock()) unread.push_back(std::move(job));
    }
    lock.unlock();
    for (const auto& job : unread) job->read_to_the_end();
    unread.clear();
    lock.lock();
    joined_ = true;
    wake();
    ended_.wait(lock, [this] { return phase_ == Phase::ended; });
}

inline void Engine::abandon() noexcept {
    if (is_foreign()) {
        // A copy in a forked child: the thread is not here, and the workers are not its children.
        new std::thread(std::move(thread_));
        return;
    }
    terminate();
    if (is_own_thread()) {
        thread_.detach();  // the end of the process will wait for it, by the exit function
        return;
    }
    unregister_exit(at_exit_);
    if (thread_.joinable()) thread_.join();
}

}  // namespace multiprocessing::runtime::pool

#include <multiprocessing/runtime/pool/engine_thread.hpp>
