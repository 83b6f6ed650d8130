// SPDX-License-Identifier: BSL-1.0
//
// Contexts: the API with a start method. Answers Python's `multiprocessing.context`.
#pragma once

#include <multiprocessing/connection.hpp>
#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/managers.hpp>
#include <multiprocessing/os/executable.hpp>
#include <multiprocessing/pool.hpp>
#include <multiprocessing/process.hpp>
#include <multiprocessing/queues.hpp>
#include <multiprocessing/runtime/start_method.hpp>
#include <multiprocessing/shared_heap.hpp>
#include <multiprocessing/sharedctypes.hpp>
#include <multiprocessing/synchronize.hpp>
#include <multiprocessing/util.hpp>

#include <concepts>
#include <filesystem>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace multiprocessing {

/// The API with one start method. What it makes works with processes of every other context.
///
///     auto ctx = mp::get_context("spawn");
///     mp::Process p = ctx.Process(f, 1);
class Context : public runtime::ContextBase {
public:
    using ContextBase::ContextBase;

    /// Itself. Throws ValueError for the name of another method.
    Context get_context(std::optional<std::string_view> method = std::nullopt) const;
    [[nodiscard]] std::string get_start_method() const { return runtime::name_of(method()); }
    /// Throws ValueError: a context's method is fixed.
    [[noreturn]] void set_start_method(std::optional<std::string_view> method,
                                       bool force = false) const;

    /// A process of this context; see `mp::Process`.
    template <class... Args>
    [[nodiscard]] multiprocessing::Process Process(Args&&... args) const {
        return this->Process(ProcessOptions{}, std::forward<Args>(args)...);
    }
    template <class... Args>
    [[nodiscard]] multiprocessing::Process Process(ProcessOptions options, Args&&... args) const {
        options.context = *this;
        return multiprocessing::Process(std::move(options), std::forward<Args>(args)...);
    }

    /// A pool whose workers are of this context; see `mp::Pool`.
    [[nodiscard]] multiprocessing::Pool Pool(PoolOptions options = {}) const {
        options.context = *this;
        return multiprocessing::Pool(std::move(options));
    }
    [[nodiscard]] multiprocessing::Pool Pool(int processes) const {
        return this->Pool(PoolOptions{.processes = processes});
    }

    /// A manager whose server is of this context, and has been started; see `mp::Manager`.
    [[nodiscard]] managers::SyncManager Manager() const {
        const managers::SyncManager manager({.ctx = *this});
        manager.start();
        return manager;
    }

    // The rest is the same in every context.
    template <class T>
    [[nodiscard]] multiprocessing::Queue<T> Queue(int maxsize = 0) const {
        return multiprocessing::Queue<T>(maxsize);
    }
    template <class T>
    [[nodiscard]] multiprocessing::JoinableQueue<T> JoinableQueue(int maxsize = 0) const {
        return multiprocessing::JoinableQueue<T>(maxsize);
    }
    template <class T>
    [[nodiscard]] multiprocessing::SimpleQueue<T> SimpleQueue() const {
        return multiprocessing::SimpleQueue<T>();
    }
    [[nodiscard]] auto Pipe(bool duplex = true) const { return multiprocessing::Pipe(duplex); }
    [[nodiscard]] multiprocessing::Lock Lock() const { return multiprocessing::Lock(); }
    [[nodiscard]] multiprocessing::RLock RLock() const { return multiprocessing::RLock(); }
    [[nodiscard]] multiprocessing::Semaphore Semaphore(int value = 1) const {
        return multiprocessing::Semaphore(value);
    }
    [[nodiscard]] multiprocessing::BoundedSemaphore BoundedSemaphore(int value = 1) const {
        return multiprocessing::BoundedSemaphore(value);
    }
    [[nodiscard]] multiprocessing::Condition Condition() const {
        return multiprocessing::Condition();
    }
    [[nodiscard]] multiprocessing::Condition Condition(AnyLock lock) const {
        return multiprocessing::Condition(std::move(lock));
    }
    [[nodiscard]] multiprocessing::Event Event() const { return multiprocessing::Event(); }
    [[nodiscard]] multiprocessing::Barrier Barrier(int parties, runtime::Action action = {},
                                                   Timeout timeout = {}) const {
        return multiprocessing::Barrier(parties, std::move(action), timeout);
    }
    [[nodiscard]] multiprocessing::Barrier Barrier(BarrierOptions options) const {
        return multiprocessing::Barrier(std::move(options));
    }
    template <class T, class... Args>
    [[nodiscard]] multiprocessing::Value<T> Value(Args&&... args) const {
        return multiprocessing::Value<T>(std::forward<Args>(args)...);
    }
    template <class T, class... Args>
    [[nodiscard]] multiprocessing::Array<T> Array(Args&&... args) const {
        return multiprocessing::Array<T>(std::forward<Args>(args)...);
    }
    template <class T, class... Args>
    [[nodiscard]] multiprocessing::Array<T> Array(std::initializer_list<T> elements,
                                                  Args&&... args) const {
        return multiprocessing::Array<T>(elements, std::forward<Args>(args)...);
    }
    template <class T>
    [[nodiscard]] multiprocessing::RawValue<T> RawValue(const T& initial = T()) const {
        return multiprocessing::RawValue<T>(initial);
    }
    template <class T, class Size>
    [[nodiscard]] multiprocessing::RawArray<T> RawArray(Size&& size_or_elements) const {
        return multiprocessing::RawArray<T>(std::forward<Size>(size_or_elements));
    }
    template <class T>
    [[nodiscard]] multiprocessing::RawArray<T> RawArray(std::initializer_list<T> elements) const {
        return multiprocessing::RawArray<T>(elements);
    }
    template <std::integral Size>
    [[nodiscard]] multiprocessing::SharedHeap SharedHeap(Size bytes) const {
        return multiprocessing::SharedHeap(bytes);
    }
    /// See `mp::set_executable` and `mp::set_forkserver_preload`, which these are.
    void set_executable(const std::filesystem::path& path) const;
    void set_forkserver_preload(std::vector<runtime::Action> functions) const;
    void freeze_support() const { multiprocessing::freeze_support(); }
    [[nodiscard]] std::vector<std::string> get_all_start_methods() const;
    [[nodiscard]] int cpu_count() const noexcept { return multiprocessing::cpu_count(); }
    [[nodiscard]] auto current_process() const { return multiprocessing::current_process(); }
    [[nodiscard]] auto parent_process() const { return multiprocessing::parent_process(); }
    [[nodiscard]] auto active_children() const { return multiprocessing::active_children(); }
    [[nodiscard]] Logger get_logger() const { return multiprocessing::get_logger(); }
    Logger log_to_stderr(std::optional<int> level = std::nullopt) const {
        return multiprocessing::log_to_stderr(level);
    }

    friend bool operator==(const Context& a, const Context& b) noexcept {
        return a.method() == b.method();
    }
};

/// The context of a start method; without a name, of the default one, which that fixes. Throws
/// ValueError for a name that is none of `get_all_start_methods()`.
Context get_context(std::optional<std::string_view> method = std::nullopt);
/// The default start method, which is "fork" unless it has been set: asking fixes it.
[[nodiscard]] std::string get_start_method();
/// The same; but if it is not fixed yet and `allow_none`, it stays so, and there is no answer.
[[nodiscard]] std::optional<std::string> get_start_method(bool allow_none);
/// Chooses the default start method, once for the program: throws std::runtime_error the second time
/// unless `force`. std::nullopt with `force` leaves it open again.
void set_start_method(std::optional<std::string_view> method, bool force = false);
/// The names of all start methods, the default first.
[[nodiscard]] std::vector<std::string> get_all_start_methods();
/// Which file spawned children and fork servers run: a copy of this program, or a script that
/// executes one with all its arguments and environment. Empty: this program's own, whatever has become
/// of its name since. A start throws std::system_error when there is no such file, and
/// std::runtime_error when it is another program or another build (by build id).
void set_executable(const std::filesystem::path& path);
/// Functions that a fork server runs once, before its first child, which then has in memory what they
/// have loaded. For servers that are yet to start. What one throws is reported on stderr; the server
/// goes on. Throws PicklingError for what cannot travel there, ValueError for null.
/// *Python*: `set_forkserver_preload(["module", ...])`.
void set_forkserver_preload(std::vector<runtime::Action> functions);

// ---------------------------------------------------------------------------------------------------

inline Context Context::get_context(std::optional<std::string_view> method) const {
    return method ? multiprocessing::get_context(*method) : *this;
}

inline void Context::set_start_method(std::optional<std::string_view>, bool) const {
    throw ValueError("cannot set start method of concrete context: this one is '" +
                     get_start_method() + "'; mp::get_context(name) gives another");
}

inline Context get_context(std::optional<std::string_view> method) {
    return Context(method ? runtime::start_method_named(*method)
                          : runtime::default_start_method().get());
}

inline std::string get_start_method() {
    return runtime::name_of(runtime::default_start_method().get());
}

inline std::optional<std::string> get_start_method(bool allow_none) {
    if (!allow_none) return get_start_method();
    const auto method = runtime::default_start_method().peek();
    if (!method) return std::nullopt;
    return runtime::name_of(*method);
}

inline void set_start_method(std::optional<std::string_view> method, bool force) {
    std::optional<runtime::StartMethod> chosen;
    if (method) chosen = runtime::start_method_named(*method);
    runtime::default_start_method().set(chosen, force);
}

inline void set_executable(const std::filesystem::path& path) {
    os::ExecutablePath::set(path.string());
}

inline void set_forkserver_preload(std::vector<runtime::Action> functions) {
    for (const auto& function : functions) {
        if (!function) throw ValueError("set_forkserver_preload: one of the functions is null");
        pickle::Buffer scratch;
        pickle::OArchive archive(scratch);
        function.save(archive);  // throws PicklingError now, not at a start somewhere
    }
    runtime::forkserver::Preload::set(std::move(functions));
    if (runtime::this_process().fork_server.process()) {
        runtime::log_at(runtime::log_level::warning,
                        "set_forkserver_preload: the fork server runs already, without these");
    }
}

inline void Context::set_executable(const std::filesystem::path& path) const {
    multiprocessing::set_executable(path);
}

inline void Context::set_forkserver_preload(std::vector<runtime::Action> functions) const {
    multiprocessing::set_forkserver_preload(std::move(functions));
}

inline std::vector<std::string> Context::get_all_start_methods() const {
    return multiprocessing::get_all_start_methods();
}

inline std::vector<std::string> get_all_start_methods() {
    std::vector<std::string> names;
    for (const auto method : runtime::start_methods()) names.push_back(runtime::name_of(method));
    return names;
}

}  // namespace multiprocessing
