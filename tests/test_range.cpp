// SPDX-License-Identifier: BSL-1.0

#include <multiprocessing/range.hpp>

#include <multiprocessing/exceptions.hpp>

#include "support/catch.hpp"

#include <cstdint>
#include <limits>
#include <ranges>
#include <type_traits>
#include <vector>

namespace mp = multiprocessing;

namespace {

template <class Range>
auto all(const Range& range) {
    std::vector<std::ranges::range_value_t<Range>> numbers;
    for (const auto number : range) numbers.push_back(number);
    CHECK(numbers.size() == range.size());
    CHECK(numbers.empty() == range.empty());
    return numbers;
}

}  // namespace

TEST_CASE("range counts as Python's does", "[range]") {
    CHECK(all(mp::range(4)) == std::vector{0, 1, 2, 3});
    CHECK(all(mp::range(0)).empty());
    CHECK(all(mp::range(-3)).empty());
    CHECK(all(mp::range(2, 5)) == std::vector{2, 3, 4});
    CHECK(all(mp::range(5, 2)).empty());
    CHECK(all(mp::range(0, 10, 3)) == std::vector{0, 3, 6, 9});
    CHECK(all(mp::range(0, 9, 3)) == std::vector{0, 3, 6});
    CHECK(all(mp::range(5, 0, -2)) == std::vector{5, 3, 1});
    CHECK(all(mp::range(0, 5, -1)).empty());
    CHECK(all(mp::range(-2, 2)) == std::vector{-2, -1, 0, 1});
    CHECK_THROWS_AS(mp::range(0, 5, 0), mp::ValueError);
}

TEST_CASE("range goes to the limits of its type", "[range]") {
    constexpr auto least = std::numeric_limits<int>::min();
    constexpr auto most = std::numeric_limits<int>::max();
    CHECK(mp::range(least, most).size() == 4294967295u);
    CHECK(all(mp::range(most - 2, most)) == std::vector{most - 2, most - 1});
    CHECK(all(mp::range(least, most, most)) == std::vector{least, -1, most - 1});
    CHECK(all(mp::range(most, least, least)) == std::vector{most, -1});
    CHECK(all(mp::range(std::int8_t{-128}, std::int8_t{127}, std::int8_t{100})) ==
          std::vector<std::int8_t>{-128, -28, 72});
    constexpr auto farthest = std::numeric_limits<long long>::max();
    CHECK(mp::range(std::numeric_limits<long long>::min(), farthest).size() ==
          std::numeric_limits<std::uint64_t>::max());
}

TEST_CASE("range is a sized range of what it was given", "[range]") {
    using Numbers = decltype(mp::range(1L));
    static_assert(std::is_same_v<std::ranges::range_value_t<Numbers>, long>);
    static_assert(std::ranges::forward_range<Numbers>);
    static_assert(std::ranges::sized_range<Numbers>);
    const auto numbers = mp::range(1, 4L);
    const std::vector<int> copied(numbers.begin(), numbers.end());
    CHECK(copied == std::vector{1, 2, 3});
    auto at = numbers.begin();
    CHECK(*at++ == 1);
    CHECK(*at == 2);
    CHECK(numbers.end() - at == 2);
}
