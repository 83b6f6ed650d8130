// SPDX-License-Identifier: BSL-1.0
//
// random_killer queues|pipes [--seed N] [--seeds N] [--seconds N]: rounds of chaos, one for each seed
// from N on, until there have been so many or so many seconds have passed. Each round says how it
// went; the first that does not go well is the last.
#include <multiprocessing/process.hpp>

#include "chaos/pipes.hpp"
#include "chaos/queues.hpp"
#include "support/guard.hpp"

#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <limits>
#include <string>

namespace {

constexpr std::chrono::milliseconds length_of_a_round{1200};

struct Options {
    std::uint64_t seed = 1;
    std::uint64_t seeds = std::numeric_limits<std::uint64_t>::max();
    std::chrono::seconds seconds = std::chrono::hours(24 * 365);
};

[[noreturn]] void explain() {
    std::cerr << "random_killer queues|pipes [--seed N] [--seeds N] [--seconds N]\n";
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
    if (what != "queues" && what != "pipes") explain();
    const Options options = read_options(argc, argv);
    support::warm_up();
    support::Guard guard;
    const auto until = std::chrono::steady_clock::now() + options.seconds;
    for (std::uint64_t i = 0; i < options.seeds && std::chrono::steady_clock::now() < until; ++i) {
        const std::uint64_t seed = options.seed + i;
        guard.begin("random_killer " + what + " --seeds 1 --seed " + std::to_string(seed));
        const bool well = what == "queues" ? chaos::queue_round(seed, length_of_a_round)
                                           : chaos::pipe_round(seed, length_of_a_round);
        guard.end();
        if (!well || !guard.satisfied()) return 1;
    }
    return 0;
}
