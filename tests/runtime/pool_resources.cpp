// SPDX-License-Identifier: BSL-1.0
//
// What pools take and give back: items that are in shared memory already, large ones and small ones in
// any order, and all that was taken for a pool that is gone.

#include <multiprocessing/pool.hpp>

#include <multiprocessing/context.hpp>
#include <multiprocessing/process.hpp>
#include <multiprocessing/sharedctypes.hpp>
#include <multiprocessing/synchronize.hpp>

#include "runtime/helpers.hpp"
#include "runtime/pool_helpers.hpp"
#include "support/catch.hpp"

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <fstream>
#include <iterator>
#include <map>
#include <numeric>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace mp = multiprocessing;
using namespace std::chrono_literals;
using support::each_context;
using support::outcomes_of;
using support::shared_bytes;
using support::square;

namespace {

constexpr std::size_t item_count = 300'000;

mp::Array<int> numbers_in_shared_memory() {
    mp::Array<int> array(item_count);
    std::iota(array.begin(), array.end(), 0);
    return array;
}
std::uint8_t low_byte(int x) { return static_cast<std::uint8_t>(x); }

/// Says how much shared memory there is while it is called. The largest is kept.
std::uint8_t note_shared_bytes(const mp::Value<std::uint64_t>& most, int x) {
    if (x % 1000 == 0) {
        const std::uint64_t now = shared_bytes();
        const std::lock_guard lock(most.get_lock());
        most.value() = std::max(most.value(), now);
    }
    return low_byte(x);
}

/// Bytes, the same for the same length everywhere.
std::string text_of(std::size_t length) {
    std::string text(length, '\0');
    for (std::size_t i = 0; i < length; ++i) text[i] = static_cast<char>(i * i + length);
    return text;
}
std::vector<std::uint64_t> words_of(std::size_t length) {
    std::vector<std::uint64_t> words(length);
    for (std::size_t i = 0; i < length; ++i) words[i] = i * i + length;
    return words;
}
std::string same_text(const std::string& text) { return text; }
std::vector<std::uint64_t> same_words(const std::vector<std::uint64_t>& words) { return words; }
std::size_t length_of(const std::string& text) {
    if (text != text_of(text.size())) throw std::runtime_error("not the text that was given");
    return text.size();
}

constexpr std::size_t mib = std::size_t{1} << 20;
/// Around what is held where: in a record, in a page, in a block of outcomes, in one by itself.
const std::vector<std::size_t> lengths{
    0,      1,       7,        8,        63,        64,         4000,        4096,    8192,   8193,
    65'535, 65'536,  65'537,   100'000,  mib - 200, mib - 1,    mib,         mib + 1, 2 * mib, 8 * mib};

/// Large ones between small ones, each small one several times.
std::vector<std::size_t> mixture() {
    std::vector<std::size_t> all;
    for (std::size_t i = 0; i < lengths.size(); ++i) {
        all.push_back(lengths[i]);
        all.insert(all.end(), i % 4, lengths[i / 3]);
        all.push_back(lengths[lengths.size() - 1 - i]);
    }
    return all;
}

}  // namespace

TEST_CASE("items of an array stay as long as they are to be read", "[pool][memory]") {
    const bool as_handle = GENERATE(true, false);
    const mp::Pool pool(1);
    const mp::Event begun;
    const mp::Event go;
    const mp::Value<int> wrong(0);
    const auto look = [](const mp::Event& b, const mp::Event& g, const mp::Value<int>& w, int x) {
        b.set();
        g.wait(30);
        if (x != 1) w.fetch_add(1);
    };
    const auto function = mp::partial(look, begun, go, wrong);
    constexpr std::size_t many = 4000;
    {
        const mp::Array<int> items(std::vector<int>(many, 1));
        if (as_handle) {
            const auto dropped = pool.imap(function, items, 1000);
        } else {
            const auto dropped = pool.imap(function, items.span(), 1000);
        }
    }
    REQUIRE(begun.wait(30));
    // What takes the place of those that are gone.
    std::vector<mp::Array<int>> others;
    for (int i = 0; i < 8; ++i) others.emplace_back(std::vector<int>(many, 2));
    go.set();
    pool.close();
    pool.join();
    CHECK(wrong.value() == 0);
}

TEST_CASE("an array in shared memory is not copied to be mapped", "[pool][memory][fork][spawn]") {
    const auto ctx = each_context();
    const mp::Pool pool = ctx.Pool(2);
    const mp::Array<int> array = numbers_in_shared_memory();
    const auto check = [](const std::vector<std::uint8_t>& results) {
        REQUIRE(results.size() == item_count);
        std::size_t wrong = 0;
        for (std::size_t i = 0; i < item_count; ++i) wrong += results[i] != (i & 0xff) ? 1 : 0;
        CHECK(wrong == 0);
    };
    const mp::Value<std::uint64_t> most(0);
    const auto task = mp::partial(note_shared_bytes, most);
    static_cast<void>(pool.map(task, mp::range(100)));
    const std::uint64_t before = shared_bytes();
    // A byte is what each result takes, and a little what is known of each chunk; up to a power of two.
    const auto grown = [&] {
        const std::uint64_t now = most.value();
        most.value() = 0;
        return now > before ? now - before : 0;
    };
    constexpr std::uint64_t results_and_more = item_count * 5 / 2;
    SECTION("map") {
        check(pool.map(task, array));
        CHECK(grown() < results_and_more);
    }
    SECTION("map of a span") {
        check(pool.map(task, std::span<const int>(array.span())));
        CHECK(grown() < results_and_more);
    }
    SECTION("map of a span, in chunks") {
        check(pool.map(task, array.span(), 1000));
        CHECK(grown() < results_and_more);
    }
    SECTION("imap") {
        const auto results = pool.imap(task, array, 1000);
        check(outcomes_of(results).values);
        CHECK(grown() < results_and_more);
    }
    SECTION("imap of a span") {
        check(outcomes_of(pool.imap(task, array.span(), 1000)).values);
        CHECK(grown() < results_and_more);
    }
    SECTION("a copy of it would be seen") {
        check(pool.map(task, std::vector<int>(array.begin(), array.end())));
        CHECK(grown() > results_and_more);
    }
}

TEST_CASE("a part of an array in shared memory may be mapped", "[pool][memory]") {
    const mp::Pool pool(2);
    const mp::Array<int> array = numbers_in_shared_memory();
    const auto whole = array.span();
    for (const std::size_t from : {std::size_t{0}, std::size_t{1}, std::size_t{999}, item_count - 3}) {
        for (const int chunksize : {0, 1, 2, 77}) {
            const std::size_t count = std::min<std::size_t>(1000, item_count - from);
            const auto part = whole.subspan(from, count);
            const auto results = pool.map([](int x) { return x; }, part, chunksize);
            CHECK(std::equal(results.begin(), results.end(), part.begin(), part.end()));
        }
    }
    CHECK(pool.map(square, whole.subspan(5, 0)).empty());
    // Each result is a message of its own.
    const auto texts = pool.map([](int x) { return std::to_string(x); }, whole.first(3000), 7);
    for (int i = 0; i < 3000; ++i) CHECK(texts[static_cast<std::size_t>(i)] == std::to_string(i));
    const auto sums = pool.try_map([](int x) { return x; }, whole.first(100), 9);
    for (int i = 0; i < 100; ++i) CHECK(sums[static_cast<std::size_t>(i)].value() == i);
}

TEST_CASE("items that are in shared memory are found again after a death", "[pool][memory][death]") {
    const mp::Pool pool(2);
    const mp::Array<int> array = numbers_in_shared_memory();
    const auto die = [](int x) {
        if (x % 100 == 17) ::raise(SIGKILL);
        return x;
    };
    const auto outcomes = outcomes_of(pool.imap(die, array.span().first(1000), 50));
    CHECK(outcomes.values.size() == 990);
    CHECK(outcomes.lost == 10);
    CHECK(std::is_sorted(outcomes.values.begin(), outcomes.values.end()));
}

TEST_CASE("an array in shared memory may go before its results come", "[pool][memory]") {
    const mp::Pool pool(2);
    const mp::Event go;
    const auto wait_for = [](const mp::Event& e, int x) {
        e.wait();
        return x;
    };
    std::vector<mp::AsyncResult<std::vector<int>>> results;
    for (int round = 0; round < 4; ++round) {
        mp::Array<int> array(3000);
        std::iota(array.begin(), array.end(), 0);
        results.push_back(pool.map_async(mp::partial(wait_for, go), array));
        // What it is next used for.
        std::fill(array.begin(), array.end(), -1);
    }
    const mp::Array<int> others(100'000);
    std::fill(others.begin(), others.end(), -2);
    go.set();
    std::vector<int> expected(3000);
    std::iota(expected.begin(), expected.end(), 0);
    for (const auto& result : results) CHECK((result.get(30s) == expected));

    // The range of an imap is kept, and with it the array.
    const auto kept = [&] {
        const mp::Array<int> array = {1, 2, 3};
        return pool.imap(square, mp::Array<int>(array));
    }();
    CHECK(outcomes_of(kept).values == std::vector{1, 4, 9});
}

TEST_CASE("arguments and results are of any length", "[pool][large][fork][spawn]") {
    const auto ctx = each_context();
    const mp::Pool pool = ctx.Pool(2);
    for (const std::size_t length : lengths) {
        CAPTURE(length);
        CHECK((pool.apply(same_text, text_of(length)) == text_of(length)));
        CHECK((pool.apply(same_words, words_of(length / 8)) == words_of(length / 8)));
        CHECK(pool.apply(length_of, text_of(length)) == length);
        CHECK((pool.apply(text_of, length) == text_of(length)));
    }
}

TEST_CASE("large items and small ones go through map together", "[pool][large]") {
    const mp::Pool pool(2);
    const int chunksize = GENERATE(0, 1, 3, 100);
    const auto sizes = mixture();
    std::vector<std::string> texts;
    for (const std::size_t length : sizes) texts.push_back(text_of(length));
    CHECK((pool.map(same_text, texts, chunksize) == texts));
    CHECK(pool.map(length_of, texts, chunksize) == sizes);
    CHECK((pool.map(text_of, sizes, chunksize) == texts));
}

TEST_CASE("large items and small ones go through imap together", "[pool][large][fork][spawn]") {
    const auto ctx = each_context();
    const mp::Pool pool = ctx.Pool(2);
    const int chunksize = GENERATE(1, 5);
    const auto sizes = mixture();
    std::vector<std::string> texts;
    for (const std::size_t length : sizes) texts.push_back(text_of(length));
    {
        std::size_t at = 0;
        for (auto&& text : pool.imap(same_text, texts, chunksize)) {
            if (text != texts.at(at)) FAIL("item " << at << ", of " << sizes[at] << " bytes");
            ++at;
        }
        CHECK(at == sizes.size());
    }
    std::map<std::size_t, int> count;
    for (const std::size_t length : sizes) ++count[length];
    for (auto&& words : pool.imap_unordered(
             [](std::size_t length) { return words_of(length / 8); }, sizes, chunksize)) {
        if (words != words_of(words.size())) FAIL(words.size());
    }
    for (auto&& text : pool.imap_unordered(same_text, texts, chunksize, 3)) {
        if (text != text_of(text.size())) FAIL(text.size());
        --count[text.size()];
    }
    for (const auto& [length, left] : count) {
        CAPTURE(length);
        CHECK(left == 0);
    }
}

TEST_CASE("large items of workers that die are neither lost nor mixed up", "[pool][large][death]") {
    const mp::Pool pool(2);
    const int chunksize = GENERATE(1, 4, 50);
    const auto sizes = mixture();
    std::vector<std::string> texts;
    for (const std::size_t length : sizes) texts.push_back(text_of(length));
    const auto die = [](const mp::Array<int>& runs, const std::pair<int, std::string>& item) {
        if (runs[static_cast<std::size_t>(item.first)]++ == 0 && item.first % 7 == 3) ::raise(SIGKILL);
        return item.second;
    };
    const mp::Array<int> runs(sizes.size());
    std::vector<std::pair<int, std::string>> items;
    for (std::size_t i = 0; i < texts.size(); ++i) items.emplace_back(static_cast<int>(i), texts[i]);
    CHECK((pool.map({.retries = 1}, mp::partial(die, runs), items, chunksize) == texts));
    for (std::size_t i = 0; i < sizes.size(); ++i) CHECK(runs[i] == (i % 7 == 3 ? 2 : 1));
}

namespace {

/// Lines of a file: of the mappings of this process, for one.
std::ptrdiff_t lines_of(const char* path) {
    std::ifstream file(path);
    return std::count(std::istreambuf_iterator<char>(file), {}, '\n');
}

}  // namespace

TEST_CASE("500 pools leave everything as it was before", "[pool][memory]") {
    const mp::Event never;
    const auto use_one = [&](int i) {
        const mp::Pool pool(i % 3 + 1);
        CHECK(pool.map(square, {1, 2, 3}, i % 3) == std::vector{1, 4, 9});
        const auto wait_for_ever = [](const mp::Event& event, int x) {
            event.wait();
            return x;
        };
        switch (i % 5) {
        case 0:
            pool.close();
            pool.join();
            break;
        case 1: {
            const auto busy = pool.map_async(mp::partial(wait_for_ever, never), mp::range(20), 3);
            break;
        }
        case 2: {
            const auto results = pool.imap(square, mp::range(100), 2);
            CHECK(results.next(30s) == 0);
            break;
        }
        case 3: {
            const auto late =
                pool.map_async({.timeout = 60s, .retries = 1}, mp::partial(wait_for_ever, never), {1, 2});
            CHECK(late.cancel());
            break;
        }
        default:
            CHECK_THROWS_AS(pool.apply([] { ::raise(SIGKILL); }), mp::WorkerLostError);
            break;
        }
    };
    const auto use_some = [&](int count) {
        for (int i = 0; i < count; ++i) use_one(i);
    };
    use_some(20);
    // What the grandchildren of other tests held: each start of a process looks after one.
    for (int i = 0; i < 40; ++i) CHECK(support::run(mp::Process([] {})) == 0);
    const auto descriptors = support::open_descriptors();
    const auto mappings = lines_of("/proc/self/maps");
    const auto bytes = shared_bytes();
    use_some(500);
    CHECK(support::open_descriptors() == descriptors);
    CHECK(mp::active_children().empty());
    CHECK(shared_bytes() == bytes);
    // Stacks of threads and memory of the heap may come and go, but not one with each pool.
    CHECK(lines_of("/proc/self/maps") < mappings + 50);
}
