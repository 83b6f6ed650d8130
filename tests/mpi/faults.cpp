// SPDX-License-Identifier: BSL-1.0
//
// faults WHAT [raise]: what becomes of a run when something goes wrong. faults.sh says what is expected.

#include <multiprocessing/mpi.hpp>

#include <chrono>
#include <csignal>
#include <exception>
#include <iostream>
#include <string>
#include <thread>
#include <vector>

#include <unistd.h>

namespace mp = multiprocessing;
using namespace std::chrono_literals;

namespace {

int square(int x) { return x * x; }
int kill_itself(int x) {
    if (x == 5) ::raise(SIGKILL);
    std::this_thread::sleep_for(10ms);
    return x;
}
int stop_itself(int x) {
    if (x == 5) ::raise(SIGSTOP);
    return x;
}
int leave(int x) {
    if (x == 5) std::exit(3);
    return x;
}
void never_end() { std::this_thread::sleep_for(1h); }

void use(const std::string& what) {
    if (what == "spawn") {
        const mp::mpi::Pool pool({.spawn = 2});
        std::cout << pool.ranks().size() << " ranks, " << pool.map(square, mp::range(100)).at(9) << '\n';
        const mp::mpi::Pool again({.spawn = 1});
        std::cout << again.ranks().size() << " ranks, " << again.map(square, mp::range(100)).at(9) << '\n';
        return;
    }
    if (what == "need") {
        const mp::mpi::Pool pool({.minimum_ranks = 3});
        return;
    }
    const mp::mpi::Pool pool;
    if (what == "none") {
        std::cout << pool.ranks().at(0).rank << ": " << pool.map(square, mp::range(100)).at(9) << '\n';
    } else if (what == "kill") {
        pool.map(kill_itself, mp::range(1000), 1);
    } else if (what == "stop") {
        pool.map(stop_itself, mp::range(1000), 1);
    } else if (what == "leave") {
        pool.map(leave, mp::range(1000), 1);
    } else if (what == "endless") {
        static_cast<void>(pool.apply_async(never_end));
        std::this_thread::sleep_for(100ms);
    } else if (what == "master") {
        static_cast<void>(pool.map_async(kill_itself, std::vector<int>(100, 1), 1));
        ::raise(SIGKILL);
    } else if (what == "throw") {
        throw std::runtime_error("of the program's own");
    }
    std::cout << "went on to the end\n";
}

}  // namespace

int main(int argc, char* argv[]) {
    const std::string what = argc > 1 ? argv[1] : "";
    const std::string handler = argc > 2 ? argv[2] : "";
    if (what == "forgotten") {
        try {
            const mp::mpi::Pool pool;
        } catch (const mp::AssertionError& error) {
            std::cout << "AssertionError: " << error.what() << '\n';
        }
        return 0;
    }
    if (what == "name") {  // without which both builds would be one
        std::cout << BUILD << '\n';
        return 0;
    }
    if (what == "single") MPI_Init(&argc, &argv);
    try {
        mp::mpi::EnvironmentOptions options{.rank_timeout = 2s, .patience = 1s};
        if (handler == "raise") options.error_handler = mp::mpi::ErrorHandler::raise();
        mp::mpi::freeze_support(argc, argv, options);
        use(what);
    } catch (const mp::mpi::RankLostError& error) {
        std::cout << "RankLostError of rank " << error.rank() << ": " << error.what() << std::endl;
    } catch (const std::exception& error) {
        std::cout << "exception: " << error.what() << std::endl;
    }
    if (what == "single") MPI_Finalize();
}
