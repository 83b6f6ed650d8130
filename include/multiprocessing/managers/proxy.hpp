// SPDX-License-Identifier: BSL-1.0
//
// Proxies: handles of objects in a manager's server. `Proxy<T>` is that of a class of the program's
// own; those of dict, list and so on are built on the same base. Answers Python's `BaseProxy`,
// `MakeProxyType` and `AutoProxy`.
#pragma once

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/managers/caller.hpp>
#include <multiprocessing/managers/entry.hpp>
#include <multiprocessing/managers/link.hpp>
#include <multiprocessing/managers/local_link.hpp>
#include <multiprocessing/managers/object.hpp>
#include <multiprocessing/managers/remote_link.hpp>
#include <multiprocessing/managers/server_state.hpp>
#include <multiprocessing/pickle/handle.hpp>
#include <multiprocessing/runtime/this_process.hpp>
#include <multiprocessing/timeout.hpp>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <ostream>
#include <ranges>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

namespace multiprocessing::managers {

/// One reference of an object in a server, which counts there until this ends.
class Reference {
public:
    Reference(LinkPointer link, std::uint64_t object) : link_(std::move(link)), object_(object) {
        link_->add_reference();
    }
    Reference(const Reference&) = delete;
    Reference& operator=(const Reference&) = delete;
    ~Reference() {
        link_->drop_reference();
        link_->release(object_);
    }

    [[nodiscard]] Link& link() const noexcept { return *link_; }
    [[nodiscard]] std::uint64_t object() const noexcept { return object_; }

    void save(pickle::OArchive& archive) const;
    [[nodiscard]] static std::shared_ptr<Reference> load(pickle::IArchive& archive);

private:
    /// How a reference travels.
    enum class Way : std::uint8_t {
        borrowed,  // with a call to its own server: the caller has it until that has returned
        granted,   // with the reply of its own server, which has counted it for the client
        lent,      // with any other message: for whoever redeems it
    };

    LinkPointer link_;
    std::uint64_t object_;
};

/// What all proxies have. A handle: copies are proxies of the same object, in whatever process they
/// are. *Thread safety*: all calls; each has a connection to itself.
///
/// *Throws*, in every call: what the object's function throws, with its type (see
/// mp::register_exception); std::system_error (ECONNRESET, ECONNREFUSED) when the server is gone;
/// TimeoutError when the manager has a `.timeout` and the answer is not there in time.
/// *If a process dies*: a client's references end with it, and its locks are abandoned.
class BaseProxy {
public:
    /// Proxies of the same object?
    friend bool operator==(const BaseProxy& a, const BaseProxy& b) noexcept {
        return a.reference_ == b.reference_ ||
               (a.reference_->object() == b.reference_->object() &&
                a.reference_->link().server() == b.reference_->link().server());
    }

    /// As "<proxy of object 7 of the manager at /tmp/x>". *Python*: `repr`.
    friend std::ostream& operator<<(std::ostream& out, const BaseProxy& proxy) {
        return out << "<proxy of object " << proxy.reference_->object() << " of the manager at "
                   << proxy.reference_->link().address().str() << ">";
    }

    using travels_as_handle = void;

    // Managers make proxies, and messages do; derived classes inherit these.
    explicit BaseProxy(std::shared_ptr<Reference> reference) noexcept
        : reference_(std::move(reference)) {}
    explicit BaseProxy(pickle::Unread) noexcept {}

protected:
    // No moves, as of all handles here.
    BaseProxy(const BaseProxy&) = default;
    BaseProxy& operator=(const BaseProxy&) = default;
    ~BaseProxy() = default;

    /// Calls `function` of the T that this is a proxy of.
    template <class T, auto function, class... Args>
    auto call(const Args&... args) const {
        return call_waiting<T, function>(Patience(0), args...);
    }
    /// One that waits itself for as long as that.
    template <class T, auto function, class... Args>
    auto call_waiting(Patience patience, const Args&... args) const;
    /// Once for each item of a range, all of them in one request; the results.
    template <class T, auto function, class Range>
    auto call_many(Range&& items) const;

    /// The reference of an object that a call has made.
    [[nodiscard]] std::shared_ptr<Reference> made(std::uint64_t object) const {
        return std::make_shared<Reference>(reference_->link().shared_from_this(), object);
    }
    [[nodiscard]] const Reference& reference() const noexcept { return *reference_; }

    friend struct pickle::HandleAccess;
    void save_handle(pickle::OArchive& archive) const { reference_->save(archive); }
    void load_handle(pickle::IArchive& archive) { reference_ = Reference::load(archive); }

private:
    friend class BaseManager;
    template <class Work, class Exposed = Work>
    void begin(Exchange& exchange) const {
        exchange.out().put(reference_->object());
        exchange.put_entry<Work, Exposed>();
    }

    std::shared_ptr<Reference> reference_;
};

/// A proxy of an object of class T.
///
///     struct Counter { int total = 0; int add(int n) { return total += n; } };
///     auto c = manager.create<Counter>();
///     c.call<&Counter::add>(3);         // 3, computed in the server
///     c.call<&Counter::total>();        // 3: a copy of the member
///
/// Arguments and results are copies; what a function takes by reference is the server's copy. A call of
/// one object begins when the one before it has ended, unless the class says
/// `using is_thread_safe = void;`.
/// *Python*: what `register()` and `AutoProxy` make; here nothing has to be registered.
template <class T>
class Proxy : public BaseProxy {
public:
    using Referent = T;

    /// Calls a member function, a function whose first parameter is a T&, or reads a member.
    template <auto function, class... Args>
    auto call(const Args&... args) const {
        return BaseProxy::template call<T, function>(args...);
    }
    /// The same for each item of a range (of tuples or pairs, if it takes several arguments): one
    /// request, and no other call in between. Gives a vector of the results. The first exception ends
    /// it; what was called before that has been done.
    template <auto function, std::ranges::input_range Range>
    auto call_many(Range&& items) const {
        return BaseProxy::template call_many<T, function>(std::forward<Range>(items));
    }
    /// Runs `f(object, args...)` in the server and gives what it returns. `f` is a callable that
    /// travels: a function, a lambda without captures, `mp::partial`.
    template <class F, class... Args>
    auto apply(F f, const Args&... args) const;

    using BaseProxy::BaseProxy;
};

/// Has this program's servers know functions that other programs call: nothing but that they are named
/// is needed, and inside of one program not even that.
template <class T, auto... functions>
void expose() {
    ((static_cast<void>(Entry<Method<T, functions>>::known),
      static_cast<void>(Entry<Repeated<Method<T, functions>, T>>::known)),
     ...);
}

// -------------------------------------------------------------------------------------------------

inline void Reference::save(pickle::OArchive& archive) const {
    archive.put(link_->server());
    archive.put(object_);
    const Executing now = Executing::now();
    if (Link* const to = Link::talking(); to != nullptr && to->server() == link_->server()) {
        archive.put(Way::borrowed);
    } else if (now.replying && now.server->id() == link_->server()) {
        now.caller->references().grant(now.caller->session(), object_);
        archive.put(Way::granted);
    } else {
        const std::uint64_t token = link_->lend(object_);
        archive.put(Way::lent);
        archive.put(token);
        pickle::save_value(archive, link_->address());
        // A key is not for everybody who may listen to a network.
        const bool secret = archive.has_cargo() && archive.cargo().stays_here();
        pickle::save_value(archive, secret ? link_->authkey() : std::nullopt);
    }
}

inline std::shared_ptr<Reference> Reference::load(pickle::IArchive& archive) {
    const auto server = archive.get<std::uint64_t>();
    const auto object = archive.get<std::uint64_t>();
    const auto way = archive.get<Way>();
    if (way == Way::borrowed) {
        ServerState* const here = Executing::now().server;
        if (here == nullptr || here->id() != server) {
            throw UnpicklingError("the message holds a proxy that was meant for another server");
        }
        here->references().grant(here->references().own_session(), object);
        return std::make_shared<Reference>(local_link(*here), object);
    }
    if (way == Way::granted) {
        Link* const from = Link::talking();
        if (from == nullptr || from->server() != server) {
            throw UnpicklingError("the message holds a proxy that was meant for another client");
        }
        return std::make_shared<Reference>(from->shared_from_this(), object);
    }
    if (way != Way::lent) throw UnpicklingError("the bytes hold no proxy");
    const auto token = archive.get<std::uint64_t>();
    connection::Address address;
    std::optional<bytes> authkey;
    pickle::load_value(archive, address);
    pickle::load_value(archive, authkey);
    ServerState* const here = Executing::now().server;
    if (here != nullptr && here->id() == server) {
        here->references().redeem(here->references().own_session(), token, object);
        return std::make_shared<Reference>(local_link(*here), object);
    }
    // As in Python: who has not been told the key has the process's.
    const LinkPointer link = link_to(
        server, address, authkey ? authkey : runtime::this_process().self->current_authkey(), {});
    if (link->server() != server) {
        throw UnpicklingError("the message holds a proxy of a manager that has ended: at its address " +
                              address.str() + " there is another");
    }
    link->redeem(token, object);
    return std::make_shared<Reference>(link, object);
}

template <class T, auto function, class... Args>
auto BaseProxy::call_waiting(Patience patience, const Args&... args) const {
    using Called = Method<T, function>;
    using Result = typename Called::Result;
    Exchange exchange(reference_->link(), Request::call);
    begin<Called>(exchange);
    pickle::while_pickling([&] { Called::write(exchange.out(), args...); });
    exchange.answer(patience);
    if constexpr (!std::is_void_v<Result>) return exchange.value<Result>();
}

template <class T, auto function, class Range>
auto BaseProxy::call_many(Range&& items) const {
    using Called = Method<T, function>;
    using Result = typename Called::Result;
    Exchange exchange(reference_->link(), Request::call);
    begin<Repeated<Called, T>, Called>(exchange);
    pickle::Buffer& request = exchange.out().buffer();
    const std::size_t place = request.size();
    std::uint64_t count = 0;
    exchange.out().put(count);
    pickle::while_pickling([&] {
        for (auto&& item : items) {
            if constexpr (std::tuple_size_v<typename Called::Arguments> == 1) {
                Called::write(exchange.out(), item);
            } else {
                std::apply([&](const auto&... each) { Called::write(exchange.out(), each...); },
                           item);
            }
            ++count;
        }
    });
    std::memcpy(request.data() + place, &count, sizeof count);
    exchange.answer();
    if constexpr (!std::is_void_v<Result>) {
        std::vector<Result> results;
        results.reserve(static_cast<std::size_t>(count));
        for (std::uint64_t i = 0; i < count; ++i) results.push_back(exchange.value<Result>());
        return results;
    }
}

/// How Proxy::apply calls.
template <class T, class F, class... Args>
auto apply_in_server(T& object, F f, Args... args) {
    return std::invoke(f, object, std::move(args)...);
}

template <class T>
template <class F, class... Args>
auto Proxy<T>::apply(F f, const Args&... args) const {
    static_assert(pickle::require_travelling_callable<F>);
    return BaseProxy::template call<
        T, &apply_in_server<T, F, typename signature::Travelling<const Args&>::type...>>(f, args...);
}

}  // namespace multiprocessing::managers
