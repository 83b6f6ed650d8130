// SPDX-License-Identifier: BSL-1.0
//
// What a rank makes of the messages that come, in whichever thread receives them. The rest of
// mpi/server.hpp, which includes this.
#pragma once

#include <multiprocessing/mpi/server.hpp>

namespace multiprocessing::mpi {

inline void Server::accept(pickle::Buffer& message) {
    switch (kind_of(message.span())) {
    case Kind::open: {
        const auto open = MessageReader(message.span()).get<Open>();
        const std::lock_guard lock(mutex_);
        open_.insert(open.pool);
        last_opened_ = std::max(last_opened_, open.pool);
        errands_.push_back({Kind::open, open.pool, nullptr, open,
                            std::make_shared<const pickle::Buffer>(std::move(message))});
        break;
    }
    case Kind::function: accept_function(message); break;
    case Kind::forget: {
        MessageReader reader(message.span());
        const auto head = reader.get<Head>();
        const std::lock_guard lock(mutex_);
        for (std::uint32_t i = 0; i < head.number; ++i) functions_.erase(reader.get<std::uint64_t>());
        break;
    }
    case Kind::slices: accept_slices(message); break;
    case Kind::cancel: accept_cancel(message.span()); break;
    case Kind::close: accept_close(MessageReader(message.span()).get<Head>()); break;
    case Kind::leave: {
        const std::lock_guard lock(mutex_);
        leaves_ = true;
        break;
    }
    default: throw UnpicklingError("a rank has been sent a message that is for the master");
    }
}

/// Takes a function in, and sends it on to those that are to have it from here.
inline void Server::accept_function(pickle::Buffer& buffer) {
    const auto message = std::make_shared<const pickle::Buffer>(std::move(buffer));
    MessageReader reader(message->span());
    const auto head = reader.get<Function>();
    std::vector<std::int32_t> others(head.send_on);
    for (std::int32_t& each : others) each = reader.get<std::int32_t>();
    const auto callable = reader.take(head.size);
    send_function(wire_, head, callable, message, others);
    const std::lock_guard lock(mutex_);
    // From another rank it may come before its pool is opened; or when that has been closed.
    if (head.pool <= last_opened_ && !open_.contains(head.pool)) return;
    functions_.insert_or_assign(head.id, Known{{head, message, callable}, nullptr});
}

inline void Server::accept_slices(pickle::Buffer& buffer) {
    const auto message = std::make_shared<const pickle::Buffer>(std::move(buffer));
    MessageReader reader(message->span());
    const auto head = reader.get<Head>();
    const std::lock_guard lock(mutex_);
    // They may have been on their way when the pool was terminated.
    if (!open_.contains(head.pool)) return;
    for (std::uint32_t i = 0; i < head.number; ++i) {
        const auto [slice, places, items] = read_slice(reader);
        errands_.push_back({Kind::slices, head.pool,
                            std::make_shared<SliceInHand>(head.pool, slice, places, items, message),
                            {}, {}});
    }
}

inline void Server::accept_cancel(std::span<const std::byte> message) {
    MessageReader reader(message);
    const auto head = reader.get<Cancel>();
    std::vector<std::uint64_t> tasks(head.count);
    for (std::uint64_t& each : tasks) each = reader.get<std::uint64_t>();
    drop(
        [&](const SliceInHand& work) {
            // Each pool counts its own tasks.
            return work.pool == head.pool &&
                   std::find(tasks.begin(), tasks.end(), work.slice.task) != tasks.end();
        },
        head.asks_to_stop != 0);
    if (node_.has(head.pool)) node_.cancel(head.pool, tasks);
    answers_.flush();
}

inline void Server::accept_close(const Head& close) {
    if (close.number != 0) {
        drop([&](const SliceInHand& work) { return work.pool == close.pool; }, true);
    }
    const std::lock_guard lock(mutex_);
    open_.erase(close.pool);
    errands_.push_back({Kind::close, close.pool, nullptr, {}, {}});
}

/// What matches is not begun any more, and what runs of it may be asked to stop.
template <class Matches>
void Server::drop(Matches matches, bool asks_to_stop) {
    const std::lock_guard lock(mutex_);
    std::erase_if(errands_, [&](const Errand& errand) {
        if (!errand.work || !matches(*errand.work)) return false;
        free_rest(*errand.work, Outcome::What::freed);
        return true;
    });
    if (!current_ || !matches(*current_)) return;
    current_->cancelled = true;
    free_rest(*current_, Outcome::What::freed);
    if (asks_to_stop) state_.ask_to_stop();
}

inline void Server::free(const SliceInHand& work, std::uint32_t first_grain, std::uint32_t grains,
                         Outcome::What what) {
    const std::uint32_t first = work.first_of(first_grain);
    const std::uint32_t end = work.end_of(first_grain + grains - 1);
    answers_.add(work.pool, Outcome{work.slice.task, what, first, end - first, 0, 0});
}

}  // namespace multiprocessing::mpi
