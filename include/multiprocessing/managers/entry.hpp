// SPDX-License-Identifier: BSL-1.0
//
// What a manager's server can be asked to run. Every function that the program calls on a managed
// object is in a list that static initialisers fill, and goes by the name of its type: so another
// program, built from the same source, may ask for it, and nobody for anything else.
#pragma once

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/os/fork.hpp>
#include <multiprocessing/os/module.hpp>
#include <multiprocessing/pickle/archive.hpp>
#include <multiprocessing/pickle/type_name.hpp>

#include <atomic>
#include <cstdint>
#include <mutex>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <utility>

namespace multiprocessing::managers {

class Caller;
class Object;
class ServerState;

/// A call, as the server sees it.
struct Call {
    const Caller& caller;
    Object* object;  // null where one is to be made
    pickle::IArchive& in;
    pickle::OArchive& out;
};

using EntryFunction = void (*)(Call&);

/// What this thread does for a server: a proxy that is read or written meanwhile is the server's.
struct Executing {
    ServerState* server = nullptr;
    const Caller* caller = nullptr;
    bool replying = false;  // the result is being written

    [[nodiscard]] static Executing& now() noexcept {
        static thread_local Executing now;
        return now;
    }
    class Scope;
};

/// For as long as it lives.
class Executing::Scope {
public:
    explicit Scope(const Executing& next) noexcept : before_(std::exchange(now(), next)) {}
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;
    ~Scope() { now() = before_; }
    /// While the result of a call is written.
    [[nodiscard]] static Scope reply() noexcept {
        Executing next = now();
        next.replying = true;
        return Scope(next);
    }

private:
    Executing before_;
};

/// How a request names an entry: by its name, and where several have the same (in the unnamed
/// namespaces of two files), by its place in the program.
struct EntryName {
    std::uint64_t hash;
    os::CodeAddress place;
};

/// An entry of the list.
struct KnownEntry {
    EntryFunction function;
    std::uint64_t (*hash)() noexcept;
    const KnownEntry* next;

    static inline constinit std::atomic<const KnownEntry*> first{nullptr};
};

/// The entry whose function is `Work::run`. That its name() is called somewhere in the program puts it
/// into the list.
template <class Work>
class Entry {
public:
    [[nodiscard]] static EntryName name() {
        static_cast<void>(known);
        std::uint64_t module = module_.load(std::memory_order_acquire);
        if (module == 0) [[unlikely]] {
            const os::CodeAddress place = os::locate(reinterpret_cast<const void*>(&Work::run));
            offset_.store(place.offset, std::memory_order_relaxed);
            module_.store(module = place.module, std::memory_order_release);
        }
        return {pickle::type_hash<Work>(), {module, offset_.load(std::memory_order_relaxed)}};
    }
    static inline const bool known = [] {
        static KnownEntry entry{&Work::run, &pickle::type_hash<Work>, nullptr};
        entry.next = KnownEntry::first.load(std::memory_order_relaxed);
        // release: who finds the entry sees what is in it.
        while (!KnownEntry::first.compare_exchange_weak(
            entry.next, &entry, std::memory_order_release, std::memory_order_relaxed)) {}
        return true;
    }();

private:
    static inline constinit std::atomic<std::uint64_t> module_{0};
    static inline constinit std::atomic<std::uint64_t> offset_{0};
};

/// The list, to look up names in. *Thread safety*: all calls.
class EntryTable {
public:
    /// The function, or null if this program has none of that name.
    [[nodiscard]] EntryFunction find(const EntryName& name) {
        const std::scoped_lock lock(mutex_);
        refresh();
        const auto found = by_hash_.find(name.hash);
        if (found == by_hash_.end()) return nullptr;
        if (found->second != nullptr) return found->second;
        // One of several: the one that is meant, if this is the same program.
        const void* const place = os::resolve(name.place);
        for (auto* each = seen_; each != nullptr; each = each->next) {
            if (each->hash() == name.hash &&
                reinterpret_cast<const void*>(each->function) == place) {
                return each->function;
            }
        }
        return nullptr;
    }

private:
    /// Takes in what libraries that were loaded since have added.
    void refresh() {
        const KnownEntry* const first = KnownEntry::first.load(std::memory_order_acquire);
        for (auto* each = first; each != seen_; each = each->next) {
            const auto [place, added] = by_hash_.try_emplace(each->hash(), each->function);
            if (!added && place->second != each->function) place->second = nullptr;
        }
        seen_ = first;
    }

    os::ForkAwareMutex mutex_;
    const KnownEntry* seen_ = nullptr;
    std::unordered_map<std::uint64_t, EntryFunction> by_hash_;  // null: there are several
};

}  // namespace multiprocessing::managers
