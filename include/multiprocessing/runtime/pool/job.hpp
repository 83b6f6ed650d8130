// SPDX-License-Identifier: BSL-1.0
//
// A job: one call of the pool's interface, cut into tasks whose outcomes come back in any order. What
// is made of them is said by the classes derived from it.
#pragma once

#include <multiprocessing/runtime/pool/outcomes.hpp>

#include <cstdint>
#include <exception>

namespace multiprocessing::runtime::pool {

/// The parent's side of a call. Its functions run in the pool's thread, one at a time, but for fail(),
/// which may come from any.
class Job : public OutcomeReader {
public:
    Job() = default;
    Job(const Job&) = delete;
    Job& operator=(const Job&) = delete;

    /// All outcomes of one task have been given; so many bytes of shared memory are free again.
    virtual void task_done(std::uint64_t bytes) = 0;
    /// There will be no more outcomes: the job was cancelled, or the pool has ended. False if it was
    /// over already.
    virtual bool fail(std::exception_ptr exception) = 0;
    /// Gives all of its input that is still to be read, if that has an end.
    virtual void read_to_the_end() {}
};

}  // namespace multiprocessing::runtime::pool
