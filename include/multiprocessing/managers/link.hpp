// SPDX-License-Identifier: BSL-1.0
//
// A process's way to a manager's server: connections, as many as calls are made at the same time, and
// the session that its references are of. Answers the connections of Python's `BaseProxy`.
#pragma once

#include <multiprocessing/bytes.hpp>
#include <multiprocessing/connection/address.hpp>
#include <multiprocessing/connection/client.hpp>
#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/managers/protocol.hpp>
#include <multiprocessing/managers/server_state.hpp>
#include <multiprocessing/os/clock.hpp>
#include <multiprocessing/os/fork.hpp>
#include <multiprocessing/os/poll.hpp>
#include <multiprocessing/pickle/buffer.hpp>
#include <multiprocessing/pickle/exception.hpp>
#include <multiprocessing/pickle/message.hpp>
#include <multiprocessing/runtime/fork_observer.hpp>
#include <multiprocessing/timeout.hpp>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <system_error>
#include <unordered_map>
#include <utility>
#include <vector>

namespace multiprocessing::managers {

/// How long a call may take: what the function itself may wait, beside the time for the way.
using Patience = Timeout;

/// From this process to one server. *Thread safety*: all calls.
class Link : public std::enable_shared_from_this<Link> {
public:
    Link() = default;
    Link(const Link&) = delete;
    Link& operator=(const Link&) = delete;
    virtual ~Link() = default;

    [[nodiscard]] virtual std::uint64_t server() const = 0;
    [[nodiscard]] virtual const connection::Address& address() const = 0;
    [[nodiscard]] virtual const std::optional<bytes>& authkey() const = 0;

    // What is asked of the server for references.
    [[nodiscard]] std::uint64_t lend(std::uint64_t object);
    void redeem(std::uint64_t token, std::uint64_t object);
    virtual void release(std::uint64_t object) noexcept = 0;

    /// The link whose request or reply this thread writes or reads, or null.
    [[nodiscard]] static Link*& talking() noexcept {
        static thread_local Link* link = nullptr;
        return link;
    }

    // How many references of this process go by it.
    void add_reference() noexcept { references_.fetch_add(1, std::memory_order_relaxed); }
    void drop_reference() noexcept { references_.fetch_sub(1, std::memory_order_relaxed); }
    [[nodiscard]] bool is_used() const noexcept {
        return references_.load(std::memory_order_relaxed) != 0;
    }

protected:
    friend class Exchange;
    /// A reply, and what it lies in.
    struct Answer {
        pickle::Scratch buffer;
        std::span<const std::byte> body;
        pickle::Cargo* cargo = nullptr;
        std::optional<runtime::ReceivedObject> message;  // of another process's server
        std::vector<shm::Ticket> tickets;                // of this one's
        std::optional<pickle::Cargo> arrived;
    };
    /// Whether what travels beside bytes can come along.
    [[nodiscard]] virtual bool is_local() const noexcept = 0;
    virtual void exchange(const pickle::Buffer& request, pickle::Cargo& cargo, Patience patience,
                          Answer& answer) = 0;

private:
    std::atomic<std::uint64_t> references_{0};
};

using LinkPointer = std::shared_ptr<Link>;

/// One request and its reply: what is written to out() is sent by answer(), which gives the reply to
/// read from, and throws what the server has thrown; std::system_error (ECONNRESET, ECONNREFUSED) when
/// it is gone, TimeoutError when the answer is not there in time.
class Exchange {
public:
    Exchange(Link& link, Request request)
        : link_(link), before_(std::exchange(Link::talking(), &link)),
          cargo_(link.is_local(), "a call to another machine"), out_(*request_, &cargo_) {
        if (!link.is_local()) cargo_.set_leaves_machine();
        out_.put(request);
    }
    Exchange(const Exchange&) = delete;
    Exchange& operator=(const Exchange&) = delete;
    ~Exchange() { Link::talking() = before_; }

    [[nodiscard]] pickle::OArchive& out() noexcept { return out_; }
    pickle::IArchive& answer(Patience patience = 0);
    /// The value that the reply consists of. Throws UnpicklingError where it is none.
    template <class T>
    [[nodiscard]] T value() {
        return pickle::while_unpickling(*in_, [this]() -> T { return pickle::load_new<T>(*in_); });
    }
    /// The same for a number of fixed size.
    template <class T>
    [[nodiscard]] T number() {
        return answer().get<T>();
    }

private:
    Link& link_;
    Link* before_;
    pickle::Scratch request_;
    pickle::Cargo cargo_;
    pickle::OArchive out_;
    Link::Answer answer_;
    std::optional<pickle::IArchive> in_;
};

inline pickle::IArchive& Exchange::answer(Patience patience) {
    Link::talking() = before_;
    link_.exchange(*request_, cargo_, patience, answer_);
    if (answer_.body.empty()) throw UnpicklingError("a manager's server has sent an empty reply");
    if (answer_.body.front() == static_cast<std::byte>(Reply::exception)) {
        std::rethrow_exception(pickle::load_exception(answer_.body.subspan(1)));
    }
    Link::talking() = &link_;
    return in_.emplace(answer_.body.subspan(1), answer_.cargo);
}

inline std::uint64_t Link::lend(std::uint64_t object) {
    Exchange exchange(*this, Request::lend);
    exchange.out().put(object);
    return exchange.number<std::uint64_t>();
}

inline void Link::redeem(std::uint64_t token, std::uint64_t object) {
    Exchange exchange(*this, Request::redeem);
    exchange.out().put(token);
    exchange.out().put(object);
    exchange.answer();
}

/// Of this process's links those that live, by the server.
class Links {
public:
    [[nodiscard]] LinkPointer find(std::uint64_t server) {
        const std::scoped_lock lock(mutex_);
        const auto found = links_.find(server);
        return found == links_.end() ? nullptr : found->second.lock();
    }
    void add(const LinkPointer& link) {
        const std::scoped_lock lock(mutex_);
        std::erase_if(links_, [](const auto& each) { return each.second.expired(); });
        links_.insert_or_assign(link->server(), link);
    }
    [[nodiscard]] std::vector<LinkPointer> all() {
        const std::scoped_lock lock(mutex_);
        std::vector<LinkPointer> links;
        for (const auto& [server, weak] : links_) {
            if (LinkPointer link = weak.lock()) links.push_back(std::move(link));
        }
        return links;
    }
    [[nodiscard]] static Links& instance() {
        static constinit os::Lazy<Links> links;
        return links.get([] { return new Links; });
    }

private:
    os::ForkAwareMutex mutex_;
    std::unordered_map<std::uint64_t, std::weak_ptr<Link>> links_;
};

/// The server's own way to its objects: a call is executed by the thread that makes it.
class LocalLink final : public Link {
public:
    explicit LocalLink(std::shared_ptr<ServerState> state) : state_(std::move(state)) {}

    [[nodiscard]] std::uint64_t server() const override { return state_->id(); }
    [[nodiscard]] const connection::Address& address() const override { return state_->address(); }
    [[nodiscard]] const std::optional<bytes>& authkey() const override { return authkey_; }
    void release(std::uint64_t object) noexcept override {
        state_->release(state_->own_session(), object);
    }

protected:
    [[nodiscard]] bool is_local() const noexcept override { return true; }
    void exchange(const pickle::Buffer& request, pickle::Cargo& cargo, Patience,
                  Answer& answer) override;

private:
    std::shared_ptr<ServerState> state_;
    std::optional<bytes> authkey_;
};

/// That of a server in this process.
[[nodiscard]] inline LinkPointer local_link(ServerState& state) {
    const std::scoped_lock lock(state.local_link_mutex);
    LinkPointer link = state.local_link.lock();
    if (!link) {
        link = std::make_shared<LocalLink>(state.shared_from_this());
        state.local_link = link;
    }
    return link;
}

/// To a server of another process, or another machine.
class RemoteLink final : public Link {
public:
    /// `timeout` is for connecting, and for each answer beside what the call itself may wait.
    RemoteLink(connection::Address address, std::optional<bytes> authkey, Timeout timeout);

    [[nodiscard]] std::uint64_t server() const override { return server_; }
    [[nodiscard]] const connection::Address& address() const override { return address_; }
    [[nodiscard]] const std::optional<bytes>& authkey() const override { return authkey_; }
    void release(std::uint64_t object) noexcept override;

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
    void exchange(const pickle::Buffer& request, pickle::Cargo& cargo, Patience patience,
                  Answer& answer) override;

private:
    using LinePointer = std::unique_ptr<Line>;

    /// A connection for one request: one that is idle, or a new one.
    [[nodiscard]] LinePointer take();
    void put_back(LinePointer line);
    /// One whose answer did not come in time is still this session's, and fit for use when it has come.
    void put_aside(LinePointer line);
    void look_for_late_answers();
    [[nodiscard]] Connection connect(const SessionId& session, const SessionId& parent) const;
    [[nodiscard]] std::uint64_t greet(const Connection& connection, const SessionId& session,
                                      const SessionId& parent) const;
    /// In a forked child that nobody has told: a session of its own, and no connection.
    void renew_after_fork();
    [[nodiscard]] os::Deadline deadline(Patience patience) const;
    [[noreturn]] void throw_gone(int error) const;

    const connection::Address address_;
    const std::optional<bytes> authkey_;
    const Timeout timeout_;
    const bool local_;
    std::uint64_t server_ = 0;
    std::atomic<bool> gone_{false};

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

inline void LocalLink::exchange(const pickle::Buffer& request, pickle::Cargo& cargo, Patience,
                                Answer& answer) {
    std::vector<shm::Ticket> tickets(cargo.tickets().begin(), cargo.tickets().end());
    std::vector<os::Fd> descriptors;
    for (const int each : cargo.descriptors()) descriptors.push_back(os::duplicate(each));
    cargo.ship();
    pickle::Cargo in(tickets, std::move(descriptors));
    std::optional<pickle::Cargo> out;
    const Caller caller(*state_, state_->own_session(), -1);
    state_->execute(caller, request.span(), &in, *answer.buffer, out,
                    [&] { out.emplace(true, "a manager's reply"); });
    answer.tickets.assign(out->tickets().begin(), out->tickets().end());
    std::vector<os::Fd> with_it;
    for (const int each : out->descriptors()) with_it.push_back(os::duplicate(each));
    out->ship();
    answer.cargo = &answer.arrived.emplace(answer.tickets, std::move(with_it));
    answer.body = answer.buffer->span();
}

// The connections.

inline RemoteLink::RemoteLink(connection::Address address, std::optional<bytes> authkey,
                              Timeout timeout)
    : address_(std::move(address)), authkey_(std::move(authkey)), timeout_(timeout),
      local_(address_.family() == connection::Family(AF_UNIX)) {
    Connection first = connection::Client(address_, {.authkey = authkey_, .timeout = timeout_});
    server_ = greet(first, session_, {});
    idle_.push_back(std::make_unique<Line>(std::move(first)));
}

inline Connection RemoteLink::connect(const SessionId& session, const SessionId& parent) const {
    try {
        Connection connection =
            connection::Client(address_, {.authkey = authkey_, .timeout = timeout_});
        if (greet(connection, session, parent) == server_) return connection;
    } catch (const EOFError&) {  // it has ended at this moment
    } catch (const std::system_error& error) {
        const int code = error.code().value();
        throw_gone(code == ENOENT ? ECONNREFUSED : code == EPIPE ? ECONNRESET : code);
    }
    throw_gone(ECONNRESET);  // or there is another at its address
}

inline std::uint64_t RemoteLink::greet(const Connection& connection, const SessionId& session,
                                       const SessionId& parent) const {
    // Not a Line: it may be a child's.
    pickle::Scratch hello;
    pickle::OArchive out(*hello);
    out.put(Request::hello);
    out.put(protocol_version);
    out.put(session);
    out.put(parent);
    out.put(std::uint32_t{0});  // of shared objects
    connection.send_bytes(hello->span());
    if (!connection.poll(timeout_)) {
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
        if (!late_.empty()) look_for_late_answers();
        if (!idle_.empty()) {
            LinePointer line = std::move(idle_.back());
            idle_.pop_back();
            return line;
        }
        session = session_;
        parent = parent_;
    }
    return std::make_unique<Line>(connect(session, parent));
}

inline void RemoteLink::put_back(LinePointer line) {
    const std::scoped_lock lock(mutex_);
    idle_.push_back(std::move(line));
}

inline void RemoteLink::put_aside(LinePointer line) {
    const std::scoped_lock lock(mutex_);
    late_.push_back(std::move(line));
}

inline void RemoteLink::look_for_late_answers() {
    std::erase_if(late_, [this](LinePointer& line) {
        if (!os::poll(line->fileno(), os::poll_in, os::Deadline::passed())) return false;
        try {
            pickle::Scratch unwanted;
            std::optional<runtime::ReceivedObject> late;
            line->receive(*unwanted, late);
            idle_.push_back(std::move(line));
        } catch (const std::exception&) {  // the server is gone: the next call will tell
        }
        return true;
    });
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

inline void RemoteLink::throw_gone(int error) const {
    throw std::system_error(error, std::system_category(),
                            "the manager's server at " + address_.str() + " is gone");
}

inline void RemoteLink::exchange(const pickle::Buffer& request, pickle::Cargo& cargo,
                                 Patience patience, Answer& answer) {
    const os::Deadline until = deadline(patience);
    LinePointer line;
    try {
        line = take();
        line->send(request, cargo);
        if (!until.is_never() && !os::poll(line->fileno(), os::poll_in, until)) {
            put_aside(std::move(line));
            throw TimeoutError("the manager's server at " + address_.str() +
                               " has not answered in time; whether it has done what was asked is not "
                               "known");
        }
        line->receive(*answer.buffer, answer.message);
        // Before it is read, which may take more requests.
        put_back(std::move(line));
        answer.body = answer.message->body();
        answer.cargo = &answer.message->cargo();
    } catch (const EOFError&) {
        gone_ = true;
        throw_gone(ECONNRESET);
    } catch (const std::system_error& error) {
        if (!line) throw;
        gone_ = true;
        throw_gone(error.code() == std::errc::broken_pipe ? ECONNRESET : error.code().value());
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
        Connection connection = connect(session, mine);
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
