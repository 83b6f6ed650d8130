// SPDX-License-Identifier: BSL-1.0
//
// What the tasks of a call are given beside their items, and how they may end.
#pragma once

#include <multiprocessing/exceptions.hpp>

#include <chrono>
#include <cstdint>
#include <exception>
#include <functional>
#include <sstream>
#include <string>
#include <utility>

namespace multiprocessing::runtime::pool {

/// What a call is given beside its items.
struct TaskSettings {
    std::chrono::nanoseconds timeout{0};  // of one item; 0: none
    std::chrono::nanoseconds grace{0};    // from one way of asking it to stop to the next
    std::uint32_t retries = 0;            // after deaths
    bool may_be_stopped = true;           // though it runs: when it is cancelled
    bool items_stay = true;               // where they are until the call has ended
};

/// The outcome of an item that took too long.
[[nodiscard]] inline std::exception_ptr task_timeout(std::uint64_t item, const TaskSettings& settings,
                                                     const std::string& worker) {
    // No time at all is kept as the least there is.
    const auto allowed = settings.timeout > std::chrono::nanoseconds(1) ? settings.timeout
                                                                        : std::chrono::nanoseconds(0);
    std::ostringstream text;
    text << "item " << item << " of the job took longer than the "
         << std::chrono::duration<double>(allowed).count() << " s that its timeout allows; "
         << worker << " is told to stop";
    return std::make_exception_ptr(TaskTimeoutError(text.str()));
}

/// Makes the exception that a job ends with: where several end with it each has its own if its text says
/// so, or all the same.
using Failure = std::function<std::exception_ptr()>;
[[nodiscard]] inline Failure always(std::exception_ptr exception) {
    return [exception = std::move(exception)] { return exception; };
}

}  // namespace multiprocessing::runtime::pool
