// SPDX-License-Identifier: BSL-1.0
//
// Callables that can travel to a process that already runs, and `mp::partial`, which gives one the
// state it may take along. Answers `functools.partial`.
#pragma once

#include <multiprocessing/pickle/code.hpp>
#include <multiprocessing/pickle/message.hpp>

#include <concepts>
#include <functional>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>

namespace multiprocessing::pickle {

template <class F>
inline constexpr bool is_function_pointer =
    std::is_pointer_v<F> && std::is_function_v<std::remove_pointer_t<F>>;

/// A callable that can be written down: a function pointer, a pointer to a member, a class without
/// state, or a class with `serialize` (`mp::partial` among them). A closure with captures is none,
/// were it ever so trivially copyable: what it points to would stay behind.
template <class F>
concept TravellingCallable =
    is_function_pointer<F> || std::is_member_pointer_v<F> || Stateless<F> ||
    (std::is_class_v<F> && !PlainClass<F> && Picklable<F>);

inline constexpr std::string_view travelling_callable_help =
    "a callable that travels to another process must be a function pointer, a captureless lambda, "
    "a member function pointer, a function object with serialize(), or mp::partial(f, args...)";

/// `static_assert(require_travelling_callable<F>)` tells the fix.
template <class F>
struct RequireTravellingCallable {
    static_assert(
        TravellingCallable<F>,
        "a callable that travels to another process must be a function pointer, a captureless "
        "lambda, a member function pointer, a function object with serialize(), or "
        "mp::partial(f, args...)");
    static constexpr bool value = true;  // one complaint is enough
};
template <class F>
inline constexpr bool require_travelling_callable = RequireTravellingCallable<F>::value;

/// A null pointer or an empty std::function: there is nothing to call.
template <class F>
[[nodiscard]] bool is_null_callable(const F& callable) noexcept {
    if constexpr (is_function_pointer<F> || std::is_member_pointer_v<F> ||
                  requires { typename F::result_type; callable.target_type(); }) {
        return callable == nullptr;
    } else {
        return false;
    }
}

template <TravellingCallable F>
void save_callable(OArchive& archive, const F& callable) {
    save_new(archive, callable);
}
template <TravellingCallable F>
[[nodiscard]] F load_callable(IArchive& archive) {
    return load_new<F>(archive);
}

}  // namespace multiprocessing::pickle

namespace multiprocessing {

/// A callable with its first arguments bound; see `partial`.
template <class F, class... Bound>
class Partial {
public:
    Partial()
        requires std::default_initializable<F> && (std::default_initializable<Bound> && ...)
    = default;
    template <class G, class... Args>
        requires(sizeof...(Args) == sizeof...(Bound)) && std::constructible_from<F, G>
    explicit Partial(std::in_place_t, G&& function, Args&&... args)
        : function_(std::forward<G>(function)), bound_(std::forward<Args>(args)...) {}

    /// Calls with the bound arguments first. They are const; a function that takes one by reference
    /// or moves from it gets a copy.
    template <class... Rest>
        requires std::invocable<const F&, const Bound&..., Rest...> ||
                 std::invocable<const F&, Bound&..., Rest...> ||
                 std::invocable<const F&, Bound..., Rest...>
    decltype(auto) operator()(Rest&&... rest) const {
        if constexpr (std::invocable<const F&, const Bound&..., Rest...>) {
            return std::apply(
                [&](const Bound&... bound) -> decltype(auto) {
                    return std::invoke(function_, bound..., std::forward<Rest>(rest)...);
                },
                bound_);
        } else {
            auto copies = bound_;
            return std::apply(
                [&](Bound&... bound) {
                    if constexpr (std::invocable<const F&, Bound&..., Rest...>) {
                        return std::invoke(function_, bound..., std::forward<Rest>(rest)...);
                    } else {
                        return std::invoke(function_, std::move(bound)...,
                                           std::forward<Rest>(rest)...);
                    }
                },
                copies);
        }
    }

    [[nodiscard]] const F& function() const noexcept { return function_; }
    [[nodiscard]] const std::tuple<Bound...>& bound() const noexcept { return bound_; }

private:
    friend struct pickle::Codec<Partial>;
    Partial(F f, std::tuple<Bound...> arguments)
        : function_(std::move(f)), bound_(std::move(arguments)) {}

    F function_{};
    std::tuple<Bound...> bound_{};
};

/// `f` with its first arguments bound: a function object that travels if `f` and they do.
/// *Python*: `functools.partial`.
///
///     pool.map(mp::partial(scale, 2.5), {1.0, 2.0});   // scale(2.5, 1.0), scale(2.5, 2.0)
template <class F, class... Args>
[[nodiscard]] auto partial(F&& f, Args&&... args) {
    return Partial<std::decay_t<F>, pickle::travel_decay_t<Args>...>(
        std::in_place, std::forward<F>(f), std::forward<Args>(args)...);
}

}  // namespace multiprocessing

template <class F, class... Bound>
inline constexpr bool
    multiprocessing::pickle::is_made_empty<multiprocessing::Partial<F, Bound...>> =
        is_made_empty<F> && is_made_empty<std::tuple<Bound...>>;

template <class F, class... Bound>
struct multiprocessing::pickle::Codec<multiprocessing::Partial<F, Bound...>> {
    using Callable = Partial<F, Bound...>;
    static constexpr bool picklable = TravellingCallable<F> && (Picklable<Bound> && ...);
    static void save(OArchive& archive, const Callable& partial) {
        save_new(archive, partial.function_);
        save_new(archive, partial.bound_);
    }
    static void load(IArchive& archive, Callable& partial) { partial = load_new(archive); }
    static Callable load_new(IArchive& archive) {
        F function = pickle::load_new<F>(archive);
        return Callable(std::move(function), pickle::load_new<std::tuple<Bound...>>(archive));
    }
};
