// SPDX-License-Identifier: BSL-1.0
//
// The drills of what excludes: Lock, RLock and the lock of a Value. A pair of numbers is changed
// under the lock, one after the other, and nobody may ever find it half changed, or anybody inside,
// unless the lock says that it was abandoned.
#pragma once

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/sharedctypes.hpp>
#include <multiprocessing/synchronize.hpp>

#include "chaos/sync.hpp"

#include <concepts>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace chaos {

/// What the lock guards.
struct Guarded {
    std::uint64_t inside;  // the life that is, and one more
    std::uint64_t first;   // counts
    std::uint64_t second;  // follows
    std::uint64_t abandonments;
};

/// L: what is locked. A Value is its own guarded data.
template <class L>
struct LockDrill : Drill {
    static constexpr bool is_value = !std::derived_from<L, mp::AnyLock>;
    static constexpr bool recursive = !std::same_as<L, mp::Lock>;

    L lock{};
    mp::RawValue<Guarded> beside{};
    mp::RawValue<std::uint64_t> hits{};  // counted without the lock

    static LockDrill make(const SyncPlan&) { return {}; }
    template <class Archive>
    void serialize(Archive& archive, unsigned) {
        archive & lock & beside & hits;
    }

    void work(Part& me, std::uint64_t role) const;
    void audit(std::span<const SyncLife> lives, const SyncPlan& plan,
               std::vector<std::string>& errors) const;

private:
    [[nodiscard]] Guarded& guarded() const {
        if constexpr (is_value) {
            return lock.value();
        } else {
            return beside.value();
        }
    }
    [[nodiscard]] bool abandoned() const {
        if constexpr (is_value) {
            return lock.get_lock().abandoned();
        } else {
            return lock.abandoned();
        }
    }
    /// With the lock just taken: what was left behind. Returns whether it was abandoned.
    bool look_around(Part& me) const;
    void release_in_vain(Part& me) const;
};

template <class L>
bool LockDrill<L>::look_around(Part& me) const {
    Guarded& data = guarded();
    const bool from_the_dead = abandoned();
    const auto inside = load(data.inside);
    if (!from_the_dead && inside != 0) {
        me.complain("life " + std::to_string(inside - 1) +
                    " is inside, and the lock is not abandoned");
    }
    if (!from_the_dead && load(data.first) != load(data.second)) {
        me.complain("half changed, and the lock is not abandoned");
    }
    if (from_the_dead) {
        store(data.abandonments, data.abandonments + 1);
        store(data.second, load(data.first));
    }
    return from_the_dead;
}

template <class L>
void LockDrill<L>::work(Part& me, std::uint64_t) const {
    Guarded& data = guarded();
    while (!me.stopped()) {
        me.at(Where::entering);
        if (!acquire_somehow(lock, me.dice)) {
            me.at(Where::outside);
            continue;
        }
        const bool from_the_dead = look_around(me);
        store(data.inside, std::uint64_t{me.life()} + 1);
        me.at(Where::inside);
        int depth = 1;
        for (auto n = recursive ? me.dice.below(3) : 0; n != 0; --n, ++depth) {
            if (!acquire_somehow(lock, me.dice))
                me.complain("a recursive lock does not let its owner in");
        }
        me.may_end();
        store(data.first, load(data.first) + 1);
        me.stay();
        me.may_end();
        store(data.second, load(data.first));
        for (; depth > 1; --depth) lock.release();
        if (load(data.inside) != std::uint64_t{me.life()} + 1) me.complain("two are inside");
        if (abandoned() != from_the_dead) me.complain("abandoned() has changed while it was held");
        hits.fetch_add(1);
        me.did();
        store(data.inside, std::uint64_t{0});
        me.at(Where::leaving);
        lock.release();
        me.at(Where::outside);
        release_in_vain(me);
    }
}

template <class L>
void LockDrill<L>::release_in_vain(Part& me) const {
    if (!recursive || !me.dice.once_in(16)) return;
    try {
        lock.release();
        me.complain("a recursive lock was released by who does not own it");
    } catch (const mp::AssertionError&) {}
}

template <class L>
void LockDrill<L>::audit(std::span<const SyncLife> lives, const SyncPlan& plan,
                         std::vector<std::string>& errors) const {
    if (!lock.acquire(true, hang)) {
        errors.push_back("nobody is left, and the lock cannot be had");
        return;
    }
    Guarded& data = guarded();
    if (abandoned()) ++data.abandonments;
    lock.release();
    bool locked = false;
    if constexpr (!is_value) locked = lock.locked();
    if (abandoned() || locked) errors.push_back("it does not come back whole");
    const Ends ends = ends_of(lives);
    const auto balance = [&](const char* what, std::uint64_t count, std::uint64_t least,
                             std::uint64_t most) {
        if (count >= least && count <= most) return;
        errors.push_back(std::to_string(count) + " " + what + ", not " + std::to_string(least) +
                         " to " + std::to_string(most));
    };
    const auto deaths = ends.inside + ends.between;
    balance("increments", data.first, ends.done, ends.done + deaths);
    balance("atomic increments", hits.load(), ends.done, ends.done + deaths);
    // Who was killed on coming in may have been the one to find out, and have told nobody.
    balance("abandonments", data.abandonments,
            ends.inside > ends.between ? ends.inside - ends.between : 0, deaths);
    if (!plan.kills && !plan.ends_itself) balance("deaths", deaths, 0, 0);
}

}  // namespace chaos
