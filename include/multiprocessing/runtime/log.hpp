// SPDX-License-Identifier: BSL-1.0
//
// The log of this process: off until somebody asks for it, and then nearly free. Stands below
// everything in runtime/ that has something to say. Answers the logging part of Python's `util`.
#pragma once

#include <multiprocessing/os/fork.hpp>
#include <multiprocessing/os/process.hpp>
#include <multiprocessing/os/stdio.hpp>

#include <atomic>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <limits>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include <cxxabi.h>

namespace multiprocessing::runtime {

/// Python's levels. They are numbers, and any other will do: the higher, the graver. (In lower case
/// and a namespace, because DEBUG and ERROR are macros in half of the world's programs.)
namespace log_level {
inline constexpr int notset = 0;
inline constexpr int subdebug = 5;
inline constexpr int debug = 10;
inline constexpr int info = 20;
inline constexpr int subwarning = 25;
inline constexpr int warning = 30;
inline constexpr int error = 40;
inline constexpr int critical = 50;

/// "WARNING"; for one without a name "Level 32".
[[nodiscard]] inline std::string name(int level) {
    constexpr std::pair<int, const char*> names[] = {
        {notset, "NOTSET"},         {subdebug, "SUBDEBUG"}, {debug, "DEBUG"}, {info, "INFO"},
        {subwarning, "SUBWARNING"}, {warning, "WARNING"},   {error, "ERROR"}, {critical, "CRITICAL"},
    };
    for (const auto& [number, text] : names) {
        if (number == level) return text;
    }
    return "Level " + std::to_string(level);
}
}  // namespace log_level

/// A place in a source file: std::source_location, which clang 14 does not have.
class SourceLocation {
public:
    /// Where it is called; as a default argument, where the function is called.
    [[nodiscard]] static constexpr SourceLocation current(
        const char* file = __builtin_FILE(), const char* function = __builtin_FUNCTION(),
        std::uint32_t line = __builtin_LINE()) noexcept {
        SourceLocation here;
        here.file_ = file;
        here.function_ = function;
        here.line_ = line;
        return here;
    }
    [[nodiscard]] constexpr const char* file_name() const noexcept { return file_; }
    [[nodiscard]] constexpr const char* function_name() const noexcept { return function_; }
    [[nodiscard]] constexpr std::uint32_t line() const noexcept { return line_; }

private:
    const char* file_ = "";
    const char* function_ = "";
    std::uint32_t line_ = 0;
};

/// What a sink gets.
struct LogRecord {
    int level;
    std::string process_name;
    int pid;
    std::string message;
    SourceLocation where;

    [[nodiscard]] std::string level_name() const { return log_level::name(level); }
    /// The last part of the source file's path.
    [[nodiscard]] std::string_view filename() const noexcept {
        const std::string_view path = where.file_name();
        return path.substr(path.rfind('/') + 1);
    }
    /// Python's format: "[INFO/MainProcess] the message".
    [[nodiscard]] std::string text() const {
        return "[" + level_name() + "/" + process_name + "] " + message;
    }
};

/// Text, or a callable that makes it, which is called only if somebody listens.
template <class M>
concept LogMessage =
    std::convertible_to<M, std::string_view> ||
    (std::invocable<M&> && std::convertible_to<std::invoke_result_t<M&>, std::string_view>);

/// Where records go.
class LogOutlet {
public:
    LogOutlet() = default;
    LogOutlet(const LogOutlet&) = delete;
    LogOutlet& operator=(const LogOutlet&) = delete;
    virtual ~LogOutlet() = default;
    virtual void write(const LogRecord& record) = 0;
    [[nodiscard]] virtual bool is_stderr() const noexcept { return false; }
};

/// One write a line, so that those of several processes do not mix.
class StderrOutlet final : public LogOutlet {
public:
    void write(const LogRecord& record) override { os::write_to_stderr(record.text() + "\n"); }
    [[nodiscard]] bool is_stderr() const noexcept override { return true; }
};

/// What of the log travels to a process that is started anew.
struct LogSettings {
    int level = log_level::notset;
    bool to_stderr = false;

    template <class Archive>
    void serialize(Archive& archive, unsigned) {
        archive& level& to_stderr;
    }
};

/// The log. A constant to the compiler and never destroyed: anything may log at any time. No lock
/// is held while a message is made or written.
class Log {
public:
    using Outlet = std::shared_ptr<LogOutlet>;

    constexpr Log() noexcept = default;
    Log(const Log&) = delete;
    Log& operator=(const Log&) = delete;

    [[nodiscard]] bool enabled(int level) const noexcept {
        // Relaxed: who turns the log on in one thread is not owed what another was just doing.
        return level >= threshold_.load(std::memory_order_relaxed);
    }
    /// Whether there is nobody to log to.
    [[nodiscard]] bool is_unheard() const noexcept {
        return threshold_.load(std::memory_order_relaxed) == nobody;
    }
    /// Makes the message and hands it to the outlet, or, if there is none and it is to be told, writes it
    /// to stderr. What any of that throws is told there as well.
    void write(int level, std::string (*make)(const void* of), const void* of,
               const SourceLocation& where, bool is_to_be_told = false);

    [[nodiscard]] int level() const noexcept { return level_.load(std::memory_order_relaxed); }
    [[nodiscard]] static constexpr int effective(int level) noexcept {
        return level == log_level::notset ? log_level::warning : level;
    }
    void set_level(int level);
    /// Nothing turns the log off.
    void set_outlet(Outlet outlet);

    [[nodiscard]] LogSettings settings() const;
    void adopt(const LogSettings& settings);
    /// How the name of this process is found; it is MainProcess until somebody knows better.
    void set_process_name(std::string (*function)()) noexcept { process_name_.store(function); }
    [[nodiscard]] std::string process_name() const {
        const auto name = process_name_.load();
        return name != nullptr ? name() : "MainProcess";
    }

private:
    [[nodiscard]] Outlet outlet() const;
    static void complain(const char* what) noexcept;
    void update_threshold() noexcept {
        threshold_.store(outlet_ != nullptr ? effective(level()) : nobody,
                         std::memory_order_relaxed);
    }
    static constexpr int nobody = std::numeric_limits<int>::max();

    std::atomic<int> threshold_{nobody};
    std::atomic<int> level_{log_level::notset};
    std::atomic<std::string (*)()> process_name_{nullptr};
    mutable os::ForkAwareMutex mutex_;
    // A pointer to the pointer: changed in one store, so that a fork catches the old or the new.
    const Outlet* outlet_ = nullptr;
};

inline constinit Log log_of_this_process;

/// Logs, if the level is enabled.
inline void log_at(int level, std::string_view message,
                   SourceLocation where = SourceLocation::current()) {
    if (!log_of_this_process.enabled(level)) return;
    log_of_this_process.write(
        level, [](const void* of) { return std::string(*static_cast<const std::string_view*>(of)); },
        &message, where);
}
template <class M>
[[nodiscard]] std::string make_message(const void* by) {
    return std::string((**static_cast<M* const*>(by))());
}
template <LogMessage M>
    requires(!std::convertible_to<M, std::string_view>)
void log_at(int level, M&& message, SourceLocation where = SourceLocation::current()) {
    if (!log_of_this_process.enabled(level)) return;
    auto* const by = std::addressof(message);
    log_of_this_process.write(level, &make_message<std::remove_reference_t<M>>, &by, where);
}
/// The same for what somebody must hear of: where there is no log it is told on stderr, as by Python's
/// handler of last resort.
template <LogMessage M>
void log_or_tell(int level, M&& message, SourceLocation where = SourceLocation::current()) {
    if (!log_of_this_process.enabled(level) && !log_of_this_process.is_unheard()) return;
    auto* const by = std::addressof(message);
    log_of_this_process.write(level, &make_message<std::remove_reference_t<M>>, &by, where, true);
}

inline Log::Outlet Log::outlet() const {
    const std::lock_guard lock(mutex_);
    return outlet_ != nullptr ? *outlet_ : nullptr;
}

inline void Log::set_level(int level) {
    const std::lock_guard lock(mutex_);
    level_.store(level, std::memory_order_relaxed);
    update_threshold();
}

inline void Log::set_outlet(Outlet outlet) {
    std::unique_ptr<const Outlet> old(outlet ? new Outlet(std::move(outlet)) : nullptr);
    {
        const std::lock_guard lock(mutex_);
        const Outlet* fresh = old.release();
        old.reset(std::exchange(outlet_, fresh));
        update_threshold();
    }
    // What it holds is destroyed here, without the mutex, unless somebody is writing to it.
}

inline LogSettings Log::settings() const {
    const Outlet now = outlet();
    return {level(), now && now->is_stderr()};
}

inline void Log::adopt(const LogSettings& settings) {
    set_level(settings.level);
    if (settings.to_stderr) set_outlet(std::make_shared<StderrOutlet>());
}

/// Without memory, the lack of which it may have to tell of.
inline void Log::complain(const char* what) noexcept {
    char line[256];
    const int length = std::snprintf(line, sizeof line, "--- Logging error --- %.200s\n", what);
    if (length > 0) os::write_to_stderr({line, static_cast<std::size_t>(length)});
}

inline void Log::write(int level, std::string (*make)(const void*), const void* of,
                       const SourceLocation& where, bool is_to_be_told) {
    // What a sink logs is dropped: it would come back to it. An epoch and not a bool, because a
    // child that a sink forks is not in the sink.
    thread_local std::uint32_t writing = 0;
    const std::uint32_t epoch = os::fork_epoch();
    if (writing == epoch) return;
    struct Mark {
        explicit Mark(std::uint32_t value) noexcept { writing = value; }
        Mark(const Mark&) = delete;
        Mark& operator=(const Mark&) = delete;
        ~Mark() { writing = 0; }
    } const mark(epoch);
    try {
        const Outlet now = outlet();
        if (!now) {
            if (is_to_be_told) os::write_to_stderr(make(of) + "\n");
            return;
        }
        now->write({level, process_name(), os::this_pid(), make(of), where});
    } catch (const abi::__forced_unwind&) {
        throw;  // a thread that is cancelled goes on unwinding
    } catch (const std::exception& error) {
        complain(error.what());
    } catch (...) {
        complain("not a std::exception");
    }
}

}  // namespace multiprocessing::runtime
