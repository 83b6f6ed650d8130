// SPDX-License-Identifier: BSL-1.0
//
// The outcomes of a rank's tasks on their way to the master: gathered, so that short tasks do not cost a
// message each.
#pragma once

#include <multiprocessing/mpi/messages.hpp>
#include <multiprocessing/os/backtrace.hpp>
#include <multiprocessing/os/clock.hpp>
#include <multiprocessing/os/process.hpp>
#include <multiprocessing/pickle/exception.hpp>
#include <multiprocessing/pickle/message.hpp>
#include <multiprocessing/runtime/this_process.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <utility>

namespace multiprocessing::mpi {

/// Outcomes of one pool after the other, as messages. *Thread safety*: any thread.
class Answers {
public:
    using Send = std::function<void(pickle::Buffer&&)>;

    explicit Answers(Send send) : send_(std::move(send)) {}

    /// What the function has returned for an item.
    template <class R>
    void value(std::uint64_t pool, std::uint64_t task, std::uint32_t item, const R& result);
    void error(std::uint64_t pool, std::uint64_t task, std::uint32_t item,
               const std::exception_ptr& exception, const os::Backtrace& thrown = {});
    /// One that has its bytes already, or none. A whole array as well.
    void add(std::uint64_t pool, const Outcome& outcome, std::span<const std::byte> bytes = {});

    /// Sends what there is.
    void flush() {
        std::unique_lock lock(mutex_);
        close();
        send_all(lock);
    }
    /// The same if it is much, or has waited for long.
    void flush_some() {
        std::unique_lock lock(mutex_);
        if (buffer_.size() >= much || os::Clock::now() - last_ >= long_ago) close();
        send_all(lock);
    }

private:
    static constexpr std::size_t much = std::size_t{32} << 10;
    static constexpr std::chrono::microseconds long_ago{50};
    static constexpr std::size_t no_array = static_cast<std::size_t>(-1);

    void open(std::uint64_t pool) {
        if (buffer_.size() != 0 && pool == pool_) return;
        close();
        pool_ = pool;
        append(buffer_, Head{Kind::outcomes, 0, pool});
    }
    /// The message is as long as it is to be. With the mutex.
    void close();
    /// Without the mutex, for whoever is sent one may have something to add; one at a time and in order.
    void send_all(std::unique_lock<std::mutex>& lock);
    void extend_array(std::uint64_t task, std::uint32_t item, const void* bytes, std::size_t size);

    const Send send_;
    std::mutex mutex_;  // guards what follows
    std::deque<pickle::Buffer> full_;
    bool sends_ = false;  // somebody does, what is in full_
    pickle::Buffer buffer_;
    std::uint64_t pool_ = 0;
    std::size_t array_ = no_array;  // where the array that may go on has its Outcome
    os::Clock::time_point last_ = os::Clock::now();
};

// ---------------------------------------------------------------------------------------------------

inline void Answers::close() {
    last_ = os::Clock::now();
    array_ = no_array;
    if (buffer_.size() != 0) full_.push_back(std::exchange(buffer_, pickle::Buffer()));
}

inline void Answers::send_all(std::unique_lock<std::mutex>& lock) {
    if (sends_) return;  // whoever does goes on with these
    struct Sending {
        Answers& answers;
        std::unique_lock<std::mutex>& lock;
        Sending(Answers& of, std::unique_lock<std::mutex>& held) : answers(of), lock(held) {
            answers.sends_ = true;
        }
        ~Sending() {
            if (!lock.owns_lock()) lock.lock();
            answers.sends_ = false;
        }
    } const sending(*this, lock);
    while (!full_.empty()) {
        pickle::Buffer message = std::move(full_.front());
        full_.pop_front();
        lock.unlock();
        send_(std::move(message));
        lock.lock();
    }
}

inline void Answers::add(std::uint64_t pool, const Outcome& outcome, std::span<const std::byte> bytes) {
    const std::lock_guard lock(mutex_);
    open(pool);
    array_ = no_array;
    buffer_.reserve(buffer_.size() + sizeof outcome + bytes.size());
    append(buffer_, outcome);
    buffer_.append(bytes.data(), bytes.size());
}

inline void Answers::extend_array(std::uint64_t task, std::uint32_t item, const void* bytes,
                                  std::size_t size) {
    if (array_ != no_array) {
        Outcome open;
        std::memcpy(&open, buffer_.data() + array_, sizeof open);
        if (open.task == task && open.item + open.count == item && open.size == open.count * size) {
            ++open.count;
            open.size += size;
            std::memcpy(buffer_.data() + array_, &open, sizeof open);
            buffer_.append(bytes, size);
            return;
        }
    }
    array_ = buffer_.size();
    append(buffer_, Outcome{task, Outcome::What::array, item, 1, 0, size});
    buffer_.append(bytes, size);
}

template <class R>
void Answers::value(std::uint64_t pool, std::uint64_t task, std::uint32_t item, const R& result) {
    if constexpr (pickle::Bitwise<R>) {
        const std::lock_guard lock(mutex_);
        open(pool);
        extend_array(task, item, std::addressof(result), sizeof(R));
    } else if constexpr (pickle::has_exact_size<R>) {
        // Straight to its place. What it is made of is bytes, and no handles.
        const std::size_t size = pickle::payload_size(result);
        const std::lock_guard lock(mutex_);
        open(pool);
        array_ = no_array;
        buffer_.reserve(buffer_.size() + sizeof(Outcome) + size);
        append(buffer_, Outcome{task, Outcome::What::value, item, 1, 0, size});
        pickle::Buffer place(std::span(buffer_.grow(size), size));
        pickle::save_payload(result, place);
    } else {
        // The type's own code, which may do anything: without the lock.
        pickle::Scratch bytes;
        pickle::save_payload(result, *bytes);
        add(pool, Outcome{task, Outcome::What::value, item, 1, 0, bytes->size()}, bytes->span());
    }
}

inline void Answers::error(std::uint64_t pool, std::uint64_t task, std::uint32_t item,
                           const std::exception_ptr& exception, const os::Backtrace& thrown) {
    pickle::Scratch bytes;
    pickle::dump_exception(exception, *bytes, os::this_pid(),
                           runtime::this_process().self->current_name(), thrown);
    add(pool, Outcome{task, Outcome::What::error, item, 1, 0, bytes->size()}, bytes->span());
}

}  // namespace multiprocessing::mpi
