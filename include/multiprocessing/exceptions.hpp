// SPDX-License-Identifier: BSL-1.0
//
// The exceptions of the library, under the names of Python's `multiprocessing`, `queue`, `pickle`,
// `threading` and `concurrent.futures`. Every layer may throw them, so this header stands below all
// layers and includes nothing of ours but the byte string that BufferTooShort carries.
#pragma once

#include <multiprocessing/bytes.hpp>

#include <exception>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

namespace multiprocessing {

/// The base of what goes wrong between processes. *Python*: `multiprocessing.ProcessError`.
class ProcessError : public std::runtime_error {
public:
    using std::runtime_error::runtime_error;
};

/// A buffer given to `recv_bytes_into` is smaller than the message, which `message()` holds whole:
/// it has been taken from the connection. *Python*: `BufferTooShort`, `args[0]`.
class BufferTooShort : public ProcessError {
public:
    explicit BufferTooShort(const std::string& what) : ProcessError(what) {}
    BufferTooShort(const std::string& what, bytes message)
        : ProcessError(what), message_(std::move(message)) {}
    [[nodiscard]] const bytes& message() const noexcept { return message_; }

private:
    bytes message_;
};

/// A peer did not prove that it knows the key. *Python*: `AuthenticationError`.
class AuthenticationError : public ProcessError {
public:
    using ProcessError::ProcessError;
};

/// A wait for a result ran out of time. *Python*: `multiprocessing.TimeoutError`.
class TimeoutError : public ProcessError {
public:
    using ProcessError::ProcessError;
};

/// A task took longer than its `TaskOptions::timeout` allows.
class TaskTimeoutError : public TimeoutError {
public:
    using TimeoutError::TimeoutError;
};

/// A worker of a Pool ended with this task in its hands.
class WorkerLostError : public ProcessError {
public:
    explicit WorkerLostError(const std::string& what) : ProcessError(what) {}
    WorkerLostError(const std::string& what, int pid, int exitcode)
        : ProcessError(what), pid_(pid), exitcode_(exitcode) {}
    /// The process that was lost.
    [[nodiscard]] int pid() const noexcept { return pid_; }
    /// How it ended: its exit code, or the signal's number negated.
    [[nodiscard]] int exitcode() const noexcept { return exitcode_; }

private:
    int pid_ = 0;
    int exitcode_ = 0;
};

/// An executor can do no more work. *Python*: `concurrent.futures.BrokenExecutor`.
class BrokenExecutor : public ProcessError {
public:
    using ProcessError::ProcessError;
};

/// A worker of a ProcessPoolExecutor ended abruptly, or could not begin.
/// *Python*: `concurrent.futures.process.BrokenProcessPool`.
class BrokenProcessPool : public BrokenExecutor {
public:
    using BrokenExecutor::BrokenExecutor;
};

/// A thread of a ThreadPoolExecutor could not begin.
/// *Python*: `concurrent.futures.thread.BrokenThreadPool`.
class BrokenThreadPool : public BrokenExecutor {
public:
    using BrokenExecutor::BrokenExecutor;
};

/// The task was cancelled, or its pool terminated before it ran.
/// *Python*: `concurrent.futures.CancelledError`.
class CancelledError : public ProcessError {
public:
    using ProcessError::ProcessError;
};

/// A Future is not in a state in which that can be done with it: it has its result already, say.
/// *Python*: `concurrent.futures.InvalidStateError`.
class InvalidStateError : public std::runtime_error {
public:
    using std::runtime_error::runtime_error;
};

/// *Python*: `queue.Empty`.
class Empty : public std::runtime_error {
public:
    using std::runtime_error::runtime_error;
};

/// *Python*: `queue.Full`.
class Full : public std::runtime_error {
public:
    using std::runtime_error::runtime_error;
};

/// *Python*: `queue.ShutDown`.
class ShutDown : public std::runtime_error {
public:
    using std::runtime_error::runtime_error;
};

/// *Python*: `threading.BrokenBarrierError`.
class BrokenBarrierError : public std::runtime_error {
public:
    using std::runtime_error::runtime_error;
};

/// A process died while it had the lock of an object of a SharedHeap, which may be half changed.
class BrokenHeapError : public std::runtime_error {
public:
    using std::runtime_error::runtime_error;
};

/// The other end of a connection is closed and everything it sent has been read.
class EOFError : public std::runtime_error {
public:
    using std::runtime_error::runtime_error;
};

/// An iterator of results has no more. *Python*: `StopIteration`.
class StopIteration : public std::runtime_error {
public:
    using std::runtime_error::runtime_error;
    StopIteration() : std::runtime_error("StopIteration: there are no more results") {}
};

/// A dict has no such key. *Python*: `KeyError`.
class KeyError : public std::out_of_range {
public:
    using std::out_of_range::out_of_range;
};

/// A value that the call cannot take. *Python*: `ValueError`.
class ValueError : public std::invalid_argument {
public:
    using std::invalid_argument::invalid_argument;
};

/// The call makes no sense in the state the object is in. *Python*: `AssertionError`.
class AssertionError : public std::logic_error {
public:
    using std::logic_error::logic_error;
};

/// An object cannot be written down for another process. *Python*: `pickle.PicklingError`.
class PicklingError : public std::runtime_error {
public:
    using std::runtime_error::runtime_error;
};

/// Bytes are not a whole object of the type asked for. *Python*: `pickle.UnpicklingError`.
class UnpicklingError : public std::runtime_error {
public:
    using std::runtime_error::runtime_error;
};

/// Unwinds a child's target and ends the process with `code()`. Deliberately no `std::exception`,
/// so that `catch (const std::exception&)` does not swallow it. *Python*: `SystemExit`.
class SystemExit {
public:
    explicit SystemExit(int code) noexcept : code_(code) {}
    explicit SystemExit(std::string message) : code_(1), message_(std::move(message)) {}
    [[nodiscard]] int code() const noexcept { return code_; }
    /// What is to be printed on stderr before the process ends, if anything.
    [[nodiscard]] const std::optional<std::string>& message() const noexcept { return message_; }

private:
    int code_;
    std::optional<std::string> message_;
};

/// The mixin of every exception that was thrown in another process and rethrown here: where it came
/// from. Catch it beside the exception's own type:
///
///     try { pool.apply(f); }
///     catch (const std::out_of_range& e) {
///         if (auto* remote = dynamic_cast<const mp::RemoteTraceback*>(&e)) log(remote->text());
///     }
class RemoteTraceback {
public:
    /// The calls that led to the throw, looked up when they are read.
    class Calls {
    public:
        Calls() = default;
        Calls(const Calls&) = delete;
        Calls& operator=(const Calls&) = delete;
        virtual ~Calls() = default;
        [[nodiscard]] virtual std::string text() const = 0;
    };

    RemoteTraceback() : facts_(std::make_shared<const Facts>()) {}
    RemoteTraceback(std::string type_name, std::string what, int pid, std::string process_name,
                    std::shared_ptr<const Calls> calls = nullptr, std::string cause = {})
        : facts_(std::make_shared<const Facts>(std::move(type_name), std::move(what), pid,
                                               std::move(process_name), std::move(calls),
                                               std::move(cause))) {}
    // As exceptions are copied: without a word. (A move is a copy: the one moved from has its facts.)
    RemoteTraceback(const RemoteTraceback&) noexcept = default;
    RemoteTraceback& operator=(const RemoteTraceback&) noexcept = default;
    virtual ~RemoteTraceback() = default;

    /// The type's name as the other process's compiler writes it.
    [[nodiscard]] const std::string& type_name() const noexcept { return facts_->type_name; }
    /// What the exception says of itself, without the rest.
    [[nodiscard]] const std::string& message() const noexcept { return facts_->message; }
    [[nodiscard]] int pid() const noexcept { return facts_->pid; }
    [[nodiscard]] const std::string& process_name() const noexcept { return facts_->process_name; }
    /// What the exception was thrown because of, if by std::throw_with_nested: "type: message".
    [[nodiscard]] const std::string& cause() const noexcept { return facts_->cause; }
    /// For a person: process, type, message and cause, then a line for each call that led to the throw,
    /// the innermost first, where that is known. Takes some milliseconds, for symbol tables are read.
    [[nodiscard]] std::string text() const;
    [[nodiscard]] const std::shared_ptr<const Calls>& calls() const noexcept { return facts_->calls; }

private:
    struct Facts {
        Facts() = default;
        Facts(std::string type, std::string what, int from_pid, std::string from_process,
              std::shared_ptr<const Calls> led_there, std::string because)
            : type_name(std::move(type)), message(std::move(what)), cause(std::move(because)),
              pid(from_pid), process_name(std::move(from_process)), calls(std::move(led_there)) {}
        std::string type_name{};
        std::string message{};
        std::string cause{};
        int pid = 0;
        std::string process_name{};
        std::shared_ptr<const Calls> calls{};
    };
    std::shared_ptr<const Facts> facts_;
};

/// An exception of another process whose type is not known here; see `register_exception`.
class RemoteError : public std::runtime_error, public RemoteTraceback {
public:
    explicit RemoteError(const std::string& what) : std::runtime_error(what) {}
    /// With the type's name as its message where there is no other.
    RemoteError(const std::string& what, const RemoteTraceback& where)
        : std::runtime_error(what.empty() ? where.type_name() : what), RemoteTraceback(where) {}
};

inline std::string RemoteTraceback::text() const {
    std::string text = "in process " + process_name() + " (pid " + std::to_string(pid()) +
                       "): " + type_name();
    if (!message().empty()) text += ": " + message();
    if (!cause().empty()) text += ", caused by " + cause();
    if (calls()) text += "\n" + calls()->text();
    return text;
}

}  // namespace multiprocessing
