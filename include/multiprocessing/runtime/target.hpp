// SPDX-License-Identifier: BSL-1.0
//
// What a process is to run: a callable with its arguments, copied as std::thread copies. A forked
// child calls it where it lies; to a spawned one it travels, if all of it can, as the address of
// the code that reads it back and then its bytes.
#pragma once

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/pickle/callable.hpp>
#include <multiprocessing/pickle/type_name.hpp>

#include <concepts>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>

namespace multiprocessing::runtime {

/// The type in which an argument is kept: its decayed type, and std::string for C strings.
template <class T>
using Kept = std::conditional_t<std::same_as<std::decay_t<T>, const char*> ||
                                    std::same_as<std::decay_t<T>, char*>,
                                std::string, std::decay_t<T>>;

/// Erases a callable's type.
class Target {
public:
    Target() = default;
    Target(const Target&) = delete;
    Target& operator=(const Target&) = delete;
    virtual ~Target() = default;
    virtual void run() = 0;
    /// Writes what `load_target` reads. Throws PicklingError, which says what cannot travel.
    virtual void save(pickle::OArchive& archive) const = 0;
};

/// Makes a target from what its `save` has written.
using TargetLoader = std::unique_ptr<Target> (*)(pickle::IArchive&);

[[nodiscard]] inline std::unique_ptr<Target> load_target(pickle::IArchive& archive) {
    TargetLoader loader = nullptr;
    archive >> loader;
    return loader != nullptr ? loader(archive) : nullptr;
}

/// A C string again, for a callable that takes nothing else.
template <class T>
decltype(auto) as_c_string(T& argument) {
    if constexpr (std::same_as<T, std::string>) {
        return static_cast<const char*>(argument.c_str());
    } else {
        return std::move(argument);
    }
}

// In this order of preference. The first is what std::thread does.
template <class F, class... Args>
concept RunsWithRvalues = std::invocable<F, Args...>;
template <class F, class... Args>
concept RunsWithLvalues = std::invocable<F&, Args&...>;
template <class F, class... Args>
concept RunsWithCStrings = std::invocable<F, decltype(as_c_string(std::declval<Args&>()))...>;

/// F can be called with copies of these arguments.
template <class F, class... Args>
concept Runnable = RunsWithRvalues<Kept<F>, Kept<Args>...> ||
    RunsWithLvalues<Kept<F>, Kept<Args>...> || RunsWithCStrings<Kept<F>, Kept<Args>...>;

/// Calls `f` with the arguments, which it may use up.
template <class F, class... Args>
void invoke_kept(F& f, std::tuple<Args...>& arguments) {
    std::apply(
        [&f](Args&... args) {
            if constexpr (RunsWithRvalues<F, Args...>) {
                static_cast<void>(std::invoke(std::move(f), std::move(args)...));
            } else if constexpr (RunsWithLvalues<F, Args...>) {
                static_cast<void>(std::invoke(f, args...));
            } else {
                static_cast<void>(std::invoke(std::move(f), as_c_string(args)...));
            }
        },
        arguments);
}

[[noreturn]] inline void throw_cannot_travel(const std::string& what, const std::string& type,
                                             std::string_view help) {
    throw PicklingError("a process that is not forked cannot be given its " + what + " of type " + type +
                        ": " + std::string(help) + "; or start the process by fork");
}

/// Throws for the argument that cannot travel.
template <class T>
void check_argument_travels() {
    if constexpr (!pickle::Picklable<T>) {
        throw_cannot_travel("argument", pickle::type_name<T>(),
                            "an argument must be picklable (give the class a serialize() as "
                            "Boost.Serialization asks for)");
    }
}

template <class F, class... Args>
class CallTarget final : public Target {
public:
    template <class G, class... Given>
    explicit CallTarget(std::in_place_t, G&& f, Given&&... args)
        : f_(std::forward<G>(f)), args_(std::forward<Given>(args)...) {}
    /// In a spawned child. In order: the members are declared in it, and braces keep it.
    explicit CallTarget(pickle::IArchive& archive) requires pickle::TravellingCallable<F> &&
        (pickle::Picklable<Args>&&...)
        : f_(pickle::load_callable<F>(archive)), args_{pickle::load_new<Args>(archive)...} {}

    [[nodiscard]] bool is_null() const noexcept { return pickle::is_null_callable(f_); }
    void run() override { invoke_kept(f_, args_); }
    inline void save(pickle::OArchive& archive) const override;

private:
    static std::unique_ptr<Target> load(pickle::IArchive& archive) {
        return std::make_unique<CallTarget>(archive);
    }

    F f_;
    std::tuple<Args...> args_;
};

template <class F, class... Args>
void CallTarget<F, Args...>::save(pickle::OArchive& archive) const {
    if constexpr (!pickle::TravellingCallable<F>) {
        throw_cannot_travel("target", pickle::type_name<F>(), pickle::travelling_callable_help);
    } else if constexpr (!(pickle::Picklable<Args> && ...)) {
        (check_argument_travels<Args>(), ...);
    } else {
        const TargetLoader loader = &CallTarget::load;
        archive << loader;
        pickle::save_callable(archive, f_);
        std::apply([&](const Args&... args) { (pickle::save_new(archive, args), ...); }, args_);
    }
}

template <class F, class... Args>
std::unique_ptr<Target> make_target(F&& f, Args&&... args) {
    static_assert(Runnable<F, Args...>,
                  "the target cannot be called with copies of these arguments: check their number "
                  "and types (string literals are kept as std::string; what it takes by reference is "
                  "the child's copy)");
    using Made = CallTarget<Kept<F>, Kept<Args>...>;
    auto made =
        std::make_unique<Made>(std::in_place, std::forward<F>(f), std::forward<Args>(args)...);
    if (made->is_null()) {
        throw ValueError("Process: the target of type " + pickle::type_name<Kept<F>>() +
                         " is null: give it something to call, or no target at all");
    }
    return made;
}

}  // namespace multiprocessing::runtime
