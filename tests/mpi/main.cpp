// SPDX-License-Identifier: BSL-1.0
//
// The main function of test_mpi, which mpiexec starts: rank 0 runs the cases.
#include <multiprocessing/mpi.hpp>

#include <support/session.hpp>

int main(int argc, char* argv[]) {
    multiprocessing::mpi::freeze_support(argc, argv);
    // What MPI opens at the first message to a rank stays open.
    multiprocessing::mpi::Pool().map([](int x) { return x; }, multiprocessing::range(1000));
    return support::run_guarded_session(argc, argv);
}
