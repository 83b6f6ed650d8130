// SPDX-License-Identifier: BSL-1.0
//
// A call in another process, whichever way it gets there: what its function and its items are written
// as, and what becomes of what it returns or throws.
#pragma once

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/os/backtrace.hpp>
#include <multiprocessing/pickle/callable.hpp>
#include <multiprocessing/pickle/message.hpp>
#include <multiprocessing/runtime/pool/calling.hpp>

#include <exception>
#include <new>
#include <string>
#include <type_traits>
#include <variant>

namespace multiprocessing::runtime::pool {

/// The call of `F` with an `Item` where both must travel.
template <Calling calling, class F, class Item>
struct TravellingCall : Call<calling, F, Item> {
    static_assert(pickle::require_travelling_callable<F>);
    static_assert(pickle::Picklable<Item>,
                  "what a pool's function is called with must be picklable: give the type a "
                  "serialize() as Boost.Serialization asks for");
    using typename Call<calling, F, Item>::R;
    static_assert(pickle::Picklable<R>,
                  "what a pool's function returns must be picklable: give the type a serialize() as "
                  "Boost.Serialization asks for");

    /// Items that stand one after the other as an array.
    static constexpr bool plain = pickle::BitwiseElement<Item>;
    /// Items of which it is known how long they are before they are written.
    static constexpr bool sized = !plain && pickle::has_exact_size<Item>;

    static void write_callable(pickle::Buffer& buffer, pickle::Cargo* cargo, const F& f) {
        if (pickle::is_null_callable(f)) {
            throw ValueError("Pool: the function of type " + pickle::type_name<F>() + " is null");
        }
        pickle::OArchive archive(buffer, cargo);
        pickle::while_pickling([&] { pickle::save_callable(archive, f); });
    }
    static void write_item(pickle::Buffer& buffer, pickle::Cargo* cargo, const Item& item) {
        pickle::save_payload(item, buffer, cargo);
    }
};

/// The call itself, in the worker. Its outcome is given to `outcomes.value(result)`, or
/// `outcomes.error(exception, where it was thrown)`.
template <Calling calling, class F, class Item>
struct ItemCall {
    using TheCall = Call<calling, F, Item>;
    using R = typename TheCall::R;

    /// A SystemExit is an outcome only if `keeps_exit`: else it is thrown on, for the worker is to end.
    template <class Outcomes>
    static void run(F& f, Item& item, Outcomes& outcomes, bool keeps_exit) {
        try {
            if constexpr (std::is_void_v<typename TheCall::Returned>) {
                TheCall::Step::run(f, item);
                outcomes.value(std::monostate());
            } else {
                const R& result = TheCall::Step::run(f, item);
                write_result(result, outcomes);
            }
        } catch (const SystemExit&) {
            if (!keeps_exit) throw;
            outcomes.error(std::current_exception(), {});
        } catch (const os::ThrowWatch&) {
            // Never: those that come as far as this clause have their backtrace taken.
        } catch (...) {
            outcomes.error(std::current_exception(), os::last_watched_throw());
            os::forget_watched_throw();
        }
    }

private:
    /// What its serialize() throws is not what the function has thrown.
    template <class Outcomes>
    static void write_result(const R& result, Outcomes& outcomes) {
        try {
            outcomes.value(result);
        } catch (const PicklingError&) {
            throw;
        } catch (const std::bad_alloc&) {
            throw;
        } catch (const std::exception& error) {
            throw PicklingError("the result, of type " + pickle::type_name<R>() +
                                ", cannot be pickled: " + error.what());
        }
    }
};

}  // namespace multiprocessing::runtime::pool
