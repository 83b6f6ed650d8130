// SPDX-License-Identifier: BSL-1.0
//
// The descriptor that tells a parent of its child's end.
#pragma once

#include <multiprocessing/os/fd.hpp>
#include <multiprocessing/os/process.hpp>

#include <memory>
#include <system_error>
#include <utility>

namespace multiprocessing::runtime {

/// The pidfd of a child that was just made. `reserved` is a descriptor to be given up for it, so
/// that a lack of descriptors shows before there is a child. If it cannot be had, the child is
/// undone.
inline std::shared_ptr<const os::Fd> open_sentinel(int pid, os::Fd reserved) {
    reserved.reset();
    try {
        return std::make_shared<const os::Fd>(os::open_pidfd(pid));
    } catch (const std::system_error& error) {
        if (error.code() == std::errc::no_such_process) {
            // Where SIGCHLD is ignored the kernel reaps, and this one has ended already.
            os::Fd ended = os::pipe().first;
            return std::make_shared<const os::Fd>(std::move(ended));
        }
        os::kill_and_reap(pid);
        throw;
    }
}

}  // namespace multiprocessing::runtime
