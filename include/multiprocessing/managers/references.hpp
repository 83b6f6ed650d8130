// SPDX-License-Identifier: BSL-1.0
//
// The objects of a manager's server, and who has references of them: the sessions of processes, and
// messages that are under way.
#pragma once

#include <multiprocessing/managers/object.hpp>
#include <multiprocessing/managers/protocol.hpp>
#include <multiprocessing/os/random.hpp>

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <unordered_map>
#include <utility>
#include <vector>

namespace multiprocessing::managers {

/// Thrown in a call whose client has gone, or whose server is to end: there is nobody to tell.
struct NobodyIsWaiting {};

/// An object lives as long as it has references. *Thread safety*: all calls.
class References {
public:
    using ObjectPointer = std::shared_ptr<Object>;

    References() { sessions_.try_emplace(own_); }
    References(const References&) = delete;
    References& operator=(const References&) = delete;

    /// Of what is in the server itself: proxies among the values of a dict.
    [[nodiscard]] const SessionId& own_session() const noexcept { return own_; }
    [[nodiscard]] std::size_t objects() const {
        const std::scoped_lock lock(mutex_);
        return objects_.size();
    }

    /// These throw std::runtime_error for an object that has ended, and NobodyIsWaiting for a session.
    [[nodiscard]] ObjectPointer find(std::uint64_t id) const {
        const std::scoped_lock lock(mutex_);
        return find_locked(id);
    }
    /// Another reference for a session, as for what a reply bears.
    void grant(const SessionId& session, std::uint64_t id);
    /// A reference that is of no session until somebody redeems it.
    [[nodiscard]] std::uint64_t lend(std::uint64_t id);
    void redeem(const SessionId& session, std::uint64_t token, std::uint64_t id);

    /// A new object, of which the session has the only reference.
    std::uint64_t add(const SessionId& session, ObjectPointer object);
    /// Gives one up. The object may end.
    void release(const SessionId& session, std::uint64_t id) noexcept;

    /// A connection of a session begins. One that is new has its parent's references, if it has one.
    void enter(const SessionId& session, const SessionId& parent);
    /// And ends; with the last the session does, and what it held is let go.
    void leave(const SessionId& session) noexcept;
    /// Lets go what a call has taken that outlived its session.
    void abandon(const SessionId& session) noexcept;
    /// Ends all.
    void clear() noexcept;

private:
    struct Session {
        std::unordered_map<std::uint64_t, std::uint64_t> references;
        int connections = 0;
    };

    // With the mutex held.
    [[nodiscard]] const ObjectPointer& find_locked(std::uint64_t id) const;
    [[nodiscard]] Session& find_session_locked(const SessionId& id);
    /// What ends is added to `ended`, to be destroyed without it.
    void drop(std::uint64_t id, std::uint64_t count, std::vector<ObjectPointer>& ended) noexcept;

    /// Destroys objects, and those of which they held the last references, one after the other.
    static void destroy(std::vector<ObjectPointer> objects) noexcept;

    const SessionId own_ = SessionId::make();
    mutable std::mutex mutex_;  // guards what follows, and is held for moments only
    std::unordered_map<std::uint64_t, ObjectPointer> objects_;
    std::map<SessionId, Session> sessions_;
    std::unordered_map<std::uint64_t, std::uint64_t> lent_;  // objects by token
    std::uint64_t next_ = 1;
};

// ---------------------------------------------------------------------------------------------------

inline const References::ObjectPointer& References::find_locked(std::uint64_t id) const {
    const auto found = objects_.find(id);
    if (found == objects_.end()) {
        throw std::runtime_error("the managed object has ended: all its proxies were gone before this "
                                 "one was used");
    }
    return found->second;
}

inline References::Session& References::find_session_locked(const SessionId& id) {
    const auto found = sessions_.find(id);
    if (found == sessions_.end()) throw NobodyIsWaiting();
    return found->second;
}

inline void References::grant(const SessionId& session, std::uint64_t id) {
    const std::scoped_lock lock(mutex_);
    const ObjectPointer& object = find_locked(id);
    ++find_session_locked(session).references[id];
    ++object->references;
}

inline std::uint64_t References::lend(std::uint64_t id) {
    const std::uint64_t token = os::random_number();
    const std::scoped_lock lock(mutex_);
    const ObjectPointer& object = find_locked(id);
    lent_.emplace(token, id);
    ++object->references;
    return token;
}

inline void References::redeem(const SessionId& session, std::uint64_t token, std::uint64_t id) {
    const std::scoped_lock lock(mutex_);
    const ObjectPointer& object = find_locked(id);
    ++find_session_locked(session).references[id];
    // A message that is read twice has used its reference up the first time.
    const auto lent = lent_.find(token);
    if (lent != lent_.end() && lent->second == id) {
        lent_.erase(lent);
    } else {
        ++object->references;
    }
}

inline std::uint64_t References::add(const SessionId& session, ObjectPointer object) {
    const std::scoped_lock lock(mutex_);
    Session& holder = find_session_locked(session);
    const std::uint64_t id = next_++;
    object->references = 1;
    ++holder.references[id];
    objects_.emplace(id, std::move(object));
    return id;
}

inline void References::drop(std::uint64_t id, std::uint64_t count,
                             std::vector<ObjectPointer>& ended) noexcept {
    const auto found = objects_.find(id);
    if (found == objects_.end() || (found->second->references -= count) != 0) return;
    ended.push_back(std::move(found->second));
    objects_.erase(found);
}

inline void References::release(const SessionId& session, std::uint64_t id) noexcept {
    std::vector<ObjectPointer> ended;
    {
        const std::scoped_lock lock(mutex_);
        const auto holder = sessions_.find(session);
        if (holder == sessions_.end()) return;
        const auto held = holder->second.references.find(id);
        if (held == holder->second.references.end()) return;
        if (--held->second == 0) holder->second.references.erase(held);
        drop(id, 1, ended);
    }
    destroy(std::move(ended));
}

inline void References::enter(const SessionId& session, const SessionId& parent) {
    const std::scoped_lock lock(mutex_);
    const auto [entered, is_new] = sessions_.try_emplace(session);
    ++entered->second.connections;
    const auto forked_from = sessions_.find(parent);
    if (!is_new || forked_from == sessions_.end()) return;
    entered->second.references = forked_from->second.references;
    for (const auto& [id, count] : entered->second.references) objects_.at(id)->references += count;
}

inline void References::leave(const SessionId& session) noexcept {
    std::vector<ObjectPointer> ended;
    {
        const std::scoped_lock lock(mutex_);
        const auto leaving = sessions_.find(session);
        if (leaving == sessions_.end() || --leaving->second.connections != 0) return;
        for (const auto& [id, count] : leaving->second.references) drop(id, count, ended);
        sessions_.erase(leaving);
    }
    abandon(session);
    destroy(std::move(ended));
}

inline void References::abandon(const SessionId& session) noexcept {
    std::vector<ObjectPointer> all;
    {
        const std::scoped_lock lock(mutex_);
        for (const auto& [id, object] : objects_) all.push_back(object);
    }
    for (const ObjectPointer& object : all) object->abandon(session);
    destroy(std::move(all));
}

inline void References::clear() noexcept {
    std::vector<ObjectPointer> ended;
    {
        const std::scoped_lock lock(mutex_);
        for (auto& [id, object] : objects_) ended.push_back(std::move(object));
        objects_.clear();
        sessions_.clear();
        lent_.clear();
    }
    destroy(std::move(ended));
}

inline void References::destroy(std::vector<ObjectPointer> objects) noexcept {
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
