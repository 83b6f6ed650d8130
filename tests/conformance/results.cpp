// SPDX-License-Identifier: BSL-1.0
//
// What docs/conformance.md is made from: to the file that MULTIPROCESSING_TEST_RESULTS names, a
// line for each pass through a test case, of its name, its start method or nothing, and how it
// went.
#include "support/listener.hpp"

#include "conformance/helpers.hpp"

#include <cstdlib>
#include <fstream>
#include <utility>

#include <unistd.h>

namespace {

using support::Listener;

// Catch2 2.13 wants to be told whether to forget messages, 3 nothing.
using Ended = decltype(std::declval<Listener&>().assertionEnded(
    std::declval<const Catch::AssertionStats&>()));

// The outermost section is the case itself, begun anew for each value that it generates.
class ResultsListener : public Listener {
public:
    using Listener::Listener;

    void sectionStarting(const Catch::SectionInfo& info) override {
        Listener::sectionStarting(info);
        if (depth_++ > 0) return;
        support::noted_method.clear();
        said_something_ = false;
    }

    Ended assertionEnded(const Catch::AssertionStats& stats) override {
        said_something_ = true;
        return Listener::assertionEnded(stats);
    }

    void sectionEnded(const Catch::SectionStats& stats) override {
        Listener::sectionEnded(stats);
        // A forked child may come here before the guard ends it.
        if (--depth_ > 0 || file_ == nullptr || ::getpid() != pid_) return;
        const Catch::Counts& counts = stats.assertions;
        // Who skips says why, and checks nothing.
        const bool checked = counts.passed + counts.failedButOk > 0;
        const char* result = counts.failed > 0             ? "failed"
                             : said_something_ && !checked ? "skipped"
                                                           : "passed";
        // Opened anew, so that children inherit nothing.
        std::ofstream(file_, std::ios::app)
            << stats.sectionInfo.name << '\t' << support::noted_method << '\t' << result << '\n';
    }

private:
    const char* file_ = std::getenv("MULTIPROCESSING_TEST_RESULTS");
    pid_t pid_ = ::getpid();
    int depth_ = 0;
    bool said_something_ = false;
};

CATCH_REGISTER_LISTENER(ResultsListener)

}  // namespace
