// SPDX-License-Identifier: BSL-1.0
//
// The log of the library, functions that run when this process ends, and `Finalize`. Answers
// Python's `multiprocessing.util`, and `get_logger` and `log_to_stderr` of `multiprocessing`.
#pragma once

#include <multiprocessing/os/process.hpp>
#include <multiprocessing/runtime/exit.hpp>
#include <multiprocessing/runtime/log.hpp>
#include <multiprocessing/runtime/report.hpp>

#include <atomic>
#include <concepts>
#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>

namespace multiprocessing {

/// Python's levels under names that are no macros: `mp::log_level::debug` is 10, `info` 20,
/// `warning` 30, `error` 40. They are ints, as in Python, and any other int is a level too.
namespace log_level = runtime::log_level;
inline constexpr int SUBDEBUG = log_level::subdebug;
inline constexpr int SUBWARNING = log_level::subwarning;

/// What a sink gets: level, process_name, pid, message, and where in the source it was logged; and
/// `text()`, which is "[INFO/MainProcess] the message".
using runtime::LogRecord;
using runtime::SourceLocation;

/// Takes a record, or a level and a message.
template <class F>
concept LogSink =
    std::invocable<F&, const LogRecord&> || std::invocable<F&, int, const std::string&>;

/// The log of this process, by `get_logger()`. It says when processes start, exit and are found
/// ended, when a Pool replaces a worker, when a lock was abandoned, and what the program tells it;
/// nothing, until there is somewhere to say it: `log_to_stderr()` or `set_sink()`. Until then, and
/// below the level, a call costs one look at a number.
///
///     mp::log_to_stderr(mp::log_level::info);
///     mp::get_logger().info("ready");                                // [INFO/MainProcess] ready
///     mp::get_logger().debug([&] { return "seen: " + dump(all); });  // called if it is enabled
///
/// A message is text or a callable that makes it. No call throws: what a sink or such a callable
/// throws is told on stderr.
/// *Process safety*: all calls may come from several threads.
/// *Fork and spawn*: children begin with the level and with stderr; a sink is inherited by fork
/// alone, it cannot travel to a spawned child.
class Logger {
public:
    /// 0, `log_level::notset`, is where it begins: then the effective level is WARNING.
    void set_level(int level) const { runtime::log_of_this_process.set_level(level); }
    [[nodiscard]] int level() const noexcept { return runtime::log_of_this_process.level(); }
    [[nodiscard]] int get_effective_level() const noexcept {
        return runtime::Log::effective(level());
    }
    /// Whether a record of this level would go anywhere.
    [[nodiscard]] bool is_enabled_for(int level) const noexcept {
        return runtime::log_of_this_process.enabled(level);
    }
    /// Records go to `sink`, and to stderr no longer; nullptr turns the log off.
    /// It is called by whatever thread has something to say, the library's own too, by several at
    /// once, and until the very end of the process. No lock is held meanwhile. What it logs itself
    /// is dropped. In a forked child it must not wait for a thread of its parent.
    template <LogSink F>
    void set_sink(F sink) const;
    void set_sink(std::nullptr_t) const { runtime::log_of_this_process.set_outlet(nullptr); }

    template <runtime::LogMessage M>
    void log(int level, M&& message, SourceLocation where = SourceLocation::current()) const {
        runtime::log_at(level, std::forward<M>(message), where);
    }
    template <runtime::LogMessage M>
    void sub_debug(M&& message, SourceLocation where = SourceLocation::current()) const {
        log(log_level::subdebug, std::forward<M>(message), where);
    }
    template <runtime::LogMessage M>
    void debug(M&& message, SourceLocation where = SourceLocation::current()) const {
        log(log_level::debug, std::forward<M>(message), where);
    }
    template <runtime::LogMessage M>
    void info(M&& message, SourceLocation where = SourceLocation::current()) const {
        log(log_level::info, std::forward<M>(message), where);
    }
    template <runtime::LogMessage M>
    void sub_warning(M&& message, SourceLocation where = SourceLocation::current()) const {
        log(log_level::subwarning, std::forward<M>(message), where);
    }
    template <runtime::LogMessage M>
    void warning(M&& message, SourceLocation where = SourceLocation::current()) const {
        log(log_level::warning, std::forward<M>(message), where);
    }
    template <runtime::LogMessage M>
    void error(M&& message, SourceLocation where = SourceLocation::current()) const {
        log(log_level::error, std::forward<M>(message), where);
    }
    template <runtime::LogMessage M>
    void critical(M&& message, SourceLocation where = SourceLocation::current()) const {
        log(log_level::critical, std::forward<M>(message), where);
    }

private:
    template <class F>
    struct Outlet;
};

/// The logger of the library. There is one in a process.
[[nodiscard]] inline Logger get_logger() noexcept { return {}; }

/// Has records written to stderr, "[LEVEL/ProcessName] message" with one write(2) each, instead of
/// to a sink; sets the level, unless that is left out or 0. Returns the logger.
inline Logger log_to_stderr(std::optional<int> level = std::nullopt);

namespace util {

using multiprocessing::get_logger;
using multiprocessing::log_to_stderr;
using multiprocessing::SUBDEBUG;
using multiprocessing::SUBWARNING;

/// As the logger's own.
template <runtime::LogMessage M>
void sub_debug(M&& message, SourceLocation where = SourceLocation::current()) {
    get_logger().sub_debug(std::forward<M>(message), where);
}
template <runtime::LogMessage M>
void debug(M&& message, SourceLocation where = SourceLocation::current()) {
    get_logger().debug(std::forward<M>(message), where);
}
template <runtime::LogMessage M>
void info(M&& message, SourceLocation where = SourceLocation::current()) {
    get_logger().info(std::forward<M>(message), where);
}
template <runtime::LogMessage M>
void sub_warning(M&& message, SourceLocation where = SourceLocation::current()) {
    get_logger().sub_warning(std::forward<M>(message), where);
}
template <runtime::LogMessage M>
void warn(M&& message, SourceLocation where = SourceLocation::current()) {
    get_logger().warning(std::forward<M>(message), where);
}

/// Names a function that is to run at the end, for `unregister_exit`.
using ExitId = runtime::ExitFunctions::Id;

/// Has `function` run when this very process ends in an orderly way: main returns, a child's target
/// does, or somebody calls exit. The higher priority first, of equals the one registered last;
/// those of negative priority after the children have been ended. What it throws is told on stderr.
/// *Python*: `atexit.register`, and `util.Finalize(None, f, exitpriority=priority)`.
/// *Fork and spawn*: a child forgets its parent's.
inline ExitId register_exit(std::function<void()> function, int priority = 0) {
    return runtime::register_exit(std::move(function), priority);
}
/// Takes one back. Returns false if there is nothing to take back: it has run, say.
inline bool unregister_exit(ExitId id) { return runtime::unregister_exit(id); }

/// The keyword arguments of `Finalize`.
struct FinalizeOptions {
    /// Left out: it is not run at the end of the process.
    std::optional<int> exitpriority = std::nullopt;
};

/// Something to be done once: when it is called, when the last copy of this handle is destroyed,
/// or, with an exit priority, when the process ends in an orderly way; whichever is first.
///
///     mp::util::Finalize remove({.exitpriority = 10}, [path] { std::filesystem::remove(path); });
///
/// *Python*: `util.Finalize(obj, callback, args, exitpriority=10)`; the handle is the object, make
/// it a member of what is to be finalized. For one without an object there is `register_exit`.
/// *Process safety*: of several threads that call it one runs the callback, the others do not wait.
/// *Fork and spawn*: a forked child never runs its parent's; there it is not active.
class [[nodiscard]] Finalize {
public:
    /// Runs `std::invoke(f, args...)` with copies of all, which it destroys afterwards.
    template <class F, class... Args>
        requires(!std::same_as<std::remove_cvref_t<F>, Finalize> &&
                 std::invocable<std::decay_t<F>, std::decay_t<Args>...>)
    explicit Finalize(F&& f, Args&&... args)
        : Finalize(FinalizeOptions{}, std::forward<F>(f), std::forward<Args>(args)...) {}
    template <class F, class... Args>
        requires(std::invocable<std::decay_t<F>, std::decay_t<Args>...>)
    Finalize(FinalizeOptions options, F&& f, Args&&... args);

    // No move of its own: a handle is never empty.
    Finalize(const Finalize&) = default;
    Finalize& operator=(const Finalize&) = default;
    ~Finalize() = default;

    /// Runs the callback, unless it has run or been cancelled. *Throws* what that does.
    void operator()() const;
    /// It will not run. Returns false if it was not active any more.
    bool cancel() const;
    /// Is it still to be run?
    [[nodiscard]] bool still_active() const noexcept;

private:
    struct Callback {
        Callback() = default;
        Callback(const Callback&) = delete;
        Callback& operator=(const Callback&) = delete;
        virtual ~Callback() = default;
        virtual void run() = 0;
    };
    template <class F, class... Args>
    struct Bound;
    class State;

    std::shared_ptr<State> state_;
};

}  // namespace util

// -------------------------------------------------------------------------------------------------

template <class F>
struct Logger::Outlet final : runtime::LogOutlet {
    explicit Outlet(F f) : sink(std::move(f)) {}
    void write(const LogRecord& record) override {
        if constexpr (std::invocable<F&, const LogRecord&>) {
            std::invoke(sink, record);
        } else {
            std::invoke(sink, record.level, record.message);
        }
    }
    F sink;
};

template <LogSink F>
void Logger::set_sink(F sink) const {
    runtime::log_of_this_process.set_outlet(std::make_shared<Outlet<F>>(std::move(sink)));
}

inline Logger log_to_stderr(std::optional<int> level) {
    runtime::Log& log = runtime::log_of_this_process;
    if (level.value_or(0) != 0) log.set_level(*level);
    log.set_outlet(std::make_shared<runtime::StderrOutlet>());
    return get_logger();
}

template <class F, class... Args>
struct util::Finalize::Bound final : Callback {
    template <class G, class... Given>
    explicit Bound(G&& g, Given&&... given)
        : f(std::forward<G>(g)), args(std::forward<Given>(given)...) {}
    void run() override {
        std::apply(
            [this](Args&... all) {
                static_cast<void>(std::invoke(std::move(f), std::move(all)...));
            },
            args);
    }
    F f;
    std::tuple<Args...> args;
};

/// The callback, until somebody takes it.
class util::Finalize::State {
public:
    explicit State(std::unique_ptr<Callback> callback) noexcept : callback_(callback.release()) {}
    State(const State&) = delete;
    State& operator=(const State&) = delete;
    ~State() {
        try {
            run();
        } catch (...) {
            runtime::report_current_exception();
        }
    }
    void set_exit(ExitId id) noexcept { exit_.store(id, std::memory_order_relaxed); }
    [[nodiscard]] bool active() const noexcept {
        return callback_.load(std::memory_order_relaxed) != nullptr && !is_foreign();
    }
    /// For whoever is first; and then nobody runs it at the end.
    std::unique_ptr<Callback> take() {
        // In a forked child it is the parent's, and so is what it holds: neither run nor destroyed.
        if (is_foreign()) {
            util::sub_debug("finalizer ignored because different process");
            return nullptr;
        }
        // Acquire, for it may be another thread that has made it.
        std::unique_ptr<Callback> taken(callback_.exchange(nullptr, std::memory_order_acquire));
        if (const ExitId exit = exit_.load(std::memory_order_relaxed); taken && exit != 0) {
            unregister_exit(exit);
        }
        return taken;
    }
    void run() {
        if (const auto callback = take()) callback->run();
    }

private:
    [[nodiscard]] bool is_foreign() const noexcept { return creator_ != os::this_pid(); }

    std::atomic<Callback*> callback_;
    int creator_ = os::this_pid();
    std::atomic<ExitId> exit_{0};  // none is 0
};

inline void util::Finalize::operator()() const { state_->run(); }

inline bool util::Finalize::cancel() const { return state_->take() != nullptr; }

inline bool util::Finalize::still_active() const noexcept { return state_->active(); }

template <class F, class... Args>
    requires(std::invocable<std::decay_t<F>, std::decay_t<Args>...>)
util::Finalize::Finalize(FinalizeOptions options, F&& f, Args&&... args)
    : state_(
          std::make_shared<State>(std::make_unique<Bound<std::decay_t<F>, std::decay_t<Args>...>>(
              std::forward<F>(f), std::forward<Args>(args)...))) {
    if (!options.exitpriority) return;
    state_->set_exit(register_exit(
        [weak = std::weak_ptr(state_)] {
            if (const auto state = weak.lock()) state->run();
        },
        *options.exitpriority));
}

}  // namespace multiprocessing
