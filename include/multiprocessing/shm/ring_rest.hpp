// SPDX-License-Identifier: BSL-1.0
//
// What is done with a ring beside putting and taking: it is emptied, counted done, shut down. The rest
// of shm/ring.hpp, which includes this.
#pragma once

#include <multiprocessing/os/fault.hpp>
#include <multiprocessing/shm/arena.hpp>
#include <multiprocessing/shm/ring.hpp>

#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace multiprocessing::shm {

inline void Ring::discard() {
    std::uint64_t discarded = 0;
    {
        Getter getter(*this);
        Getter::Record record;
        for (; getter.peek(record); ++discarded) {
            getter.take(record);
            if (record.run != nullptr) {
                const Arena& arena = Arena::instance();
                Transaction tx = arena.transaction();
                arena.destroy(tx, *record.run);
            }
            MULTIPROCESSING_FAULT_POINT("discard: one taken");
        }
        getter.commit();
        MULTIPROCESSING_FAULT_POINT("discard: committed, end held");
    }
    space_.rouse_all();
    while (discarded-- != 0) static_cast<void>(task_done());  // nobody else will say so
}

inline bool Ring::task_done() noexcept {
    std::uint64_t done = done_.load(std::memory_order_relaxed);
    do {
        if (done >= puts()) return false;
    } while (!done_.compare_exchange_weak(done, done + 1, std::memory_order_acq_rel));
    MULTIPROCESSING_FAULT_POINT("task_done: counted, nobody told");
    all_done_.notify_all();
    return true;
}

inline bool Ring::join(os::Deadline deadline) {
    const auto all_done = [this] { return done_.load(std::memory_order_acquire) >= puts(); };
    return all_done_.wait(all_done, deadline, [] {}, Naps::long_ones(done_lookout_));
}

inline void Ring::shut_down() {
    {
        const Putter holding(*this);  // so that a put is either before it or refused
        MULTIPROCESSING_FAULT_POINT("shut_down: end taken");
        shut_down_.store(1, std::memory_order_release);
        MULTIPROCESSING_FAULT_POINT("shut_down: noted, end held");
    }
    MULTIPROCESSING_FAULT_POINT("shut_down: end let go, nobody told");
    wake_all();
}

inline void Ring::wake_selectors() noexcept {
    std::uint64_t words = selectors_.exchange(0, std::memory_order_seq_cst);
    MULTIPROCESSING_FAULT_POINT("put: selectors noted, not told");
    for (; words != 0; words &= words - 1) {
        const auto word = static_cast<std::size_t>(std::countr_zero(words));
        Arena::instance().header().selectors[word].notify_all();
    }
}

}  // namespace multiprocessing::shm
