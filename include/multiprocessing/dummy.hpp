// SPDX-License-Identifier: BSL-1.0
//
// The library's interface over threads of one process: what is written for processes, and waits more
// than it computes, runs with `namespace mp = multiprocessing::dummy`. Answers Python's
// `multiprocessing.dummy`.
#pragma once

#include <multiprocessing/connection.hpp>
#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/os/process.hpp>
#include <multiprocessing/pickle/message.hpp>
#include <multiprocessing/process.hpp>
#include <multiprocessing/queues.hpp>
#include <multiprocessing/range.hpp>
#include <multiprocessing/runtime/exit.hpp>
#include <multiprocessing/runtime/wait_until.hpp>
#include <multiprocessing/sharedctypes.hpp>
#include <multiprocessing/synchronize.hpp>
#include <multiprocessing/thread_pool.hpp>
#include <multiprocessing/timeout.hpp>

#include <atomic>
#include <concepts>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <ostream>
#include <string>
#include <thread>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

namespace multiprocessing::dummy {

/// The keyword arguments of `dummy::Process`.
struct ProcessOptions {
    /// Empty: `Thread-1` and so on.
    std::string name = {};
    /// The end of the program does not wait for it. Left out: as the thread that makes it is.
    std::optional<bool> daemon = std::nullopt;
};

class Process;

namespace threads {

/// One thread, as its handles see it.
struct State {
    std::string name;
    bool daemon = false;
    std::function<void()> target;
    std::shared_ptr<State> parent;  // whose active_children() it is among

    mutable std::mutex mutex;  // guards what follows
    mutable std::condition_variable ended;
    std::thread::id thread{};
    bool started = false;
    std::optional<runtime::ExitFunctions::Id> at_exit{};  // what waits for it
    std::optional<int> exitcode{};
    std::vector<std::shared_ptr<State>> children{};
};
using StatePointer = std::shared_ptr<State>;

inline StatePointer& current();
[[nodiscard]] StatePointer make_main();
inline void run(const StatePointer& state) noexcept;

}  // namespace threads

/// A thread with the interface of `mp::Process`, as far as that makes sense for one: it cannot be
/// killed and has no memory of its own. *Python*: `multiprocessing.dummy.DummyProcess`.
///
///     mp::dummy::Process p({.name = "reader"}, read, std::ref(file));
///     p.start();
///     p.join();
///
/// A handle: copies are the same thread. The destructor neither stops nor joins; when the program ends
/// those that are no daemons are waited for. Wrong use throws AssertionError.
class Process {
public:
    /// Runs `std::invoke(f, args...)` with copies of all, but what std::ref() refers to; C strings are
    /// kept as std::string.
    template <class F, class... Args>
        requires(!std::derived_from<std::remove_cvref_t<F>, Process> &&
                 !std::same_as<std::remove_cvref_t<F>, ProcessOptions>)
    explicit Process(F&& f, Args&&... args)
        : Process(ProcessOptions{}, std::forward<F>(f), std::forward<Args>(args)...) {}
    template <class F, class... Args>
    Process(ProcessOptions options, F&& f, Args&&... args);

    /// Starts the thread. *Throws* AssertionError the second time; std::system_error when there can be
    /// no more threads.
    void start() const;
    /// Waits for its end, or until the time is over. *Throws* AssertionError before the start, and in
    /// the thread itself.
    void join(Timeout timeout = {}) const;
    [[nodiscard]] bool is_alive() const {
        const std::lock_guard lock(state_->mutex);
        return state_->started && !state_->exitcode;
    }
    /// 0 after an orderly end, 1 after an exception, mp::exit()'s; nothing before the end.
    [[nodiscard]] std::optional<int> exitcode() const {
        const std::lock_guard lock(state_->mutex);
        return state_->exitcode;
    }
    [[nodiscard]] std::string name() const {
        const std::lock_guard lock(state_->mutex);
        return state_->name;
    }
    void set_name(std::string name) const {
        const std::lock_guard lock(state_->mutex);
        state_->name = std::move(name);
    }
    [[nodiscard]] bool daemon() const {
        const std::lock_guard lock(state_->mutex);
        return state_->daemon;
    }
    /// *Throws* AssertionError after the start.
    void set_daemon(bool daemon) const;
    /// The process's, once it has been started.
    [[nodiscard]] std::optional<int> pid() const {
        const std::lock_guard lock(state_->mutex);
        return state_->started ? std::optional(os::this_pid()) : std::nullopt;
    }
    [[nodiscard]] std::optional<int> ident() const { return pid(); }

    friend bool operator==(const Process& a, const Process& b) noexcept { return a.state_ == b.state_; }
    friend std::ostream& operator<<(std::ostream& out, const Process& process) {
        const char* state = process.is_alive() ? "started" : process.exitcode() ? "stopped" : "initial";
        return out << "<DummyProcess(" << process.name() << ", " << state
                   << (process.daemon() ? " daemon" : "") << ")>";
    }

private:
    friend Process current_process();
    friend std::vector<Process> active_children();
    explicit Process(threads::StatePointer state) noexcept : state_(std::move(state)) {}

    threads::StatePointer state_;
};

/// The thread this runs in: of those that are not a Process's the first that asks is `MainProcess`.
[[nodiscard]] inline Process current_process() { return Process(threads::current()); }

/// The threads that this one has started and that run.
[[nodiscard]] inline std::vector<Process> active_children() {
    const threads::StatePointer me = threads::current();
    std::vector<Process> active;
    const std::lock_guard lock(me->mutex);
    std::erase_if(me->children, [](const auto& child) { return !Process(child).is_alive(); });
    for (const auto& child : me->children) active.push_back(Process(child));
    return active;
}

/// Nothing is to be done for threads.
inline void freeze_support() noexcept {}

// What is for processes is for threads too.
using multiprocessing::Array;
using multiprocessing::Barrier;
using multiprocessing::BoundedSemaphore;
using multiprocessing::Condition;
using multiprocessing::Event;
using multiprocessing::JoinableQueue;
using multiprocessing::Lock;
using multiprocessing::Pipe;
using multiprocessing::Queue;
using multiprocessing::range;
using multiprocessing::RLock;
using multiprocessing::Semaphore;
using multiprocessing::SimpleQueue;
using multiprocessing::Value;

/// *Python*: `multiprocessing.dummy.Pool` makes a ThreadPool.
using Pool = ThreadPool;
using PoolOptions = ThreadPoolOptions;

// ---------------------------------------------------------------------------------------------------

namespace threads {

inline StatePointer make_main() {
    static constinit std::atomic<bool> there_is_one{false};
    auto state = std::make_shared<State>();
    state->name = there_is_one.exchange(true) ? "Dummy" : "MainProcess";
    state->started = true;
    state->thread = std::this_thread::get_id();
    return state;
}

/// Of the calling thread.
inline StatePointer& current() {
    static thread_local StatePointer state = make_main();
    return state;
}

[[nodiscard]] inline std::string next_name() {
    static constinit std::atomic<unsigned> made{0};
    return "Thread-" + std::to_string(++made);
}

inline void run(const StatePointer& state) noexcept {
    current() = state;
    int code = 1;
    try {
        std::exchange(state->target, nullptr)();
        code = 0;
    } catch (const SystemExit& exit) {
        code = runtime::exit_detail::heed(exit);
    } catch (...) {
        os::write_to_stderr("Thread " + Process(current_process()).name() + ": " +
                            runtime::describe_current_exception() + "\n");
    }
    const auto at_exit = state->at_exit;
    {
        const std::lock_guard lock(state->mutex);
        state->exitcode = code;
        state->ended.notify_all();
    }
    if (at_exit) runtime::unregister_exit(*at_exit);
}

/// Has the end of the program wait for it.
[[nodiscard]] inline runtime::ExitFunctions::Id wait_at_exit(const StatePointer& state) {
    constexpr int before_processes = 20;
    return runtime::register_exit(
        [weak = std::weak_ptr(state)] {
            const auto thread = weak.lock();
            if (!thread || thread->thread == std::this_thread::get_id()) return;
            std::unique_lock lock(thread->mutex);
            thread->ended.wait(lock, [&] { return thread->exitcode.has_value(); });
        },
        before_processes);
}

}  // namespace threads

template <class F, class... Args>
Process::Process(ProcessOptions options, F&& f, Args&&... args)
    : state_(std::make_shared<threads::State>()) {
    const auto copied = []<class T>(T&& argument) {
        if constexpr (std::same_as<std::unwrap_ref_decay_t<T>, std::decay_t<T>>) {
            return pickle::travel_decay_t<T>(std::forward<T>(argument));
        } else {
            return argument;  // a std::reference_wrapper
        }
    };
    // Shared, for what can only be moved does not go into a std::function.
    auto call = std::make_shared<std::pair<std::decay_t<F>, std::tuple<decltype(copied(
                                                                std::forward<Args>(args)))...>>>(
        std::forward<F>(f), std::tuple(copied(std::forward<Args>(args))...));
    state_->target = [call = std::move(call)] {
        std::apply(
            [&](auto&... each) {
                static_cast<void>(std::invoke(std::move(call->first), std::move(each)...));
            },
            call->second);
    };
    state_->name = options.name.empty() ? threads::next_name() : std::move(options.name);
    state_->daemon = options.daemon ? *options.daemon : threads::current()->daemon;
    state_->parent = threads::current();
}

inline void Process::start() const {
    const threads::StatePointer& parent = state_->parent;
    {
        const std::scoped_lock lock(state_->mutex);
        if (state_->started) throw AssertionError("cannot start a process twice: " + state_->name);
        state_->started = true;
        try {
            if (!state_->daemon) state_->at_exit = threads::wait_at_exit(state_);
            std::thread thread([state = state_] {
                {
                    const std::lock_guard until_it_is_known(state->mutex);
                }
                threads::run(state);
            });
            state_->thread = thread.get_id();
            thread.detach();
        } catch (...) {
            state_->started = false;
            if (state_->at_exit) runtime::unregister_exit(*std::exchange(state_->at_exit, {}));
            throw;
        }
    }
    const std::lock_guard lock(parent->mutex);
    parent->children.push_back(state_);
}

inline void Process::join(Timeout timeout) const {
    std::unique_lock lock(state_->mutex);
    if (!state_->started) throw AssertionError("can only join a started process: " + state_->name);
    if (state_->thread == std::this_thread::get_id()) {
        throw AssertionError("cannot join the current process: " + state_->name);
    }
    runtime::wait_until(state_->ended, lock, timeout, [this] { return state_->exitcode.has_value(); });
}

inline void Process::set_daemon(bool daemon) const {
    const std::lock_guard lock(state_->mutex);
    if (state_->started) throw AssertionError("process has already started: " + state_->name);
    state_->daemon = daemon;
}

}  // namespace multiprocessing::dummy
