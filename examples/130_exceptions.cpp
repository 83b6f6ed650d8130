// Exceptions of a worker, caught by their own type, and a worker that crashes.
// SPDX-License-Identifier: BSL-1.0
//
//     import os, signal
//     from multiprocessing import Pool
//
//     def month_name(number):
//         return ["January", "February", "March"][number - 1]
//
//     def crash():
//         os.kill(os.getpid(), signal.SIGKILL)
//
//     if __name__ == "__main__":
//         with Pool(2) as pool:
//             try:
//                 pool.apply(month_name, (13,))
//             except IndexError as e:
//                 print("an IndexError:", e)
//             pool.apply(crash)               # here Python waits for ever
#include <multiprocessing.hpp>

#include <unistd.h>

#include <array>
#include <csignal>
#include <iostream>
#include <stdexcept>
#include <string>

namespace mp = multiprocessing;

std::string month_name(int number) {
    const std::array months{"January", "February", "March"};
    if (number < 1 || number > 3) {
        throw std::out_of_range("no month " + std::to_string(number) + " in this quarter");
    }
    return months[static_cast<std::size_t>(number) - 1];
}

int crash() { return std::raise(SIGKILL); }

int main() {
    mp::Pool pool(2);
    try {
        pool.apply(month_name, 13);
    } catch (const std::out_of_range& e) {
        std::cout << "an out_of_range: " << e.what() << '\n';
        const auto& origin = dynamic_cast<const mp::RemoteTraceback&>(e);
        std::cout << (origin.pid() == getpid() ? "thrown here" : "thrown in a worker") << '\n';
    }
    try {
        pool.apply(crash);
    } catch (const mp::WorkerLostError& e) {
        std::cout << "a worker was lost, exit code " << e.exitcode() << '\n';
    }
    std::cout << "the pool goes on: " << pool.apply(month_name, 2) << '\n';
}
