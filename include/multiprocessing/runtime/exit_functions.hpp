// SPDX-License-Identifier: BSL-1.0
//
// Functions of this process, and not of the children it forks, that run when it ends in an orderly
// way. Answers the registry of Python's `util.Finalize`.
#pragma once

#include <multiprocessing/os/fork.hpp>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <vector>

namespace multiprocessing::runtime {

class ExitFunctions {
public:
    using Id = std::uint64_t;

    /// The higher priority runs first, of equals the one that was added last.
    Id add(std::function<void()> function, int priority) {
        const std::lock_guard lock(mutex_);
        const Id id = ++last_id_;
        entries_.push_back({id, priority, std::move(function)});
        return id;
    }
    /// Whether it was still there. What it captured is destroyed before this returns.
    bool remove(Id id) {
        return take([id](const Entry& entry) { return entry.id == id; }).has_value();
    }
    /// Runs all of this priority and above, those added meanwhile too; an exception of one does not
    /// keep the others from running, and goes to `report`.
    void run(int least_priority, const std::function<void()>& report);
    /// In a forked child: they are its parent's, and so is what they captured, which therefore is
    /// not destroyed.
    void forget() {
        if (entries_.empty()) return;
        new std::vector<Entry>(std::move(entries_));
        entries_.clear();
    }

private:
    struct Entry {
        Id id;
        int priority;
        std::function<void()> function;
    };

    template <class Predicate>
    std::optional<Entry> take(Predicate predicate) {
        const std::lock_guard lock(mutex_);
        const auto found = std::find_if(entries_.begin(), entries_.end(), predicate);
        if (found == entries_.end()) return std::nullopt;
        std::optional<Entry> entry(std::move(*found));
        entries_.erase(found);
        return entry;
    }
    std::optional<Entry> take_next(int least_priority);

    os::ForkAwareMutex mutex_;
    std::vector<Entry> entries_;
    Id last_id_ = 0;
};

inline std::optional<ExitFunctions::Entry> ExitFunctions::take_next(int least_priority) {
    Id next = 0;
    {
        const std::lock_guard lock(mutex_);
        const auto found =
            std::max_element(entries_.begin(), entries_.end(), [](const Entry& a, const Entry& b) {
                return a.priority != b.priority ? a.priority < b.priority : a.id < b.id;
            });
        if (found == entries_.end() || found->priority < least_priority) return std::nullopt;
        next = found->id;
    }
    return take([next](const Entry& entry) { return entry.id == next; });
}

inline void ExitFunctions::run(int least_priority, const std::function<void()>& report) {
    while (const auto entry = take_next(least_priority)) {
        try {
            entry->function();
        } catch (...) {
            report();
        }
    }
}

}  // namespace multiprocessing::runtime
