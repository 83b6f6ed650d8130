// SPDX-License-Identifier: BSL-1.0
//
// A callable without arguments, of any type, that is kept in an object and run in several processes:
// a Pool's initializer, a Barrier's action, what makes an object of a manager.
#pragma once

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/pickle/callable.hpp>
#include <multiprocessing/pickle/handle.hpp>

#include <concepts>
#include <functional>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>

namespace multiprocessing::runtime {

/// Nothing, or something to run that gives an R. Copies share the callable. *Fork and spawn*: forked
/// children have it, whatever it is; to a spawned one it must travel, or PicklingError is thrown. A null
/// function is a ValueError.
template <class R>
class Thunk {
public:
    Thunk() = default;
    template <class F>
        requires std::invocable<std::decay_t<F>&> && (!std::same_as<std::decay_t<F>, Thunk>)
    Thunk(F&& f) {
        if (pickle::is_null_callable(f)) {
            throw ValueError("a null " + pickle::type_name<std::decay_t<F>>() +
                             " was given to be run: give a function, or leave it out");
        }
        callable_ = std::make_shared<Model<std::decay_t<F>>>(std::forward<F>(f));
    }

    [[nodiscard]] explicit operator bool() const noexcept { return callable_ != nullptr; }
    /// Runs it; what gives nothing may be nothing.
    R operator()() const {
        if constexpr (std::is_void_v<R>) {
            if (callable_) callable_->run();
        } else {
            return callable_->run();
        }
    }

    void save(pickle::OArchive& archive) const {
        archive.put(static_cast<std::uint8_t>(callable_ != nullptr));
        if (callable_) callable_->save(archive);
    }
    void load(pickle::IArchive& archive) {
        callable_ = nullptr;
        if (archive.get<std::uint8_t>() == 0) return;
        callable_ = pickle::load_new<Reader>(archive)(archive);
    }

    using travels_as_handle = void;

private:
    friend struct pickle::HandleAccess;
    explicit Thunk(pickle::Unread) noexcept {}
    void save_handle(pickle::OArchive& archive) const { save(archive); }
    void load_handle(pickle::IArchive& archive) { load(archive); }

    struct Callable {
        Callable() = default;
        Callable(const Callable&) = delete;
        Callable& operator=(const Callable&) = delete;
        virtual ~Callable() = default;
        virtual R run() = 0;
        virtual void save(pickle::OArchive& archive) const = 0;
    };
    // What is written is where the code is that can read the rest.
    using Reader = std::shared_ptr<Callable> (*)(pickle::IArchive&);

    template <class F>
    struct Model final : Callable {
        F f;
        template <class G>
        explicit Model(G&& g) : f(std::forward<G>(g)) {}
        R run() override {
            if constexpr (std::is_void_v<R>) {
                static_cast<void>(std::invoke(f));
            } else {
                return std::invoke(f);
            }
        }
        void save(pickle::OArchive& archive) const override {
            if constexpr (pickle::TravellingCallable<F>) {
                pickle::save_new(archive, static_cast<Reader>(&read));
                pickle::save_callable(archive, f);
            } else {
                throw PicklingError(pickle::type_name<F>() + " cannot travel to another process: " +
                                    std::string(pickle::travelling_callable_help));
            }
        }
        static std::shared_ptr<Callable> read(pickle::IArchive& archive) {
            if constexpr (pickle::TravellingCallable<F>) {
                return std::make_shared<Model>(pickle::load_callable<F>(archive));
            } else {
                throw UnpicklingError("a callable that cannot travel");
            }
        }
    };

    std::shared_ptr<Callable> callable_;
};

using Action = Thunk<void>;

}  // namespace multiprocessing::runtime
