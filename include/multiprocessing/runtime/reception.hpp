// SPDX-License-Identifier: BSL-1.0
//
// Where those wait who have connected to a listener and not yet proved that they know its key: many at a
// time, so that nobody who is slow, or silent, or lies holds up the others.
#pragma once

#include <multiprocessing/bytes.hpp>
#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/os/clock.hpp>
#include <multiprocessing/os/epoll.hpp>
#include <multiprocessing/os/fd.hpp>
#include <multiprocessing/os/fork.hpp>
#include <multiprocessing/os/socket_address.hpp>
#include <multiprocessing/runtime/greeting.hpp>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <iterator>
#include <list>
#include <mutex>
#include <optional>
#include <system_error>
#include <utility>

namespace multiprocessing::runtime {

/// *Process safety*: all calls may come from several threads.
/// *Fork*: it is one process's. A forked child has none of its descriptors, and is to forget it without
/// destroying it, for a thread of the parent's may have been at it.
class Reception {
public:
    /// Who has come through: a connection, and where it comes from.
    struct Guest {
        os::Fd socket;
        os::SocketAddress from;
    };

    static constexpr std::size_t most_strangers = 256;

    /// Who says nothing for as long as `patience` may be sent away.
    explicit Reception(bytes key, std::chrono::nanoseconds patience = std::chrono::seconds(20))
        : key_(std::move(key)), patience_(patience) {
        inside_.add(bell_.get(), nullptr);
    }

    /// Readable while somebody inside has something to say, and when this is closed.
    [[nodiscard]] int fileno() const noexcept { return inside_.get(); }
    /// Readable then, and when somebody waits at the listening socket.
    [[nodiscard]] int fileno_with(int listening);

    /// Takes somebody in, and asks for his proof. If there is no room, who has said nothing for longest
    /// makes some.
    void admit(os::Fd socket, const os::SocketAddress& from);
    /// Goes on with those who have something to say, as far as that is possible without waiting, until
    /// one of them has come through. Throws AuthenticationError when one has answered wrongly, who is
    /// gone then; who just leaves is not told of.
    [[nodiscard]] std::optional<Guest> hear();
    /// When the next is to be let in, though there is room: not while one has hardly come in. He will
    /// be through in a moment, and then the rest may be for another process to serve. The more there are
    /// who say nothing, the sooner the next has his turn.
    [[nodiscard]] os::Deadline next_admission() const {
        const std::scoped_lock lock(mutex_);
        return next_admission_;
    }
    /// When somebody will have said nothing for too long.
    [[nodiscard]] os::Deadline next_expiry() const {
        const std::scoped_lock lock(mutex_);
        return strangers_.empty() ? os::Deadline::never() : strangers_.front().deadline;
    }
    /// Sends those away. Not to be called before all have been heard: what they have said may have been
    /// waiting for longer than that.
    void expire();
    /// Sends away who has said nothing for longest. Returns false if there is nobody.
    bool dismiss_one();
    /// Sends all away and wakes who waits at fileno().
    void close();

private:
    struct Stranger {
        Stranger(os::Fd socket, const bytes& key, const os::SocketAddress& where,
                 os::Deadline until)
            : greeting(std::move(socket), Handshake::Side::listener, key), from(where),
              deadline(until), not_for_children(greeting.fileno()) {}

        Greeting greeting;
        os::SocketAddress from;
        os::Deadline deadline;
        os::NotForChildren not_for_children;
        std::list<Stranger>::iterator place;
    };

    static constexpr std::chrono::milliseconds slowest_pace{20};
    static constexpr std::chrono::milliseconds fastest_pace{1};

    [[nodiscard]] std::chrono::nanoseconds pace() const noexcept {
        return std::max(fastest_pace, slowest_pace / (1 << strangers_.size() * 16 / most_strangers));
    }
    void remove(Stranger& stranger);

    mutable std::mutex mutex_;
    const bytes key_;
    const std::chrono::nanoseconds patience_;
    os::EventFd bell_;
    os::Epoll inside_;
    std::optional<os::Epoll> everything_;
    const os::NotForChildren bell_stays_here_{bell_.get()};
    const os::NotForChildren inside_stays_here_{inside_.get()};
    std::optional<os::NotForChildren> everything_stays_here_;
    std::list<Stranger> strangers_;  // who has said nothing for longest first
    const Stranger* newest_ = nullptr;
    os::Deadline next_admission_ = os::Deadline::passed();
    bool closed_ = false;
};

// ---------------------------------------------------------------------------------------------------

inline int Reception::fileno_with(int listening) {
    const std::scoped_lock lock(mutex_);
    if (!everything_) {
        os::Epoll everything;
        everything.add(listening, nullptr);
        everything.add(inside_.get(), nullptr);
        everything_stays_here_.emplace(everything.get());
        everything_ = std::move(everything);
    }
    return everything_->get();
}

inline void Reception::admit(os::Fd socket, const os::SocketAddress& from) {
    const std::scoped_lock lock(mutex_);
    if (closed_) return;
    if (strangers_.size() == most_strangers) remove(strangers_.front());
    try {
        strangers_.emplace_back(std::move(socket), key_, from, os::Deadline::after(patience_));
    } catch (const EOFError&) {  // he has left
        return;
    }
    Stranger& stranger = strangers_.back();
    stranger.place = std::prev(strangers_.end());
    try {
        inside_.add(stranger.greeting.fileno(), &stranger);
    } catch (...) {
        strangers_.pop_back();
        throw;
    }
    newest_ = &stranger;
    next_admission_ = os::Deadline::after(pace());
}

inline std::optional<Reception::Guest> Reception::hear() {
    const std::scoped_lock lock(mutex_);
    std::array<void*, 16> tags;
    for (void* const tag : inside_.ready(tags)) {
        if (closed_ || tag == nullptr) continue;
        Stranger& stranger = *static_cast<Stranger*>(tag);
        bool done = false;
        try {
            done = stranger.greeting.advance();
        } catch (const AuthenticationError&) {
            remove(stranger);
            throw;
        } catch (const EOFError&) {  // he has left
            remove(stranger);
            continue;
        } catch (const std::system_error&) {  // the network has lost him
            remove(stranger);
            continue;
        }
        if (done) {
            Guest guest{stranger.greeting.take(), stranger.from};
            inside_.remove(guest.socket.get());
            remove(stranger);
            return guest;
        }
        stranger.deadline = os::Deadline::after(patience_);
        strangers_.splice(strangers_.end(), strangers_, stranger.place);
    }
    return std::nullopt;
}

inline void Reception::expire() {
    const std::scoped_lock lock(mutex_);
    while (!strangers_.empty() && strangers_.front().deadline.expired()) remove(strangers_.front());
}

inline bool Reception::dismiss_one() {
    const std::scoped_lock lock(mutex_);
    if (strangers_.empty()) return false;
    remove(strangers_.front());
    return true;
}

inline void Reception::close() {
    const std::scoped_lock lock(mutex_);
    closed_ = true;
    while (!strangers_.empty()) remove(strangers_.front());
    bell_.ring();
}

inline void Reception::remove(Stranger& stranger) {
    inside_.remove(stranger.greeting.fileno());
    if (newest_ == &stranger) {
        newest_ = nullptr;
        next_admission_ = os::Deadline::passed();
    }
    strangers_.erase(stranger.place);
}

}  // namespace multiprocessing::runtime
