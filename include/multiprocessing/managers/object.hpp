// SPDX-License-Identifier: BSL-1.0
//
// An object in a manager's server, and how its functions are called there.
#pragma once

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/managers/entry.hpp>
#include <multiprocessing/managers/protocol.hpp>
#include <multiprocessing/pickle/message.hpp>
#include <multiprocessing/pickle/type_name.hpp>
#include <multiprocessing/runtime/target.hpp>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <sstream>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>

namespace multiprocessing::managers {

/// Whether several calls of one object may run at the same time: a class that says
/// `using is_thread_safe = void;` or for which this is specialised, and handles of what processes
/// share. Of all others a call begins when the one before it has ended.
template <class T>
inline constexpr bool is_thread_safe =
    requires { typename T::is_thread_safe; } || pickle::Handle<T>;

class Object {
public:
    Object() = default;
    Object(const Object&) = delete;
    Object& operator=(const Object&) = delete;
    virtual ~Object() = default;

    [[nodiscard]] virtual std::uint64_t type() const noexcept = 0;
    [[nodiscard]] virtual const std::string& type_name() const = 0;
    [[nodiscard]] virtual void* target() noexcept = 0;
    /// A client has ended: what it held is to be let go.
    virtual void abandon(const SessionId&) {}

    /// Held during a call, unless it is thread-safe. A call may call the same object again, by a proxy
    /// that it has.
    std::recursive_mutex mutex;
    std::uint64_t references = 0;  // under the server's mutex
};

template <class T>
class Managed final : public Object {
public:
    template <class... Args>
    explicit Managed(std::in_place_t, Args&&... args) : value_(std::forward<Args>(args)...) {}
    /// In the place of what make() returns.
    template <class Make>
    explicit Managed(Make&& make) : value_(std::forward<Make>(make)()) {}

    [[nodiscard]] std::uint64_t type() const noexcept override { return pickle::type_hash<T>(); }
    [[nodiscard]] const std::string& type_name() const override { return pickle::type_name<T>(); }
    [[nodiscard]] void* target() noexcept override { return &value_; }
    void abandon(const SessionId& session) override {
        if constexpr (requires { value_.abandon(session); }) value_.abandon(session);
    }

private:
    T value_;
};

/// The object of a call, which must be a T. Throws ValueError, naming both types.
template <class T>
[[nodiscard]] T& target_of(const Call& call) {
    if (call.object == nullptr) throw ValueError("a managed object's function is asked to make one");
    if (call.object->type() != pickle::type_hash<T>()) {
        throw ValueError("the managed object is a " + call.object->type_name() + ", and no " +
                         pickle::type_name<T>());
    }
    return *static_cast<T*>(call.object->target());
}

/// A value in a message: " 'value'", or nothing if it cannot be printed.
template <class T>
[[nodiscard]] std::string in_quotes(const T& value) {
    std::ostringstream text;
    if constexpr (requires { text << value; }) text << " '" << value << "'";
    return std::move(text).str();
}

// -------------------------------------------------------------------------------------------------

namespace signature {

/// As what a parameter travels.
template <class A>
struct Travelling {
    using type = pickle::travel_decay_t<A>;
};
template <class A>
    requires std::same_as<std::decay_t<A>, std::string_view>
struct Travelling<A> {
    using type = std::string;
};

template <class R, class... A>
struct Parameters {
    using Result = R;
    using Arguments = std::tuple<typename Travelling<A>::type...>;
    static_assert((pickle::Picklable<typename Travelling<A>::type> && ...),
                  "a managed object's function takes what can be pickled: give the type of the "
                  "parameter a serialize() as Boost.Serialization asks for");
    static_assert(std::is_void_v<R> || pickle::Picklable<pickle::travel_decay_t<R>>,
                  "what a managed object's function returns must be picklable: give the type a "
                  "serialize() as Boost.Serialization asks for");
};
/// A function that wants to know who calls.
template <class R, class... A>
struct WithCaller : Parameters<R, A...> {};

// Of what a call takes and gives, whatever kind of function it is.
template <class R, class C, class... A>
Parameters<R, A...> of(R (C::*)(A...));
template <class R, class C, class... A>
Parameters<R, A...> of(R (C::*)(A...) const);
template <class R, class C, class... A>
Parameters<R, A...> of(R (C::*)(A...) &);
template <class R, class C, class... A>
Parameters<R, A...> of(R (C::*)(A...) const&);
template <class M, class C>
    requires(!std::is_function_v<M>)
Parameters<M> of(M C::*);
template <class R, class O, class... A>
Parameters<R, A...> of(R (*)(O&, A...));
template <class R, class O, class... A>
WithCaller<R, A...> of(R (*)(O&, const Caller&, A...));

template <class P>
inline constexpr bool wants_caller = false;
template <class R, class... A>
inline constexpr bool wants_caller<WithCaller<R, A...>> = true;

}  // namespace signature

/// An argument, as what it travels.
template <class Wanted, class Given>
void write_as(pickle::OArchive& archive, const Given& given) {
    if constexpr (std::same_as<Wanted, Given>) {
        pickle::save_new(archive, given);
    } else {
        static_assert(std::constructible_from<Wanted, const Given&>,
                      "an argument is none that the managed object's function takes");
        pickle::save_new(archive, Wanted(given));
    }
}

template <class Result>
void write_result(pickle::OArchive& archive, const Result& result) {
    const Executing::Scope replying = Executing::Scope::reply();
    pickle::while_pickling([&] { pickle::save_new(archive, result); });
}

/// A function of T, or of T and what follows, to be called in the server.
template <class T, auto function>
struct Method {
    using Signature = decltype(signature::of(function));
    using Arguments = typename Signature::Arguments;
    using Returned = typename Signature::Result;
    /// What the client gets: a copy.
    using Result = pickle::travel_decay_t<Returned>;

    static void run(Call& call) {
        T& target = target_of<T>(call);
        if constexpr (is_thread_safe<T>) {
            run_on(target, call);
        } else {
            const std::scoped_lock lock(call.object->mutex);
            run_on(target, call);
        }
    }
    static void run_on(T& target, Call& call) {
        run_with(target, call, std::make_index_sequence<std::tuple_size_v<Arguments>>());
    }
    static void write(pickle::OArchive& archive, const auto&... args) {
        static_assert(sizeof...(args) == std::tuple_size_v<Arguments>,
                      "a managed object's function is called with another number of arguments than it "
                      "takes (defaults do not travel)");
        write_each(archive, std::make_index_sequence<sizeof...(args)>(), args...);
    }

private:
    template <std::size_t... I>
    static void run_with(T& target, Call& call, std::index_sequence<I...>) {
        // In order: braces keep it.
        [[maybe_unused]] std::tuple<std::tuple_element_t<I, Arguments>...> args{
            pickle::load_new<std::tuple_element_t<I, Arguments>>(call.in)...};
        if constexpr (std::is_void_v<Returned>) {
            invoke(target, call.caller, std::get<I>(args)...);
        } else {
            decltype(auto) result = invoke(target, call.caller, std::get<I>(args)...);
            write_result<Result>(call.out, static_cast<const Result&>(result));
        }
    }
    template <class... Args>
    static decltype(auto) invoke(T& target, const Caller& caller, Args&... args) {
        if constexpr (signature::wants_caller<Signature>) {
            return function(target, caller, std::move(args)...);
        } else if constexpr (std::invocable<decltype(function), T&, Args&&...>) {
            return std::invoke(function, target, std::move(args)...);
        } else if constexpr (std::invocable<decltype(function), T&, Args&...>) {
            return std::invoke(function, target, args...);
        } else if constexpr (requires {
                                 std::invoke(function, target, runtime::as_c_string(args)...);
                             }) {  // C strings travel as std::string
            return std::invoke(function, target, runtime::as_c_string(args)...);
        } else {
            static_assert(sizeof...(Args) > 1000,
                          "the function is none of the managed object's class: it cannot be called on "
                          "the object that this is a proxy of");
        }
    }
    template <std::size_t... I, class... Args>
    static void write_each(pickle::OArchive& archive, std::index_sequence<I...>,
                           const Args&... args) {
        (write_as<std::tuple_element_t<I, Arguments>>(archive, args), ...);
    }
};

/// Many calls of one function of an object, one after the other with no other call in between.
template <class M, class T>
struct Repeated {
    static void run(Call& call) {
        T& target = target_of<T>(call);
        const std::unique_lock lock = is_thread_safe<T>
                                          ? std::unique_lock<std::recursive_mutex>()
                                          : std::unique_lock(call.object->mutex);
        // What has no arguments has no bytes either.
        for (auto left = call.in.get<std::uint64_t>(); left != 0; --left) M::run_on(target, call);
    }
};

}  // namespace multiprocessing::managers
