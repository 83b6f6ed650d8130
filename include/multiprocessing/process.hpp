// SPDX-License-Identifier: BSL-1.0
//
// `mp::Process` and what is asked of processes in general. Answers Python's
// `multiprocessing.process`.
#pragma once

#include <multiprocessing/bytes.hpp>
#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/os/cpu.hpp>
#include <multiprocessing/pickle/message.hpp>
#include <multiprocessing/runtime/bootstrap.hpp>
#include <multiprocessing/runtime/control.hpp>
#include <multiprocessing/runtime/start.hpp>
#include <multiprocessing/runtime/start_method.hpp>
#include <multiprocessing/runtime/state.hpp>
#include <multiprocessing/runtime/target.hpp>
#include <multiprocessing/timeout.hpp>

#include <algorithm>
#include <concepts>
#include <csignal>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <ostream>
#include <string>
#include <type_traits>
#include <typeinfo>
#include <utility>
#include <vector>

namespace multiprocessing {

namespace runtime {
class ProcessAccess;
}

/// The keyword arguments of `Process`.
struct ProcessOptions {
    /// Empty: `Process-1`, `Process-1:2` for the second child of the first, and so on.
    std::string name = {};
    /// Ends with its parent and may have no children. Left out: as its parent is.
    std::optional<bool> daemon = std::nullopt;
    /// The start method, as `mp::get_context("spawn")`. Left out: the default one.
    std::optional<runtime::ContextBase> context = std::nullopt;
    /// The child is killed when its parent ends, however that happens. Daemons always are.
    bool die_with_parent = false;
    /// Left out: the parent's.
    std::optional<bytes> authkey = std::nullopt;

    // Beyond Python. What is left out the child has as its parent has it. The start throws
    // std::system_error for a folder or processors that there are not.

    /// Environment variables to set, beside those of the parent.
    std::map<std::string, std::string> env = {};
    /// The working directory; a relative one counts from the parent's.
    std::filesystem::path cwd = {};
    /// The processors that it may run on, counted from 0.
    std::vector<int> cpu_affinity = {};
    /// How many threads numeric libraries use for one call: sets OMP_NUM_THREADS and its relatives
    /// (OpenBLAS, MKL, BLIS, vecLib, NumExpr), unless `env` does. A spawned child has them before
    /// its libraries are loaded; in others OpenMP, OpenBLAS and MKL are told.
    std::optional<int> inner_threads = std::nullopt;

    [[nodiscard]] runtime::NewProcess settings() &&;
};

/// A process: first what it is to run, then a handle of the running child. Copies are the same
/// process. The destructor neither stops nor joins; what runs when the program ends is terminated
/// if it is a daemon, else joined.
///
///     mp::Process p({.name = "worker", .daemon = true}, work, 1, "A");
///     p.start();
///     p.join();
///
/// Its standard input is empty; its other streams are this process's.
/// *Python*: `Process(target=work, args=(1, "A"), name="worker", daemon=True)`. Wrong use throws
/// AssertionError, and ValueError after `close()`.
/// *Process safety*: only the process that made it may start and join it; all calls may come from
/// several threads.
class Process {
public:
    /// Nothing to run but `run()`, which a derived class overrides.
    Process() : Process(ProcessOptions{}) {}
    explicit Process(ProcessOptions options)
        : state_(runtime::make_state(std::move(options).settings(), nullptr)) {}
    /// Runs `std::invoke(f, args...)` with copies of all; C strings are kept as std::string.
    template <class F, class... Args>
        requires(!std::derived_from<std::remove_cvref_t<F>, Process> &&
                 !std::same_as<std::remove_cvref_t<F>, ProcessOptions>)
    explicit Process(F&& f, Args&&... args)
        : Process(ProcessOptions{}, std::forward<F>(f), std::forward<Args>(args)...) {}
    template <class F, class... Args>
    Process(ProcessOptions options, F&& f, Args&&... args)
        : state_(runtime::make_state(
              std::move(options).settings(),
              runtime::make_target(std::forward<F>(f), std::forward<Args>(args)...))) {}

    // No move of its own: a handle is never empty.
    Process(const Process& other) : state_(other.state_) {
        runtime::note_class<Process>(*state_, typeid(other));
    }
    Process& operator=(const Process& other) {
        state_ = other.state_;
        runtime::note_class<Process>(*state_, typeid(other));
        return *this;
    }
    virtual ~Process() = default;

    /// What the child does: calls the target. A derived class overrides it; its objects are to be
    /// started themselves, for a Process that is copied from one has no other run() than this.
    inline virtual void run();

    /// Starts the child. The target and its arguments are destroyed in this process afterwards.
    /// *Throws* AssertionError when it has been started before, when another process made it, when
    /// this process is a daemon, or when this is a mere copy of an object of a derived class;
    /// std::system_error when the system has no room for it; PicklingError when one that is not
    /// forked is to run what cannot travel. *Fork and spawn*: under fork the child has a copy of
    /// this process's memory; under spawn and forkserver the target is pickled, and main must begin
    /// with `mp::freeze_support()`, or std::runtime_error is thrown.
    void start() const;
    /// Waits for the end, at most for `timeout`; see `exitcode()` for whether it came.
    void join(Timeout timeout = {}) const { runtime::join(*state_, timeout); }
    /// Whether it runs; also true for the process itself.
    [[nodiscard]] bool is_alive() const { return runtime::is_alive(*state_); }
    /// SIGTERM; to one that has ended, nothing.
    void terminate() const { runtime::send_signal(*state_, SIGTERM, "terminate"); }
    /// SIGKILL.
    void kill() const { runtime::send_signal(*state_, SIGKILL, "kill"); }
    /// SIGINT.
    void interrupt() const { runtime::send_signal(*state_, SIGINT, "interrupt"); }
    /// Gives up what the handle holds. Throws ValueError while the process runs. Every call but
    /// this one throws ValueError afterwards.
    void close() const { runtime::close(*state_); }

    [[nodiscard]] std::string name() const;
    void set_name(std::string name) const;
    [[nodiscard]] bool daemon() const;
    void set_daemon(bool daemon) const { runtime::set_daemon(*state_, daemon); }
    /// Nothing before the start.
    [[nodiscard]] std::optional<int> pid() const { return runtime::pid(*state_); }
    [[nodiscard]] std::optional<int> ident() const { return pid(); }
    /// Nothing until it has ended; 0 to 255, or the number of the signal that killed it, negated.
    [[nodiscard]] std::optional<int> exitcode() const { return runtime::exitcode(*state_); }
    /// A descriptor that is readable once the process has ended, for `mp::connection::wait` and
    /// poll(2). Valid until `close()`, or the end of the last handle.
    [[nodiscard]] int sentinel() const { return runtime::sentinel(*state_); }
    [[nodiscard]] bytes authkey() const;
    void set_authkey(bytes key) const;
    /// `<Process name='Process-1' pid=12 parent=11 started daemon>`
    [[nodiscard]] std::string repr() const { return runtime::describe(*state_); }

    /// The same process?
    friend bool operator==(const Process& a, const Process& b) noexcept {
        return a.state_ == b.state_;
    }
    friend std::ostream& operator<<(std::ostream& out, const Process& process) {
        return out << process.repr();
    }

protected:
    /// Writes what a spawned child is to run: the target, here. See `Spawnable`.
    inline virtual void save_target(pickle::OArchive& archive) const;

private:
    friend class runtime::ProcessAccess;
    explicit Process(runtime::ProcessPointer state) noexcept : state_(std::move(state)) {}

    runtime::ProcessPointer state_;
};

/// The base of a process class whose objects can be spawned: W has `run()`, a `serialize` for its
/// own members, and can be made without arguments or from ProcessOptions.
///
///     struct Greeter : mp::Spawnable<Greeter> {
///         std::string whom;
///         void run() override { std::cout << "hello " << whom << '\n'; }
///         template <class Archive> void serialize(Archive& ar, unsigned) { ar & whom; }
///     };
///
/// *Fork and spawn*: a forked one needs none of it; there, deriving from `Process` will do.
template <class W>
class Spawnable : public Process {
public:
    Spawnable() = default;
    explicit Spawnable(ProcessOptions options) : Process(std::move(options)) {}

protected:
    void save_target(pickle::OArchive& archive) const final;

private:
    class Arrived;
};

/// Makes spawn and forkserver possible: the first line of main, before anything is started. In a
/// spawned child it runs the child's target and does not return; in any other process it does
/// nothing else.
inline void freeze_support() { runtime::freeze_support(); }

/// The process this runs in. In the main process: `MainProcess`.
[[nodiscard]] Process current_process();
/// The process that started this one, nothing in the main process. `is_alive()` and `join()` are
/// about its end.
[[nodiscard]] std::optional<Process> parent_process();
/// The children that run, in the order they were started; those that have ended are reaped.
[[nodiscard]] std::vector<Process> active_children();
/// The processors of the machine.
[[nodiscard]] inline int cpu_count() noexcept { return os::cpu_count(); }
/// The processors this process may use: those of its affinity, and no more than its control groups'
/// quota is worth, rounded up. The environment variable MULTIPROCESSING_CPU_COUNT (or Python's,
/// PYTHON_CPU_COUNT) overrides both.
[[nodiscard]] inline int process_cpu_count() {
    if (const auto count = os::cpu_count_override()) return *count;
    const int affinity = os::affinity_cpu_count();
    return std::min(affinity, os::quota_cpu_count().value_or(affinity));
}
/// Ends the process with this exit code: throws SystemExit, which unwinds a child's target. Where
/// nobody catches it, as in main and in threads, it does what std::exit does.
/// *Python*: `sys.exit(code)`.
[[noreturn]] inline void exit(int code = 0) { runtime::throw_system_exit(SystemExit(code)); }
/// Prints the message to stderr and ends the process with exit code 1.
[[noreturn]] inline void exit(std::string message) {
    runtime::throw_system_exit(SystemExit(std::move(message)));
}

// -------------------------------------------------------------------------------------------------

/// Makes handles for the layers beside.
class runtime::ProcessAccess {
public:
    [[nodiscard]] static Process make(ProcessPointer state) { return Process(std::move(state)); }
    [[nodiscard]] static const ProcessPointer& state(const Process& process) {
        return process.state_;
    }
    static void set_state(Process& process, ProcessPointer state) {
        process.state_ = std::move(state);
    }
};

inline runtime::NewProcess ProcessOptions::settings() && {
    return {std::move(name),
            daemon,
            die_with_parent,
            std::move(authkey),
            context ? std::optional(context->method()) : std::nullopt,
            {std::move(env), cwd.string(), std::move(cpu_affinity), inner_threads}};
}

inline void Process::run() {
    if (state_->target) state_->target->run();
}

inline void Process::start() const {
    if (typeid(*this) == typeid(Process)) runtime::check_is_no_slice(*state_);
    runtime::start(
        state_, [this] { const_cast<Process*>(this)->run(); },
        [this](pickle::OArchive& archive) { save_target(archive); });
}

inline void Process::save_target(pickle::OArchive& archive) const {
    if (typeid(*this) != typeid(Process)) {
        const std::string type = pickle::type_name(typeid(*this));
        throw PicklingError("process '" + state_->name + "' of class " + type +
                            " cannot be spawned: derive the class from mp::Spawnable<" + type +
                            "> and give it a serialize() as Boost.Serialization asks for; or start "
                            "it by fork");
    }
    if (state_->target) {
        state_->target->save(archive);
    } else {
        archive << runtime::TargetLoader(nullptr);
    }
}

template <class W>
class Spawnable<W>::Arrived final : public runtime::Target {
public:
    explicit Arrived(pickle::IArchive& archive) : process_(make()) {
        runtime::ThisProcess& me = runtime::this_process();
        me.restart_count();  // it was made, but it is no child
        pickle::load_value(archive, *process_);
        runtime::ProcessAccess::set_state(*process_, me.self);
    }
    void run() override { process_->run(); }
    void save(pickle::OArchive&) const override {}
    static std::unique_ptr<Target> load(pickle::IArchive& archive) {
        return std::make_unique<Arrived>(archive);
    }

private:
    static std::unique_ptr<W> make() {
        static_assert(
            std::default_initializable<W> || std::constructible_from<W, ProcessOptions>,
            "a class derived from mp::Spawnable is made anew in the spawned child: give it "
            "a constructor without arguments, or one that takes mp::ProcessOptions");
        if constexpr (std::default_initializable<W>) {
            return std::make_unique<W>();
        } else {
            return std::make_unique<W>(ProcessOptions{});
        }
    }

    std::unique_ptr<W> process_;
};

template <class W>
void Spawnable<W>::save_target(pickle::OArchive& archive) const {
    static_assert(pickle::Picklable<W>, "a class derived from mp::Spawnable needs a serialize() "
                                        "as Boost.Serialization asks for");
    if (typeid(*this) != typeid(W)) {
        const std::string type = pickle::type_name(typeid(*this));
        throw PicklingError("process '" + name() + "' is of class " + type +
                            ", which only its base class mp::Spawnable<" + pickle::type_name<W>() +
                            "> could spawn: derive it from mp::Spawnable<" + type + "> itself");
    }
    archive << runtime::TargetLoader(&Arrived::load);
    pickle::save_value(archive, static_cast<const W&>(*this));
}

inline std::string Process::name() const { return state_->current_name(); }

inline void Process::set_name(std::string name) const {
    const std::lock_guard lock(state_->mutex);
    state_->name = std::move(name);
}

inline bool Process::daemon() const {
    const std::lock_guard lock(state_->mutex);
    return state_->daemon;
}

inline bytes Process::authkey() const {
    const std::lock_guard lock(state_->mutex);
    return state_->authkey;
}

inline void Process::set_authkey(bytes key) const {
    const std::lock_guard lock(state_->mutex);
    state_->authkey = std::move(key);
}

inline Process current_process() {
    return runtime::ProcessAccess::make(runtime::this_process().self);
}

inline std::optional<Process> parent_process() {
    const auto& parent = runtime::this_process().parent;
    if (!parent) return std::nullopt;
    return runtime::ProcessAccess::make(parent);
}

inline std::vector<Process> active_children() {
    std::vector<Process> children;
    for (auto& child : runtime::this_process().children.reap_finished()) {
        children.push_back(runtime::ProcessAccess::make(std::move(child)));
    }
    return children;
}

}  // namespace multiprocessing
