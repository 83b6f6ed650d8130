// A Pool over the ranks of MPI, on as many machines as mpiexec starts it on.
// SPDX-License-Identifier: BSL-1.0
//
//     from mpi4py.futures import MPIPoolExecutor       # mpiexec -n 3 python -m mpi4py.futures …
//
//     def choose(number):                     # runs once in every rank
//         global base
//         base = number
//
//     def digits(x):                          # uses what the initializer has left
//         if x < 0:
//             raise ValueError(f"{x} has no digits in base {base}")
//         return digits(x // base) + str(x % base) if x >= base else str(x)
//
//     if __name__ == "__main__":              # in rank 0 alone
//         with MPIPoolExecutor(initializer=choose, initargs=(2,)) as pool:
//             print(pool.num_workers, "workers")
//             print(*pool.map(digits, range(8)))
//             try:
//                 pool.submit(digits, -5).result()
//             except ValueError as e:
//                 print("a ValueError:", e)
#include <multiprocessing/mpi.hpp>

#include <iostream>
#include <string>

namespace mp = multiprocessing;

int base = 10;  // each rank's own

void choose(int number) { base = number; }  // runs once in every rank

std::string digits(int x) {  // uses what the initializer has left
    if (x < 0) {
        throw mp::ValueError(std::to_string(x) + " has no digits in base " + std::to_string(base));
    }
    return (x >= base ? digits(x / base) : "") + std::to_string(x % base);
}

int main(int argc, char* argv[]) {
    mp::mpi::freeze_support(argc, argv);  // rank 0 goes on, the others work
    mp::mpi::Pool pool({.initializer = mp::partial(choose, 2)});

    int workers = 0;
    for (const mp::mpi::RankInfo& rank : pool.ranks()) workers += rank.processes;
    std::cout << workers << " workers\n";

    for (const std::string& each : pool.map(digits, mp::range(8))) std::cout << each << ' ';
    std::cout << '\n';
    try {
        pool.apply(digits, -5);
    } catch (const mp::ValueError& e) {
        std::cout << "a ValueError: " << e.what() << '\n';
    }
}
