// SPDX-License-Identifier: BSL-1.0
//
// A manager's server: a thread for each connection, and what is asked there. Answers Python's
// `managers.Server`.
#pragma once

#include <multiprocessing/connection/listener.hpp>
#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/managers/caller.hpp>
#include <multiprocessing/managers/entry.hpp>
#include <multiprocessing/managers/object.hpp>
#include <multiprocessing/managers/protocol.hpp>
#include <multiprocessing/managers/references.hpp>
#include <multiprocessing/os/clock.hpp>
#include <multiprocessing/os/epoll.hpp>
#include <multiprocessing/os/poll.hpp>
#include <multiprocessing/os/process.hpp>
#include <multiprocessing/os/random.hpp>
#include <multiprocessing/pickle/buffer.hpp>
#include <multiprocessing/pickle/exception.hpp>
#include <multiprocessing/pickle/message.hpp>
#include <multiprocessing/runtime/log.hpp>
#include <multiprocessing/runtime/this_process.hpp>

#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
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
#include <utility>

namespace multiprocessing::managers {

class Link;

/// What is registered under a name: makes the object, once.
using Factory = std::function<std::shared_ptr<Object>()>;
using Factories = std::map<std::string, Factory>;

class ServerState : public std::enable_shared_from_this<ServerState> {
public:
    ServerState(connection::Listener listener, Factories factories)
        : listener_(std::move(listener)), factories_(std::move(factories)) {}
    ServerState(const ServerState&) = delete;
    ServerState& operator=(const ServerState&) = delete;

    [[nodiscard]] const connection::Address& address() const noexcept { return listener_.address(); }
    [[nodiscard]] const connection::Listener& listener() const noexcept { return listener_; }
    [[nodiscard]] std::uint64_t id() const noexcept { return id_; }
    [[nodiscard]] References& references() noexcept { return references_; }
    [[nodiscard]] const std::atomic<bool>& stopping() const noexcept { return stopping_; }
    /// Rung when it is stopped.
    [[nodiscard]] const os::EventFd& stopped() const noexcept { return stopped_; }

    /// Accepts connections until it is stopped, or its listener is closed; then it is stopped.
    void serve();
    /// Has serve() return, and every connection end. *Thread safety*: yes.
    void stop() noexcept;
    /// Waits for the threads of the connections, at most until the deadline, and destroys the objects.
    void finish(os::Deadline deadline);

    /// A call, in any thread: writes the reply. `in` and `out` are what travels beside, which only a
    /// `local` caller can be given. Throws NobodyIsWaiting.
    void execute(const Caller& caller, std::span<const std::byte> request, pickle::Cargo& in,
                 pickle::Buffer& reply, std::optional<pickle::Cargo>& out, bool local);

    // The way of its own proxies to its objects; see local_link().
    std::mutex local_link_mutex;
    std::weak_ptr<Link> local_link;

private:
    struct Visit {  // a connection and its thread
        explicit Visit(Connection connection)
            : line(std::in_place, std::move(connection)) {}
        std::optional<Line> line;  // nothing once it has ended
        SessionId session;
        bool has_left = false;  // and its session knows; under the mutex
        std::thread thread;
    };
    struct NoEntry {};  // thrown
    /// One name: the factory is run once, by the first who asks.
    struct Named {
        std::mutex mutex;
        std::uint64_t object = 0;
    };

    void accept_all();
    /// Has sessions end with their clients: the thread of a connection may be in a call, for long.
    void watch_for_departures();
    void attend(Visit& visit);
    void answer_all(Visit& visit);
    /// With the mutex held, which their threads have no more use for.
    void forget_ended_visits();
    void greet(Visit& visit);
    static void warn(const char* what, const std::exception& error);
    void dispatch(Request request, Call& call);
    void call_object(Call& call);
    [[nodiscard]] std::uint64_t find_named(const std::string& name, std::uint64_t type,
                                           const std::string& type_name);
    [[nodiscard]] EntryFunction entry(const EntryName& name);

    const std::uint64_t id_ = os::random_number();
    connection::Listener listener_;
    const Factories factories_;
    EntryTable entries_;
    References references_;
    std::atomic<bool> stopping_{false};
    const os::EventFd stopped_;

    std::mutex mutex_;  // guards what follows, and is held for moments only
    std::condition_variable visits_ended_;
    std::map<std::string, Named> named_;
    std::list<Visit> visits_;
    const os::Epoll departures_;  // of visits
};

// ---------------------------------------------------------------------------------------------------

// Connections.

inline void ServerState::serve() {
    std::thread watching([this] { watch_for_departures(); });
    try {
        accept_all();
    } catch (...) {
        stop();
        watching.join();
        throw;
    }
    stop();
    watching.join();
}

inline void ServerState::accept_all() {
    while (!stopping_) {
        try {
            Connection connection = listener_.accept();
            const std::scoped_lock lock(mutex_);
            if (stopping_) return;  // who stops it has hung up all there were
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
            warn("refuses a client", error);
        } catch (const std::system_error& error) {
            if (stopping_ || listener_.closed()) return;
            // No thread or no descriptor for it: those who are served go on.
            warn("cannot serve a client", error);
            os::poll(stopped_.get(), os::poll_in, os::Deadline::after(std::chrono::milliseconds(10)));
        }
    }
}

inline void ServerState::watch_for_departures() {
    std::array entries{os::PollEntry{departures_.get(), os::poll_in, 0},
                       os::PollEntry{stopped_.get(), os::poll_in, 0}};
    while (!stopping_) {
        os::poll(entries, os::Deadline::never());
        std::array<SessionId, 64> left;
        std::size_t count = 0;
        {
            const std::scoped_lock lock(mutex_);
            std::array<void*, left.size()> tags{};
            for (void* const tag : departures_.ready(tags)) {
                Visit& visit = *static_cast<Visit*>(tag);
                departures_.remove(visit.line->fileno());
                visit.has_left = true;
                left[count++] = visit.session;
            }
        }
        for (const SessionId& session : std::span(left).first(count)) references_.leave(session);
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
    }
    references_.clear();
}

inline void ServerState::attend(Visit& visit) {
    try {
        greet(visit);
    } catch (...) {  // it has gone, or is no client of ours
        return;
    }
    answer_all(visit);
    bool had_left = false;
    {
        const std::scoped_lock lock(mutex_);
        departures_.remove(visit.line->fileno());
        had_left = std::exchange(visit.has_left, true);
    }
    if (had_left) {
        references_.abandon(visit.session);
    } else {
        references_.leave(visit.session);
    }
}

inline void ServerState::answer_all(Visit& visit) {
    const Caller caller(references_, stopping_, visit.session, visit.line->fileno());
    try {
        const std::scoped_lock lock(mutex_);
        departures_.add_for_departure(visit.line->fileno(), &visit);
    } catch (const std::system_error& error) {
        return warn("cannot serve a client", error);
    }
    try {
        while (!stopping_) {
            pickle::Scratch request;
            std::optional<runtime::ReceivedObject> message;
            visit.line->receive(*request, message);
            pickle::Scratch reply;
            std::optional<pickle::Cargo> cargo;
            execute(caller, message->body(), message->cargo(), *reply, cargo,
                    visit.line->is_local());
            visit.line->send(*reply, *cargo);
        }
    } catch (const NobodyIsWaiting&) {
    } catch (const EOFError&) {
    } catch (const std::system_error&) {  // it has gone without its reply
    } catch (const std::exception& error) {
        warn("gives up a connection", error);
    }
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
    references_.enter(session, parent);
    out.put(Reply::value);
    out.put(id_);
    try {
        visit.line->send(*reply, nothing);
    } catch (...) {
        references_.leave(session);
        throw;
    }
}

inline void ServerState::warn(const char* what, const std::exception& error) {
    runtime::log_at(runtime::log_level::warning, [&] {
        return "the manager's server " + std::string(what) + ": " + error.what();
    });
}

// Calls.

inline void ServerState::execute(const Caller& caller, std::span<const std::byte> request,
                                 pickle::Cargo& in, pickle::Buffer& reply,
                                 std::optional<pickle::Cargo>& out, bool local) {
    const Executing::Scope scope({this, &caller, false});
    const std::size_t begin = reply.size();
    const char* const carrier = "a reply to another machine";
    out.emplace(local, carrier, local);
    try {
        pickle::IArchive request_archive(request, &in);
        pickle::OArchive reply_archive(reply, &*out);
        reply_archive.put(Reply::value);
        Call call{caller, nullptr, request_archive, reply_archive};
        pickle::while_unpickling(request_archive, [&] {
            dispatch(request_archive.get<Request>(), call);
        });
    } catch (const NobodyIsWaiting&) {
        throw;
    } catch (const NoEntry&) {
        reply.truncate(begin);
        pickle::OArchive(reply).put(Reply::no_entry);
    } catch (...) {
        reply.truncate(begin);
        out.emplace(local, carrier, local);
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
        references_.grant(session, object);
        return call.out.put(object);
    }
    case Request::lend: return call.out.put(references_.lend(call.in.get<std::uint64_t>()));
    case Request::redeem: {
        const auto token = call.in.get<std::uint64_t>();
        return references_.redeem(session, token, call.in.get<std::uint64_t>());
    }
    case Request::release: return references_.release(session, call.in.get<std::uint64_t>());
    case Request::count:
        return call.out.put(static_cast<std::uint64_t>(references_.objects()));
    case Request::stop: return stop();
    case Request::hello: break;
    }
    throw UnpicklingError("the manager's server does not know this request");
}

inline void ServerState::call_object(Call& call) {
    const std::shared_ptr<Object> object = references_.find(call.in.get<std::uint64_t>());
    call.object = object.get();
    entry(call.in.get<EntryName>())(call);
}

inline EntryFunction ServerState::entry(const EntryName& name) {
    if (const EntryFunction function = entries_.find(name)) return function;
    throw NoEntry();
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
    if (named->object == 0) {
        named->object = references_.add(references_.own_session(), factory->second());
    }
    if (const auto object = references_.find(named->object); object->type() != type) {
        throw ValueError("the object '" + name + "' of the manager's server is a " +
                         object->type_name() + ", and no " + type_name);
    }
    return named->object;
}

}  // namespace multiprocessing::managers
