// SPDX-License-Identifier: BSL-1.0
#include <multiprocessing/connection.hpp>
#include <multiprocessing/util.hpp>

#include "conformance/helpers.hpp"
#include "support/catch.hpp"

#include <atomic>
#include <cstdlib>
#include <limits>
#include <map>
#include <random>
#include <string>
#include <thread>
#include <vector>

namespace mp = multiprocessing;
using namespace support;
using mp::util::Finalize;

namespace {

void say(const mp::Connection& conn, const std::string& what) { conn.send(what); }

void finalize(const mp::Connection& conn) {
    {
        const Finalize a(say, conn, "a");
        EXPECT(a.still_active());
    }
    {
        const Finalize close_b(say, conn, "b");
        close_b();
        close_b();  // does nothing, nor does the destructor
        EXPECT(!close_b.still_active());
    }
    const Finalize c(say, conn, "c");
    const Finalize d10({.exitpriority = 1}, say, conn, "d10");
    const Finalize d01({.exitpriority = 0}, say, conn, "d01");
    const Finalize d02({.exitpriority = 0}, say, conn, "d02");
    const Finalize d03({.exitpriority = 0}, say, conn, "d03");
    mp::util::register_exit([conn] { say(conn, "e"); }, -10);
    mp::util::register_exit([conn] { say(conn, "STOP"); }, -100);
    // The orderly end, without the end of what is local here.
    std::exit(0);
}

}  // namespace

TEST_CASE("_TestFinalize.test_finalize", "[finalize][conformance]") {
    EVERY_START_METHOD;
    auto [conn, child_conn] = mp::Pipe();
    Children children(method);
    children.start(mp::ProcessOptions{.daemon = true}, finalize, child_conn);
    CHECK(children.join());
    std::vector<std::string> result;
    while (conn.poll(0)) {
        result.push_back(conn.recv<std::string>());
        if (result.back() == "STOP") break;
    }
    CHECK(result == std::vector<std::string>{"a", "b", "d10", "d03", "d02", "d01", "e", "STOP"});
}

TEST_CASE("_TestFinalize.test_thread_safety", "[finalize][conformance]") {
    EVERY_START_METHOD;
    Children children(method);
    children.start([] {
        std::atomic<int> ran{0};
        std::atomic<bool> finish{false};
        int made = 0;
        std::thread run_finalizers([&] {
            auto& functions = mp::runtime::this_process().exit_functions;
            while (!finish) functions.run(std::numeric_limits<int>::min(), [] { std::abort(); });
        });
        {
            std::mt19937 random(7);
            std::map<unsigned, std::vector<Finalize>> all;
            for (int i = 0; i < 3000; ++i) {
                std::vector<Finalize> ten;
                for (int j = 0; j < 10; ++j, ++made) {
                    const int priority = static_cast<int>(1 + random() % 100);
                    ten.push_back(Finalize({.exitpriority = priority}, [&ran] { ++ran; }));
                }
                all[static_cast<unsigned>(random() % 32)] = std::move(ten);
            }
        }
        finish = true;
        run_finalizers.join();
        EXPECT(ran == made);
    });
    CHECK(children.join());
}
