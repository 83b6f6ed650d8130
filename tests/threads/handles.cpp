// SPDX-License-Identifier: BSL-1.0
//
// Handles made, copied, sent and dropped by the threads of one process, and queues between them.
#include <multiprocessing/queues.hpp>
#include <multiprocessing/sharedctypes.hpp>
#include <multiprocessing/synchronize.hpp>

#include "conformance/helpers.hpp"
#include "shm/helpers.hpp"
#include "support/catch.hpp"
#include "threads/crowd.hpp"

#include <atomic>
#include <cstddef>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace mp = multiprocessing;
using support::crowd;
using support::NoLeak;
using support::patient;
using support::run_together;

TEST_CASE("threads make and drop objects", "[threads][handles]") {
    const NoLeak leak;
    run_together([&](int) {
        for (int n = 0; n < 200; ++n) {
            const mp::Lock lock;
            const mp::Semaphore semaphore(n);
            const mp::BoundedSemaphore bounded(n + 1);
            const mp::Condition condition(lock);
            const mp::Event event;
            const mp::Barrier barrier(2);
            const mp::Value<int> value(n);
            const mp::Array<int> array(n);
            const std::scoped_lock all(condition, value, bounded);
            event.set();
        }
    });
    CHECK(leak.leaked() == 0);
}

TEST_CASE("threads copy and drop handles of one object", "[threads][handles]") {
    const NoLeak leak;
    {
        std::optional<mp::Value<int>> first(std::in_place, 0);
        const mp::Value<int> value = *first;
        run_together([&](int i) {
            std::vector<mp::Value<int>> copies;
            for (int n = 0; n < 500; ++n) {
                copies.push_back(value);
                copies.back().fetch_add(1);
                if (copies.size() > 20) copies.clear();
                if (i == 0 && n == 100) first.reset();
            }
        });
        CHECK(value.load() == crowd * 500);
    }
    CHECK(leak.leaked() == 0);
}

TEST_CASE("handles go through a queue from thread to thread", "[threads][handles][queue]") {
    const NoLeak leak;
    {
        const mp::Queue<std::pair<mp::Lock, mp::Value<int>>> queue;
        const mp::Value<int> sum(0);
        run_together([&](int i) {
            for (int n = 0; n < 300; ++n) {
                if (i % 2 == 0) {
                    queue.put({mp::Lock(), sum});
                } else {
                    const auto [lock, value] = queue.get();
                    const std::scoped_lock both(lock, value);
                    value.value() += 1;
                }
            }
        });
        CHECK(sum.value() == crowd / 2 * 300);
    }
    CHECK(leak.leaked() == 0);
}

TEST_CASE("threads put and get", "[threads][queue]") {
    const int maxsize = GENERATE(0, 3);
    const mp::JoinableQueue<std::vector<int>> queue(maxsize);
    std::atomic<long> sum{0};
    constexpr int each = 1000;
    run_together(2 * crowd, [&](int i) {
        if (i % 2 == 0) {
            for (int n = 0; n < each; ++n) queue.put(std::vector<int>(1 + n % 50, n));
        } else {
            for (int n = 0; n < each;) {
                std::vector<std::vector<int>> some;
                if (n % 5 == 0) {
                    some = queue.get_many(static_cast<std::size_t>(std::min(5, each - n)), patient);
                } else {
                    some.push_back(queue.get());
                }
                for (const auto& item : some) sum += item.back();
                for (std::size_t k = 0; k < some.size(); ++k) queue.task_done();
                n += static_cast<int>(some.size());
            }
        }
    });
    CHECK(sum == long{crowd} * each * (each - 1) / 2);
    CHECK(queue.join(patient));
    CHECK(queue.empty());
}
