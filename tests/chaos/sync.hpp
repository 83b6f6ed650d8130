// SPDX-License-Identifier: BSL-1.0
//
// A round of chaos on a primitive of synchronisation: processes that use it without pause, that are
// killed at any time or end by themselves in the middle of it, and are replaced. What they do with
// it, and what must be true in the end, is a drill (sync_*.hpp).
#pragma once

#include <multiprocessing/sharedctypes.hpp>

#include "chaos/crew.hpp"
#include "chaos/items.hpp"
#include "chaos/record.hpp"
#include "shm/helpers.hpp"

#include <array>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <functional>
#include <iostream>
#include <iterator>
#include <span>
#include <sstream>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include <sys/resource.h>
#include <unistd.h>

namespace chaos {

namespace os = multiprocessing::os;
namespace shm = multiprocessing::shm;

// Who waits looks at the holder once in that time: so the dead are noticed within a tenth of a
// second.
static_assert(2 * shm::patience <= 100ms);

/// What a seed says.
struct SyncPlan {
    std::uint64_t seed = 0;
    std::uint32_t workers = 0;
    std::uint32_t permits = 0;  // of a semaphore; parties of a barrier are the workers
    bool kills = false;         // SIGKILL from outside
    bool ends_itself = false;   // workers end in the middle, in every other way
    bool timed = false;         // waits have timeouts
    std::uint64_t pause = 0;    // between kills, in microseconds, on average
    std::uint64_t hold = 0;     // steps that a worker stays inside, at most

    SyncPlan() = default;
    explicit SyncPlan(std::uint64_t number);
    [[nodiscard]] std::string text() const;
};

/// Where a worker is with respect to what it uses. Written down before each step is taken.
enum class Where : std::uint64_t { outside, entering, inside, leaving };

/// A worker from its start to its end.
struct SyncLife {
    std::uint64_t role;
    std::uint64_t ended;  // by the killer: it is gone
    Where where;
    std::uint64_t done;  // calls, or whatever the drill counts
};

/// All that is written down in a round; zeroed shared memory.
struct SyncBook {
    static constexpr std::size_t most_lives = 1024;
    std::array<SyncLife, most_lives> lives;
    std::uint64_t progress;
    std::uint64_t stop;
    std::uint64_t complaints;
    std::array<char, 400> complaint;
};
using SharedBook = mp::RawArray<SyncBook>;

/// A worker's part: its pen, its dice, and its end.
class Part {
public:
    Part(const SharedBook& book, std::uint32_t life, const SyncPlan& the_plan)
        : plan(the_plan), dice(the_plan.seed ^ (life + 1)), book_(book[0]), life_(life) {}

    const SyncPlan& plan;
    Dice dice;

    [[nodiscard]] std::uint32_t life() const noexcept { return life_; }
    [[nodiscard]] bool stopped() const noexcept { return load(book_.stop) != 0; }
    void at(Where where) noexcept { store(mine().where, where); }
    void did() noexcept {
        store(mine().done, mine().done + 1);
        std::atomic_ref(book_.progress).fetch_add(1, std::memory_order_relaxed);
    }
    void complain(std::string_view what) { chaos::complain(book_, what); }
    /// For a while, in which others come to stand before what this one holds.
    void stay() {
        for (auto n = dice.below(plan.hold); n != 0; --n) os::spin_pause();
    }
    /// Now and then the worker ends here, in one of the ways that are no SIGKILL from outside.
    void may_end() {
        if (!plan.ends_itself || !dice.once_in(200)) return;
        switch (dice.below(4)) {
        case 0:
            ::_exit(left);
        case 1:
            ::raise(SIGABRT);
            break;
        case 2:
            support::die();
        default:
            throw Ends();
        }
    }
    /// Thrown to return from the target as if all were well.
    struct Ends {};
    /// The exit code of _exit.
    static constexpr int left = 3;

private:
    [[nodiscard]] SyncLife& mine() const noexcept { return book_.lives[life_]; }

    SyncBook& book_;
    std::uint32_t life_;
};

/// Acquires in any of the ways there are.
template <class Lockable>
[[nodiscard]] bool acquire_somehow(const Lockable& lockable, Dice& dice) {
    switch (dice.below(5)) {
    case 0:
        return lockable.acquire(false);
    case 1:
        return lockable.acquire(true, 1ms);
    case 2:
        return lockable.acquire(true, 200ms);
    case 3:
        return lockable.try_lock();
    default:
        return lockable.acquire();
    }
}

/// What a round calls of a drill besides `work`, which a worker runs in its process. Drills are
/// handles: copies mean the same objects.
struct Drill {
    /// The worker's role, by its place among the workers.
    [[nodiscard]] static std::uint64_t role_of(std::uint64_t, const SyncPlan&) { return 0; }
    /// After a death, before somebody takes the place, as long as all others live. Returns what is
    /// wrong.
    using OthersLive = std::function<bool()>;
    [[nodiscard]] static std::string after_death(const SyncLife&, const OthersLive&) { return {}; }
    /// Called again and again once the workers are to stop, for those who wait.
    static void let_go() {}
};

inline SyncPlan::SyncPlan(std::uint64_t number) : seed(number) {
    Dice dice(number);
    static constexpr std::uint64_t pauses[] = {500, 1'000, 3'000, 10'000};
    static constexpr std::uint64_t holds[] = {2, 100, 3'000};
    workers = static_cast<std::uint32_t>(2 + dice.below(4));
    permits = static_cast<std::uint32_t>(1 + dice.below(3));
    const auto deaths = dice.below(8);  // once in a while nobody dies
    kills = deaths != 0 && deaths != 1;
    ends_itself = deaths > 2 || deaths == 1;
    timed = dice.once_in(2);
    pause = pauses[dice.below(std::size(pauses))];
    hold = holds[dice.below(std::size(holds))];
}

inline std::string SyncPlan::text() const {
    std::ostringstream text;
    text << "seed " << seed << ": " << workers << " workers, "
         << (kills         ? ends_itself ? "killed or ending" : "killed"
             : ends_itself ? "ending"
                           : "left alone")
         << ", every " << pause << " us, holding for " << hold << (timed ? ", timed" : "");
    return text.str();
}

template <class D>
void take_part(const D& drill, const SharedBook& book, std::uint32_t life, const SyncPlan& plan) {
    const ::rlimit no_core{0, 0};
    ::setrlimit(RLIMIT_CORE, &no_core);
    Part me(book, life, plan);
    try {
        drill.work(me, book[0].lives[life].role);
    } catch (const Part::Ends&) {}
}

/// The processes of a round and what is done to them.
template <class D>
class SyncRound {
public:
    SyncRound(std::string name, const SyncPlan& plan)
        : name_(std::move(name)), plan_(plan), dice_(plan.seed + 1), drill_(D::make(plan)) {}

    std::vector<std::string> run(std::chrono::milliseconds length);
    [[nodiscard]] std::string text() const;

private:
    [[nodiscard]] SyncBook& book() const { return book_[0]; }
    void start(Member& worker);
    void bury(Member& worker);
    void kill_some();
    void replace(Member& worker);
    void look();
    [[nodiscard]] std::string title() const { return name_ + ", " + plan_.text(); }

    std::string name_;
    SyncPlan plan_;
    Dice dice_;
    SharedBook book_{1};
    D drill_;
    std::vector<Member> workers_;
    std::uint32_t lives_ = 0;
    std::uint32_t killed_ = 0;
    Watch watch_;
    std::vector<std::string> errors_;
};

template <class D>
void SyncRound<D>::start(Member& worker) {
    worker.life = lives_++;
    const auto place = static_cast<std::uint64_t>(&worker - workers_.data());
    book().lives[worker.life].role = D::role_of(place, plan_);
    worker.process.emplace(start_somehow(dice_), &take_part<D>, drill_, book_, worker.life, plan_);
    worker.process->start();
}

template <class D>
void SyncRound<D>::bury(Member& worker) {
    worker.process->join(hang);
    const auto code = worker.process->exitcode();
    if (!code) give_up(title() + ": " + worker.name + " does not end", workers_);
    store(book().lives[worker.life].ended, std::uint64_t{1});
    if (*code != 0) ++killed_;
    if (*code != 0 && *code != Part::left && *code != -SIGKILL && *code != -SIGABRT) {
        errors_.push_back(worker.name + " ended with " + std::to_string(*code));
    }
    worker.process.reset();
}

template <class D>
void SyncRound<D>::kill_some() {
    if (!plan_.kills) return;
    std::vector<Member*> victims;
    for (auto n = dice_.once_in(4) ? 1 + dice_.below(plan_.workers) : 1; n != 0; --n) {
        Member& worker = workers_[dice_.below(workers_.size())];
        if (!worker.process) continue;
        worker.process->kill();
        victims.push_back(&worker);
    }
    for (Member* victim : victims) {
        if (victim->process) bury(*victim);
    }
}

template <class D>
void SyncRound<D>::replace(Member& worker) {
    const auto others_live = [&] {
        for (const Member& other : workers_) {
            if (&other != &worker && !(other.process && other.process->is_alive())) return false;
        }
        return true;
    };
    const std::string error = drill_.after_death(book().lives[worker.life], others_live);
    if (!error.empty()) give_up(title() + ": " + error, workers_);
    start(worker);
}

template <class D>
void SyncRound<D>::look() {
    if (watch_.look(load(book().progress)) > hang) give_up(title() + ": a hang", workers_);
}

template <class D>
std::vector<std::string> SyncRound<D>::run(std::chrono::milliseconds length) {
    workers_.resize(plan_.workers);
    for (Member& worker : workers_) {
        worker.name = "worker " + std::to_string(&worker - workers_.data());
        start(worker);
    }
    const auto until = Watch::Clock::now() + length;
    while (Watch::Clock::now() < until && lives_ + workers_.size() <= SyncBook::most_lives) {
        if (!dice_.once_in(8)) {
            std::this_thread::sleep_for(std::chrono::microseconds(dice_.below(2 * plan_.pause)));
        }
        kill_some();
        for (Member& worker : workers_) {
            if (worker.process && !worker.process->is_alive()) bury(worker);
        }
        for (Member& worker : workers_) {
            if (!worker.process) replace(worker);
        }
        look();
    }
    store(book().stop, std::uint64_t{1});
    const auto patience = Watch::Clock::now() + hang;
    for (Member& worker : workers_) {
        while (worker.process && worker.process->is_alive()) {
            drill_.let_go();
            std::this_thread::sleep_for(1ms);
            if (Watch::Clock::now() > patience)
                give_up(title() + ": " + worker.name + " does not stop", workers_);
        }
        if (worker.process) bury(worker);
    }
    if (book().complaints != 0) {
        errors_.push_back(std::string(book().complaint.data()) + " (" +
                          std::to_string(book().complaints) + " complaints in all)");
    }
    drill_.audit(std::span(book().lives).first(lives_), plan_, errors_);
    return std::move(errors_);
}

template <class D>
std::string SyncRound<D>::text() const {
    std::ostringstream text;
    text << killed_ << " of " << lives_ << " ended badly, " << book().progress
         << " steps; longest standstill "
         << std::chrono::duration_cast<std::chrono::milliseconds>(watch_.longest()).count()
         << " ms";
    return text.str();
}

/// One round for `length`. What is wrong is said on stdout, and false returned.
template <class D>
[[nodiscard]] bool sync_round_of(const std::string& name, std::uint64_t seed,
                                 std::chrono::milliseconds length) {
    const SyncPlan plan(seed);
    const support::NoLeak memory;
    std::vector<std::string> errors;
    std::string text;
    {
        SyncRound<D> round(name, plan);
        errors = round.run(length);
        text = round.text();
    }
    mp::runtime::this_process().fork_server.stop();
    if (memory.leaked() != 0) {
        errors.push_back(std::to_string(memory.leaked()) + " bytes are in use when it is gone");
    }
    std::cout << (errors.empty() ? "ok   " : "FAIL ") << name << ", " << plan.text() << "; " << text
              << std::endl;
    for (const std::string& error : errors) std::cout << "     " << error << std::endl;
    return errors.empty();
}

/// How lives that were not told to stop have ended.
struct Ends {
    std::uint64_t inside = 0;   // surely holding
    std::uint64_t between = 0;  // holding or not
    std::uint64_t done = 0;     // by all, dead or not
};
[[nodiscard]] inline Ends ends_of(std::span<const SyncLife> lives, std::uint64_t role = 0) {
    Ends ends;
    for (const SyncLife& life : lives) {
        if (life.role != role) continue;
        ends.done += life.done;
        if (life.where == Where::inside) ++ends.inside;
        if (life.where == Where::entering || life.where == Where::leaving) ++ends.between;
    }
    return ends;
}

}  // namespace chaos
