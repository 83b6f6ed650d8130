// SPDX-License-Identifier: BSL-1.0
//
// A manager's server: the objects, who has references of them, and a thread for each connection.
// Answers Python's `managers.Server`.
#pragma once

#include <multiprocessing/connection/listener.hpp>
#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/managers/entry.hpp>
#include <multiprocessing/managers/object.hpp>
#include <multiprocessing/managers/protocol.hpp>
#include <multiprocessing/os/clock.hpp>
#include <multiprocessing/os/poll.hpp>
#include <multiprocessing/os/process.hpp>
#include <multiprocessing/os/random.hpp>
#include <multiprocessing/pickle/buffer.hpp>
#include <multiprocessing/pickle/exception.hpp>
#include <multiprocessing/pickle/message.hpp>
#include <multiprocessing/runtime/log.hpp>
#include <multiprocessing/runtime/this_process.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

namespace multiprocessing::managers {

class Link;

/// What is registered under a name: makes the object, once.
using Factory = std::function<std::shared_ptr<Object>()>;
using Factories = std::map<std::string, Factory>;

/// Thrown in a call whose client has gone, or whose server is to end: there is nobody to tell.
struct NobodyIsWaiting {};

/// Who a call is made for.
class Caller {
public:
    Caller(ServerState& server, SessionId session, int connection) noexcept
        : server_(server), session_(session), connection_(connection) {}

    [[nodiscard]] const SessionId& session() const noexcept { return session_; }
    [[nodiscard]] ServerState& server() const noexcept { return server_; }
    /// Throws NobodyIsWaiting if that is so.
    void check() const;
    /// Waits until `ready()` or the deadline; which it was. Looks now and then whether anybody still
    /// waits for the result: there is no descriptor to wait for together with what other threads do.
    template <class Ready>
    bool wait(std::unique_lock<std::mutex>& lock, std::condition_variable& changed,
              os::Deadline deadline, Ready ready) const {
        while (!ready()) {
            if (deadline.expired()) return false;
            changed.wait_for(lock, std::min(deadline.is_never() ? look : deadline.remaining(), look));
            check();
        }
        return true;
    }
    /// The same for what has a wait of its own: `attempt(Timeout)` is true when it has succeeded.
    template <class Attempt>
    bool wait(os::Deadline deadline, Attempt attempt) const {
        for (;;) {
            const auto left = deadline.is_never() ? look : deadline.remaining();
            if (attempt(Timeout(std::min(left, look)))) return true;
            if (deadline.expired()) return false;
            check();
        }
    }

    static constexpr std::chrono::nanoseconds look = std::chrono::milliseconds(100);

private:
    ServerState& server_;
    SessionId session_;
    int connection_;  // -1: the server itself
};

class ServerState : public std::enable_shared_from_this<ServerState> {
public:
    ServerState(connection::Listener listener, Factories factories)
        : listener_(std::move(listener)), factories_(std::move(factories)) {}
    ServerState(const ServerState&) = delete;
    ServerState& operator=(const ServerState&) = delete;

    [[nodiscard]] const connection::Address& address() const noexcept { return listener_.address(); }
    [[nodiscard]] const connection::Listener& listener() const noexcept { return listener_; }
    [[nodiscard]] std::uint64_t id() const noexcept { return id_; }
    /// The references of what is in the server itself: proxies among the values of a dict.
    [[nodiscard]] const SessionId& own_session() const noexcept { return own_; }
    [[nodiscard]] bool stopping() const noexcept { return stopping_.load(); }
    /// Rung when it is stopped.
    [[nodiscard]] const os::EventFd& stopped() const noexcept { return stopped_; }

    /// Accepts connections until it is stopped.
    void serve();
    /// Has serve() return, and every connection end. *Thread safety*: yes.
    void stop() noexcept;
    /// Waits for the threads of the connections, at most until the deadline, and destroys the objects.
    void finish(os::Deadline deadline);

    /// A call, in any thread: writes the reply. `in` and `out` are what travels beside. Throws
    /// NobodyIsWaiting.
    void execute(const Caller& caller, std::span<const std::byte> request, pickle::Cargo* in,
                 pickle::Buffer& reply, std::optional<pickle::Cargo>& out,
                 const std::function<void()>& renew_cargo);

    /// Throws std::runtime_error for one that has ended.
    [[nodiscard]] std::shared_ptr<Object> find(std::uint64_t id);
    /// A new object, of which the caller has the only reference.
    std::uint64_t add(const SessionId& session, std::shared_ptr<Object> object);
    /// Another reference for a session, as for what a reply bears.
    void grant(const SessionId& session, std::uint64_t object);
    /// Gives one up. The object may end.
    void release(const SessionId& session, std::uint64_t object) noexcept;
    /// A reference that is of no session until somebody redeems it.
    [[nodiscard]] std::uint64_t lend(std::uint64_t object);
    void redeem(const SessionId& session, std::uint64_t token, std::uint64_t object);
    /// A connection of a session begins. One that is new has its parent's references, if it has one.
    void enter(const SessionId& session, const SessionId& parent);
    /// And ends; with the last the session does.
    void leave(const SessionId& session) noexcept;


    // The way of its own proxies to its objects; see local_link().
    std::mutex local_link_mutex;
    std::weak_ptr<Link> local_link;

private:
    using ObjectPointer = std::shared_ptr<Object>;
    struct Session {
        std::unordered_map<std::uint64_t, std::uint64_t> references;
        int connections = 0;
    };
    struct Visit {  // a connection and its thread
        explicit Visit(Connection connection)
            : line(std::in_place, std::move(connection)) {}
        std::optional<Line> line;  // nothing once it has ended
        SessionId session;
        std::thread thread;
    };
    /// One name: the factory is run once, by the first who asks.
    struct Named {
        std::mutex mutex;
        std::uint64_t object = 0;
    };

    void attend(Visit& visit);
    /// With the mutex held, which their threads have no more use for.
    void forget_ended_visits();
    void greet(Visit& visit);
    void dispatch(Request request, Call& call);
    void call_object(Call& call);
    [[nodiscard]] std::uint64_t find_named(const std::string& name, std::uint64_t type,
                                           const std::string& type_name);
    [[nodiscard]] EntryFunction entry(const EntryName& name);
    // Under the mutex; what ends is added to `ended`, to be destroyed without it.
    void drop(std::uint64_t id, std::uint64_t count, std::vector<ObjectPointer>& ended) noexcept;
    /// Destroys objects, and those of which they held the last references, one after the other.
    static void destroy(std::vector<ObjectPointer> objects) noexcept;

    const std::uint64_t id_ = os::random_number();
    const SessionId own_ = SessionId::make();
    connection::Listener listener_;
    const Factories factories_;
    EntryTable entries_;
    std::atomic<bool> stopping_{false};
    const os::EventFd stopped_;

    std::mutex mutex_;  // guards what follows, and is held for moments only
    std::condition_variable visits_ended_;
    std::unordered_map<std::uint64_t, ObjectPointer> objects_;
    std::map<SessionId, Session> sessions_;
    std::unordered_map<std::uint64_t, std::uint64_t> lent_;  // objects by token
    std::map<std::string, Named> named_;
    std::list<Visit> visits_;
    std::uint64_t next_object_ = 1;
};

// ---------------------------------------------------------------------------------------------------

inline void Caller::check() const {
    if (server_.stopping() || (connection_ >= 0 && os::peer_has_left(connection_))) {
        throw NobodyIsWaiting();
    }
}

template <class T, class... Args>
void Creation<T, Args...>::run(Call& call) {
    std::tuple<Args...> args{pickle::load_new<Args>(call.in)...};
    auto object = std::apply(
        [](Args&... each) {
            static_assert(std::constructible_from<T, Args&&...> || std::is_aggregate_v<T>,
                          "the managed object's class has no constructor for these arguments");
            return std::make_shared<Managed<T>>([&] {
                if constexpr (std::constructible_from<T, Args&&...>) {
                    return T(std::move(each)...);
                } else {
                    return T{std::move(each)...};
                }
            });
        },
        args);
    call.out.put(call.server.add(call.caller.session(), std::move(object)));
}

// Connections.

inline void ServerState::serve() {
    while (!stopping()) {
        try {
            Connection connection = listener_.accept();
            const std::scoped_lock lock(mutex_);
            forget_ended_visits();
            Visit& visit = visits_.emplace_back(std::move(connection));
            try {
                visit.thread = std::thread([this, &visit] {
                    attend(visit);
                    const std::scoped_lock end(mutex_);
                    visit.line.reset();
                    visits_ended_.notify_all();
                });
            } catch (...) {
                visits_.pop_back();
                throw;
            }
        } catch (const AuthenticationError& error) {
            runtime::log_at(runtime::log_level::warning, [&] {
                return "the manager's server refuses a client: " + std::string(error.what());
            });
        } catch (const std::system_error& error) {
            if (stopping() || listener_.closed()) return;
            // No thread or no descriptor for it: those who are served go on.
            runtime::log_at(runtime::log_level::warning, [&] {
                return "the manager's server cannot serve a client: " + std::string(error.what());
            });
            std::this_thread::sleep_for(std::chrono::milliseconds(10));
        }
    }
}

inline void ServerState::stop() noexcept {
    stopping_ = true;
    stopped_.ring();
    listener_.close();
    const std::scoped_lock lock(mutex_);
    for (const Visit& visit : visits_) {
        if (visit.line) visit.line->hang_up();
    }
}

inline void ServerState::forget_ended_visits() {
    std::erase_if(visits_, [](Visit& visit) {
        if (visit.line) return false;
        visit.thread.join();  // there is nothing that it could wait for
        return true;
    });
}

inline void ServerState::finish(os::Deadline deadline) {
    std::vector<ObjectPointer> ended;
    {
        std::unique_lock lock(mutex_);
        for (;;) {
            forget_ended_visits();
            if (visits_.empty() || deadline.expired()) break;
            visits_ended_.wait_for(lock, deadline.remaining());
        }
        if (!visits_.empty()) {
            // Somewhere in an object's function, which does not come back: all is left to them.
            for (Visit& visit : visits_) visit.thread.detach();
            static_cast<void>(new std::shared_ptr<ServerState>(shared_from_this()));
            return;
        }
        for (auto& [id, object] : objects_) ended.push_back(std::move(object));
        objects_.clear();
        sessions_.clear();
        lent_.clear();
    }
    destroy(std::move(ended));
}

inline void ServerState::attend(Visit& visit) {
    try {
        greet(visit);
    } catch (...) {  // it has gone, or is no client of ours
        return;
    }
    const Caller caller(*this, visit.session, visit.line->fileno());
    try {
        while (!stopping()) {
            pickle::Scratch request;
            std::optional<runtime::ReceivedObject> message;
            visit.line->receive(*request, message);
            pickle::Scratch reply;
            std::optional<pickle::Cargo> cargo;
            execute(caller, message->body(), &message->cargo(), *reply, cargo,
                    [&] {
                        cargo.emplace(visit.line->is_local(), "a reply to another machine");
                        if (!visit.line->is_local()) cargo->set_leaves_machine();
                    });
            visit.line->send(*reply, *cargo);
        }
    } catch (const NobodyIsWaiting&) {
    } catch (const EOFError&) {
    } catch (const std::system_error&) {  // it has gone without its reply
    } catch (const std::exception& error) {
        runtime::log_at(runtime::log_level::warning, [&] {
            return "the manager's server gives up a connection: " + std::string(error.what());
        });
    }
    leave(visit.session);
}

inline void ServerState::greet(Visit& visit) {
    pickle::Scratch request;
    std::optional<runtime::ReceivedObject> message;
    visit.line->receive(*request, message);
    pickle::IArchive in(message->body());
    const auto kind = in.get<Request>();
    const auto version = in.get<std::uint32_t>();
    const auto session = in.get<SessionId>();
    const auto parent = in.get<SessionId>();
    pickle::Scratch reply;
    pickle::OArchive out(*reply);
    pickle::Cargo nothing;
    if (kind != Request::hello || version != protocol_version) {
        out.put(Reply::exception);
        pickle::dump_exception(std::make_exception_ptr(std::runtime_error(
                                   "the manager's server is of another version of this library")),
                               *reply, os::this_pid(),
                               runtime::this_process().self->current_name());
        visit.line->send(*reply, nothing);
        throw EOFError("another version");
    }
    visit.session = session;
    enter(session, parent);
    out.put(Reply::value);
    out.put(id_);
    try {
        visit.line->send(*reply, nothing);
    } catch (...) {
        leave(session);
        throw;
    }
}

// Calls.

inline void ServerState::execute(const Caller& caller, std::span<const std::byte> request,
                                 pickle::Cargo* in, pickle::Buffer& reply,
                                 std::optional<pickle::Cargo>& out,
                                 const std::function<void()>& renew_cargo) {
    const Executing::Scope scope({this, &caller, false});
    const std::size_t begin = reply.size();
    renew_cargo();
    try {
        pickle::IArchive request_archive(request, in);
        pickle::OArchive reply_archive(reply, &*out);
        reply_archive.put(Reply::value);
        Call call{*this, const_cast<Caller&>(caller), nullptr, request_archive, reply_archive};
        pickle::while_unpickling(request_archive, [&] {
            dispatch(request_archive.get<Request>(), call);
        });
    } catch (const NobodyIsWaiting&) {
        throw;
    } catch (...) {
        reply.truncate(begin);
        renew_cargo();
        pickle::OArchive(reply).put(Reply::exception);
        pickle::dump_exception(std::current_exception(), reply, os::this_pid(),
                               runtime::this_process().self->current_name());
    }
}

inline void ServerState::dispatch(Request request, Call& call) {
    const SessionId& session = call.caller.session();
    switch (request) {
    case Request::call: return call_object(call);
    case Request::create: return entry(call.in.get<EntryName>())(call);
    case Request::find: {
        std::string name;
        std::string type_name;
        call.in >> name;
        const auto type = call.in.get<std::uint64_t>();
        call.in >> type_name;
        const std::uint64_t object = find_named(name, type, type_name);
        grant(session, object);
        return call.out.put(object);
    }
    case Request::lend: return call.out.put(lend(call.in.get<std::uint64_t>()));
    case Request::redeem: {
        const auto token = call.in.get<std::uint64_t>();
        return redeem(session, token, call.in.get<std::uint64_t>());
    }
    case Request::release: return release(session, call.in.get<std::uint64_t>());
    case Request::count: {
        const std::scoped_lock lock(mutex_);
        return call.out.put(static_cast<std::uint64_t>(objects_.size()));
    }
    case Request::stop: return stop();
    case Request::hello: break;
    }
    throw UnpicklingError("the manager's server does not know this request");
}

inline void ServerState::call_object(Call& call) {
    const ObjectPointer object = find(call.in.get<std::uint64_t>());
    call.object = object.get();
    entry(call.in.get<EntryName>())(call);
}

inline EntryFunction ServerState::entry(const EntryName& name) {
    if (const EntryFunction function = entries_.find(name)) return function;
    throw std::runtime_error(
        "the program of the manager's server has no such function of a managed object: where client "
        "and server are different programs, the server's is to name each function that clients call, "
        "by mp::managers::expose<T, &T::function>()");
}

inline std::shared_ptr<Object> ServerState::find(std::uint64_t id) {
    const std::scoped_lock lock(mutex_);
    const auto found = objects_.find(id);
    if (found == objects_.end()) {
        throw std::runtime_error("the managed object has ended: all its proxies were gone before this "
                                 "one was used");
    }
    return found->second;
}

inline std::uint64_t ServerState::find_named(const std::string& name, std::uint64_t type,
                                             const std::string& type_name) {
    const auto factory = factories_.find(name);
    if (factory == factories_.end()) {
        std::string known;
        for (const auto& each : factories_) known += (known.empty() ? "" : ", ") + each.first;
        throw KeyError("the manager's server has no object '" + name + "': registered are " +
                       (known.empty() ? "none" : known));
    }
    Named* named = nullptr;
    {
        const std::scoped_lock lock(mutex_);
        named = &named_[name];
    }
    const std::scoped_lock once(named->mutex);
    if (named->object == 0) named->object = add(own_, factory->second());
    if (const ObjectPointer object = find(named->object); object->type() != type) {
        throw ValueError("the object '" + name + "' of the manager's server is a " +
                         object->type_name() + ", and no " + type_name);
    }
    return named->object;
}

// References.

inline std::uint64_t ServerState::add(const SessionId& session, std::shared_ptr<Object> object) {
    const std::scoped_lock lock(mutex_);
    const std::uint64_t id = next_object_++;
    object->references = 1;
    objects_.emplace(id, std::move(object));
    ++sessions_[session].references[id];
    return id;
}

inline void ServerState::grant(const SessionId& session, std::uint64_t object) {
    const ObjectPointer found = find(object);
    const std::scoped_lock lock(mutex_);
    ++found->references;
    ++sessions_[session].references[object];
}

inline void ServerState::drop(std::uint64_t id, std::uint64_t count,
                              std::vector<ObjectPointer>& ended) noexcept {
    const auto found = objects_.find(id);
    if (found == objects_.end() || (found->second->references -= count) != 0) return;
    ended.push_back(std::move(found->second));
    objects_.erase(found);
}

inline void ServerState::release(const SessionId& session, std::uint64_t object) noexcept {
    std::vector<ObjectPointer> ended;
    {
        const std::scoped_lock lock(mutex_);
        const auto holder = sessions_.find(session);
        if (holder == sessions_.end()) return;
        const auto held = holder->second.references.find(object);
        if (held == holder->second.references.end()) return;
        if (--held->second == 0) holder->second.references.erase(held);
        drop(object, 1, ended);
    }
    destroy(std::move(ended));
}

inline std::uint64_t ServerState::lend(std::uint64_t object) {
    const ObjectPointer found = find(object);
    const std::scoped_lock lock(mutex_);
    const std::uint64_t token = os::random_number();
    lent_.emplace(token, object);
    ++found->references;
    return token;
}

inline void ServerState::redeem(const SessionId& session, std::uint64_t token,
                                std::uint64_t object) {
    const ObjectPointer found = find(object);
    const std::scoped_lock lock(mutex_);
    // A message that is read twice has used its reference up the first time.
    const auto lent = lent_.find(token);
    if (lent != lent_.end() && lent->second == object) {
        lent_.erase(lent);
    } else {
        ++found->references;
    }
    ++sessions_[session].references[object];
}

inline void ServerState::enter(const SessionId& session, const SessionId& parent) {
    const std::scoped_lock lock(mutex_);
    const auto [entered, is_new] = sessions_.try_emplace(session);
    ++entered->second.connections;
    const auto forked_from = sessions_.find(parent);
    if (!is_new || forked_from == sessions_.end()) return;
    entered->second.references = forked_from->second.references;
    for (const auto& [id, count] : entered->second.references) {
        objects_.at(id)->references += count;
    }
}

inline void ServerState::leave(const SessionId& session) noexcept {
    std::vector<ObjectPointer> ended;
    std::vector<ObjectPointer> all;
    {
        const std::scoped_lock lock(mutex_);
        const auto leaving = sessions_.find(session);
        if (leaving == sessions_.end() || --leaving->second.connections != 0) return;
        for (const auto& [id, count] : leaving->second.references) drop(id, count, ended);
        sessions_.erase(leaving);
        for (const auto& [id, object] : objects_) all.push_back(object);
    }
    for (const ObjectPointer& object : all) object->abandon(session);
    destroy(std::move(ended));
    destroy(std::move(all));
}

inline void ServerState::destroy(std::vector<ObjectPointer> objects) noexcept {
    // What an object held may be the last of another, and so on: no deeper than this, however long.
    static thread_local std::vector<ObjectPointer>* waiting = nullptr;
    if (waiting != nullptr) {
        for (ObjectPointer& object : objects) waiting->push_back(std::move(object));
        return;
    }
    waiting = &objects;
    while (!objects.empty()) {
        const ObjectPointer last = std::move(objects.back());
        objects.pop_back();
    }
    waiting = nullptr;
}

}  // namespace multiprocessing::managers
