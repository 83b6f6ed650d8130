// SPDX-License-Identifier: BSL-1.0
#include <support/session.hpp>

#define CATCH_CONFIG_RUNNER
// A child that a signal ends must end by it at once, not write a test report first.
#define CATCH_CONFIG_NO_POSIX_SIGNALS
#if __has_include(<catch2/catch_session.hpp>)
#include <catch2/catch_session.hpp>
#else
#include <catch2/catch.hpp>
#endif

namespace support {

int run_session(int argc, char* argv[]) {
    return Catch::Session().run(argc, argv);
}

}  // namespace support
