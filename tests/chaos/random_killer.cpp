// SPDX-License-Identifier: BSL-1.0
//
// random_killer WHAT [--seed N] [--seeds N] [--seconds N]: rounds of chaos, one for each seed from N
// on, until there have been so many or so many seconds have passed. Each round says how it went; the
// first that does not go well is the last. WHAT is one of `rounds` below, or "synchronize": all the
// primitives in turn with each seed.
#include <multiprocessing/process.hpp>

#include "chaos/pipes.hpp"
#include "chaos/pool.hpp"
#include "chaos/queues.hpp"
#include "chaos/sync_condition.hpp"
#include "chaos/sync_locks.hpp"
#include "chaos/sync_meetings.hpp"
#include "chaos/sync_semaphores.hpp"
#include "support/guard.hpp"

#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

namespace {

namespace mp = multiprocessing;

using Length = std::chrono::milliseconds;

/// What there is chaos with.
struct Round {
    std::string_view what;
    bool (*run)(std::uint64_t seed, Length length);
    Length length{1200};
    bool of_synchronize = true;
};

template <class D>
bool sync_round(std::uint64_t seed, Length length);

constexpr Length short_one{500};
constexpr Round rounds[] = {
    {"queues", chaos::queue_round, Length(1200), false},
    {"pipes", chaos::pipe_round, Length(1200), false},
    {"pool", chaos::pool_round, Length(1200), false},
    {"lock", sync_round<chaos::LockDrill<mp::Lock>>, short_one},
    {"rlock", sync_round<chaos::LockDrill<mp::RLock>>, short_one},
    {"semaphore", sync_round<chaos::SignalDrill>, short_one},
    {"bounded_semaphore", sync_round<chaos::PermitDrill>, short_one},
    {"condition", sync_round<chaos::ConditionDrill>, short_one},
    {"event", sync_round<chaos::EventDrill>, short_one},
    {"barrier", sync_round<chaos::BarrierDrill>, short_one},
    {"value", sync_round<chaos::LockDrill<mp::Value<chaos::Guarded>>>, short_one},
};

template <class D>
bool sync_round(std::uint64_t seed, Length length) {
    const auto* round = rounds;
    while (round->run != sync_round<D>) ++round;
    return chaos::sync_round_of<D>(std::string(round->what), seed, length);
}

struct Options {
    std::uint64_t seed = 1;
    std::uint64_t seeds = std::numeric_limits<std::uint64_t>::max();
    std::chrono::seconds seconds = std::chrono::hours(24 * 365);
};

[[noreturn]] void explain() {
    std::cerr << "random_killer WHAT [--seed N] [--seeds N] [--seconds N]\nWHAT: synchronize";
    for (const Round& round : rounds) std::cerr << ", " << round.what;
    std::cerr << '\n';
    std::exit(2);
}

Options read_options(int argc, char* argv[]) {
    Options options;
    for (int i = 2; i < argc; i += 2) {
        char* end = nullptr;
        if (i + 1 == argc) explain();
        const auto number = std::strtoull(argv[i + 1], &end, 10);
        if (*end != '\0') explain();
        const std::string name = argv[i];
        if (name == "--seed") {
            options.seed = number;
        } else if (name == "--seeds") {
            options.seeds = number;
        } else if (name == "--seconds") {
            options.seconds = std::chrono::seconds(number);
        } else {
            explain();
        }
    }
    if (argc == 2) options.seeds = 10;
    return options;
}

}  // namespace

int main(int argc, char* argv[]) {
    multiprocessing::freeze_support();
    if (argc < 2) explain();
    const std::string what = argv[1];
    std::vector<const Round*> chosen;
    for (const Round& round : rounds) {
        if (what == round.what || (what == "synchronize" && round.of_synchronize)) {
            chosen.push_back(&round);
        }
    }
    if (chosen.empty()) explain();
    const Options options = read_options(argc, argv);
    support::warm_up();
    support::Guard guard;
    const auto until = std::chrono::steady_clock::now() + options.seconds;
    for (std::uint64_t i = 0; i < options.seeds; ++i) {
        const std::uint64_t seed = options.seed + i;
        for (const Round* round : chosen) {
            if (std::chrono::steady_clock::now() >= until) return 0;
            guard.begin("random_killer " + std::string(round->what) + " --seeds 1 --seed " +
                        std::to_string(seed));
            const bool well = round->run(seed, round->length);
            guard.end();
            if (!well || !guard.satisfied()) return 1;
        }
    }
    return 0;
}
