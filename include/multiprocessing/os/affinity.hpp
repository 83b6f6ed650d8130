// SPDX-License-Identifier: BSL-1.0
//
// The processors that a thread, and what it forks, may run on.
#pragma once

#include <multiprocessing/os/error.hpp>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include <sched.h>

namespace multiprocessing::os {

/// A set of processors, for as many as there may be.
class CpuSet {
public:
    /// Linux knows of no machine with more.
    static constexpr int most = 1 << 20;

    /// An empty set with room for `processors`.
    explicit CpuSet(int processors)
        : size_(CPU_ALLOC_SIZE(processors)), set_(CPU_ALLOC(static_cast<std::size_t>(processors))) {
        if (!set_) throw std::bad_alloc();
        CPU_ZERO_S(size_, set_.get());
    }
    /// What the calling thread may run on.
    [[nodiscard]] static CpuSet of_this_thread() {
        // The kernel refuses a set smaller than its own, so it grows until it is taken.
        for (int processors = 1024;; processors *= 2) {
            CpuSet set(processors);
            if (::sched_getaffinity(0, set.size_, set.set_.get()) == 0) return set;
            if (errno != EINVAL || processors >= most) throw_errno("sched_getaffinity");
        }
    }

    void add(int processor) { CPU_SET_S(static_cast<std::size_t>(processor), size_, set_.get()); }
    [[nodiscard]] int count() const noexcept { return CPU_COUNT_S(size_, set_.get()); }
    /// Whether the calling thread can be, and now is, kept to the set.
    [[nodiscard]] bool apply() const noexcept {
        return ::sched_setaffinity(0, size_, set_.get()) == 0;
    }

private:
    struct Free {
        void operator()(cpu_set_t* set) const { CPU_FREE(set); }
    };

    std::size_t size_;
    std::unique_ptr<cpu_set_t, Free> set_;
};

/// Keeps the calling thread, and what it forks meanwhile, to some processors; nothing when there
/// are none in the list. So the parent learns what is wrong with the list before there is a child.
class AffinityScope {
public:
    /// Throws std::system_error when the machine has none of them, or none for this process.
    explicit AffinityScope(std::span<const int> processors) {
        if (processors.empty()) return;
        CpuSet wanted(*std::max_element(processors.begin(), processors.end()) + 1);
        std::string list;
        for (const int processor : processors) {
            wanted.add(processor);
            list += (list.empty() ? "" : ", ") + std::to_string(processor);
        }
        before_ = CpuSet::of_this_thread();
        if (!wanted.apply()) throw_errno("sched_setaffinity", "processors " + list);
    }
    ~AffinityScope() {
        if (before_) static_cast<void>(before_->apply());
    }
    AffinityScope(const AffinityScope&) = delete;
    AffinityScope& operator=(const AffinityScope&) = delete;
    /// In the child: it stays so.
    void keep() noexcept { before_.reset(); }

private:
    std::optional<CpuSet> before_;
};

}  // namespace multiprocessing::os
