// SPDX-License-Identifier: BSL-1.0
//
// A process's connections to a manager's server, as many as calls are made at the same time, and the
// session that its references are of. Answers the connections of Python's `BaseProxy`.
#pragma once

#include <multiprocessing/bytes.hpp>
#include <multiprocessing/connection/address.hpp>
#include <multiprocessing/connection/client.hpp>
#include <multiprocessing/connection/pipe.hpp>
#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/managers/link.hpp>
#include <multiprocessing/managers/protocol.hpp>
#include <multiprocessing/os/clock.hpp>
#include <multiprocessing/os/fork.hpp>
#include <multiprocessing/pickle/archive.hpp>
#include <multiprocessing/pickle/buffer.hpp>
#include <multiprocessing/pickle/exception.hpp>
#include <multiprocessing/runtime/fork_observer.hpp>
#include <multiprocessing/timeout.hpp>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <system_error>
#include <utility>
#include <vector>


namespace multiprocessing::managers {

/// To a server of another process, or another machine.
class RemoteLink final : public Link {
public:
    /// `timeout` is for connecting, and for each answer beside what the call itself may wait.
    RemoteLink(connection::Address address, std::optional<bytes> authkey, Timeout timeout);

    [[nodiscard]] std::uint64_t server() const override { return server_; }
    [[nodiscard]] const connection::Address& address() const override { return address_; }
    [[nodiscard]] const std::optional<bytes>& authkey() const override { return authkey_; }
    // Without "inline" here the first would be a key function, and the table in every program, with
    // all that these call.
    inline void release(std::uint64_t object) noexcept override;

    /// Before a fork: the child's session, with a connection that is the child's already.
    struct ForChild {
        std::shared_ptr<RemoteLink> link;
        SessionId session;
        Connection connection;
    };
    [[nodiscard]] std::optional<ForChild> prepare_child() noexcept;
    /// In the child.
    void adopt(ForChild mine);

protected:
    [[nodiscard]] bool is_local() const noexcept override { return local_; }
    inline void exchange(const pickle::Buffer& request, pickle::Cargo& cargo, Patience patience,
                         Answer& answer) override;

private:
    using LinePointer = std::unique_ptr<Line>;
    static constexpr std::chrono::nanoseconds fork_patience = std::chrono::seconds(1);

    /// A connection for one request: one that is idle, or a new one.
    [[nodiscard]] LinePointer take();
    void put_back(LinePointer line);
    /// One whose answer did not come in time is of no use, but keeps the session until another does.
    void put_aside(LinePointer line);
    [[nodiscard]] Connection connect(const SessionId& session, const SessionId& parent,
                                     Timeout timeout);
    [[nodiscard]] std::uint64_t greet(const Connection& connection, const SessionId& session,
                                      const SessionId& parent, Timeout timeout) const;
    /// In a forked child that nobody has told: a session of its own, and no connection.
    void renew_after_fork();
    [[nodiscard]] os::Deadline deadline(Patience patience) const;
    /// Throws std::system_error, as of a server that is gone where that is what the error says.
    [[noreturn]] void throw_failure(const std::system_error& error);
    [[noreturn]] void throw_gone(int error);

    const connection::Address address_;
    const std::optional<bytes> authkey_;
    const Timeout timeout_;
    const bool local_;
    std::uint64_t server_ = 0;
    std::atomic<bool> gone_{false};  // when last somebody tried

    mutable os::ForkAwareMutex mutex_;  // guards what follows
    std::uint32_t epoch_ = os::fork_epoch();
    SessionId session_ = SessionId::make();
    SessionId parent_;
    std::vector<LinePointer> idle_;
    std::vector<LinePointer> late_;
};

/// The link to a server, whose address and key are those of a message if there is none yet.
[[nodiscard]] LinkPointer link_to(std::uint64_t server, const connection::Address& address,
                                  const std::optional<bytes>& authkey, Timeout timeout);

// ---------------------------------------------------------------------------------------------------

// The connections.

inline RemoteLink::RemoteLink(connection::Address address, std::optional<bytes> authkey,
                              Timeout timeout)
    : address_(std::move(address)), authkey_(std::move(authkey)), timeout_(timeout),
      local_(address_.family() == "AF_UNIX") {
    Connection first = connection::Client(address_, {.authkey = authkey_, .timeout = timeout_});
    server_ = greet(first, session_, {}, timeout_);
    idle_.push_back(std::make_unique<Line>(std::move(first)));
}

inline Connection RemoteLink::connect(const SessionId& session, const SessionId& parent,
                                      Timeout timeout) {
    try {
        Connection connection = connection::Client(address_, {.authkey = authkey_, .timeout = timeout});
        if (greet(connection, session, parent, timeout) == server_) {
            gone_ = false;
            return connection;
        }
    } catch (const EOFError&) {  // it has ended at this moment
    } catch (const std::system_error& error) {
        throw_failure(error);
    }
    throw_gone(ECONNRESET);  // or there is another at its address
}

inline std::uint64_t RemoteLink::greet(const Connection& connection, const SessionId& session,
                                       const SessionId& parent, Timeout timeout) const {
    // Not a Line: it may be a child's.
    pickle::Scratch hello;
    pickle::OArchive out(*hello);
    out.put(Request::hello);
    out.put(protocol_version);
    out.put(session);
    out.put(parent);
    out.put(std::uint32_t{0});  // of shared objects
    connection.send_bytes(hello->span());
    if (!connection.poll(timeout)) {
        throw TimeoutError("the manager's server at " + address_.str() + " has not answered in time");
    }
    constexpr std::ptrdiff_t most = 1 << 16;
    const bytes answer = connection.recv_bytes(most);
    if (answer.size() < sizeof(Reply) + 4) throw EOFError("no manager's server answers");
    pickle::IArchive in(std::span(answer.data(), answer.size()).first(answer.size() - 4));
    if (in.get<Reply>() == Reply::exception) {
        std::rethrow_exception(
            pickle::load_exception(std::span(answer.data(), answer.size()).subspan(1)));
    }
    return in.get<std::uint64_t>();
}

inline RemoteLink::LinePointer RemoteLink::take() {
    SessionId session;
    SessionId parent;
    {
        const std::scoped_lock lock(mutex_);
        renew_after_fork();
        if (!idle_.empty()) {
            late_.clear();
            LinePointer line = std::move(idle_.back());
            idle_.pop_back();
            return line;
        }
        session = session_;
        parent = parent_;
    }
    auto line = std::make_unique<Line>(connect(session, parent, timeout_));
    const std::scoped_lock lock(mutex_);
    late_.clear();
    return line;
}

inline void RemoteLink::put_back(LinePointer line) {
    const std::scoped_lock lock(mutex_);
    idle_.push_back(std::move(line));
}

inline void RemoteLink::put_aside(LinePointer line) {
    const std::scoped_lock lock(mutex_);
    late_.push_back(std::move(line));
}

inline void RemoteLink::renew_after_fork() {
    if (std::exchange(epoch_, os::fork_epoch()) == os::fork_epoch()) return;
    // Their numbers are closed here, or somebody else's: forgotten, not destroyed.
    for (LinePointer& line : idle_) static_cast<void>(line.release());
    for (LinePointer& line : late_) static_cast<void>(line.release());
    idle_.clear();
    late_.clear();
    parent_ = std::exchange(session_, SessionId::make());
}

inline os::Deadline RemoteLink::deadline(Patience patience) const {
    if (timeout_.forever() || patience.forever()) return os::Deadline::never();
    return os::Deadline::after(*timeout_.span() + *patience.span());
}

inline void RemoteLink::throw_failure(const std::system_error& error) {
    switch (error.code().value()) {
    case ENOENT:  // of the socket's file
    case ECONNREFUSED: throw_gone(ECONNREFUSED);
    case EPIPE:
    case ECONNRESET: throw_gone(ECONNRESET);
    case EHOSTUNREACH:
    case ENETUNREACH:
    case ETIMEDOUT: throw_gone(error.code().value());
    default: throw error;
    }
}

inline void RemoteLink::throw_gone(int error) {
    gone_ = true;
    throw std::system_error(error, std::system_category(),
                            "the manager's server at " + address_.str() + " is gone");
}

inline void RemoteLink::exchange(const pickle::Buffer& request, pickle::Cargo& cargo,
                                 Patience patience, Answer& answer) {
    const os::Deadline until = deadline(patience);
    LinePointer line;
    try {
        line = take();
        line->send(request, cargo, until);
        line->receive(*answer.buffer, answer.message, until);
        // Before it is read, which may take more requests.
        put_back(std::move(line));
        answer.body = answer.message->body();
        answer.cargo = &answer.message->cargo();
    } catch (const TimeoutError&) {
        if (!line) throw;  // of connecting
        put_aside(std::move(line));
        throw TimeoutError("the manager's server at " + address_.str() +
                           " has not answered in time; whether it has done what was asked is not known");
    } catch (const PicklingError&) {  // it takes more along than a message can: nothing was sent
        put_back(std::move(line));
        throw;
    } catch (const EOFError&) {
        throw_gone(ECONNRESET);
    } catch (const std::system_error& error) {
        throw_failure(error);
    }
}

inline void RemoteLink::release(std::uint64_t object) noexcept {
    if (gone_) return;  // with everything
    try {
        Exchange exchange(*this, Request::release);
        exchange.out().put(object);
        exchange.answer();
    } catch (...) {  // the server is gone, or cannot be reached: it drops the session then
    }
}

// Forks.

inline std::optional<RemoteLink::ForChild> RemoteLink::prepare_child() noexcept {
    try {
        SessionId mine;
        {
            const std::scoped_lock lock(mutex_);
            renew_after_fork();
            mine = session_;
        }
        const SessionId session = SessionId::make();
        // Nobody's start is to wait for a server that hangs.
        Timeout timeout = fork_patience;
        if (!timeout_.forever()) timeout = std::min(*timeout_.span(), fork_patience);
        Connection connection = connect(session, mine, timeout);
        return ForChild{std::static_pointer_cast<RemoteLink>(shared_from_this()), session,
                        std::move(connection)};
    } catch (...) {  // the child's first call will say why
        return std::nullopt;
    }
}

inline void RemoteLink::adopt(ForChild mine) {
    const std::scoped_lock lock(mutex_);
    renew_after_fork();
    session_ = mine.session;
    parent_ = {};
    idle_.push_back(std::make_unique<Line>(std::move(mine.connection)));
}

/// Has forked children find what proxies need: that a parent ends its own at once is no matter.
class ChildSessions {
public:
    static void observe_forks() {
        static constinit std::atomic<bool> observed{false};
        static runtime::ForkObserver observer{&before, &in_parent, &in_child, nullptr};
        if (!observed.exchange(true)) runtime::ForkObserver::add(observer);
    }

private:
    [[nodiscard]] static std::vector<RemoteLink::ForChild>& prepared() {
        static thread_local std::vector<RemoteLink::ForChild> all;
        return all;
    }
    static void before() {
        for (const LinkPointer& link : Links::instance().all()) {
            auto* const remote = dynamic_cast<RemoteLink*>(link.get());
            if (remote == nullptr || !remote->is_used()) continue;
            if (auto mine = remote->prepare_child()) prepared().push_back(*std::move(mine));
        }
    }
    static void in_parent() noexcept { prepared().clear(); }
    static void in_child() noexcept {
        for (auto& each : prepared()) each.link->adopt(std::move(each));
        prepared().clear();
    }
};

inline LinkPointer make_link(const connection::Address& address, const std::optional<bytes>& authkey,
                             Timeout timeout) {
    const auto link = std::make_shared<RemoteLink>(address, authkey, timeout);
    ChildSessions::observe_forks();
    Links::instance().add(link);
    return link;
}

inline LinkPointer link_to(std::uint64_t server, const connection::Address& address,
                           const std::optional<bytes>& authkey, Timeout timeout) {
    if (LinkPointer known = Links::instance().find(server)) return known;
    return make_link(address, authkey, timeout);
}

}  // namespace multiprocessing::managers
