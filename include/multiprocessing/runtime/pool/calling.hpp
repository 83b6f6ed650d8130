// SPDX-License-Identifier: BSL-1.0
//
// How a pool calls a function with the items of a range, wherever that runs.
#pragma once

#include <multiprocessing/pickle/message.hpp>

#include <concepts>
#include <cstddef>
#include <functional>
#include <tuple>
#include <type_traits>
#include <utility>
#include <variant>

namespace multiprocessing::runtime::pool {

// A function is called with copies it may use up, or, if it wants to, with references to them.
template <class F, class... Args>
decltype(auto) call(F& f, Args&... args) {
    if constexpr (std::invocable<F&, Args&&...>) {
        return std::invoke(f, std::move(args)...);
    } else {
        return std::invoke(f, args...);
    }
}
template <class F, class... Args>
concept Callable = std::invocable<F&, Args&&...> || std::invocable<F&, Args&...>;

/// One argument for each call, or the elements of a tuple (`starmap`, `apply`).
enum class Calling { whole, spread };

template <Calling calling, class F, class Item>
struct Invoke {
    static constexpr bool possible = Callable<F, Item>;
    static decltype(auto) run(F& f, Item& item) { return call(f, item); }
};
template <class T>
concept TupleLike = requires { std::tuple_size<T>::value; };
template <class F, TupleLike Tuple>
struct Invoke<Calling::spread, F, Tuple> {
    template <std::size_t... I>
    static constexpr bool can(std::index_sequence<I...>) {
        return Callable<F, std::tuple_element_t<I, Tuple>...>;
    }
    static constexpr bool possible = can(std::make_index_sequence<std::tuple_size_v<Tuple>>());
    static decltype(auto) run(F& f, Tuple& arguments) {
        return std::apply([&f](auto&... args) -> decltype(auto) { return call(f, args...); }, arguments);
    }
};

/// What a call gives: a decayed copy, std::monostate for nothing (Python's None).
template <class Returned>
struct ResultOfCall {
    using type = pickle::travel_decay_t<Returned>;
};
template <>
struct ResultOfCall<void> {
    using type = std::monostate;
};
template <class Returned>
using ResultOf = typename ResultOfCall<Returned>::type;

/// The call of `F` with an `Item`, of which nothing is asked but that it can be made.
template <Calling calling, class F, class Item>
struct Call {
    static_assert(calling == Calling::whole || TupleLike<Item>,
                  "starmap is for a range of tuples, pairs or arrays: for other items there is map");
    using Step = Invoke<calling, F, Item>;
    static_assert(Step::possible,
                  "the function cannot be called with copies of these arguments: check their number and "
                  "types (string literals travel as std::string; for a range of tuples there is starmap)");
    using Returned = decltype(Step::run(std::declval<F&>(), std::declval<Item&>()));
    using R = ResultOf<Returned>;
};

}  // namespace multiprocessing::runtime::pool
