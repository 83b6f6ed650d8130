// SPDX-License-Identifier: BSL-1.0
//
// A process's way to a manager's server, and one request and its reply by it.
#pragma once

#include <multiprocessing/bytes.hpp>
#include <multiprocessing/connection/address.hpp>
#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/managers/entry.hpp>
#include <multiprocessing/managers/protocol.hpp>
#include <multiprocessing/os/fork.hpp>
#include <multiprocessing/pickle/archive.hpp>
#include <multiprocessing/pickle/buffer.hpp>
#include <multiprocessing/pickle/exception.hpp>
#include <multiprocessing/pickle/message.hpp>
#include <multiprocessing/pickle/type_name.hpp>
#include <multiprocessing/runtime/object_message.hpp>
#include <multiprocessing/shm/ref.hpp>
#include <multiprocessing/timeout.hpp>

#include <atomic>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
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
    /// While it lives, that is this one.
    class Talking {
    public:
        explicit Talking(Link* link) noexcept : before_(std::exchange(talking(), link)) {}
        Talking(const Talking&) = delete;
        Talking& operator=(const Talking&) = delete;
        ~Talking() { talking() = before_; }

    private:
        Link* before_;
    };

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
        : link_(link), talking_(&link),
          cargo_(link.is_local(), "a call to another machine", link.is_local()),
          out_(*request_, &cargo_) {
        out_.put(request);
    }

    [[nodiscard]] pickle::OArchive& out() noexcept { return out_; }
    /// The entry that is asked for, which a server that has it not is to expose as that one.
    template <class Work, class Exposed = Work>
    void put_entry() {
        out_.put(Entry<Work>::name());
        exposed_ = &pickle::type_name<Exposed>;
    }
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
    [[noreturn]] void throw_no_entry() const;

    Link& link_;
    const Link::Talking talking_;
    pickle::Scratch request_;
    pickle::Cargo cargo_;
    pickle::OArchive out_;
    Link::Answer answer_;
    std::optional<pickle::IArchive> in_;
    const std::string& (*exposed_)() = nullptr;
};

inline pickle::IArchive& Exchange::answer(Patience patience) {
    {
        const Link::Talking nobody(nullptr);  // in the server's own process a call is executed here
        link_.exchange(*request_, cargo_, patience, answer_);
    }
    if (answer_.body.empty()) throw UnpicklingError("a manager's server has sent an empty reply");
    if (answer_.body.front() == static_cast<std::byte>(Reply::exception)) {
        std::rethrow_exception(pickle::load_exception(answer_.body.subspan(1)));
    }
    if (answer_.body.front() == static_cast<std::byte>(Reply::no_entry)) throw_no_entry();
    return in_.emplace(answer_.body.subspan(1), answer_.cargo);
}

inline void Exchange::throw_no_entry() const {
    // `Method<T, &T::f>` is exposed by `expose<T, &T::f>()`, and `Creation<T, Args...>` likewise.
    const std::string call = exposed_ == nullptr ? "one" : (*exposed_)();
    std::string way_out = ": " + call;
    for (const auto& [entry, by] :
         {std::pair<std::string_view, std::string_view>{"Method<", "expose<"},
          {"Creation<", "expose_creation<"}}) {
        const std::string begin = "multiprocessing::managers::" + std::string(entry);
        if (call.starts_with(begin)) {
            way_out =
                ", or to name it: mp::managers::" + std::string(by) + call.substr(begin.size()) + "()";
        }
    }
    throw std::runtime_error("the program of the manager's server has no such function of a managed object. "
                             "Where client and server are different programs, the server's is to call "
                             "it somewhere" +
                             way_out);
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

}  // namespace multiprocessing::managers
