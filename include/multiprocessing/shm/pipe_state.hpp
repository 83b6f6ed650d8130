// SPDX-License-Identifier: BSL-1.0
//
// What the two ends of a pipe have in common beside their sockets: long messages, which lie in shared
// memory while their tickets go through the socket.
#pragma once

#include <multiprocessing/shm/arena.hpp>
#include <multiprocessing/shm/processes.hpp>
#include <multiprocessing/shm/run.hpp>
#include <multiprocessing/shm/wait.hpp>

namespace multiprocessing::shm {

/// The shared object. What was sent and not received hangs on its block and ends with it.
class alignas(64) PipeState {  // so large that it is a block, on which others can hang
public:
    /// The sender's part, after the ticket has been sent: the run is not the sender's any more, to end
    /// when it is killed. The receiver may have been faster.
    void entrust(Ticket run) noexcept;
    /// The receiver's part: the run is this process's now. Empty if the sender was killed before
    /// entrust(): the message was never quite sent.
    [[nodiscard]] Run take(Ticket run) noexcept;

    /// Notified when a message has been received: who has a long one to send waits for short ones, too.
    WaitWord received;
};

inline void PipeState::entrust(Ticket run) noexcept {
    Offset& mine = Processes::instance().owned();
    const Arena& arena = Arena::instance();
    Transaction tx = arena.transaction();
    if (arena.transfer(tx, run, mine, Arena::block_of(this).owned)) tx.commit();
}

inline Run PipeState::take(Ticket run) noexcept {
    Offset& mine = Processes::instance().owned();
    const Arena& arena = Arena::instance();
    Transaction tx = arena.transaction();
    Block* const block = arena.heap().find(run.offset, run.serial);
    if (block == nullptr || block->owner == 0) return {};
    arena.unhang(tx, *block);
    arena.hang(tx, mine, *block);
    arena.heap().renew(tx, *block);  // or entrust() would take it away from this same process
    tx.commit();
    return Run(*block);
}

}  // namespace multiprocessing::shm
