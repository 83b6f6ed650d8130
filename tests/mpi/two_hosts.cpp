// SPDX-License-Identifier: BSL-1.0
//
// Run by two_hosts.sh: pools, directly and over nodes, whose ranks are on two hosts.
#include <multiprocessing.hpp>
#include <multiprocessing/mpi.hpp>

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <iostream>
#include <ranges>
#include <set>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

namespace mp = multiprocessing;
using namespace std::chrono_literals;

namespace {

constexpr std::size_t mebibyte = std::size_t{1} << 20;
// How often something is tried that the pool may give to either host.
constexpr int rounds = 20;

class Failed : public std::runtime_error {
    using std::runtime_error::runtime_error;
};

void check(bool right, const std::string& what) {
    if (!right) throw Failed(what);
}

void verified(const std::string& what) { std::cout << what << std::endl; }

std::string host_name() {
    char name[65] = {};
    if (::gethostname(name, sizeof name - 1) != 0) throw std::runtime_error("gethostname failed");
    return name;
}

/// Who ran a task.
using Where = std::pair<std::string, int>;

Where here() { return {host_name(), static_cast<int>(::getpid())}; }

std::uint64_t checksum(std::string_view text) {
    std::uint64_t sum = 14695981039346656037u;
    for (std::size_t at = 0; at + sizeof sum <= text.size(); at += sizeof sum) {
        std::uint64_t word = 0;
        std::memcpy(&word, text.data() + at, sizeof word);
        sum = (sum ^ word) * 1099511628211u;
    }
    return sum;
}

/// A text for each number.
std::string text_of(int number, std::size_t size) {
    std::string text(size, '\0');
    auto state = static_cast<std::uint64_t>(number) * 2862933555777941757u + 3037000493u;
    for (std::size_t at = 0; at + sizeof state <= size; at += sizeof state) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        std::memcpy(text.data() + at, &state, sizeof state);
    }
    return text;
}

// What the workers run. `home` is the master's host.

Where nap(int) {
    std::this_thread::sleep_for(50ms);
    return here();
}

/// Home is the slower host, so that most go to the other.
void take_time(const std::string& home) {
    if (host_name() == home) std::this_thread::sleep_for(20ms);
}

std::pair<std::string, std::uint64_t> sum_up(const std::string& home, const std::string& text) {
    take_time(home);
    return {host_name(), checksum(text)};
}

std::pair<std::string, std::string> write(const std::string& home, int number) {
    take_time(home);
    return {host_name(), text_of(number, mebibyte)};
}

std::pair<Where, std::uint64_t> sum_up_bound(const std::string& bound, int) {
    std::this_thread::sleep_for(20ms);
    return {here(), checksum(bound)};
}

Where throw_abroad(const std::string& home, int number) {
    std::this_thread::sleep_for(20ms);
    if (host_name() != home)
        throw std::out_of_range(host_name() + " cannot do " + std::to_string(number));
    return here();
}

std::size_t length(const std::string& text) { return text.size(); }

bool is_odd_one(int number) { return number % 10 == 3; }

/// Returns the number and where it was.
std::pair<int, std::string> sleep_abroad(const std::string& home, bool asks, int number) {
    std::this_thread::sleep_for(5ms);
    if (is_odd_one(number) && host_name() != home) {
        const auto end = std::chrono::steady_clock::now() + 60s;
        while (std::chrono::steady_clock::now() < end &&
               !(asks && mp::this_task::stop_requested())) {
            std::this_thread::sleep_for(5ms);
        }
    }
    return {number * number, host_name()};
}

std::pair<int, std::string> die_abroad(const std::string& home, int number) {
    std::this_thread::sleep_for(5ms);
    if (is_odd_one(number) && host_name() != home) std::raise(SIGKILL);
    return {number * number, host_name()};
}

int add(int a, int b) { return a + b; }

// What the master asks of either pool.

class Checks {
public:
    explicit Checks(const mp::mpi::Pool& pool) : pool_(pool) {}

    void hosts(std::size_t ranks, int processes);
    void everybody(std::size_t workers);
    void texts_out(int count, std::uint64_t least);
    void texts_back(int count);
    void bound();
    void exceptions();
    void lazy();
    void late(bool asks);
    void killed();
    void say_what_moved() const {
        std::cout << "moved " << out_ << " bytes to " << away_ << ", and " << back_ << " back"
                  << std::endl;
    }

private:
    void seen_as(const Where& where) const {
        check(where.first == home_ || where.first == away_,
              "a worker is on the host " + where.first);
    }
    template <class Error, class Attempt>
    void odd_ones_end_with(const std::string& what, Attempt attempt);

    const mp::mpi::Pool& pool_;
    const std::string home_ = host_name();
    std::string away_;
    std::set<Where> workers_;
    std::uint64_t out_ = 0;
    std::uint64_t back_ = 0;
};

/// ranks() names two hosts.
void Checks::hosts(std::size_t ranks, int processes) {
    const auto all = pool_.ranks();
    check(all.size() == ranks, "the pool has " + std::to_string(all.size()) + " ranks");
    std::set<std::string> hosts;
    std::string text;
    for (const mp::mpi::RankInfo& each : all) {
        hosts.insert(each.host);
        if (each.host != home_) away_ = each.host;
        check(each.processes == processes, "rank " + std::to_string(each.rank) + " has " +
                                               std::to_string(each.processes) + " processes");
        text += " " + std::to_string(each.rank) + "@" + each.host;
    }
    check(hosts.size() == 2 && hosts.contains(home_), "the ranks are not on two hosts:" + text);
    verified("ranks:" + text);
}

/// All workers are seen, and no others.
void Checks::everybody(std::size_t workers) {
    workers_.clear();
    for (int round = 0; round < rounds && workers_.size() < workers; ++round) {
        for (const Where& each : pool_.map(nap, mp::range(24), 1)) {
            seen_as(each);
            workers_.insert(each);
        }
    }
    check(workers_.size() == workers, std::to_string(workers_.size()) + " workers have been seen");
    for (const mp::mpi::RankInfo& each : pool_.ranks()) {
        const auto there = std::ranges::count(workers_, each.host, &Where::first);
        check(there != 0, "no worker has been seen on " + each.host);
        if (each.processes != 1) {
            check(there == each.processes,
                  std::to_string(there) + " workers have been seen on " + each.host);
        } else {
            check(workers_.contains({each.host, each.pid}),
                  "a rank has not been seen on " + each.host);
        }
    }
    verified("each of the " + std::to_string(workers) + " workers has been seen");
}

/// Large items.
void Checks::texts_out(int count, std::uint64_t least) {
    const auto texts =
        mp::range(count) | std::views::transform([](int each) { return text_of(each, mebibyte); });
    const auto sums = pool_.map(mp::partial(sum_up, home_), texts, 1);
    check(sums.size() == static_cast<std::size_t>(count), "not as many checksums as texts");
    std::uint64_t abroad = 0;
    for (int each = 0; each < count; ++each) {
        const auto& [host, sum] = sums[static_cast<std::size_t>(each)];
        check(sum == checksum(text_of(each, mebibyte)),
              "the checksum of text " + std::to_string(each));
        abroad += host == home_ ? 0 : mebibyte;
    }
    check(abroad >= least, "only " + std::to_string(abroad) + " bytes were for the other host");
    out_ += abroad;
    verified(std::to_string(count) + " texts out, " + std::to_string(abroad >> 20) +
             " to the other host");
}

/// Large results.
void Checks::texts_back(int count) {
    const auto texts = pool_.map(mp::partial(write, home_), mp::range(count), 1);
    std::uint64_t abroad = 0;
    for (int each = 0; each < count; ++each) {
        const auto& [host, text] = texts[static_cast<std::size_t>(each)];
        check(text == text_of(each, mebibyte), "text " + std::to_string(each) + " is another");
        abroad += host == home_ ? 0 : mebibyte;
    }
    check(abroad != 0, "no text came from the other host");
    back_ += abroad;
    verified(std::to_string(count) + " texts back, " + std::to_string(abroad >> 20) +
             " from the other host");
}

/// A function with a lot bound, which each rank is sent.
void Checks::bound() {
    const std::string text = text_of(-1, 8 * mebibyte);
    bool is_abroad = false;
    for (const auto& [where, sum] : pool_.map(mp::partial(sum_up_bound, text), mp::range(24), 1)) {
        check(sum == checksum(text), "the checksum of what is bound, on " + where.first);
        is_abroad = is_abroad || where.first != home_;
    }
    check(is_abroad, "the function has not been on the other host");
    out_ += text.size();
    verified("a function with 8 MiB bound");
}

/// What is thrown on the other host arrives as its type.
void Checks::exceptions() {
    const auto results = pool_.try_map(mp::partial(throw_abroad, home_), mp::range(24), 1);
    int thrown = 0;
    std::string text;
    for (int each = 0; each < 24; ++each) {
        const auto& result = results[static_cast<std::size_t>(each)];
        if (result) {
            check(result->first == home_, "no exception on " + result->first);
            continue;
        }
        ++thrown;
        try {
            std::rethrow_exception(result.error());
        } catch (const std::out_of_range& error) {
            const std::string message = away_ + " cannot do " + std::to_string(each);
            const auto* const remote = dynamic_cast<const mp::RemoteTraceback*>(&error);
            check(std::string_view(error.what()).find(message) != std::string_view::npos,
                  std::string("the message is: ") + error.what());
            check(remote != nullptr, "the exception has no RemoteTraceback");
            check(remote->message() == message, "the remote message is: " + remote->message());
            check(workers_.contains({away_, remote->pid()}),
                  "the process " + std::to_string(remote->pid()) + " is not known");
            text = remote->text();
            check(text.find("out_of_range: " + message) != std::string::npos,
                  "the traceback is: " + text);
        }
    }
    check(thrown != 0, "nothing has been thrown on the other host");
    bool is_thrown = false;
    try {
        static_cast<void>(pool_.map(mp::partial(throw_abroad, home_), mp::range(24), 1));
    } catch (const std::out_of_range&) {
        is_thrown = true;
    }
    check(is_thrown, "map() has not thrown what was thrown on the other host");
    verified(std::to_string(thrown) + " exceptions; the last: " + text.substr(0, text.find('\n')));
}

/// imap() reads no further ahead than it may.
void Checks::lazy() {
    constexpr int most = 32;
    std::atomic<int> read{0};
    auto texts = std::views::iota(0) | std::views::transform([&read](int each) {
                     ++read;
                     return std::string(static_cast<std::size_t>(each) * 10, 'x');
                 });
    int taken = 0;
    for (const std::size_t size : pool_.imap(length, texts, 1, most)) {
        check(size == static_cast<std::size_t>(taken) * 10,
              "result " + std::to_string(taken) + " of imap()");
        ++taken;
        check(read <= taken + most,
              std::to_string(read) + " items read for " + std::to_string(taken));
        if (taken == 500) break;
    }
    verified("imap() over a range without an end: " + std::to_string(read) +
             " items read for 500 results");
}

/// The odd ones that were run abroad end with the error, all others with their result.
template <class Error, class Attempt>
void Checks::odd_ones_end_with(const std::string& what, Attempt attempt) {
    constexpr int count = 40;
    int ended = 0;
    std::set<int> lost;
    for (int round = 0; round < rounds && ended == 0; ++round) {
        bool is_abroad = false;
        const auto results = attempt(mp::range(count));
        check(results.size() == count, "not as many results as items");
        for (int each = 0; each < count; ++each) {
            const auto& result = results[static_cast<std::size_t>(each)];
            const std::string name = what + ": item " + std::to_string(each);
            try {
                const auto& [square, host] = result.value();
                check(square == each * each, name + " has another result");
                check(!is_odd_one(each) || host == home_, name + " has a result from " + host);
                is_abroad = is_abroad || host != home_;
            } catch (const Error& error) {
                check(is_odd_one(each), name + " ended with: " + error.what());
                if constexpr (std::is_same_v<Error, mp::WorkerLostError>) {
                    check(error.exitcode() == -SIGKILL,
                          name + ": exit code " + std::to_string(error.exitcode()));
                    check(lost.insert(error.pid()).second, name + ": the process was lost before");
                }
                ++ended;
            }
        }
        check(is_abroad, what + ": nothing was done on the other host");
    }
    check(ended != 0, what + ": no such item has been on the other host");
    verified(what + ": " + std::to_string(ended) + " of " + std::to_string(count) + " items");
}

void Checks::late(bool asks) {
    const auto begin = std::chrono::steady_clock::now();
    odd_ones_end_with<mp::TaskTimeoutError>("too late", [&](const auto& items) {
        return pool_.try_map({.timeout = 1s}, mp::partial(sleep_abroad, home_, asks), items, 1);
    });
    check(std::chrono::steady_clock::now() - begin < 30s, "the timeout was not kept");
}

void Checks::killed() {
    odd_ones_end_with<mp::WorkerLostError>("killed", [&](const auto& items) {
        return pool_.try_map(mp::partial(die_abroad, home_), items, 1);
    });
}

void executor(const mp::mpi::PoolOptions& options) {
    const mp::mpi::PoolExecutor executor(options);
    const std::string home = host_name();
    check(executor.submit(add, 40, 2).result() == 42, "submit() gives another sum");
    int expected = 0;
    for (const int sum : executor.map(add, std::views::iota(0, 100), std::views::iota(100, 200))) {
        check(sum == 100 + 2 * expected, "map() gives another sum");
        ++expected;
    }
    check(expected == 100, "map() gives " + std::to_string(expected) + " sums");
    std::set<std::string> hosts;
    for (const Where& each : executor.map(nap, mp::range(24))) hosts.insert(each.first);
    check(hosts.size() == 2, "the executor's workers are not on two hosts");
    verified("an executor on both hosts");
}

void direct() {
    {
        const mp::mpi::Pool pool({.minimum_ranks = 3});
        Checks checks(pool);
        checks.hosts(3, 1);
        checks.everybody(3);
        checks.texts_out(200, 100'000'000);
        checks.texts_back(50);
        checks.bound();
        checks.exceptions();
        checks.lazy();
        checks.late(true);
        checks.everybody(3);
        checks.say_what_moved();
        pool.close();
        pool.join();
    }
    executor({});
}

void hybrid() {
    const mp::mpi::PoolOptions options{.hybrid = true, .processes_per_node = 2, .minimum_ranks = 1};
    {
        const mp::mpi::Pool pool(options);
        Checks checks(pool);
        checks.hosts(2, 2);
        checks.everybody(4);
        checks.texts_out(200, 1);
        checks.texts_back(50);
        checks.bound();
        checks.exceptions();
        checks.lazy();
        checks.killed();
        checks.everybody(4);
        checks.late(false);
        checks.everybody(4);
        checks.say_what_moved();
        pool.close();
        pool.join();
    }
    executor(options);
}

}  // namespace

int main(int argc, char* argv[]) {
    mp::mpi::freeze_support(argc, argv);
    const std::string mode = argc == 2 ? argv[1] : "";
    try {
        if (mode == "direct") {
            direct();
        } else if (mode == "hybrid") {
            hybrid();
        } else {
            throw Failed("usage: two_hosts direct|hybrid");
        }
    } catch (const std::exception& error) {
        std::cerr << "two_hosts: " << mode << ": " << error.what() << std::endl;
        return 1;
    }
    return 0;
}
