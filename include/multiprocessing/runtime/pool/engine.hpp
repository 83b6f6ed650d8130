// SPDX-License-Identifier: BSL-1.0
//
// The parent's side of a pool, whatever its workers are: who may give work, what phase it is in, and
// one thread that sees to what nobody waits for. Answers the handler threads of Python's `pool.Pool`.
#pragma once

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/os/clock.hpp>
#include <multiprocessing/os/process.hpp>
#include <multiprocessing/os/signals.hpp>
#include <multiprocessing/runtime/exit.hpp>
#include <multiprocessing/runtime/pool/awaited.hpp>
#include <multiprocessing/runtime/pool/job.hpp>
#include <multiprocessing/runtime/pool/task_settings.hpp>
#include <multiprocessing/runtime/report.hpp>
#include <multiprocessing/runtime/this_process.hpp>
#include <multiprocessing/runtime/wait_until.hpp>

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
    inline virtual bool wait(const Awaited& awaited, os::Deadline deadline);
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
    /// Throws AssertionError in a thread that would wait for itself, too: in a callback.
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
    /// No task can be given any more, though those that there are go on. With the mutex held.
    void refuse_more() noexcept { refuses_ = true; }
    /// Why no task can be given, if so. With the mutex held.
    [[nodiscard]] std::exception_ptr refusal() const;
    [[nodiscard]] bool is_foreign() const noexcept { return creator_ != os::this_pid(); }
    [[nodiscard]] bool is_own_thread() const noexcept {
        return std::this_thread::get_id() == thread_id_;
    }
    /// Is this the thread that takes in outcomes, so that none would come while it waits?
    [[nodiscard]] virtual bool brings_outcomes() const noexcept { return is_own_thread(); }
    /// A thread that the pool waits for at its end.
    [[nodiscard]] virtual bool is_crew_thread() const noexcept { return false; }
    /// In a callback, or a task: what is to end when that has returned.
    [[nodiscard]] bool is_called_by_the_pool() const noexcept {
        return brings_outcomes() || is_crew_thread();
    }

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
    bool refuses_ = false;
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
    if (brings_outcomes()) {
        throw AssertionError("a callback runs in the thread that brings the pool's results, and so "
                             "cannot wait for them: add another callback, or use another thread");
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
    if (refuses_) {
        return std::make_exception_ptr(CancelledError("what nobody had begun was cancelled"));
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
    if (is_called_by_the_pool()) return;  // it is asked for, and done when that has returned
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
    if (is_called_by_the_pool()) {
        thread_.detach();  // the end of the process will wait for it, by the exit function
        return;
    }
    if (thread_.joinable()) thread_.join();
}

inline void Engine::let_finish(bool wait) noexcept {
    if (is_foreign()) return abandon();
    if (wait && !is_called_by_the_pool()) {
        std::unique_lock lock(mutex_);
        joined_ = true;  // who waits here may be the one that was to take what is read as it is taken
        wake();
        ended_.wait(lock, [this] { return phase_ == Phase::ended; });
        lock.unlock();
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

}  // namespace multiprocessing::runtime::pool

#include <multiprocessing/runtime/pool/engine_thread.hpp>
