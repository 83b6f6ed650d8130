// SPDX-License-Identifier: BSL-1.0
//
// How a client has an object made in a manager's server.
#pragma once

#include <multiprocessing/managers/caller.hpp>
#include <multiprocessing/managers/entry.hpp>
#include <multiprocessing/managers/object.hpp>
#include <multiprocessing/pickle/message.hpp>

#include <concepts>
#include <memory>
#include <tuple>
#include <type_traits>
#include <utility>

namespace multiprocessing::managers {

/// A new T from these.
template <class T, class... Args>
struct Creation {
    static void run(Call& call) {
        std::tuple<Args...> args{pickle::load_new<Args>(call.in)...};
        call.out.put(call.caller.give(std::make_shared<Managed<T>>([&] {
            return std::apply([](Args&... each) { return make(each...); }, args);
        })));
    }
    static void write(pickle::OArchive& archive, const auto&... args) {
        (write_as<Args>(archive, args), ...);
    }

private:
    static T make(Args&... args) {
        static_assert(std::constructible_from<T, Args&&...> || requires { T{std::move(args)...}; },
                      "the managed object's class has no constructor for these arguments");
        if constexpr (std::constructible_from<T, Args&&...>) {
            return T(std::move(args)...);
        } else {
            return T{std::move(args)...};  // clang 14 knows no other way to make an aggregate
        }
    }
};

}  // namespace multiprocessing::managers
