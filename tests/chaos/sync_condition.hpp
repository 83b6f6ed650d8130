// SPDX-License-Identifier: BSL-1.0
//
// The drill of Condition: tokens are issued, as many notified as there are tokens, and whoever is
// woken takes one. No new tokens are issued before all are taken: so one notification that a dead
// waiter has kept to itself brings everything to a stop.
#pragma once

#include <multiprocessing/sharedctypes.hpp>
#include <multiprocessing/synchronize.hpp>

#include "chaos/sync.hpp"

#include <cstdint>
#include <span>
#include <string>
#include <thread>
#include <vector>

namespace chaos {

struct ConditionDrill : Drill {
    enum Role : std::uint64_t { taker, issuer };
    struct Tokens {
        std::uint64_t issued;
        std::uint64_t taken;
        std::uint64_t notified;  // raised before notify(n), by n
        std::uint64_t woken;     // waits that returned true
    };

    mp::Condition condition{};
    mp::RawValue<Tokens> tokens{};
    std::uint32_t takers = 0;

    static ConditionDrill make(const SyncPlan& plan) {
        ConditionDrill drill;
        drill.takers = plan.workers - 1;
        if (plan.permits == 1) drill.condition = mp::Condition(mp::Lock());
        return drill;
    }
    template <class Archive>
    void serialize(Archive& archive, unsigned) {
        archive & condition & tokens & takers;
    }
    [[nodiscard]] static std::uint64_t role_of(std::uint64_t place, const SyncPlan&) {
        return place == 0 ? issuer : taker;
    }

    void work(Part& me, std::uint64_t role) const {
        while (!me.stopped()) {
            me.at(Where::entering);
            if (!acquire_somehow(condition, me.dice)) continue;
            look_around();
            role == issuer ? issue(me) : take(me);
            me.may_end();
            condition.release();
            me.at(Where::outside);
            if (role == issuer) me.stay();
        }
    }
    /// The others take what there is: the issuer looks again and again, and tells of what is left
    /// where somebody died with the lock.
    [[nodiscard]] std::string after_death(const SyncLife& life,
                                          const OthersLive& others_live) const {
        if (life.role != taker || takers < 2) return {};
        const auto until = Watch::Clock::now() + hang;
        while (left() != 0 && others_live()) {
            if (Watch::Clock::now() > until) {
                return std::to_string(left()) +
                       " tokens are there, and those who wait are not told";
            }
            std::this_thread::sleep_for(100us);
        }
        return {};
    }
    void let_go() const {
        if (!condition.acquire(true, hang)) return;
        condition.notify_all();
        condition.release();
    }
    void audit(std::span<const SyncLife> lives, const SyncPlan&,
               std::vector<std::string>& errors) const {
        const Tokens& all = tokens.value();
        const Ends ends = ends_of(lives, taker);
        if (all.taken < ends.done || all.taken > ends.done + ends.between) {
            errors.push_back(std::to_string(all.taken) + " tokens were taken, and " +
                             std::to_string(ends.done) + " noted");
        }
    }

private:
    [[nodiscard]] std::uint64_t left() const {
        return load(tokens.value().issued) - load(tokens.value().taken);
    }
    void tell(std::uint64_t count) const {
        store(tokens.value().notified, tokens.value().notified + count);
        condition.notify(static_cast<int>(count));
    }
    /// Who gets the lock from the dead tells again of what those may have been about to take.
    void look_around() const {
        if (condition.abandoned()) tell(left());
    }
    void issue(Part& me) const {
        if (left() != 0) return;
        const std::uint64_t count = 1 + me.dice.below(3);
        store(tokens.value().issued, tokens.value().issued + count);
        me.may_end();
        tell(count);
    }
    void take(Part& me) const {
        Tokens& all = tokens.value();
        while (left() == 0 && !me.stopped()) {
            const bool told =
                me.plan.timed && me.dice.once_in(2) ? condition.wait(1ms) : condition.wait();
            look_around();
            if (!told || me.stopped()) continue;
            store(all.woken, all.woken + 1);
            if (all.woken > all.notified) me.complain("more were woken than notified");
        }
        me.may_end();
        if (left() == 0) return;
        store(all.taken, all.taken + 1);
        me.did();
    }
};

}  // namespace chaos
