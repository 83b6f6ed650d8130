// SPDX-License-Identifier: BSL-1.0

#include <multiprocessing/pool.hpp>

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/runtime/pool/progress.hpp>
#include <multiprocessing/synchronize.hpp>

#include "runtime/helpers.hpp"
#include "runtime/pool_helpers.hpp"
#include "support/catch.hpp"

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdlib>
#include <optional>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

namespace mp = multiprocessing;
using namespace std::chrono_literals;
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::StartsWith;
using mp::runtime::pool::progress_line;
using support::square;

namespace {

int spin(int milliseconds) {
    const auto end = std::chrono::steady_clock::now() + milliseconds * 1ms;
    while (std::chrono::steady_clock::now() < end) {}
    return milliseconds;
}
int die_at_3(int x) {
    if (x == 3) ::raise(SIGKILL);
    return x;
}

// A terminal in the place of stderr, as long as it lives; text() is what was drawn.
class Terminal {
public:
    explicit Terminal(unsigned short columns)
        : control_(::posix_openpt(O_RDWR | O_NOCTTY)), saved_(mp::os::duplicate(STDERR_FILENO)) {
        REQUIRE(control_);
        REQUIRE(::grantpt(control_.get()) == 0);
        REQUIRE(::unlockpt(control_.get()) == 0);
        const mp::os::Fd terminal(::open(::ptsname(control_.get()), O_RDWR | O_NOCTTY));
        REQUIRE(terminal);
        ::winsize size{};
        size.ws_col = columns;
        REQUIRE(::ioctl(terminal.get(), TIOCSWINSZ, &size) == 0);
        ::dup2(terminal.get(), STDERR_FILENO);
    }
    ~Terminal() { ::dup2(saved_.get(), STDERR_FILENO); }
    Terminal(const Terminal&) = delete;
    Terminal& operator=(const Terminal&) = delete;

    std::string text() {
        std::string all;
        // What was written is there, and the terminal still open: so no more than that is read.
        ::fcntl(control_.get(), F_SETFL, O_NONBLOCK);
        char part[4096];
        for (;;) {
            const auto got = ::read(control_.get(), part, sizeof part);
            if (got <= 0) return all;
            all.append(part, static_cast<std::size_t>(got));
        }
    }

private:
    mp::os::Fd control_;
    mp::os::Fd saved_;
};

}  // namespace

TEST_CASE("a pool tells what its workers have done", "[pool][stats]") {
    const mp::Pool pool(2);
    CHECK(pool.map(square, mp::range(100), 10).size() == 100);
    pool.apply(spin, 30);
    const mp::PoolStats stats = pool.stats();
    REQUIRE(stats.workers.size() == 2);
    CHECK(stats.tasks == 11);
    CHECK(stats.items == 101);
    CHECK(stats.deaths == 0);
    std::uint64_t items = 0;
    std::chrono::nanoseconds busy{0};
    for (const mp::WorkerStats& worker : stats.workers) {
        items += worker.items;
        busy += worker.busy;
        CHECK(worker.alive);
        CHECK(support::pids_of(pool).contains(worker.pid));
        CHECK(worker.memory > 0);
    }
    CHECK(items == 101);
    CHECK(busy >= 30ms);
    CHECK(stats.utilisation() > 0);
    CHECK(stats.utilisation() <= 1);
    REQUIRE_FALSE(stats.slowest.empty());
    CHECK(stats.slowest.front().duration >= 30ms);
    CHECK(stats.slowest.front().first_item == 0);
    CHECK(stats.slowest.front().items == 1);
    CHECK(std::is_sorted(stats.slowest.begin(), stats.slowest.end(),
                         [](const auto& a, const auto& b) { return a.duration > b.duration; }));
    std::ostringstream table;
    table << stats;
    CHECK_THAT(table.str(), ContainsSubstring("memory MiB"));
    CHECK_THAT(table.str(), ContainsSubstring("slow: 0.03"));
}

TEST_CASE("what the dead and the replaced have done counts", "[pool][stats]") {
    const mp::Pool pool({.processes = 1, .maxtasksperchild = 3});
    const auto results = pool.try_map(die_at_3, mp::range(10), 1);
    CHECK_FALSE(results.at(3).has_value());
    const auto stats = pool.stats();
    CHECK(stats.items == 9);
    CHECK(stats.deaths == 1);
    REQUIRE(stats.workers.size() == 1);
    CHECK(stats.workers.front().deaths == 1);
    CHECK(stats.workers.front().start_up > 0ns);
}

TEST_CASE("a pool of threads tells what its threads have done", "[thread_pool][stats]") {
    const mp::ThreadPool pool(2);
    pool.map(spin, {20, 1, 1}, 1);
    pool.apply(square, 1);
    const auto stats = pool.stats();
    CHECK(stats.workers.size() == 2);
    CHECK(stats.items >= 3);  // the last one's books may not be closed yet
    CHECK(stats.slowest.front().duration >= 20ms);
    CHECK(stats.workers.front().pid == ::getpid());
}

TEST_CASE("a progress line has part, count, time, rate and fits", "[pool][progress]") {
    CHECK(progress_line(0, 10, 1s, 60) == "  0%|" + std::string(31, ' ') + "| 0/10 [00:01<?, 0.0/s]");
    CHECK(progress_line(5, 10, 2s, 60).size() == 59);
    CHECK(progress_line(5, 10, 2s, 60) ==
          " 50%|" + std::string(13, '#') + std::string(14, ' ') + "| 5/10 [00:02<00:02, 2.5/s]");
    CHECK(progress_line(10, 10, 1h, 40) == "100%|####| 10/10 [1:00:00<00:00, 0.0/s]");
    CHECK(progress_line(5, 10, 2s, 1) == " 50%|| 5/10 [00:02<00:02, 2.5/s]");
    CHECK(progress_line(300, std::nullopt, 2s, 60) == "300 [00:02, 150/s]");
    CHECK_THAT(progress_line(0, 0, 1s, 60), StartsWith("100%|"));
}

TEST_CASE("a progress bar is drawn on a terminal, seldom, and to its end", "[pool][progress]") {
    const mp::Pool pool(2);
    const mp::ThreadPool threads(2);
    const auto bars_of = [](auto call) {
        Terminal terminal(80);
        call();
        return terminal.text();
    };
    const auto check = [](const std::string& drawn, std::string_view last) {
        CAPTURE(drawn);
        CHECK(drawn.starts_with("\r"));
        CHECK(drawn.ends_with("\r\n"));
        const auto at = drawn.rfind('\r', drawn.size() - 3);
        CHECK_THAT(drawn.substr(at + 1), ContainsSubstring(std::string(last)));
    };
    check(bars_of([&] { pool.map({.progress = true}, square, mp::range(1000), 1); }), "1000/1000");
    check(bars_of([&] { pool.try_map({.progress = true}, square, mp::range(50)); }), "50/50");
    check(bars_of([&] {
              for (const int each : pool.imap({.progress = true}, square, mp::range(30))) CHECK(each >= 0);
          }),
          "30/30");
    check(bars_of([&] { threads.map({.progress = true}, square, mp::range(40)); }), "40/40");
    check(bars_of([&] { CHECK_THROWS(pool.map({.progress = true}, die_at_3, mp::range(5), 1)); }), "5/5");
    // Nobody waits for these; the pool's thread draws.
    const auto drawn = bars_of([&] {
        const auto result = pool.map_async({.progress = true}, square, mp::range(1000), 1);
        while (!result.ready()) std::this_thread::yield();
    });
    check(drawn, "1000/1000");
    const auto start = std::chrono::steady_clock::now();
    const std::string seldom =
        bars_of([&] { pool.map({.progress = true}, spin, std::vector(300, 1), 1); });
    const auto taken = std::chrono::steady_clock::now() - start;
    CHECK(std::count(seldom.begin(), seldom.end(), '/') / 2 <= taken / 100ms + 3);
}

TEST_CASE("no progress bar is drawn where there is no terminal", "[pool][progress]") {
    const mp::Pool pool(1);
    support::Capture errors(STDERR_FILENO);
    pool.map({.progress = true}, square, mp::range(10));
    errors.restore();
    pool.terminate();
    pool.join();
    CHECK(errors.text().empty());
}
