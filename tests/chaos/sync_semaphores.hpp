// SPDX-License-Identifier: BSL-1.0
//
// The drills of semaphores. A plain one counts signals: what the dead have taken is gone. A bounded
// one lets so many in: what the dead had comes back.
#pragma once

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/sharedctypes.hpp>
#include <multiprocessing/synchronize.hpp>

#include "chaos/sync.hpp"

#include <array>
#include <atomic>
#include <cstdint>
#include <span>
#include <string>
#include <thread>
#include <vector>

namespace chaos {

/// Some release, the others acquire and give nothing back.
struct SignalDrill : Drill {
    enum Role : std::uint64_t { giver, taker };

    mp::Semaphore signals{0};
    mp::RawValue<std::uint64_t> given_at_the_end{};

    static SignalDrill make(const SyncPlan&) { return {}; }
    template <class Archive>
    void serialize(Archive& archive, unsigned) {
        archive & signals & given_at_the_end;
    }
    [[nodiscard]] static std::uint64_t role_of(std::uint64_t place, const SyncPlan& plan) {
        return place < plan.workers / 2 ? giver : taker;
    }
    void let_go() const {
        signals.release();
        ++given_at_the_end.value();
    }

    void work(Part& me, std::uint64_t role) const {
        while (!me.stopped()) {
            if (role == giver && signals.get_value() > 20) {
                std::this_thread::sleep_for(50us);
                continue;
            }
            me.at(Where::entering);
            bool done = true;
            if (role == giver) {
                signals.release();
            } else {
                done = acquire_somehow(signals, me.dice);
            }
            if (done) me.did();
            me.at(Where::outside);
            me.may_end();
        }
    }

    void audit(std::span<const SyncLife> lives, const SyncPlan&,
               std::vector<std::string>& errors) const {
        const Ends given = ends_of(lives, giver);
        const Ends taken = ends_of(lives, taker);
        const auto value = static_cast<std::int64_t>(signals.get_value());
        const auto noted = static_cast<std::int64_t>(given.done + given_at_the_end.value()) -
                           static_cast<std::int64_t>(taken.done);
        // Of a call in which somebody was killed it is not known whether it counts.
        const auto least = noted - static_cast<std::int64_t>(taken.between);
        const auto most = noted + static_cast<std::int64_t>(given.between);
        if (value < least || value > most) {
            errors.push_back("the value is " + std::to_string(value) + ", not " +
                             std::to_string(least) + " to " + std::to_string(most));
        }
    }
};

/// Everybody acquires, takes one of as many seats as there are permits, and goes again.
struct PermitDrill : Drill {
    static constexpr std::size_t most_permits = 8;
    struct Seats {
        std::array<std::uint32_t, most_permits> holders;
    };

    mp::BoundedSemaphore permits{1};
    mp::RawValue<Seats> seats{};
    std::uint32_t bound = 1;

    static PermitDrill make(const SyncPlan& plan) {
        PermitDrill drill;
        drill.permits = mp::BoundedSemaphore(static_cast<int>(plan.permits));
        drill.bound = plan.permits;
        return drill;
    }
    template <class Archive>
    void serialize(Archive& archive, unsigned) {
        archive & permits & seats & bound;
    }

    void work(Part& me, std::uint64_t) const {
        while (!me.stopped()) {
            me.at(Where::entering);
            if (!acquire_somehow(permits, me.dice)) {
                me.at(Where::outside);
                continue;
            }
            std::uint32_t* seat = sit_down();
            if (seat == nullptr) me.complain("more are inside than there are permits");
            me.at(Where::inside);
            // A second one, so that one process has several.
            std::uint32_t* other = nullptr;
            const bool second = me.dice.once_in(3) && permits.acquire(false);
            if (second && (other = sit_down()) == nullptr)
                me.complain("more are inside than may be, by two");
            me.may_end();
            me.stay();
            if (permits.get_value() >= static_cast<int>(bound))
                me.complain("all permits are there, and one is held");
            if (second) leave(other);
            me.did();
            leave(seat);
            me.at(Where::outside);
        }
    }

    void audit(std::span<const SyncLife>, const SyncPlan&, std::vector<std::string>& errors) const {
        if (permits.get_value() != static_cast<int>(bound)) {
            errors.push_back(std::to_string(permits.get_value()) + " permits of " +
                             std::to_string(bound) + " are there again");
        }
        for (std::uint32_t i = 0; i < bound; ++i) {
            if (!permits.acquire(true, hang)) errors.push_back("a permit cannot be had");
        }
        if (permits.acquire(false)) errors.push_back("there is one permit more than ever");
        for (std::uint32_t i = 0; i < bound; ++i) permits.release();
        try {
            permits.release();
            errors.push_back("it was released beyond its bound");
        } catch (const mp::ValueError&) {}
    }

private:
    /// A free seat, or one of the dead, of which there must be one for each permit.
    [[nodiscard]] std::uint32_t* sit_down() const {
        const std::uint32_t me = shm::self();
        // While this one looks another may move from behind its eyes to before them.
        for (int look = 0; look < 1000; ++look) {
            for (std::uint32_t i = 0; i < bound; ++i) {
                std::atomic_ref seat(seats.value().holders[i]);
                std::uint32_t holder = seat.load();
                if (holder != 0 && shm::alive(holder)) continue;
                if (seat.compare_exchange_strong(holder, me)) return &seats.value().holders[i];
            }
            std::this_thread::yield();
        }
        return nullptr;
    }
    void leave(std::uint32_t* seat) const {
        if (seat != nullptr) std::atomic_ref(*seat).store(0);
        permits.release();
    }
};

}  // namespace chaos
