// SPDX-License-Identifier: BSL-1.0
//
// Where the reading of a pool's input range stands.
#pragma once

#include <exception>
#include <utility>

namespace multiprocessing::runtime::pool {

/// Between two tasks: which item comes next, and what the range has thrown.
class Input {
public:
    /// Goes to the next item; false at the end. Throws what the range threw when it was read last.
    template <class Iterator, class Sentinel>
    [[nodiscard]] bool go_on(Iterator& next, const Sentinel& end) {
        if (unreadable_) std::rethrow_exception(std::exchange(unreadable_, nullptr));
        if (std::exchange(passed_, false)) ++next;
        return !(next == end);
    }
    /// Calls take(*next) for one item after the other, until it says that this is enough, or the end.
    /// If something is thrown keep_whole() drops the items of the chunk that is not whole, and says
    /// whether others are left: then it is thrown next time, else at once.
    template <class Iterator, class Sentinel, class Take, class KeepWhole>
    void read(Iterator& next, const Sentinel& end, Take take, KeepWhole keep_whole) {
        try {
            for (; !(next == end); ++next) {
                if (!take(*next)) continue;
                // The step to the next item, which may block, is for when that is wanted.
                passed_ = true;
                return;
            }
        } catch (...) {
            if (!keep_whole()) throw;
            unreadable_ = std::current_exception();
        }
    }

private:
    bool passed_ = false;  // the item that the iterator stands at has been read
    std::exception_ptr unreadable_;
};

}  // namespace multiprocessing::runtime::pool
