// SPDX-License-Identifier: BSL-1.0
//
// Who has something to do whenever this library forks a child: what holds connections makes one for
// the child before. Answers Python's `util.register_after_fork`.
#pragma once

#include <atomic>

namespace multiprocessing::runtime {

/// A list that only grows. Of forks by others nobody is told.
struct ForkObserver {
    void (*before)();              // in the thread that is about to fork
    void (*in_parent)() noexcept;  // after, or when there was no fork
    void (*in_child)() noexcept;
    const ForkObserver* next = nullptr;

    /// `observer` must live for ever.
    static void add(ForkObserver& observer) noexcept {
        observer.next = first.load(std::memory_order_relaxed);
        // release: who finds it sees what is in it.
        while (!first.compare_exchange_weak(observer.next, &observer, std::memory_order_release,
                                            std::memory_order_relaxed)) {}
    }
    static inline constinit std::atomic<const ForkObserver*> first{nullptr};
};

/// Around one fork.
class ObservedFork {
public:
    ObservedFork() {
        for (const ForkObserver* each = first(); each != nullptr; each = each->next) each->before();
    }
    ObservedFork(const ObservedFork&) = delete;
    ObservedFork& operator=(const ObservedFork&) = delete;
    ~ObservedFork() {
        for (const ForkObserver* each = first(); each != nullptr; each = each->next) each->in_parent();
    }
    /// In the child, where the destructor is not run.
    static void enter_child() noexcept {
        for (const ForkObserver* each = first(); each != nullptr; each = each->next) each->in_child();
    }

private:
    [[nodiscard]] static const ForkObserver* first() noexcept {
        return ForkObserver::first.load(std::memory_order_acquire);
    }
};

}  // namespace multiprocessing::runtime
