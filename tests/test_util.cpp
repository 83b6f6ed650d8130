// SPDX-License-Identifier: BSL-1.0

#include <multiprocessing/util.hpp>

#include <multiprocessing/connection.hpp>
#include <multiprocessing/context.hpp>
#include <multiprocessing/pool.hpp>
#include <multiprocessing/synchronize.hpp>

#include "runtime/helpers.hpp"
#include "support/catch.hpp"
#include "support/logging.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

namespace mp = multiprocessing;
using Catch::Matchers::ContainsSubstring;
using mp::util::Finalize;
using support::Capture;
using support::ended;
using support::errors_of;
using support::RestoreLog;
using support::run;

namespace {

/// A sink that remembers. Records of this process alone come here, not those of forked children.
class Records {
public:
    void operator()(const mp::LogRecord& record) {
        const std::lock_guard lock(mutex_);
        texts_.push_back(record.text());
        changed_.notify_all();
    }
    [[nodiscard]] int count(const std::string& part) {
        const std::lock_guard lock(mutex_);
        return static_cast<int>(std::count_if(texts_.begin(), texts_.end(), holds(part)));
    }
    /// Waits until one has come.
    [[nodiscard]] bool wait_for(const std::string& part) {
        std::unique_lock lock(mutex_);
        return changed_.wait_for(lock, std::chrono::seconds(30), [&] {
            return std::any_of(texts_.begin(), texts_.end(), holds(part));
        });
    }

private:
    static std::function<bool(const std::string&)> holds(const std::string& part) {
        return [&part](const std::string& text) { return text.find(part) != std::string::npos; };
    }

    std::mutex mutex_;
    std::condition_variable changed_;
    std::vector<std::string> texts_;
};

mp::Logger log_to(Records& records, int level) {
    const mp::Logger logger = mp::get_logger();
    const int creator = ::getpid();
    logger.set_sink([&records, creator](const mp::LogRecord& record) {
        if (record.pid == creator) records(record);
    });
    logger.set_level(level);
    return logger;
}

std::string of_child(const mp::Process& child) {
    return "process '" + child.name() + "' (pid " + std::to_string(child.pid().value()) + ")";
}

/// Those that this process has logged.
std::string lines_of(const std::string& process, const std::string& log) {
    std::istringstream all(log);
    std::string lines;
    for (std::string line; std::getline(all, line);) {
        if (line.find("/" + process + "] ") != std::string::npos) lines += line + "\n";
    }
    return lines;
}

}  // namespace

TEST_CASE("the log is off until there is somewhere to write", "[util][logging]") {
    const RestoreLog restore;
    const mp::Logger logger = mp::get_logger();
    CHECK(logger.level() == mp::log_level::notset);
    CHECK(logger.get_effective_level() == mp::log_level::warning);
    CHECK_FALSE(logger.is_enabled_for(mp::log_level::critical));
    int made = 0;
    const auto message = [&made] { return "number " + std::to_string(++made); };
    logger.set_level(mp::log_level::info);
    CHECK_FALSE(logger.is_enabled_for(mp::log_level::critical));
    logger.critical(message);
    CHECK(made == 0);
    std::string last;
    logger.set_sink(
        [&](int level, const std::string& text) { last = std::to_string(level) + text; });
    CHECK(logger.is_enabled_for(mp::log_level::info));
    CHECK_FALSE(logger.is_enabled_for(mp::log_level::debug));
    logger.debug(message);
    CHECK(made == 0);
    logger.info(message);
    CHECK(last == "20number 1");
    logger.log(21, message);
    CHECK(last == "21number 2");
    logger.set_sink(nullptr);
    logger.critical(message);
    CHECK(made == 2);
}

TEST_CASE("each level has its call and its name", "[util][logging]") {
    const RestoreLog restore;
    std::string all;
    const mp::Logger logger = mp::get_logger();
    logger.set_sink([&](const mp::LogRecord& record) {
        all += std::to_string(record.level) + "=" + record.level_name() + " ";
    });
    logger.set_level(1);
    logger.sub_debug("");
    logger.debug(std::string());
    logger.info(std::string_view());
    logger.sub_warning("");
    logger.warning("");
    logger.error("");
    logger.critical("");
    logger.log(32, "");
    CHECK(all == "5=SUBDEBUG 10=DEBUG 20=INFO 25=SUBWARNING 30=WARNING 40=ERROR 50=CRITICAL "
                 "32=Level 32 ");
    all.clear();
    mp::util::sub_debug("");
    mp::util::debug("");
    mp::util::info("");
    mp::util::sub_warning("");
    mp::util::warn("");
    CHECK(all == "5=SUBDEBUG 10=DEBUG 20=INFO 25=SUBWARNING 30=WARNING ");
}

TEST_CASE("a record tells who logged it and where", "[util][logging]") {
    const RestoreLog restore;
    std::optional<mp::LogRecord> seen;
    mp::get_logger().set_sink([&](const mp::LogRecord& record) { seen = record; });
    const int line = __LINE__ + 1;
    mp::get_logger().error("text");
    REQUIRE(seen);
    CHECK(seen->level == 40);
    CHECK(seen->message == "text");
    CHECK(seen->process_name == "MainProcess");
    CHECK(seen->pid == ::getpid());
    CHECK(seen->filename() == "test_util.cpp");
    CHECK(static_cast<int>(seen->where.line()) == line);
    CHECK(seen->text() == "[ERROR/MainProcess] text");
}

TEST_CASE("a line to stderr is one write", "[util][logging]") {
    const RestoreLog restore;
    int ends[2];
    REQUIRE(::socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, ends) == 0);
    const mp::os::Fd reading(ends[0]);
    const mp::os::Fd saved = mp::os::duplicate(STDERR_FILENO);
    ::dup2(ends[1], STDERR_FILENO);
    ::close(ends[1]);
    const mp::Logger logger = mp::log_to_stderr(mp::log_level::info);
    logger.info("the first");
    logger.debug("nothing");
    mp::log_to_stderr().log(20, "the second");
    ::dup2(saved.get(), STDERR_FILENO);
    for (const std::string expected :
         {"[INFO/MainProcess] the first\n", "[INFO/MainProcess] the second\n"}) {
        char packet[100];
        const auto size = ::recv(reading.get(), packet, sizeof packet, MSG_DONTWAIT);
        REQUIRE(size > 0);
        CHECK(std::string(packet, static_cast<std::size_t>(size)) == expected);
    }
    CHECK(logger.level() == mp::log_level::info);
}

TEST_CASE("a sink that throws does no harm", "[util][logging]") {
    const RestoreLog restore;
    Capture errors(STDERR_FILENO);
    mp::get_logger().set_sink([](int, const std::string&) { throw std::runtime_error("full"); });
    mp::get_logger().error("x");
    mp::get_logger().set_sink([](int, const std::string&) { throw 1; });
    mp::get_logger().error("x");
    mp::get_logger().error([]() -> std::string { throw std::runtime_error("no text"); });
    CHECK(errors.text() == "--- Logging error --- full\n"
                           "--- Logging error --- not a std::exception\n"
                           "--- Logging error --- no text\n");
}

TEST_CASE("what a sink logs is dropped", "[util][logging]") {
    const RestoreLog restore;
    int calls = 0;
    mp::get_logger().set_sink([&](const mp::LogRecord&) {
        ++calls;
        mp::get_logger().error("again");
        mp::get_logger().set_sink(nullptr);  // and it may be taken away
    });
    mp::get_logger().error("x");
    mp::get_logger().error("x");
    CHECK(calls == 1);
}

TEST_CASE("a sink may be one that can only be moved, and is destroyed", "[util][logging]") {
    const RestoreLog restore;
    auto held = std::make_shared<int>(0);
    mp::get_logger().set_sink([held, own = std::make_unique<int>(1)](const mp::LogRecord&) mutable {
        *held += (*own)++;
    });
    mp::get_logger().error("x");
    mp::get_logger().error("x");
    CHECK(*held == 3);
    CHECK(held.use_count() == 2);
    mp::get_logger().set_sink(nullptr);
    CHECK(held.use_count() == 1);
}

TEST_CASE("threads log while the sink changes", "[util][logging][threads]") {
    const RestoreLog restore;
    const mp::Logger logger = mp::get_logger();
    std::atomic<int> written{0};
    std::atomic<bool> finish{false};
    std::vector<std::thread> threads;
    for (int i = 0; i < 3; ++i) {
        threads.emplace_back([&] {
            while (!finish) logger.error([] { return std::string(100, 'x'); });
        });
    }
    for (int i = 0; i < 500 || written == 0; ++i) {
        logger.set_sink([&written, text = std::string(100, 'y')](const mp::LogRecord& record) {
            if (record.message.size() == text.size()) ++written;
        });
        std::this_thread::yield();
        logger.set_sink(nullptr);
        logger.set_level(i % 2 == 0 ? mp::log_level::info : mp::log_level::error);
    }
    finish = true;
    for (std::thread& thread : threads) thread.join();
    CHECK(written > 0);
}

TEST_CASE("a child can log whatever its parent's threads were doing", "[util][logging][threads]") {
    const RestoreLog restore;
    const mp::Logger logger = mp::get_logger();
    std::atomic<bool> finish{false};
    std::thread thread([&] {
        while (!finish) {
            logger.set_sink([](const mp::LogRecord&) {});
            logger.error("x");
            logger.set_sink(nullptr);
        }
    });
    const auto fork = mp::get_context("fork");
    int well = 0;
    for (int i = 0; i < 40; ++i) {
        well +=
            run(fork.Process([&] {
                bool seen = false;
                logger.error("y");
                logger.set_sink([&](const mp::LogRecord& record) { seen = record.message == "z"; });
                logger.error("z");
                logger.set_sink(nullptr);
                mp::exit(seen ? 0 : 1);
            })) == 0
                ? 1
                : 0;
    }
    finish = true;
    thread.join();
    CHECK(well == 40);
}

TEST_CASE("a child begins with the level and with stderr", "[util][logging][fork][spawn]") {
    const auto method = GENERATE(from_range(mp::get_all_start_methods()));
    const RestoreLog restore;
    mp::log_to_stderr(mp::log_level::error);
    const auto child = mp::get_context(method).Process({.name = "named"}, [] {
        mp::get_logger().error("an error");
        mp::get_logger().warning("a warning");
    });
    CHECK(errors_of(child) == "[ERROR/named] an error\n");
}

TEST_CASE("a sink is inherited by fork alone", "[util][logging][fork][spawn]") {
    const auto method = GENERATE(from_range(mp::get_all_start_methods()));
    const RestoreLog restore;
    auto [reader, writer] = mp::Pipe(false);
    mp::get_logger().set_sink([w = writer](const mp::LogRecord& record) { w.send(record.text()); });
    const auto child = mp::get_context(method).Process({.name = "named"}, [] {
        mp::get_logger().error("an error");
        mp::exit(mp::get_logger().is_enabled_for(mp::log_level::error) ? 1 : 0);
    });
    CHECK(run(child) == (method == "fork" ? 1 : 0));
    CHECK(reader.poll() == (method == "fork"));
    if (method == "fork") CHECK(reader.recv<std::string>() == "[ERROR/named] an error");
}

TEST_CASE("a process says that it begins and ends", "[util][logging][fork][spawn]") {
    const auto method = GENERATE(from_range(mp::get_all_start_methods()));
    const auto child = mp::get_context(method).Process(
        {.name = "parent"},
        [](const std::string& way) {
            mp::log_to_stderr(mp::log_level::debug);
            const auto own = mp::get_context(way).Process({.name = "child"}, [] { mp::exit(3); });
            own.start();
            own.join(30);
        },
        method);
    const std::string errors = errors_of(child);
    CHECK(child.exitcode() == 0);
    CHECK_THAT(errors, ContainsSubstring(") started by " + method + "\n"));
    CHECK(lines_of("child", errors) ==
          "[INFO/child] child process calling run()\n"
          "[INFO/child] process shutting down\n"
          "[DEBUG/child] running all \"atexit\" finalizers with priority >= 0\n"
          "[DEBUG/child] running the remaining \"atexit\" finalizers\n"
          "[INFO/child] process exiting with exitcode 3\n");
    CHECK_THAT(errors, ContainsSubstring(
                           ") ended with exit code 3\n"
                           "[INFO/parent] process shutting down\n"
                           "[DEBUG/parent] running all \"atexit\" finalizers with priority >= 0\n"
                           "[DEBUG/parent] running the remaining \"atexit\" finalizers\n"
                           "[INFO/parent] process exiting with exitcode 0\n"));
}

TEST_CASE("the end of a child is logged once, and how it died", "[util][logging][fork]") {
    const RestoreLog restore;
    Records records;
    log_to(records, mp::log_level::info);
    const auto child = mp::get_context("fork").Process(support::wait_for_signal);
    child.start();
    CHECK(records.count(of_child(child) + " started by fork") == 1);
    child.kill();
    CHECK(ended(child) == -SIGKILL);
    CHECK_FALSE(child.is_alive());
    CHECK(records.count(of_child(child) + " was killed by SIGKILL") == 1);
    CHECK(records.count(" ended with ") == 0);
}

TEST_CASE("children that are ended with their parent are told of", "[util][logging][fork]") {
    const auto child = mp::get_context("fork").Process([] {
        mp::log_to_stderr(mp::log_level::info);
        const auto fork = mp::get_context("fork");
        fork.Process({.name = "kept", .daemon = false}, [] {}).start();
        fork.Process({.name = "ended", .daemon = true}, support::wait_for_signal).start();
    });
    const std::string errors = errors_of(child);
    CHECK_THAT(errors, ContainsSubstring("] calling terminate() for daemon ended\n"));
    CHECK_THAT(errors, ContainsSubstring("] calling join() for process ended\n"));
    CHECK_THAT(errors, ContainsSubstring(" was killed by SIGTERM\n"));
}

TEST_CASE("a replaced worker is told of", "[util][logging][pool]") {
    const RestoreLog restore;
    Records records;
    log_to(records, mp::log_level::debug);
    const mp::Pool pool({.processes = 1, .maxtasksperchild = 1});
    CHECK_THROWS_AS(pool.apply([] { return std::raise(SIGKILL); }), mp::WorkerLostError);
    CHECK(records.wait_for("[SUBWARNING/MainProcess] pool: process 'ForkPoolWorker-1' (pid "));
    CHECK(records.count(") was killed by SIGKILL, replaced by process 'ForkPoolWorker-2' (pid ") ==
          1);
    CHECK(pool.apply([] { return 2; }) == 2);
    CHECK(records.wait_for("[DEBUG/MainProcess] pool: process 'ForkPoolWorker-2' (pid "));
    CHECK(records.count(") ended with exit code 0, replaced by process 'ForkPoolWorker-3' (pid ") ==
          1);
}

TEST_CASE("an abandoned lock is told of once", "[util][logging][synchronize]") {
    const auto method = GENERATE(from_range(mp::get_all_start_methods()));
    const RestoreLog restore;
    Records records;
    log_to(records, mp::log_level::warning);
    const mp::Lock lock;
    const mp::RLock rlock;
    const auto child = mp::get_context(method).Process(
        [](const mp::Lock& a, const mp::RLock& b) {
            a.acquire();
            b.acquire();
        },
        lock, rlock);
    CHECK(run(child) == 0);
    CHECK(lock.acquire(30));
    CHECK(records.count("[WARNING/MainProcess] Lock abandoned: a process ended that held it") == 1);
    lock.release();
    CHECK(rlock.acquire(30));
    CHECK(rlock.acquire(30));
    CHECK(records.count("[WARNING/MainProcess] RLock abandoned: a process ended that held it") ==
          1);
    rlock.release();
    rlock.release();
    CHECK(lock.acquire(30));
    lock.release();
    CHECK(records.count("abandoned") == 2);
}

TEST_CASE("a condition tells of its lock", "[util][logging][synchronize]") {
    const RestoreLog restore;
    Records records;
    log_to(records, mp::log_level::warning);
    const mp::Condition condition;
    const std::lock_guard guard(condition);
    const auto child = mp::get_context("fork").Process(
        [](const mp::Condition& c) {
            c.acquire();
            c.notify();
        },
        condition);
    child.start();
    CHECK(condition.wait(30));
    CHECK(records.count("RLock abandoned") == 1);
    CHECK(ended(child) == 0);
}

TEST_CASE("a fork by one thread alone is no matter", "[util][logging][fork]") {
    const auto child = mp::get_context("spawn").Process([] {
        mp::log_to_stderr();
        mp::exit(run(mp::get_context("fork").Process([] {})));
    });
    CHECK(errors_of(child).empty());
    CHECK(child.exitcode() == 0);
}

TEST_CASE("exit functions of negative priority run after the children's end", "[util][exit]") {
    const auto method = GENERATE(from_range(mp::get_all_start_methods()));
    auto [reader, writer] = mp::Pipe(false);
    const auto child = mp::get_context(method).Process(
        [](const mp::Connection& w) {
            mp::util::register_exit([w] { w.send(3); }, -1);
            const auto taken_back = mp::util::register_exit([w] { w.send(0); });
            if (!mp::util::unregister_exit(taken_back)) mp::exit(1);
            mp::Event go;
            mp::util::register_exit([w, go] {
                w.send(1);
                go.set();
            });
            mp::get_context("fork").Process([w, go] {
                go.wait(30);
                w.send(2);
            }).start();
        },
        writer);
    CHECK(run(child) == 0);
    for (const int expected : {1, 2, 3}) {
        REQUIRE(reader.poll());
        CHECK(reader.recv<int>() == expected);
    }
    CHECK_FALSE(reader.poll());
}

TEST_CASE("a finalizer runs once", "[util][finalize]") {
    int ran = 0;
    {
        const Finalize finalize([&](int by) { ran += by; }, 2);
        const Finalize copy = finalize;
        CHECK(copy.still_active());
        finalize();
        CHECK(ran == 2);
        CHECK_FALSE(copy.still_active());
        copy();
        CHECK_FALSE(copy.cancel());
    }
    CHECK(ran == 2);
}

TEST_CASE("the last handle of a finalizer runs it", "[util][finalize]") {
    std::string ran;
    std::optional<Finalize> first(
        std::in_place, [&](const std::string& text) { ran += text; }, "x");
    {
        Finalize second = *first;
        Finalize third([&] { ran += "z"; });
        third = second;
        CHECK(ran == "z");
    }
    CHECK(ran == "z");
    first.reset();
    CHECK(ran == "zx");
}

TEST_CASE("a finalizer that is cancelled never runs, and lets go", "[util][finalize]") {
    const auto held = std::make_shared<int>(0);
    const auto options =
        GENERATE(mp::util::FinalizeOptions{}, mp::util::FinalizeOptions{.exitpriority = 3});
    const Finalize finalize(options, [held, own = std::make_unique<int>(0)] { ++*held; });
    CHECK(held.use_count() == 2);
    CHECK(finalize.cancel());
    CHECK(held.use_count() == 1);
    CHECK_FALSE(finalize.still_active());
    finalize();
    CHECK(*held == 0);
}

TEST_CASE("a finalizer that is over leaves nothing for the end", "[util][finalize]") {
    const auto before = mp::util::register_exit([] {});
    {
        const Finalize finalize({.exitpriority = 1}, [] {});
    }
    CHECK_FALSE(mp::util::unregister_exit(before + 1));  // they are numbered as they come
    CHECK(mp::util::unregister_exit(before));
}

TEST_CASE("what a finalizer throws goes to its caller, or to stderr", "[util][finalize]") {
    const auto fail = [] { throw std::runtime_error("cannot finish"); };
    CHECK_THROWS_WITH(Finalize(fail)(), "cannot finish");
    Capture errors(STDERR_FILENO);
    { const Finalize finalize(fail); }
    CHECK_THAT(errors.text(), ContainsSubstring("std::runtime_error: cannot finish"));
}

TEST_CASE("of several threads one runs the finalizer", "[util][finalize][threads]") {
    for (int i = 0; i < 200; ++i) {
        std::atomic<int> ran{0};
        std::atomic<int> here{0};
        const Finalize finalize({.exitpriority = 1}, [&] { ++ran; });
        const auto call = [&] {
            ++here;
            while (here < 2) std::this_thread::yield();
            finalize();
        };
        std::thread other(call);
        call();
        other.join();
        REQUIRE(ran == 1);
    }
}

TEST_CASE("a forked child never runs its parent's finalizer", "[util][finalize][fork]") {
    auto [reader, writer] = mp::Pipe(false);
    const auto held = std::make_shared<int>(0);
    {
        const Finalize finalize({.exitpriority = 1}, [w = writer, held] { w.send(::getpid()); });
        const auto child =
            mp::get_context("fork").Process([copy = std::optional(finalize), held]() mutable {
                const bool active = copy->still_active();
                (*copy)();
                const bool cancelled = copy->cancel();
                const auto users = held.use_count();
                copy.reset();
                // What it holds is the parent's too, and so is not destroyed.
                mp::exit(active || cancelled || held.use_count() != users ? 1 : 0);
            });
        CHECK(run(child) == 0);
        CHECK_FALSE(reader.poll());
        CHECK(finalize.still_active());
    }
    REQUIRE(reader.poll());
    CHECK(reader.recv<int>() == ::getpid());
}
