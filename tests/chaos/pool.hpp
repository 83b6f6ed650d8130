// SPDX-License-Identifier: BSL-1.0
//
// A round of chaos in a pool: several threads give it work of every kind, and its workers are killed at
// any time. Each item has one outcome, which is right, or says that its worker was lost, or late.
#pragma once

#include <multiprocessing/context.hpp>
#include <multiprocessing/pool.hpp>
#include <multiprocessing/sharedctypes.hpp>
#include <multiprocessing/synchronize.hpp>

#include "chaos/crew.hpp"
#include "chaos/items.hpp"
#include "shm/helpers.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <iostream>
#include <mutex>
#include <numeric>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace chaos {

/// What a seed says.
struct PoolPlan {
    std::uint64_t seed = 0;
    mp::runtime::StartMethod method = mp::runtime::StartMethod::fork;
    int workers = 0;
    int callers = 0;
    int maxtasks = 0;         // of a worker; 0: any number
    bool resizes = false;     // now and then
    bool all_at_once = false; // at times all workers are killed
    bool closes = false;      // and joins the pool in the end, instead of terminating it
    std::uint64_t pause = 0;  // between kills, in microseconds, on average

    explicit PoolPlan(std::uint64_t number);
    [[nodiscard]] std::string text() const;
};

/// How often each item of a job has begun.
using Runs = mp::RawArray<std::uint32_t>;

/// What a task makes of a number.
struct Answer {
    std::uint32_t item = 0;
    std::uint64_t word = 0;
};
inline Answer answer(std::uint32_t job, std::uint32_t item) {
    return {item, Dice(Label{job, item}).roll()};
}

// The tasks.

inline Answer run_bare(std::uint32_t job, std::uint32_t item) { return answer(job, item); }
inline void count_run(const Runs& runs, std::uint32_t item) {
    std::atomic_ref(runs[item]).fetch_add(1);
}
inline Answer run_counted(const Runs& runs, std::uint32_t job, std::uint32_t item) {
    count_run(runs, item);
    return answer(job, item);
}
inline Answer run_too_long(const Runs& runs, std::uint32_t job, std::uint32_t item) {
    count_run(runs, item);
    if (item % 20 == 7) {
        const mp::Event never;
        never.wait();
    }
    while (item % 20 == 13 && !mp::this_task::stop_requested()) std::this_thread::yield();
    return answer(job, item);
}
inline std::string run_text(const Runs& runs, const std::string& text) {
    const auto label = Item<std::string>::read(text);
    if (!label) throw std::runtime_error("an argument is not as it was given");
    count_run(runs, label->sequence);
    return Item<std::string>::make({label->producer + 1, label->sequence});
}

/// What has come of the items of one job.
class Sheet {
public:
    Sheet(const char* what, std::uint32_t job, std::uint32_t items, std::uint32_t retries = 0)
        : what_(what), job_(job), retries_(retries), runs_(items), seen_(items) {}

    [[nodiscard]] const Runs& runs() const noexcept { return runs_; }
    [[nodiscard]] std::uint32_t job() const noexcept { return job_; }
    [[nodiscard]] std::uint32_t items() const noexcept { return static_cast<std::uint32_t>(seen_.size()); }
    [[nodiscard]] std::uint64_t lost() const noexcept { return lost_; }
    [[nodiscard]] std::uint64_t late() const noexcept { return late_; }

    void value(const Answer& got) {
        if (got.item >= items() || got.word != answer(job_, got.item).word) return complain("a wrong result");
        see(got.item);
    }
    void value(const std::string& text) {
        const auto label = Item<std::string>::read(text);
        if (!label || label->producer != job_ + 1 || label->sequence >= items()) {
            return complain("a wrong text");
        }
        see(label->sequence);
    }
    void error(const std::exception_ptr& error) {
        ++outcomes_;
        try {
            std::rethrow_exception(error);
        } catch (const mp::WorkerLostError&) {
            ++lost_;
        } catch (const mp::TaskTimeoutError&) {
            ++late_;
        } catch (const std::exception& other) {
            complain(std::string("an error: ") + other.what());
        }
    }
    /// What is wrong, when all has come; empty if nothing is.
    [[nodiscard]] std::string verdict(bool is_timed = false, bool is_counted = false);

private:
    void see(std::uint32_t item) {
        ++outcomes_;
        if (seen_[item]) complain("item " + std::to_string(item) + " came twice");
        seen_[item] = true;
    }
    void complain(const std::string& what) {
        if (complaint_.empty()) complaint_ = what;
    }

    const char* what_;
    std::uint32_t job_;
    std::uint32_t retries_;
    Runs runs_;
    std::vector<bool> seen_;
    std::uint64_t outcomes_ = 0;
    std::uint64_t lost_ = 0;
    std::uint64_t late_ = 0;
    std::string complaint_;
};

/// The pool, its callers and its killer.
class PoolRound {
public:
    explicit PoolRound(const PoolPlan& plan);
    PoolRound(const PoolRound&) = delete;
    PoolRound& operator=(const PoolRound&) = delete;

    /// What was wrong.
    [[nodiscard]] std::vector<std::string> run(std::chrono::milliseconds length);
    [[nodiscard]] std::string text() const;

private:
    void call(Dice dice);
    void do_a_job(Dice& dice, std::uint32_t job);
    void stream_numbers(Dice& dice, std::uint32_t job);
    void stream_texts(Dice& dice, std::uint32_t job);
    void map_each(Dice& dice, std::uint32_t job);
    void map_in_place(Dice& dice, std::uint32_t job);
    void apply_many(Dice& dice, std::uint32_t job);
    void map_too_long(Dice& dice, std::uint32_t job);
    void cancel_some(Dice& dice, std::uint32_t job);
    void end_pool();

    template <class R>
    void take_all(Sheet& sheet, const mp::IMapIterator<R>& results);
    void take_all(Sheet& sheet, const std::vector<mp::Result<Answer>>& results);
    void close_sheet(Sheet& sheet, bool is_timed, bool is_counted);
    void complain(const std::string& what) {
        const std::lock_guard lock(mutex_);
        errors_.push_back(what);
        stop_ = true;
    }
    void kill_some(Dice& dice);
    /// Kills until it is over, and sees to it that it will be.
    template <class Over>
    void kill_until(Dice& dice, Over over);

    const PoolPlan plan_;
    mp::Pool pool_;
    std::atomic<bool> stop_{false};
    std::atomic<int> at_work_{0};
    std::atomic<std::uint32_t> jobs_{0};
    std::atomic<std::uint64_t> progress_{0};
    std::atomic<std::uint64_t> tasks_{0};
    std::atomic<std::uint64_t> lost_{0};
    std::atomic<std::uint64_t> late_{0};
    std::atomic<std::uint64_t> cancelled_{0};
    std::uint64_t killed_ = 0;
    Watch watch_;
    std::mutex mutex_;
    std::vector<std::string> errors_;
};

/// One round for `length`. What is wrong is said on stdout, and false returned.
[[nodiscard]] bool pool_round(std::uint64_t seed, std::chrono::milliseconds length);

// ---------------------------------------------------------------------------------------------------

inline PoolPlan::PoolPlan(std::uint64_t number) : seed(number) {
    using Method = mp::runtime::StartMethod;
    Dice dice(number);
    const auto n = dice.below(16);
    method = n < 2 ? Method::spawn : n < 3 ? Method::forkserver : Method::fork;
    workers = static_cast<int>(1 + dice.below(4));
    callers = static_cast<int>(1 + dice.below(3));
    maxtasks = dice.once_in(4) ? static_cast<int>(1 + dice.below(200)) : 0;
    resizes = dice.once_in(4);
    all_at_once = dice.once_in(3);
    closes = dice.once_in(2);
    pause = std::uint64_t{500} << dice.below(8);
}

inline std::string PoolPlan::text() const {
    std::ostringstream out;
    out << "pool, seed " << seed << ": " << workers << " workers by " << mp::runtime::name_of(method) << ", "
        << callers << " callers, a kill every " << pause << " us"
        << (all_at_once ? ", at times of all" : "") << (resizes ? ", resized" : "");
    if (maxtasks != 0) out << ", " << maxtasks << " tasks a worker";
    out << (closes ? ", joined" : ", terminated");
    return out.str();
}

inline std::string Sheet::verdict(bool is_timed, bool is_counted) {
    if (outcomes_ != items()) {
        complain(std::to_string(outcomes_) + " outcomes of " + std::to_string(items()) + " items");
    }
    if (late_ != 0 && !is_timed) complain("late, without a timeout");
    for (std::uint32_t i = 0; is_counted && i < items(); ++i) {
        if (runs_[i] > retries_ + 1) complain("item " + std::to_string(i) + " was run too often");
        if (seen_[i] && runs_[i] == 0) complain("item " + std::to_string(i) + " was not run");
    }
    return complaint_.empty() ? std::string() : std::string(what_) + ": " + complaint_;
}

inline PoolRound::PoolRound(const PoolPlan& plan)
    : plan_(plan),
      pool_({.processes = plan.workers,
             .maxtasksperchild = plan.maxtasks != 0 ? std::optional(plan.maxtasks) : std::nullopt,
             .context = mp::runtime::ContextBase(plan.method)}) {}

inline std::vector<std::string> PoolRound::run(std::chrono::milliseconds length) {
    Dice dice(plan_.seed + 1);
    std::vector<std::thread> callers;
    at_work_ = plan_.callers;
    for (int i = 0; i < plan_.callers; ++i) {
        callers.emplace_back([this, own = Dice(dice.roll())] { call(own); });
    }
    const auto until = Watch::Clock::now() + length;
    kill_until(dice, [&] { return stop_ || Watch::Clock::now() >= until; });
    stop_ = true;
    // What has begun is ended, among more deaths.
    kill_until(dice, [&] { return at_work_ == 0; });
    for (std::thread& caller : callers) caller.join();
    at_work_ = 1;
    std::thread ending([this] { end_pool(); });
    kill_until(dice, [&] { return at_work_ == 0; });
    ending.join();
    if (lost_ > killed_) {
        complain(std::to_string(lost_) + " items are lost for " + std::to_string(killed_) + " deaths");
    }
    return errors_;
}

inline std::string PoolRound::text() const {
    std::ostringstream text;
    text << killed_ << " killed, " << jobs_ << " jobs, " << tasks_ << " tasks, " << lost_ << " lost, "
         << late_ << " late, " << cancelled_ << " jobs cancelled; longest standstill "
         << std::chrono::duration_cast<std::chrono::milliseconds>(watch_.longest()).count() << " ms";
    return text.str();
}

inline void PoolRound::kill_some(Dice& dice) {
    const auto workers = pool_.workers();
    if (workers.empty()) return;
    const bool all = plan_.all_at_once && dice.once_in(8);
    const auto victim = static_cast<std::size_t>(dice.below(workers.size()));
    for (std::size_t i = 0; i < workers.size(); ++i) {
        if (!all && i != victim) continue;
        workers[i].kill();
        ++killed_;
    }
}

template <class Over>
void PoolRound::kill_until(Dice& dice, Over over) {
    constexpr int most_in_vain = 8;
    int in_vain = 0;
    std::uint64_t before = progress_;
    while (!over()) {
        std::this_thread::sleep_for(std::chrono::microseconds(dice.below(2 * plan_.pause)));
        // Where workers die faster than they can start the pool gives up, which is not the question.
        const std::uint64_t progress = progress_;
        in_vain = std::exchange(before, progress) == progress ? in_vain + 1 : 0;
        if (in_vain < most_in_vain) kill_some(dice);
        if (plan_.resizes && !stop_ && dice.once_in(20)) {
            pool_.resize(static_cast<int>(1 + dice.below(4)));
        }
        if (watch_.look(progress) < hang) continue;
        std::vector<Member> members;
        for (const mp::Process& worker : pool_.workers()) members.push_back({worker.name(), worker, 0});
        give_up(plan_.text() + ": nobody gets on; " + text(), members);
    }
}

inline void PoolRound::call(Dice dice) {
    try {
        while (!stop_) do_a_job(dice, 2 * jobs_.fetch_add(1));
    } catch (const std::exception& error) {
        complain(std::string("a call threw ") + error.what());
    }
    --at_work_;
}

inline void PoolRound::do_a_job(Dice& dice, std::uint32_t job) {
    switch (dice.below(8)) {
    case 0: return stream_texts(dice, job);
    case 1: return map_each(dice, job);
    case 2: return map_in_place(dice, job);
    case 3: return apply_many(dice, job);
    case 4: return map_too_long(dice, job);
    case 5: return cancel_some(dice, job);
    default: return stream_numbers(dice, job);
    }
}

inline void PoolRound::close_sheet(Sheet& sheet, bool is_timed, bool is_counted) {
    const std::string verdict = sheet.verdict(is_timed, is_counted);
    if (!verdict.empty()) complain(verdict);
    tasks_ += sheet.items();
    lost_ += sheet.lost();
    late_ += sheet.late();
    ++progress_;
}

template <class R>
void PoolRound::take_all(Sheet& sheet, const mp::IMapIterator<R>& results) {
    for (;; ++progress_) {
        try {
            sheet.value(results.next());
        } catch (const mp::StopIteration&) {
            return;
        } catch (...) {
            sheet.error(std::current_exception());
        }
    }
}

inline void PoolRound::take_all(Sheet& sheet, const std::vector<mp::Result<Answer>>& results) {
    for (std::size_t i = 0; i < results.size(); ++i) {
        if (!results[i]) {
            sheet.error(results[i].error());
        } else if (results[i].value().item != i) {
            complain("a result is in another's place");
        } else {
            sheet.value(results[i].value());
        }
    }
}

/// Numbers from 0 to count - 1.
inline std::vector<std::uint32_t> first_numbers(std::uint64_t count) {
    std::vector<std::uint32_t> all(static_cast<std::size_t>(count));
    std::iota(all.begin(), all.end(), 0u);
    return all;
}

inline void PoolRound::stream_numbers(Dice& dice, std::uint32_t job) {
    const auto items = first_numbers(1 + dice.below(20'000));
    Sheet sheet("imap of numbers", job, static_cast<std::uint32_t>(items.size()));
    const auto task = mp::partial(&run_bare, job);
    const int chunksize = 1 << dice.below(7);
    take_all(sheet, dice.once_in(2) ? pool_.imap_unordered(task, items, chunksize)
                                    : pool_.imap(task, items, chunksize));
    close_sheet(sheet, false, false);
}

inline void PoolRound::stream_texts(Dice& dice, std::uint32_t job) {
    const auto count = static_cast<std::uint32_t>(1 + dice.below(200));
    const auto retries = static_cast<std::uint32_t>(dice.below(3));
    Sheet sheet("imap of texts", job, count, retries);
    std::vector<std::string> texts;
    for (std::uint32_t i = 0; i < count; ++i) texts.push_back(Item<std::string>::make({job, i}));
    const mp::TaskOptions options{.retries = static_cast<int>(retries)};
    const auto task = mp::partial(&run_text, sheet.runs());
    const int chunksize = 1 << dice.below(4);
    const int buffersize = static_cast<int>(1 + dice.below(40));
    take_all(sheet, dice.once_in(2) ? pool_.imap_unordered(options, task, texts, chunksize)
                                    : pool_.imap(options, task, texts, chunksize, buffersize));
    close_sheet(sheet, false, true);
}

inline void PoolRound::map_each(Dice& dice, std::uint32_t job) {
    const auto items = first_numbers(1 + dice.below(3000));
    const auto retries = static_cast<std::uint32_t>(dice.below(3));
    Sheet sheet("try_map", job, static_cast<std::uint32_t>(items.size()), retries);
    const mp::TaskOptions options{.timeout = dice.once_in(2) ? mp::Timeout(60) : mp::Timeout(),
                                  .retries = static_cast<int>(retries)};
    take_all(sheet, pool_.try_map(options, mp::partial(&run_counted, sheet.runs(), job), items,
                                  static_cast<int>(dice.below(60))));
    close_sheet(sheet, false, true);
}

/// Items that are in shared memory already. A map is all or nothing.
inline void PoolRound::map_in_place(Dice& dice, std::uint32_t job) {
    const auto items = first_numbers(1 + dice.below(10'000));
    const mp::Array<std::uint32_t> array(items);
    Sheet sheet("map", job, static_cast<std::uint32_t>(items.size()));
    try {
        const auto task = mp::partial(&run_bare, job);
        const int chunksize = static_cast<int>(dice.below(100));
        for (const Answer& each : pool_.map(task, array, chunksize)) sheet.value(each);
    } catch (const mp::WorkerLostError&) {
        ++lost_;
        ++progress_;
        return;
    }
    close_sheet(sheet, false, false);
}

inline void PoolRound::apply_many(Dice& dice, std::uint32_t job) {
    const auto count = static_cast<std::uint32_t>(1 + dice.below(200));
    const auto retries = static_cast<std::uint32_t>(dice.below(2));
    Sheet sheet("apply_async", job, count, retries);
    std::atomic<std::uint32_t> told{0};
    std::vector<mp::AsyncResult<Answer>> results;
    for (std::uint32_t i = 0; i < count; ++i) {
        results.push_back(pool_.apply_async({.retries = static_cast<int>(retries)}, &run_counted,
                                            sheet.runs(), job, i));
        if (i % 4 == 0) {
            results.back().then([&](const Answer&) { ++told; }, [&](const std::exception_ptr&) { ++told; });
        }
    }
    for (const auto& result : results) {
        try {
            sheet.value(result.get());
        } catch (...) {
            sheet.error(std::current_exception());
        }
        ++progress_;
    }
    if (told != (count + 3) / 4) complain(std::to_string(told) + " callbacks for " + std::to_string(count));
    close_sheet(sheet, false, true);
}

inline void PoolRound::map_too_long(Dice& dice, std::uint32_t job) {
    const auto items = first_numbers(1 + dice.below(60));
    const auto retries = static_cast<std::uint32_t>(dice.below(3));
    Sheet sheet("with timeouts", job, static_cast<std::uint32_t>(items.size()), retries);
    const mp::TaskOptions options{.timeout = std::chrono::milliseconds(1 + dice.below(30)),
                                  .retries = static_cast<int>(retries),
                                  .grace = std::chrono::milliseconds(dice.below(5))};
    const auto task = mp::partial(&run_too_long, sheet.runs(), job);
    const int chunksize = static_cast<int>(1 + dice.below(30));
    if (dice.once_in(2)) {
        take_all(sheet, pool_.try_map(options, task, items, chunksize));
    } else {
        take_all(sheet, pool_.imap_unordered(options, task, items, chunksize));
    }
    close_sheet(sheet, true, true);
}

inline void PoolRound::cancel_some(Dice& dice, std::uint32_t job) {
    const auto items = first_numbers(1 + dice.below(100));
    const Runs runs(items.size());
    const mp::TaskOptions options{.timeout = dice.once_in(2) ? mp::Timeout(60) : mp::Timeout(),
                                  .retries = 1,
                                  .grace = std::chrono::milliseconds(dice.below(5))};
    for (int i = 0; i < 10; ++i) {
        const auto result = pool_.map_async(options, mp::partial(&run_too_long, runs, job), items,
                                            static_cast<int>(dice.below(20)));
        std::this_thread::sleep_for(std::chrono::microseconds(dice.below(3000)));
        const bool in_time = result.cancel();
        try {
            if (result.get().size() != items.size()) complain("a cancelled map has a result");
            if (in_time) complain("a map was cancelled in vain");
        } catch (const mp::CancelledError&) {
            ++cancelled_;
            if (!in_time) complain("a map was cancelled, though cancel() says that it was not");
        } catch (const mp::WorkerLostError&) {
            if (in_time) complain("a map was lost after it was cancelled");
            ++lost_;
        }
        ++progress_;
    }
}

/// With work that nobody has waited for.
inline void PoolRound::end_pool() {
    try {
        Sheet sheet("what is left", 1, 500);
        const auto left = pool_.map_async(mp::partial(&run_counted, sheet.runs(), 1u), first_numbers(500), 3);
        const auto unread = pool_.imap(mp::partial(&run_counted, sheet.runs(), 1u), first_numbers(100));
        if (plan_.closes) {
            pool_.close();
            pool_.join();
            if (!left.ready()) complain("a job is not ready after join()");
        } else {
            pool_.terminate();
        }
        ++progress_;
        try {
            if (left.get().size() != 500) complain("not all is there after the end");
        } catch (const mp::WorkerLostError&) {
            ++lost_;
        } catch (const mp::CancelledError&) {
            if (plan_.closes) complain("a job was cancelled by join()");
        }
    } catch (const std::exception& error) {
        complain(std::string("the end: ") + error.what());
    }
    --at_work_;
}

inline bool pool_round(std::uint64_t seed, std::chrono::milliseconds length) {
    const PoolPlan plan(seed);
    const support::NoLeak memory;
    std::vector<std::string> errors;
    std::string text;
    {
        PoolRound round(plan);
        errors = round.run(length);
        text = round.text();
    }
    mp::runtime::this_process().fork_server.stop();
    if (memory.leaked() != 0) {
        errors.push_back(std::to_string(memory.leaked()) + " bytes are in use when it is gone");
    }
    std::cout << (errors.empty() ? "ok   " : "FAIL ") << plan.text() << "; " << text << std::endl;
    for (const std::string& error : errors) std::cout << "     " << error << std::endl;
    return errors.empty();
}

}  // namespace chaos
