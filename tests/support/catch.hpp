// SPDX-License-Identifier: BSL-1.0
//
// Catch2, whichever of 2.13 and 3 there is, under the names of 3.
#pragma once

#if __has_include(<catch2/catch_test_macros.hpp>)

#include <catch2/catch_approx.hpp>
#include <catch2/catch_template_test_macros.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/catch_tostring.hpp>
#include <catch2/generators/catch_generators_all.hpp>
#include <catch2/matchers/catch_matchers_all.hpp>

#else

#include <catch2/catch.hpp>

namespace Catch::Matchers {

inline auto ContainsSubstring(const std::string& part) {
    return Contains(part);
}

}  // namespace Catch::Matchers

#define SKIP(reason)  \
    do {              \
        WARN(reason); \
        return;       \
    } while (false)

#endif
