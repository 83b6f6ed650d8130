// SPDX-License-Identifier: BSL-1.0
//
// The main function of every test program: spawned children become what they are to be, the rest is
// Catch2's.
#include <multiprocessing/process.hpp>
#include <support/session.hpp>

int main(int argc, char* argv[]) {
    multiprocessing::freeze_support();
    return support::run_guarded_session(argc, argv);
}
