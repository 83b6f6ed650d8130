// SPDX-License-Identifier: BSL-1.0
//
// `BaseManager`: a server of objects, started as a process, or run by this one, or connected to from
// anywhere. Answers Python's `managers.BaseManager`.
#pragma once

#include <multiprocessing/bytes.hpp>
#include <multiprocessing/connection/address.hpp>
#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/managers/creation.hpp>
#include <multiprocessing/managers/link.hpp>
#include <multiprocessing/managers/proxy.hpp>
#include <multiprocessing/managers/registered.hpp>
#include <multiprocessing/managers/remote_link.hpp>
#include <multiprocessing/managers/server.hpp>
#include <multiprocessing/managers/server_process.hpp>
#include <multiprocessing/os/fork.hpp>
#include <multiprocessing/pickle.hpp>
#include <multiprocessing/process.hpp>
#include <multiprocessing/runtime/action.hpp>
#include <multiprocessing/runtime/start_method.hpp>
#include <multiprocessing/timeout.hpp>

#include <cerrno>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <system_error>
#include <type_traits>
#include <utility>
#include <vector>

namespace multiprocessing::managers {

/// The keyword arguments of `BaseManager` and `SyncManager`.
struct BaseManagerOptions {
    /// Where the server listens, or is connected to. Left out: an address of its own on this machine.
    std::optional<connection::Address> address = std::nullopt;
    /// What clients must know. Left out: this process's key, which its children have.
    std::optional<bytes> authkey = std::nullopt;
    /// The start method of the server, as `mp::get_context("spawn")`. Left out: the default one.
    std::optional<runtime::ContextBase> ctx = std::nullopt;
    /// How long `shutdown()` waits for the server before it ends it by force.
    Timeout shutdown_timeout = 1.0;
    /// For connecting, and for each answer beside what the call itself may wait: then TimeoutError is
    /// thrown. Python has none. That a network has lost the server is found out within half a minute
    /// in any case.
    Timeout timeout = {};
};

/// A manager of objects that processes use by proxies, on this machine or on others.
///
///     BaseManager server({.address = Address("", 5000), .authkey = "secret"});
///     server.register_object("counter", [] { return Counter(); });
///     server.get_server().serve_forever();
///
///     BaseManager client({.address = Address("host", 5000), .authkey = "secret"});   // elsewhere
///     client.connect();
///     client.object<Counter>("counter").call<&Counter::add>(3);
///
/// `start()` instead of `get_server()` has a child of this process serve. The programs may be the same
/// or others that were built from the same source: functions go by their names, and a server knows
/// those that are called anywhere in its program, or that `expose<T, &T::f>()` names.
/// A handle: when the last one in the process that has started the server goes, the server is shut
/// down. A copy in another process is one that is connected.
/// *Throws*: ProcessError when it is started twice, ValueError when it is used before.
/// *Process safety*: all calls, from any thread.
/// *If a process dies*: when the one that started the server does, the server ends within a second;
/// when the server does, every call of a proxy throws.
/// *Python*: `multiprocessing.managers.BaseManager`.
class BaseManager {
public:
    explicit BaseManager(BaseManagerOptions options = {})
        : state_(std::make_shared<State>(std::move(options))) {}
    // Not to be moved from: a handle is one of the same manager for as long as it lives.
    BaseManager(const BaseManager&) = default;
    BaseManager& operator=(const BaseManager&) = default;
    ~BaseManager() = default;

    /// Has the server know an object: `factory()` makes it, once, there, when it is first asked for. It
    /// may return a std::map (for a dict), std::vector (list), std::set, mp::Queue, an object of any
    /// other class, or a std::shared_ptr of one that the server's program uses as well. Before
    /// start() or get_server(). *Throws* AssertionError after that, ValueError for a name that is taken.
    template <class F>
        requires std::invocable<const F&>
    void register_object(const std::string& name, F factory) const;
    /// A proxy of the object of that name: `Proxy<T>`, or that of a dict, list, set or queue if T is a
    /// std::map, std::vector, std::set or mp::Queue. *Throws* KeyError, naming those that there are;
    /// ValueError when it is of another type.
    template <class T>
    [[nodiscard]] proxy_for_t<T> object(const std::string& name) const;
    /// A new object of class T, made in the server from copies of these; it ends with its last proxy.
    template <class T, class... Args>
    [[nodiscard]] Proxy<T> create(const Args&... args) const {
        return make<Proxy<T>>(args...);
    }

    /// Starts a process that serves, and runs `initializer` first there. *Throws* ProcessError when the
    /// manager was started or connected before, or when the server ends before it serves (the
    /// initializer threw); std::system_error when it cannot listen.
    void start(runtime::Action initializer = {}) const;
    /// The same with what the initializer is called with.
    template <class F, class... Args>
        requires(sizeof...(Args) != 0)
    void start(F initializer, const Args&... args) const {
        start(runtime::Action(partial(std::move(initializer), args...)));
    }
    /// Connects to a server that listens at the address. *Throws* AuthenticationError when the keys
    /// differ, std::system_error when nobody listens, TimeoutError; ValueError without an address.
    void connect() const;
    /// A server for this process to run.
    [[nodiscard]] Server get_server() const;
    /// Ends the server, by force if it does not end by itself; also one that was connected to. Harmless
    /// when done twice. *Throws* AssertionError before start() or connect().
    void shutdown() const;
    /// Waits for the end of the server that this process has started.
    void join(Timeout timeout = {}) const {
        if (const auto server = process()) server->join(timeout);
    }

    /// Where the server listens; before it does, where it is to.
    [[nodiscard]] connection::Address address() const;
    /// The server; nothing where this process has not started it.
    [[nodiscard]] std::optional<Process> process() const;
    /// How many objects the server has.
    [[nodiscard]] std::size_t number_of_objects() const {
        const LinkPointer way = link();
        return static_cast<std::size_t>(
            Exchange(*way, Request::count).number<std::uint64_t>());
    }

    /// The same manager?
    friend bool operator==(const BaseManager&, const BaseManager&) noexcept = default;

    using travels_as_handle = void;

protected:
    explicit BaseManager(pickle::Unread)
        : state_(std::make_shared<State>(BaseManagerOptions{})) {}
    friend struct pickle::HandleAccess;
    void save_handle(pickle::OArchive& archive) const;
    void load_handle(pickle::IArchive& archive);

    /// A new object, and its proxy P.
    template <class P, class... Args>
    [[nodiscard]] P make(const Args&... args) const;
    /// The same by an entry that reads what `write(OArchive&)` writes.
    template <class P, class Work, class Write>
    [[nodiscard]] P make_by(Write write) const;
    [[nodiscard]] static std::uint64_t object_of(const BaseProxy& proxy) noexcept {
        return proxy.reference().object();
    }

private:
    enum class Status { initial, started, connected, shut_down };
    struct State {
        explicit State(BaseManagerOptions given) : options(std::move(given)) {}
        BaseManagerOptions options;

        mutable os::ForkAwareMutex mutex;  // guards what follows
        Status status = Status::initial;
        std::vector<Registered> registered;
        std::optional<ServerProcess> server;
        LinkPointer link;
    };

    [[nodiscard]] LinkPointer link() const;
    [[nodiscard]] bytes authkey() const;
    void check_initial(const char* call) const;

    std::shared_ptr<State> state_;
};

/// Has servers of this program know how to make a T from these, for clients of other programs.
template <class T, class... Args>
void expose_creation() {
    static_cast<void>(
        Entry<Creation<T, typename signature::Travelling<const Args&>::type...>>::known);
}

// ---------------------------------------------------------------------------------------------------

inline void BaseManager::check_initial(const char* call) const {
    switch (state_->status) {
    case Status::initial: return;
    case Status::started: throw ProcessError(std::string(call) + "(): Already started server");
    case Status::connected: throw ProcessError(std::string(call) + "(): it is connected already");
    case Status::shut_down: throw ProcessError(std::string(call) + "(): Manager has shut down");
    }
}

inline bytes BaseManager::authkey() const {
    return state_->options.authkey ? *state_->options.authkey : current_process().authkey();
}

inline void BaseManager::start(runtime::Action initializer) const {
    const std::scoped_lock lock(state_->mutex);
    check_initial("BaseManager.start");
    const bytes key = authkey();
    state_->server.emplace("Manager", state_->options.ctx, state_->options.shutdown_timeout, [] {},
                           &serve_as_process, state_->options.address, key, state_->registered,
                           initializer);
    state_->options.address = pickle::loads<connection::Address>(state_->server->word());
    state_->status = Status::started;
    state_->link = make_link(*state_->options.address, key, state_->options.timeout);
}

inline void BaseManager::connect() const {
    const std::scoped_lock lock(state_->mutex);
    check_initial("BaseManager.connect");
    if (!state_->options.address) {
        throw ValueError("BaseManager.connect(): the manager has no address: give it one, as in "
                         "BaseManager({.address = server_address, .authkey = key})");
    }
    state_->link = make_link(*state_->options.address, authkey(), state_->options.timeout);
    state_->status = Status::connected;
}

inline Server BaseManager::get_server() const {
    const std::scoped_lock lock(state_->mutex);
    check_initial("BaseManager.get_server");
    return Server(state_->options.address, authkey(), state_->registered);
}

inline LinkPointer BaseManager::link() const {
    const std::scoped_lock lock(state_->mutex);
    if (state_->status == Status::initial) {
        throw ValueError("the manager's server is not yet started: call start() or connect() first");
    }
    if (state_->status == Status::shut_down) {
        throw std::system_error(ECONNREFUSED, std::system_category(), "the manager has shut down");
    }
    return state_->link;
}

inline void BaseManager::shutdown() const {
    std::optional<ServerProcess> server;
    LinkPointer link;
    {
        const std::scoped_lock lock(state_->mutex);
        if (state_->status == Status::initial) {
            throw AssertionError("BaseManager.shutdown(): it was neither started nor connected");
        }
        if (std::exchange(state_->status, Status::shut_down) == Status::shut_down) return;
        server = state_->server;
        link = std::exchange(state_->link, nullptr);
    }
    if (server && !server->ending()) {
        server->end();
    } else if (!server) {
        try {
            Exchange(*link, Request::stop).answer();
        } catch (const std::system_error&) {  // it has ended, without its answer or before
        }
    }
}

inline connection::Address BaseManager::address() const {
    const std::scoped_lock lock(state_->mutex);
    return state_->options.address.value_or(connection::Address());
}

inline std::optional<Process> BaseManager::process() const {
    const std::scoped_lock lock(state_->mutex);
    return state_->server ? state_->server->process() : std::nullopt;
}

inline void BaseManager::save_handle(pickle::OArchive& archive) const {
    const LinkPointer way = link();
    archive.put(way->server());
    pickle::save_value(archive, way->address());
    const bool secret = archive.has_cargo() && archive.cargo().stays_here();
    pickle::save_value(archive, secret ? way->authkey() : std::nullopt);
}

inline void BaseManager::load_handle(pickle::IArchive& archive) {
    const auto server = archive.get<std::uint64_t>();
    connection::Address address;
    std::optional<bytes> key;
    pickle::load_value(archive, address);
    pickle::load_value(archive, key);
    state_->options.address = address;
    state_->options.authkey = key;
    state_->link = link_to(server, address, authkey(), {});
    state_->status = Status::connected;
}

template <class F>
    requires std::invocable<const F&>
void BaseManager::register_object(const std::string& name, F factory) const {
    const std::scoped_lock lock(state_->mutex);
    if (state_->status != Status::initial) {
        throw AssertionError("BaseManager.register_object('" + name +
                             "'): the server has begun: register before start() or connect()");
    }
    for (const Registered& each : state_->registered) {
        if (each.name == name) {
            throw ValueError("BaseManager.register_object(): '" + name + "' is registered already");
        }
    }
    using T = std::remove_cvref_t<std::invoke_result_t<const F&>>;
    if constexpr (!is_shared_pointer<T>) {
        // What proxies of this kind call, for clients of other programs.
        if constexpr (requires { proxy_for_t<T>::expose_all(); }) proxy_for_t<T>::expose_all();
    }
    state_->registered.push_back({name, partial(&make_registered<F>, std::move(factory))});
}

template <class T>
proxy_for_t<T> BaseManager::object(const std::string& name) const {
    using P = proxy_for_t<T>;
    using Referent = typename P::Referent;
    const LinkPointer way = link();
    Exchange exchange(*way, Request::find);
    pickle::save_value(exchange.out(), name);
    exchange.out().put(pickle::type_hash<Referent>());
    pickle::save_value(exchange.out(), pickle::type_name<Referent>());
    const auto object = exchange.number<std::uint64_t>();
    return P(std::make_shared<Reference>(way, object));
}

template <class P, class Work, class Write>
P BaseManager::make_by(Write write) const {
    const LinkPointer way = link();
    Exchange exchange(*way, Request::create);
    exchange.put_entry<Work>();
    pickle::while_pickling([&] { write(exchange.out()); });
    const auto object = exchange.number<std::uint64_t>();
    return P(std::make_shared<Reference>(way, object));
}

template <class P, class... Args>
P BaseManager::make(const Args&... args) const {
    using T = typename P::Referent;
    static_assert((pickle::Picklable<typename signature::Travelling<const Args&>::type> && ...),
                  "what a managed object is made from must be picklable: give the type a serialize() as "
                  "Boost.Serialization asks for");
    using Work = Creation<T, typename signature::Travelling<const Args&>::type...>;
    return make_by<P, Work>([&](pickle::OArchive& out) { Work::write(out, args...); });
}

}  // namespace multiprocessing::managers
