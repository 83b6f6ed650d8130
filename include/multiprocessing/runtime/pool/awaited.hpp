// SPDX-License-Identifier: BSL-1.0
//
// What somebody waits for, who may have to bring it about himself.
#pragma once

#include <multiprocessing/os/clock.hpp>

namespace multiprocessing::runtime::pool {

/// What somebody waits for, who may have to bring it about himself.
class Awaited {
public:
    Awaited() = default;
    Awaited(const Awaited&) = delete;
    Awaited& operator=(const Awaited&) = delete;
    virtual ~Awaited() = default;
    [[nodiscard]] virtual bool ready() const noexcept = 0;
    /// Sleeps until it is ready or the deadline has passed; whether it was.
    virtual bool sleep(os::Deadline deadline) const = 0;
};

}  // namespace multiprocessing::runtime::pool
