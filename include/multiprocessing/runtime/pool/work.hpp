// SPDX-License-Identifier: BSL-1.0
//
// A chunk of work: a callable and the items it is called with, written by the parent, read and run by
// a worker. The function that can do the latter is an instantiation of run(), and travels as its
// place in the program.
#pragma once

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/pickle/callable.hpp>
#include <multiprocessing/pickle/code.hpp>
#include <multiprocessing/pickle/message.hpp>
#include <multiprocessing/runtime/pool/outcomes.hpp>
#include <multiprocessing/runtime/pool/shared.hpp>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <functional>
#include <optional>
#include <span>
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

/// The work of calling `F` with `Item`s.
template <Calling calling, class F, class Item>
struct Work {
    static_assert(pickle::require_travelling_callable<F>);
    static_assert(pickle::Picklable<Item>,
                  "what a pool's function is called with must be picklable: give the type a "
                  "serialize() as Boost.Serialization asks for");
    static_assert(calling == Calling::whole || TupleLike<Item>,
                  "starmap is for a range of tuples, pairs or arrays: for other items there is map");
    using Step = Invoke<calling, F, Item>;
    static_assert(Step::possible,
                  "the function cannot be called with copies of these arguments: check their number and "
                  "types (string literals travel as std::string; for a range of tuples there is starmap)");
    using Returned = decltype(Step::run(std::declval<F&>(), std::declval<Item&>()));
    using R = ResultOf<Returned>;
    static_assert(pickle::Picklable<R>,
                  "what a pool's function returns must be picklable: give the type a serialize() as "
                  "Boost.Serialization asks for");

    /// Items that stand in the task as an array.
    static constexpr bool plain = pickle::BitwiseElement<Item>;
    static constexpr std::size_t alignment = 64;

    /// Writes the callable; then come the items, an array of them at the next multiple of 64.
    static void write_callable(pickle::Buffer& buffer, pickle::Cargo& cargo, const F& f) {
        if (pickle::is_null_callable(f)) {
            throw ValueError("Pool: the function of type " + pickle::type_name<F>() + " is null");
        }
        pickle::OArchive archive(buffer, &cargo);
        pickle::while_pickling([&] { pickle::save_callable(archive, f); });
        if constexpr (plain) {
            while (buffer.size() % alignment != 0) *buffer.grow(1) = std::byte{};
        }
    }
    static void write_item(pickle::Buffer& buffer, pickle::Cargo& cargo, const Item& item) {
        pickle::OArchive archive(buffer, &cargo);
        pickle::while_pickling([&] { pickle::save_new(archive, item); });
    }

    /// In the worker: runs what is left of the task and sends the outcomes.
    static void run(Task& task, pickle::Cargo& cargo, const Channel& channel, std::uint32_t worker);
};

/// How the worker finds run(): its place in the program is what the task says.
using Entry = void (*)(Task& task, pickle::Cargo& cargo, const Channel& channel,
                       std::uint32_t worker);

template <Calling calling, class F, class Item>
void Work<calling, F, Item>::run(Task& task, pickle::Cargo& cargo, const Channel& channel,
                                 std::uint32_t worker) {
    OutcomeWriter outcomes(channel, worker, task, pickle::Bitwise<R> ? sizeof(R) : 0);
    pickle::IArchive archive({task.payload(), static_cast<std::size_t>(task.bytes)}, &cargo);
    std::optional<F> f;
    std::exception_ptr unreadable;
    try {
        pickle::while_unpickling(archive, [&] { f.emplace(pickle::load_callable<F>(archive)); });
    } catch (...) {
        unreadable = std::current_exception();
    }
    const auto step = [&](Item& item) {
        try {
            if constexpr (std::is_void_v<Returned>) {
                Step::run(*f, item);
                outcomes.value(std::monostate());
            } else {
                const R& result = Step::run(*f, item);
                outcomes.value(result);
            }
        } catch (const SystemExit&) {
            throw;  // the worker is to end
        } catch (...) {
            outcomes.error(std::current_exception());
        }
        outcomes.pass_on();
    };
    const std::uint32_t first = task.begin;  // the parent moves it when it has seen outcomes
    if constexpr (plain) {
        const std::size_t begin = (archive.position() + alignment - 1) / alignment * alignment;
        const std::byte* items = task.payload() + begin;
        for (std::uint32_t i = first; i < task.count; ++i) {
            if (unreadable) {
                outcomes.error(unreadable);
                continue;
            }
            alignas(Item) std::byte bytes[sizeof(Item)];
            std::memcpy(bytes, items + i * sizeof(Item), sizeof(Item));
            step(*reinterpret_cast<Item*>(bytes));
        }
    } else {
        for (std::uint32_t i = 0; i < task.count; ++i) {
            // Where one item cannot be read, nobody knows where the next begins.
            std::optional<Item> item;
            if (!unreadable) {
                try {
                    pickle::while_unpickling(
                        archive, [&] { item.emplace(pickle::load_new<Item>(archive)); });
                } catch (...) {
                    unreadable = std::current_exception();
                }
            }
            if (i < first) continue;
            if (unreadable) {
                outcomes.error(unreadable);
            } else {
                step(*item);
            }
        }
    }
    outcomes.send();
}

}  // namespace multiprocessing::runtime::pool
