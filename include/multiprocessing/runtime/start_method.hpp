// SPDX-License-Identifier: BSL-1.0
//
// The ways to start a process, and the one that is taken when nobody says which. Answers Python's
// `multiprocessing.context`, as far as the start of a process needs it.
#pragma once

#include <multiprocessing/exceptions.hpp>

#include <atomic>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace multiprocessing::runtime {

enum class StartMethod : int { fork, spawn, forkserver };

/// Every method there is, the default first.
[[nodiscard]] inline std::vector<StartMethod> start_methods() {
    return {StartMethod::fork, StartMethod::spawn, StartMethod::forkserver};
}

[[nodiscard]] inline std::string name_of(StartMethod method) {
    switch (method) {
    case StartMethod::fork:
        return "fork";
    case StartMethod::spawn:
        return "spawn";
    case StartMethod::forkserver:
        return "forkserver";
    }
    return "unknown";
}

/// What Python calls the workers of a pool by: ForkServerPoolWorker-1.
[[nodiscard]] constexpr const char* worker_prefix(StartMethod method) noexcept {
    switch (method) {
    case StartMethod::fork:
        return "Fork";
    case StartMethod::spawn:
        return "Spawn";
    case StartMethod::forkserver:
        return "ForkServer";
    }
    return "";
}

/// Throws ValueError for a name that is none of start_methods().
[[nodiscard]] inline StartMethod start_method_named(std::string_view name) {
    std::string known;
    for (const StartMethod method : start_methods()) {
        if (name_of(method) == name) return method;
        known += (known.empty() ? "'" : ", '") + name_of(method) + "'";
    }
    throw ValueError("cannot find context for '" + std::string(name) + "': there are " + known);
}

/// The method of all processes that are not told theirs. It is fixed by its first use. In a child
/// it is that of the context the child was made in; of a child that was told none, its parent's.
class DefaultStartMethod {
public:
    /// Fixes the method when nobody has yet.
    [[nodiscard]] StartMethod get() noexcept {
        int expected = unset;
        chosen_.compare_exchange_strong(expected, static_cast<int>(start_methods().front()));
        return static_cast<StartMethod>(chosen_.load());
    }
    /// Looks without fixing.
    [[nodiscard]] std::optional<StartMethod> peek() const noexcept {
        const int chosen = chosen_.load();
        if (chosen == unset) return std::nullopt;
        return static_cast<StartMethod>(chosen);
    }
    /// Throws std::runtime_error when it has been fixed and `force` is not given; nothing unsets
    /// it.
    void set(std::optional<StartMethod> method, bool force) {
        const int wanted = method ? static_cast<int>(*method) : unset;
        int expected = unset;
        if (force) {
            chosen_.store(wanted);
        } else if (!chosen_.compare_exchange_strong(expected, wanted)) {
            throw std::runtime_error(
                "context has already been set: call set_start_method once, before anything is "
                "started, or with force = true");
        }
    }

private:
    static constexpr int unset = -1;

    std::atomic<int> chosen_{unset};
};

inline DefaultStartMethod& default_start_method() {
    static DefaultStartMethod method;
    return method;
}

/// What every context is at heart: a choice of start method, for `ProcessOptions::context`.
class ContextBase {
public:
    explicit ContextBase(StartMethod method) noexcept : method_(method) {}
    [[nodiscard]] StartMethod method() const noexcept { return method_; }

private:
    StartMethod method_;
};

}  // namespace multiprocessing::runtime
