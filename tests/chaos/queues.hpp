// SPDX-License-Identifier: BSL-1.0
//
// A round of chaos on a queue: producers and consumers that put and get in all the ways there are,
// and are killed at any time.
#pragma once

#include <multiprocessing/queues.hpp>

#include "chaos/crew.hpp"
#include "chaos/items.hpp"
#include "chaos/record.hpp"
#include "shm/helpers.hpp"

#include <chrono>
#include <cstdint>
#include <iterator>
#include <iostream>
#include <memory>
#include <optional>
#include <sstream>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

namespace chaos {

/// What a seed says.
struct QueuePlan {
    std::uint64_t seed = 0;
    std::uint64_t kind = 0;  // of item
    int maxsize = 0;
    std::uint64_t backlog = 0;  // more than so many in an unbounded queue make producers wait
    std::uint64_t producers = 0;
    std::uint64_t consumers = 0;
    bool puts_many = false;
    bool gets_many = false;
    bool kills_producers = false;
    bool kills_consumers = false;
    std::uint64_t pause = 0;  // between kills, in microseconds, on average

    QueuePlan() = default;
    explicit QueuePlan(std::uint64_t number);
    [[nodiscard]] std::string text() const;
};

/// One round: for `length`, then the queue is shut down, drained and dropped, and the balance struck.
/// What is wrong is said on stderr, and false returned.
[[nodiscard]] bool queue_round(std::uint64_t seed, std::chrono::milliseconds length);

// ---------------------------------------------------------------------------------------------------

inline constexpr const char* item_kinds[] = {"coins", "tiles", "slabs", "vectors", "strings", "parcels"};

inline QueuePlan::QueuePlan(std::uint64_t number) : seed(number) {
    Dice dice(number);
    static constexpr int sizes[] = {0, 0, 0, 1, 3, 64};
    static constexpr std::uint64_t pauses[] = {300, 1'000, 3'000, 10'000};
    kind = number % std::size(item_kinds);
    maxsize = sizes[dice.below(std::size(sizes))];
    backlog = kind == 0 ? 20'000 : 300;
    producers = 1 + dice.below(4);
    consumers = 1 + dice.below(4);
    puts_many = dice.once_in(2);
    gets_many = dice.once_in(2);
    const auto victims = dice.below(4);
    kills_producers = victims != 0;
    kills_consumers = victims != 1;
    pause = pauses[dice.below(std::size(pauses))];
}

inline std::string QueuePlan::text() const {
    std::ostringstream text;
    text << "queues, seed " << seed << ": " << item_kinds[kind] << ", maxsize " << maxsize << ", "
         << producers << (puts_many ? " (many)" : "") << " to " << consumers
         << (gets_many ? " (many)" : "") << ", kills "
         << (kills_producers ? kills_consumers ? "both" : "producers" : "consumers") << " every "
         << pause << " us";
    return text.str();
}

/// A producer: puts its items until it is told to stop.
template <class T>
void produce(const mp::JoinableQueue<T>& queue, const SharedRecord& shared, std::uint32_t life,
             const QueuePlan& plan) {
    PutNotes notes(shared[0], life);
    Dice dice(plan.seed ^ life);
    std::vector<T> batch;
    while (!notes.stopped()) {
        if (queue.qsize() > plan.backlog) {
            std::this_thread::sleep_for(100us);
            continue;
        }
        Label label = notes.next();
        batch.clear();
        const bool many = plan.puts_many && dice.once_in(2);
        for (auto n = many ? 1 + dice.below(40) : 1; n != 0; --n, ++label.sequence) {
            batch.push_back(Item<T>::make(label));
        }
        notes.begin(batch.size());
        try {
            if (many) {
                queue.put_many(batch);
            } else {
                switch (dice.below(4)) {
                case 0: queue.put(batch[0]); break;
                case 1: queue.put(batch[0], 10ms); break;
                case 2: queue.put_nowait(batch[0]); break;
                default:
                    if (!queue.try_put(batch[0], 1ms)) throw mp::Full("");
                }
            }
        } catch (const mp::Full&) {
            notes.refused();
            continue;
        }
        notes.done(batch.size());
    }
}

/// A consumer: gets items until the queue is shut down and drained.
template <class T>
void consume(const mp::JoinableQueue<T>& queue, const SharedRecord& shared, std::uint32_t life,
             const QueuePlan& plan) {
    GetNotes notes(shared[0], life);
    Dice dice(plan.seed ^ life);
    try {
        for (;;) {
            std::vector<T> items;
            const bool many = plan.gets_many && dice.once_in(2);
            const std::uint64_t most = many ? 1 + dice.below(20) : 1;
            notes.begin(most);
            try {
                if (many) {
                    items = queue.get_many(most, 20ms);
                } else {
                    switch (dice.below(4)) {
                    case 0: items.push_back(queue.get()); break;
                    case 1: items.push_back(queue.get(10ms)); break;
                    case 2: items.push_back(queue.get_nowait()); break;
                    default:
                        if (auto item = queue.try_get(1ms)) items.push_back(std::move(*item));
                    }
                }
            } catch (const mp::Empty&) {
            }
            for (const T& item : items) {
                queue.task_done();
                notes.note(item);
            }
            items.empty() ? notes.refused() : notes.done();
        }
    } catch (const mp::ShutDown&) {
        notes.refused();
    }
}

/// The processes of a round and what is done to them.
template <class T>
class QueueRound {
public:
    QueueRound(const QueuePlan& plan, SharedRecord record)
        : plan_(plan), dice_(plan.seed + 1), shared_(std::move(record)), queue_(plan.maxsize) {}

    /// What is wrong afterwards.
    std::vector<std::string> run(std::chrono::milliseconds length);
    [[nodiscard]] std::string text() const;

private:
    [[nodiscard]] Record& record() const { return shared_[0]; }
    /// The first are producers.
    [[nodiscard]] Role role_of(const Member& worker) const {
        const auto index = static_cast<std::uint64_t>(&worker - workers_.data());
        return index < plan_.producers ? Role::producer : Role::consumer;
    }
    void start(Member& worker);
    /// It has ended: joins it and notes how it did.
    void bury(Member& worker);
    void kill_some();
    void look();
    void end();

    QueuePlan plan_;
    Dice dice_;
    SharedRecord shared_;
    mp::JoinableQueue<T> queue_;
    std::vector<Member> workers_;
    std::uint32_t lives_ = 0;
    Watch watch_;
    Balance balance_;
    std::vector<std::string> errors_;
};

template <class T>
void QueueRound<T>::start(Member& worker) {
    worker.life = lives_++;
    record().lives[worker.life].role = role_of(worker);
    if (role_of(worker) == Role::producer) {
        worker.process.emplace(start_somehow(dice_), &produce<T>, queue_, shared_, worker.life,
                               plan_);
    } else {
        worker.process.emplace(start_somehow(dice_), &consume<T>, queue_, shared_, worker.life,
                               plan_);
    }
    worker.process->start();
}

template <class T>
void QueueRound<T>::bury(Member& worker) {
    worker.process->join(hang);
    const auto code = worker.process->exitcode();
    if (!code) give_up(plan_.text() + ": " + worker.name + " does not end", workers_);
    record().lives[worker.life].end = *code == 0 ? End::in_order : End::killed;
    if (*code != 0 && *code != -SIGKILL) {
        errors_.push_back(worker.name + " ended with " + std::to_string(*code));
    }
    worker.process.reset();
}

template <class T>
void QueueRound<T>::kill_some() {
    std::vector<Member*> victims;
    for (auto n = dice_.once_in(4) ? 1 + dice_.below(4) : 1; n != 0; --n) {
        Member& worker = workers_[dice_.below(workers_.size())];
        const bool producer = role_of(worker) == Role::producer;
        if (!(producer ? plan_.kills_producers : plan_.kills_consumers)) continue;
        worker.process->kill();
        victims.push_back(&worker);
    }
    for (Member* victim : victims) {
        if (victim->process) bury(*victim);
    }
}

template <class T>
void QueueRound<T>::look() {
    if (watch_.look(load(record().progress)) > hang) {
        give_up(plan_.text() + ": a hang: " + std::to_string(queue_.qsize()) + " items are there and "
                    "nobody puts or gets any",
                workers_);
    }
}

template <class T>
std::vector<std::string> QueueRound<T>::run(std::chrono::milliseconds length) {
    workers_.resize(plan_.producers + plan_.consumers);
    for (Member& worker : workers_) {
        worker.name = role_of(worker) == Role::producer ? "a producer" : "a consumer";
        start(worker);
    }
    const auto until = std::chrono::steady_clock::now() + length;
    while (std::chrono::steady_clock::now() < until &&
           lives_ + workers_.size() <= Record::most_lives) {
        if (!dice_.once_in(8)) {
            std::this_thread::sleep_for(std::chrono::microseconds(dice_.below(2 * plan_.pause)));
        }
        kill_some();
        for (Member& worker : workers_) {
            if (worker.process && !worker.process->is_alive()) bury(worker);
            if (!worker.process) start(worker);
        }
        look();
    }
    end();
    return std::move(errors_);
}

template <class T>
void QueueRound<T>::end() {
    store(record().stop, std::uint64_t{1});
    const auto running = [&](Role role) {
        for (const Member& worker : workers_) {
            if (role_of(worker) == role && worker.process && worker.process->is_alive()) return true;
        }
        return false;
    };
    while (running(Role::producer)) {
        std::this_thread::sleep_for(1ms);
        look();
    }
    queue_.shutdown();
    while (running(Role::consumer)) {
        std::this_thread::sleep_for(1ms);
        look();
    }
    for (Member& worker : workers_) {
        if (worker.process) bury(worker);
    }
    balance_ = balance(record());
    errors_.insert(errors_.end(), balance_.errors.begin(), balance_.errors.end());
    if (queue_.qsize() != 0) {
        errors_.push_back(std::to_string(queue_.qsize()) + " items are left in a drained queue");
    }
    if (balance_.may_be_lost == 0 && !queue_.join(0)) errors_.push_back("join() does not return");
}

template <class T>
std::string QueueRound<T>::text() const {
    std::ostringstream text;
    text << balance_.killed << " killed of " << lives_ << ", " << balance_.got << " got, "
         << balance_.lost << " of at most " << balance_.may_be_lost << " lost, "
         << balance_.uncounted << " uncounted; longest standstill "
         << std::chrono::duration_cast<std::chrono::milliseconds>(watch_.longest()).count() << " ms";
    return text.str();
}

template <class T>
[[nodiscard]] bool queue_round_of(const QueuePlan& plan, std::chrono::milliseconds length) {
    const SharedRecord record(1);
    const support::NoLeak memory;
    std::vector<std::string> errors;
    std::string text;
    {
        QueueRound<T> round(plan, record);
        errors = round.run(length);
        text = round.text();
        if (memory.leaked() > most_memory_of_a_drained_queue) {
            errors.push_back(std::to_string(memory.leaked()) + " bytes are in use when it is drained");
        }
    }
    mp::runtime::this_process().fork_server.stop();
    if (memory.leaked() != 0) {
        errors.push_back(std::to_string(memory.leaked()) + " bytes are in use when it is gone");
    }
    std::cout << (errors.empty() ? "ok   " : "FAIL ") << plan.text() << "; " << text << std::endl;
    for (const std::string& error : errors) std::cout << "     " << error << std::endl;
    return errors.empty();
}

inline bool queue_round(std::uint64_t seed, std::chrono::milliseconds length) {
    const QueuePlan plan(seed);
    switch (plan.kind) {
    case 0: return queue_round_of<Coin>(plan, length);
    case 1: return queue_round_of<Tile>(plan, length);
    case 2: return queue_round_of<Slab>(plan, length);
    case 3: return queue_round_of<std::vector<std::uint64_t>>(plan, length);
    case 4: return queue_round_of<std::string>(plan, length);
    default: return queue_round_of<Parcel>(plan, length);
    }
}

}  // namespace chaos
