// SPDX-License-Identifier: BSL-1.0
//
// Catch2's own part of a test program.
#pragma once

namespace support {

/// Runs the test cases that the arguments choose; how many have failed.
int run_session(int argc, char* argv[]);

/// The same with the guard around each of them, which fails the program for what is left behind.
int run_guarded_session(int argc, char* argv[]);

}  // namespace support
