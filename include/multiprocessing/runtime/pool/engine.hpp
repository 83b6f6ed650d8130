// SPDX-License-Identifier: BSL-1.0
//
// The parent's side of a pool, whatever its workers are: who may give work, what phase it is in, and
// one thread that sees to what nobody waits for. Answers the handler threads of Python's `pool.Pool`.
#pragma once

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/os/clock.hpp>
#include <multiprocessing/os/process.hpp>
#include <multiprocessing/os/signals.hpp>
#include <multiprocessing/pool_stats.hpp>
#include <multiprocessing/runtime/exit.hpp>
#include <multiprocessing/runtime/pool/job.hpp>
#include <multiprocessing/runtime/report.hpp>
#include <multiprocessing/runtime/this_process.hpp>
#include <multiprocessing/runtime/wait_until.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

namespace multiprocessing::runtime::pool {

/// What somebody waits for, who may have to bring it about himself.
class Awaited {
public:
    Awaited() = default;
    Awaited(const Awaited&) = delete;
    Awaited& operator=(const Awaited&) = delete;
    virtual ~Awaited() = default;
    [[nodiscard]] virtual bool ready() const noexcept = 0;
    /// Sleeps until it is ready or the deadline has passed; whether it was.
    virtual bool sleep(os::Deadline deadline) const = 0;
};

/// What a call is given beside its items.
struct TaskSettings {
    std::chrono::nanoseconds timeout{0};  // of one item; 0: none
    std::chrono::nanoseconds grace{0};    // from one way of asking it to stop to the next
    std::uint32_t retries = 0;            // after deaths
    bool may_be_stopped = true;           // though it runs: when it is cancelled
    bool items_stay = true;               // where they are until the call has ended
};

/// What a worker says of its work, beside what is known already.
inline void add_to(WorkerStats& stats, const WorkerTally& tally) {
    const auto nanoseconds = [](std::uint64_t count) {
        return std::chrono::nanoseconds(static_cast<std::int64_t>(count));
    };
    stats.tasks += tally.tasks.load();
    stats.items += tally.items.load();
    stats.busy += nanoseconds(tally.busy.load());
    stats.waiting += nanoseconds(tally.waiting.load());
    if (const std::uint64_t ready = tally.ready.load(); ready != 0) {
        stats.start_up += nanoseconds(ready - tally.began.load());
    }
}
inline void add_to(PoolStats& stats, const WorkerStats& worker, const WorkerTally& tally) {
    stats.workers.push_back(worker);
    stats.tasks += worker.tasks;
    stats.items += worker.items;
    stats.deaths += worker.deaths;
    for (const SlowTask& slow : tally.slowest) {
        const std::uint64_t taken = slow.nanoseconds.load();
        if (taken == 0) continue;
        stats.slowest.push_back({std::chrono::nanoseconds(static_cast<std::int64_t>(taken)),
                                 worker.worker_id, slow.first.load(), slow.count.load()});
    }
    const auto longer = [](const SlowTaskStats& a, const SlowTaskStats& b) {
        return a.duration > b.duration;
    };
    std::sort(stats.slowest.begin(), stats.slowest.end(), longer);
    stats.slowest.resize(std::min(stats.slowest.size(), tally.slowest.size()));
}

/// The outcome of an item that took too long.
[[nodiscard]] inline std::exception_ptr task_timeout(std::uint64_t item, const TaskSettings& settings,
                                                     const std::string& worker) {
    const double seconds = std::chrono::duration<double>(settings.timeout).count();
    return std::make_exception_ptr(TaskTimeoutError(
        "item " + std::to_string(item) + " of the job took longer than the " + std::to_string(seconds) +
        " s that its timeout allows; " + worker + " is told to stop"));
}

/// Makes the exception that a job ends with: where several end with it each has its own if its text says
/// so, or all the same.
using Failure = std::function<std::exception_ptr()>;
[[nodiscard]] inline Failure always(std::exception_ptr exception) {
    return [exception = std::move(exception)] { return exception; };
}

/// A pool. Lives in a shared_ptr, which its thread has too.
class Engine : public std::enable_shared_from_this<Engine> {
public:
    Engine(const Engine&) = delete;
    Engine& operator=(const Engine&) = delete;
    virtual ~Engine() = default;

    /// How many workers there are to be.
    [[nodiscard]] std::uint32_t size() const noexcept { return size_.load(std::memory_order_relaxed); }

    /// Waits until it is ready or the deadline has passed; whether it was. Throws AssertionError for who
    /// would wait for ever.
    virtual bool wait(const Awaited& awaited, os::Deadline deadline);
    /// Takes in what has come, if nobody else does.
    virtual void look() {}
    /// Takes back the tasks of a job that nobody has begun, asks those who are at others to stop, and
    /// fails it. False if it was over already.
    virtual bool cancel(const std::shared_ptr<Job>& job) = 0;

    /// Throws ValueError unless new work may be given, and counts a caller that may give more; until
    /// it calls end_feeding() the pool does not stop.
    void begin_feeding();
    void end_feeding() noexcept;
    /// The same for a job that gives more as its outcomes are taken. For it join() does not wait: who
    /// joins may be the one that was to take them.
    void begin_stream(const std::shared_ptr<Job>& job);
    void end_stream(const Job& job) noexcept;

    /// Until end_service() the pool's thread sees to it that outcomes are taken in.
    void begin_service() noexcept {
        if (services_.fetch_add(1) == 0) wake();
    }
    void end_service() noexcept { services_.fetch_sub(1); }
    /// Has the pool's thread call it, soon. False when there is no thread any more. Nothing is thrown.
    bool run_in_thread(std::function<void()> function) noexcept;

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
    /// The same for a pool that is to finish what it has been given, and has been closed: waits for that,
    /// or leaves it to the thread and the end of the process.
    void let_finish(bool wait) noexcept;
    /// What broke it down; null: it works.
    [[nodiscard]] std::exception_ptr broken() const {
        const std::lock_guard lock(mutex_);
        return broken_ ? broken_() : nullptr;
    }

protected:
    enum class Phase { running, closing, terminating, ended };

    /// At the end of the process it is terminated, or closed and waited for.
    Engine(std::uint32_t size, bool finishes_at_exit) noexcept
        : finishes_at_exit_(finishes_at_exit), size_(size) {}
    /// Starts the pool's thread. Once, by who makes the pool.
    void start_thread();

    // What the thread does, in the order in which it does it.

    /// Takes in outcomes if nobody else does, sees to the dead and to what is overdue.
    virtual void attend() = 0;
    /// With the mutex held: is there nothing given that has not ended?
    [[nodiscard]] virtual bool is_idle() const = 0;
    /// Until there is news, or wake().
    virtual void sleep() = 0;
    /// Has the workers leave, now that all is done, and waits until they have, or should_hurry().
    virtual void see_workers_off() = 0;
    /// Ends the workers that are left.
    virtual void end_workers() = 0;
    /// Fails all jobs. While workers run, what they have in hand is theirs until they are done with it.
    virtual void fail_all(const Failure& failure, bool workers_run) = 0;
    /// Functions that were to be called in the thread have been.
    virtual void deferred_done() noexcept {}
    /// Has the thread look round. From any thread.
    virtual void wake() noexcept = 0;

    void check_running() const;  // with the mutex held
    [[nodiscard]] std::uint64_t services() const noexcept { return services_.load(); }
    [[nodiscard]] bool is_running() const {
        const std::lock_guard lock(mutex_);
        return phase_ == Phase::running;
    }
    [[nodiscard]] bool should_hurry() const {
        const std::lock_guard lock(mutex_);
        return phase_ == Phase::terminating;
    }
    /// The pool can do no more work: every job, and every one to come, ends with the exception.
    void break_down(const Failure& failure);
    void break_down(const std::exception_ptr& exception) { break_down(always(exception)); }
    /// Why no task can be given, if so. With the mutex held.
    [[nodiscard]] std::exception_ptr refusal() const;
    [[nodiscard]] bool is_foreign() const noexcept { return creator_ != os::this_pid(); }
    [[nodiscard]] bool is_own_thread() const noexcept {
        return std::this_thread::get_id() == thread_id_;
    }
    /// A thread that the pool waits for at its end.
    [[nodiscard]] virtual bool is_crew_thread() const noexcept { return false; }

    const int creator_ = os::this_pid();
    const bool finishes_at_exit_;
    std::atomic<std::uint32_t> size_;
    mutable std::mutex mutex_;  // guards what follows
    Phase phase_ = Phase::running;
    Failure broken_;

private:
    void end_at_exit() noexcept;
    void run() noexcept;
    void serve();
    void run_deferred();

    std::condition_variable ended_;
    bool joined_ = false;
    std::uint64_t feeders_ = 0;
    std::unordered_map<const Job*, std::weak_ptr<Job>> streams_;
    std::vector<std::function<void()>> deferred_;
    bool defers_ = true;

    std::atomic<std::uint64_t> services_{0};
    std::thread thread_;
    std::thread::id thread_id_;
    ExitFunctions::Id at_exit_ = 0;
};

/// While it lives the pool's thread takes in outcomes.
class Service {
public:
    explicit Service(std::shared_ptr<Engine> engine) noexcept : engine_(std::move(engine)) {
        engine_->begin_service();
    }
    Service(const Service&) = delete;
    Service& operator=(const Service&) = delete;
    Service(Service&&) noexcept = default;
    Service& operator=(Service&& other) noexcept {
        std::swap(engine_, other.engine_);
        return *this;
    }
    ~Service() {
        if (engine_) engine_->end_service();
    }

private:
    std::shared_ptr<Engine> engine_;
};

/// While it lives the pool does not stop for lack of work. After Engine::begin_feeding().
class EndFeeding {
public:
    explicit EndFeeding(Engine& engine) noexcept : engine_(engine) {}
    EndFeeding(const EndFeeding&) = delete;
    EndFeeding& operator=(const EndFeeding&) = delete;
    ~EndFeeding() { engine_.end_feeding(); }

private:
    Engine& engine_;
};

// ---------------------------------------------------------------------------------------------------

inline bool Engine::wait(const Awaited& awaited, os::Deadline deadline) {
    if (awaited.ready()) return true;
    deadline.is_never() ? check_may_wait() : check_own();
    return awaited.sleep(deadline);
}

inline bool Engine::run_in_thread(std::function<void()> function) noexcept {
    if (is_foreign() || is_own_thread()) return false;
    try {
        const std::lock_guard lock(mutex_);
        if (!defers_) return false;
        deferred_.push_back(std::move(function));
    } catch (...) {  // for lack of memory
        return false;
    }
    wake();
    return true;
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

inline std::exception_ptr Engine::refusal() const {
    if (broken_) return broken_();
    if (phase_ == Phase::terminating || phase_ == Phase::ended) {
        return std::make_exception_ptr(CancelledError("the pool was terminated"));
    }
    return nullptr;
}

inline void Engine::begin_feeding() {
    check_own();
    const std::lock_guard lock(mutex_);
    check_running();
    ++feeders_;
}

inline void Engine::end_feeding() noexcept {
    bool is_last = false;
    {
        const std::lock_guard lock(mutex_);
        --feeders_;
        is_last = phase_ != Phase::running;
    }
    if (is_last) wake();
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
    // From a callback, or a task, it is asked for, and done when that returns.
    if (is_own_thread() || is_crew_thread()) return;
    ended_.wait(lock, [this] { return phase_ == Phase::ended; });
}

inline void Engine::join() {
    check_own();
    std::unique_lock lock(mutex_);
    if (phase_ == Phase::running) {
        throw ValueError("Pool is still running: call close() or terminate() before join()");
    }
    check_may_wait();
    if (is_crew_thread()) throw AssertionError("a task cannot join the ThreadPool that runs it");
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
    if (is_own_thread() || is_crew_thread()) {
        thread_.detach();  // the end of the process will wait for it, by the exit function
        return;
    }
    unregister_exit(at_exit_);
    if (thread_.joinable()) thread_.join();
}

inline void Engine::let_finish(bool wait) noexcept {
    if (is_foreign()) return abandon();
    if (wait && !is_own_thread() && !is_crew_thread()) {
        std::unique_lock lock(mutex_);
        ended_.wait(lock, [this] { return phase_ == Phase::ended; });
        lock.unlock();
        unregister_exit(at_exit_);
        if (thread_.joinable()) thread_.join();
    } else if (thread_.joinable()) {
        thread_.detach();  // as above
    }
}

inline void Engine::break_down(const Failure& failure) {
    {
        const std::lock_guard lock(mutex_);
        if (broken_) return;
        broken_ = failure;
    }
    fail_all(failure, true);
}

inline void Engine::start_thread() {
    {
        const os::BlockSignals for_the_thread;
        const std::lock_guard lock(mutex_);  // it asks who it is
        thread_ = std::thread([self = shared_from_this()] { self->run(); });
        thread_id_ = thread_.get_id();
    }
    // Before the children are ended, or the thread would replace them.
    constexpr int before_others = 15;
    at_exit_ = register_exit(
        [weak = weak_from_this()] {
            if (const auto pool = weak.lock()) pool->end_at_exit();
        },
        before_others);
}

inline void Engine::end_at_exit() noexcept {
    if (!finishes_at_exit_ || is_foreign()) return terminate();
    std::unique_lock lock(mutex_);
    if (phase_ == Phase::running) phase_ = Phase::closing;
    joined_ = true;  // what would give it more has no thread left to do so
    wake();
    ended_.wait(lock, [this] { return phase_ == Phase::ended; });
}

inline void Engine::run() noexcept {
    {
        const std::lock_guard until_it_is_known(mutex_);
    }
    try {
        serve();
    } catch (...) {
        report_current_exception();
        fail_all(always(std::current_exception()), true);
    }
    const Failure failure =
        broken() ? broken_
                 : always(std::make_exception_ptr(
                       CancelledError("the pool was terminated before the task ended")));
    fail_all(failure, true);  // at once, for workers may take their time to end
    end_workers();
    fail_all(failure, false);
    {
        const std::lock_guard lock(mutex_);
        defers_ = false;
    }
    run_deferred();
    const std::lock_guard lock(mutex_);
    phase_ = Phase::ended;
    ended_.notify_all();
}

inline void Engine::serve() {
    for (;;) {
        run_deferred();
        attend();
        {
            const std::lock_guard lock(mutex_);
            if (phase_ == Phase::terminating) return;
            // Who still reads input may give more.
            const bool all_given = feeders_ == 0 && (streams_.empty() || joined_);
            if (phase_ == Phase::closing && all_given && is_idle() && deferred_.empty()) break;
        }
        sleep();
    }
    see_workers_off();
}

inline void Engine::run_deferred() {
    std::vector<std::function<void()>> functions;
    {
        const std::lock_guard lock(mutex_);
        functions.swap(deferred_);
    }
    for (const auto& function : functions) function();
    if (!functions.empty()) deferred_done();
}

}  // namespace multiprocessing::runtime::pool
