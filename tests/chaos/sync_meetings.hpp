// SPDX-License-Identifier: BSL-1.0
//
// The drills of Event and Barrier.
#pragma once

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/sharedctypes.hpp>
#include <multiprocessing/synchronize.hpp>

#include "chaos/sync.hpp"

#include <array>
#include <atomic>
#include <bit>
#include <cstdint>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace chaos {

/// One sets and clears at once; the rest wait, and each must go on at each time.
struct EventDrill : Drill {
    enum Role : std::uint64_t { waiter, setter };
    struct Times {
        std::uint64_t begun;    // calls of set()
        std::uint64_t cleared;  // as many had begun when it was last known to be clear
    };

    mp::Event event{};
    mp::RawValue<Times> times{};

    static EventDrill make(const SyncPlan&) { return {}; }
    template <class Archive>
    void serialize(Archive& archive, unsigned) {
        archive & event & times;
    }
    [[nodiscard]] static std::uint64_t role_of(std::uint64_t place, const SyncPlan&) {
        return place == 0 ? setter : waiter;
    }
    void let_go() const { event.set(); }

    void work(Part& me, std::uint64_t role) const {
        Times& all = times.value();
        if (role == setter) event.clear();  // where another was killed between the two
        while (!me.stopped()) {
            if (role == setter) {
                store(all.cleared, all.begun);
                me.stay();
                store(all.begun, all.begun + 1);
                event.set();
                me.did();
                me.may_end();
                if (me.dice.once_in(4)) me.stay();
                event.clear();
                if (me.dice.once_in(8)) std::this_thread::sleep_for(200us);
            } else {
                const auto clear_at = load(all.cleared);
                const bool told =
                    me.plan.timed && me.dice.once_in(2) ? event.wait(1ms) : event.wait();
                if (told && !me.stopped() && load(all.begun) <= clear_at) {
                    me.complain("it was set by nobody");
                }
                me.may_end();
                me.did();
            }
        }
    }
    void audit(std::span<const SyncLife>, const SyncPlan& plan,
               std::vector<std::string>& errors) const {
        event.set();
        if (!event.is_set() || !event.wait()) errors.push_back("it is not set");
        event.clear();
        if (event.is_set() || event.wait(0)) errors.push_back("it is not clear");
        // All that sleep go, though it is cleared at once, and though one of them has been killed.
        std::vector<mp::Process> sleepers;
        for (std::uint32_t i = 0; i < 1 + plan.permits; ++i) {
            sleepers.emplace_back(
                mp::ProcessOptions{.daemon = true},
                [](const mp::Event& e) {
                    if (!e.wait(hang)) mp::exit(1);
                },
                event);
            sleepers.back().start();
        }
        const auto until = Watch::Clock::now() + hang;
        for (const auto& sleeper : sleepers) {
            while (state_of(*sleeper.pid()).find(") S ") == std::string::npos) {
                if (Watch::Clock::now() > until) errors.push_back("a waiter does not sleep");
                std::this_thread::sleep_for(100us);
            }
        }
        sleepers[0].kill();
        event.set();
        event.clear();
        for (const auto& sleeper : sleepers) sleeper.join(hang);
        for (std::size_t i = 1; i < sleepers.size(); ++i) {
            if (sleepers[i].exitcode() != 0) errors.push_back("one that waited was not told");
        }
    }
};

/// All meet again and again; the first repairs what deaths break.
struct BarrierDrill : Drill {
    enum Role : std::uint64_t { party, repairer };
    static constexpr std::size_t most_rounds = 1 << 16;
    struct Rounds {
        std::uint64_t passed;     // counted by the action
        std::uint64_t in_action;  // who is
        std::uint64_t died_in_action;
        std::uint64_t breaks;
        std::array<std::uint8_t, most_rounds>
            indices;  // that were given out in each, a bit for each
    };
    struct Action {
        mp::RawValue<Rounds> rounds{};
        std::uint64_t deadly = 0;
        void operator()() const {
            Rounds& all = rounds.value();
            const auto other = std::atomic_ref(all.in_action).exchange(shm::self());
            if (other != 0 && shm::alive(static_cast<shm::HolderId>(other))) {
                throw std::logic_error("two act at the same time");
            }
            const auto number = load(all.passed) + 1;
            if (deadly != 0 && number % deadly == 0 && load(all.died_in_action) < number / deadly) {
                store(all.died_in_action, number / deadly);
                support::die();
            }
            store(all.passed, number);
            store(all.in_action, std::uint64_t{0});
        }
        template <class Archive>
        void serialize(Archive& archive, unsigned) {
            archive & rounds & deadly;
        }
    };

    mp::RawValue<Rounds> rounds{};
    mp::Barrier barrier{1};

    static BarrierDrill make(const SyncPlan& plan) {
        BarrierDrill drill;
        drill.barrier = mp::Barrier(static_cast<int>(plan.workers),
                                    Action{drill.rounds, plan.ends_itself ? 300u : 0u});
        return drill;
    }
    template <class Archive>
    void serialize(Archive& archive, unsigned) {
        archive & rounds & barrier;
    }
    [[nodiscard]] static std::uint64_t role_of(std::uint64_t place, const SyncPlan&) {
        return place == 0 ? repairer : party;
    }
    void let_go() const { barrier.abort(); }

    void work(Part& me, std::uint64_t role) const;
    [[nodiscard]] std::string after_death(const SyncLife& life,
                                          const OthersLive& others_live) const;
    void audit(std::span<const SyncLife> lives, const SyncPlan& plan,
               std::vector<std::string>& errors) const;
};

inline void BarrierDrill::work(Part& me, std::uint64_t role) const {
    Rounds& all = rounds.value();
    while (!me.stopped() && load(all.passed) + 1 < most_rounds) {
        if (barrier.broken() && role == repairer) barrier.reset();
        me.at(Where::entering);
        std::optional<int> index;
        try {
            index = me.plan.timed && me.dice.once_in(2) ? barrier.wait(hang) : barrier.wait();
        } catch (const mp::BrokenBarrierError&) {}
        me.at(Where::outside);
        if (!index) {
            std::atomic_ref(all.breaks).fetch_add(1);
            // Until somebody resets it.
            if (role != repairer) std::this_thread::sleep_for(100us);
            continue;
        }
        // Nobody passes again before this one has come again.
        auto& indices = all.indices[load(all.passed)];
        const auto bit = static_cast<std::uint8_t>(1 << *index);
        if (*index < 0 || *index >= barrier.parties())
            me.complain("index " + std::to_string(*index));
        if ((std::atomic_ref(indices).fetch_or(bit) & bit) != 0) {
            me.complain("index " + std::to_string(*index) + " was given out twice in a round");
        }
        me.did();
        me.may_end();
    }
}

inline std::string BarrierDrill::after_death(const SyncLife& life,
                                             const OthersLive& others_live) const {
    // Whether it sat there or not is not always known; in most cases the rest find out. Then it is
    // broken in any case: else the dead and its heir would both count.
    Rounds& all = rounds.value();
    const auto breaks = load(all.breaks);
    const auto passed = load(all.passed);
    const auto until = Watch::Clock::now() + 2 * shm::patience;
    while (life.where == Where::entering && Watch::Clock::now() < until &&
           load(all.breaks) == breaks && load(all.passed) == passed && others_live()) {
        std::this_thread::sleep_for(100us);
    }
    barrier.abort();
    return {};
}

inline void BarrierDrill::audit(std::span<const SyncLife> lives, const SyncPlan& plan,
                                std::vector<std::string>& errors) const {
    const Rounds& all = rounds.value();
    const auto full = static_cast<std::uint8_t>((1 << plan.workers) - 1);
    std::uint64_t missing = 0;
    for (std::uint64_t round = 1; round < all.passed; ++round) {
        missing += static_cast<std::uint64_t>(plan.workers) -
                   static_cast<std::uint64_t>(std::popcount(all.indices[round]));
        if ((all.indices[round] & ~full) != 0) errors.push_back("an index too many");
    }
    std::uint64_t deaths = 0;
    for (const SyncLife& life : lives) deaths += life.where == Where::entering ? 1 : 0;
    // Who is killed on its way out takes its index with it, and who is still inside when somebody
    // aborts is told so.
    if (missing > deaths + all.breaks) {
        errors.push_back(std::to_string(missing) + " indices were not given out, and " +
                         std::to_string(deaths) + " died");
    }
    // What the round may have hidden: one of those who wait is killed, and the rest are told.
    const mp::Barrier three(3);
    const auto wait = [](const mp::Barrier& b) {
        try {
            b.wait();
        } catch (const mp::BrokenBarrierError&) {
            mp::exit(Part::left);
        }
    };
    mp::Process first(mp::ProcessOptions{.daemon = true}, wait, three);
    mp::Process second(mp::ProcessOptions{.daemon = true}, wait, three);
    first.start();
    second.start();
    const auto until = Watch::Clock::now() + hang;
    while (three.n_waiting() < 2 && Watch::Clock::now() < until) std::this_thread::sleep_for(100us);
    first.kill();
    second.join(hang);
    if (second.exitcode() != Part::left)
        errors.push_back("the death of one is not told to the others");
    first.join(hang);
    second.kill();
    second.join(hang);
    barrier.reset();
    if (barrier.broken()) errors.push_back("it cannot be reset");
}

}  // namespace chaos
