// SPDX-License-Identifier: BSL-1.0
#include <multiprocessing/synchronize.hpp>

#include <multiprocessing/sharedctypes.hpp>

#include "conformance/helpers.hpp"
#include "support/catch.hpp"

#include <string>

namespace mp = multiprocessing;
using namespace support;

namespace {

constexpr int parties = 5;
using Counts = mp::Array<int>;

void multipass(const mp::Barrier& barrier, const Counts& counts, int passes) {
    const auto sees = [&](std::size_t of, int count) {
        return counts.synchronized([&](auto c) { return c[of] == count; });
    };
    for (int i = 0; i < passes; ++i) {
        counts.synchronized([](auto c) { ++c[0]; });
        EXPECT(sees(1, i * parties));
        barrier.wait(patient);
        counts.synchronized([](auto c) { ++c[1]; });
        EXPECT(sees(0, (i + 1) * parties));
        barrier.wait(patient);
    }
    EXPECT(!barrier.broken());
}

void count_zeros(const mp::Barrier& barrier, const mp::Value<int>& zeros) {
    const int index = barrier.wait(patient);
    EXPECT(index >= 0 && index < parties);
    if (index == 0) zeros.fetch_add(1);
}

struct Count {
    mp::Value<int> runs;
    void operator()() const { runs.fetch_add(1); }
    template <class Archive>
    void serialize(Archive& archive, unsigned) {
        archive & runs;
    }
};

void wait_twice(const mp::Barrier& barrier, const mp::Value<int>& passed) {
    barrier.wait(patient);
    passed.fetch_add(1);
    barrier.wait(patient);
}

// CPython's _test_abort_f: whose index is parties / 2 spoils it for the rest.
void abort_one(const mp::Barrier& barrier, const mp::Value<int>& passed,
               const mp::Value<int>& broken) {
    try {
        if (barrier.wait(patient) == parties / 2) throw std::runtime_error("spoilt");
        barrier.wait(patient);
        passed.fetch_add(1);
    } catch (const mp::BrokenBarrierError&) {
        broken.fetch_add(1);
    } catch (const std::runtime_error&) {
        barrier.abort();
    }
}

void reset_one(const mp::Barrier& barrier, const mp::Array<int>& counts) {
    if (barrier.wait(patient) == parties / 2) {
        while (barrier.n_waiting() < parties - 1) std::this_thread::yield();
        barrier.reset();
    } else {
        try {
            barrier.wait(patient);
            counts.synchronized([](auto c) { ++c[0]; });
        } catch (const mp::BrokenBarrierError&) {
            counts.synchronized([](auto c) { ++c[1]; });
        }
    }
    barrier.wait(patient);
    counts.synchronized([](auto c) { ++c[2]; });
}

void abort_and_reset(const mp::Barrier& barrier, const mp::Barrier& other,
                     const mp::Array<int>& counts) {
    try {
        if (barrier.wait(patient) == parties / 2) throw std::runtime_error("spoilt");
        barrier.wait(patient);
        counts.synchronized([](auto c) { ++c[0]; });
    } catch (const mp::BrokenBarrierError&) {
        counts.synchronized([](auto c) { ++c[1]; });
    } catch (const std::runtime_error&) {
        barrier.abort();
    }
    if (other.wait(patient) == parties / 2) barrier.reset();
    other.wait(patient);
    barrier.wait(patient);
    counts.synchronized([](auto c) { ++c[2]; });
}

// One does not come in time.
void be_late(const mp::Barrier& barrier, const mp::Event& over, bool default_timeout) {
    if (barrier.wait(patient) == parties / 2) {
        over.wait(patient);
        try {
            barrier.wait(patient);
        } catch (const mp::BrokenBarrierError&) {
            return;
        }
    } else {
        try {
            default_timeout ? barrier.wait() : barrier.wait(0.2);
        } catch (const mp::BrokenBarrierError&) {
            over.set();
            return;
        }
    }
    support::expect(false, "the barrier was passed");
}

template <class... Args>
void run_parties(const std::string& method, const Args&... args) {
    Children children(method);
    for (int i = 0; i < parties; ++i) children.start(args...);
    CHECK(children.join());
}

}  // namespace

TEST_CASE("_TestBarrier.test_barrier", "[barrier][conformance]") {
    EVERY_START_METHOD;
    run_parties(method, multipass, mp::Barrier(parties), Counts(2), 1);
}

TEST_CASE("_TestBarrier.test_barrier_10", "[barrier][conformance]") {
    EVERY_START_METHOD;
    const mp::Barrier barrier(parties);
    run_parties(method, multipass, barrier, Counts(2), 10);
    CHECK(barrier.n_waiting() == 0);
    CHECK_FALSE(barrier.broken());
    CHECK(barrier.parties() == parties);
}

TEST_CASE("_TestBarrier.test_wait_return", "[barrier][conformance]") {
    EVERY_START_METHOD;
    const mp::Value<int> zeros(0);
    run_parties(method, count_zeros, mp::Barrier(parties), zeros);
    CHECK(zeros.value() == 1);
}

TEST_CASE("_TestBarrier.test_action", "[barrier][conformance]") {
    EVERY_START_METHOD;
    const mp::Value<int> runs(0);
    const mp::Value<int> passed(0);
    run_parties(method, wait_twice, mp::Barrier(parties, Count{runs}), passed);
    CHECK(runs.value() == 2);
    CHECK(passed.value() == parties);
}

TEST_CASE("_TestBarrier.test_abort", "[barrier][conformance]") {
    EVERY_START_METHOD;
    const mp::Barrier barrier(parties);
    const mp::Value<int> passed(0);
    const mp::Value<int> broken(0);
    run_parties(method, abort_one, barrier, passed, broken);
    CHECK(passed.value() == 0);
    CHECK(broken.value() == parties - 1);
    CHECK(barrier.broken());
}

TEST_CASE("_TestBarrier.test_reset", "[barrier][conformance]") {
    EVERY_START_METHOD;
    const mp::Array<int> counts(3);
    run_parties(method, reset_one, mp::Barrier(parties), counts);
    CHECK(counts[0] == 0);
    CHECK(counts[1] == parties - 1);
    CHECK(counts[2] == parties);
}

TEST_CASE("_TestBarrier.test_abort_and_reset", "[barrier][conformance]") {
    EVERY_START_METHOD;
    const mp::Array<int> counts(3);
    run_parties(method, abort_and_reset, mp::Barrier(parties), mp::Barrier(parties), counts);
    CHECK(counts[0] == 0);
    CHECK(counts[1] == parties - 1);
    CHECK(counts[2] == parties);
}

TEST_CASE("_TestBarrier.test_timeout", "[barrier][conformance]") {
    EVERY_START_METHOD;
    const mp::Barrier barrier(parties);
    run_parties(method, be_late, barrier, mp::Event(), false);
    CHECK(barrier.broken());
}

TEST_CASE("_TestBarrier.test_default_timeout", "[barrier][conformance]") {
    EVERY_START_METHOD;
    const mp::Barrier barrier(parties, {}, 0.2);
    run_parties(method, be_late, barrier, mp::Event(), true);
    CHECK(barrier.broken());
}

TEST_CASE("_TestBarrier.test_single_thread", "[barrier][conformance]") {
    const mp::Barrier barrier(1);
    CHECK(barrier.wait() == 0);
    CHECK(barrier.wait() == 0);
}

TEST_CASE("_TestBarrier.test_thousand", "[barrier][conformance]") {
    EVERY_START_METHOD;
    const mp::Barrier barrier(parties);
    const Counts counts(2);
    run_parties(method, multipass, barrier, counts, 500);  // two waits each
    CHECK(counts[0] == 500 * parties);
}
