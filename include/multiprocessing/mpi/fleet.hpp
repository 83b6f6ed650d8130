// SPDX-License-Identifier: BSL-1.0
//
// The master's end of all ranks of a communicator, which any number of pools share.
#pragma once

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/mpi/backoff.hpp>
#include <multiprocessing/mpi/broadcast.hpp>
#include <multiprocessing/mpi/error.hpp>
#include <multiprocessing/mpi/messages.hpp>
#include <multiprocessing/mpi/peers.hpp>
#include <multiprocessing/mpi/wire.hpp>
#include <multiprocessing/os/clock.hpp>

#include <boost/mpi/communicator.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

namespace multiprocessing::mpi {

/// A pool, as the fleet knows it.
class Customer {
public:
    Customer() = default;
    Customer(const Customer&) = delete;
    Customer& operator=(const Customer&) = delete;
    virtual ~Customer() = default;
    /// A rank has sent outcomes, word of a failed initializer, or that it has closed the pool.
    virtual void accept(int rank, Kind kind, MessageReader message) = 0;
    /// No rank will do anything any more.
    virtual void lose_all(const std::exception_ptr& why) = 0;
};

class Fleet {
public:
    /// The process is the master of the communicator's ranks: all others serve.
    Fleet(const boost::mpi::communicator& communicator, ErrorHandler handler,
          std::optional<std::chrono::nanoseconds> patience)
        : wire_(communicator), peers_(wire_, std::move(handler), patience),
          heard_(static_cast<std::size_t>(wire_.size())) {
        for (int rank = 0; rank < wire_.size(); ++rank) {
            if (rank != wire_.rank()) peers_.watch(rank);
        }
    }
    Fleet(const Fleet&) = delete;
    Fleet& operator=(const Fleet&) = delete;

    [[nodiscard]] Wire& wire() noexcept { return wire_; }
    [[nodiscard]] Peers& peers() noexcept { return peers_; }
    /// How many serve.
    [[nodiscard]] int ranks() const noexcept { return wire_.size() - 1; }

    /// The number of a pool from now on.
    [[nodiscard]] std::uint64_t join(const std::weak_ptr<Customer>& pool) {
        const std::lock_guard lock(mutex_);
        pools_.emplace(++last_pool_, pool);
        return last_pool_;
    }
    void leave(std::uint64_t pool) noexcept {
        const std::lock_guard lock(mutex_);
        pools_.erase(pool);
    }

    /// Passes on what has come; whether there was anything. Any thread may do so, one does. Nothing is
    /// thrown: when a rank is lost all pools are told.
    bool poll() noexcept;
    /// Whether somebody did so in this last time.
    [[nodiscard]] bool is_polled(std::chrono::nanoseconds last) const noexcept {
        return os::nanoseconds_now() - polled_.load(std::memory_order_relaxed) <
               static_cast<std::uint64_t>(last.count());
    }
    /// That a rank which has a pool has said something lately, or all pools are told that it is lost.
    void expect_word_of(int rank) noexcept {
        carry_out([&] {
            const std::uint64_t polled = polled_.load();
            const std::uint64_t last =
                std::max(heard_[static_cast<std::size_t>(rank)].load(), listens_since_.load());
            // What has been said since the last look is not heard yet.
            if (polled <= last) return;
            peers_.check_silence(rank,
                                 std::chrono::nanoseconds(static_cast<std::int64_t>(polled - last)));
        });
    }
    /// Sends a message, as a part of a pool's work. A rank that is lost is told of by poll().
    void send(int rank, pickle::Buffer&& message) noexcept {
        carry_out([&] { wire_.send(rank, std::move(message)); });
    }
    void send(int rank, pickle::Buffer&& message, std::span<const std::byte> rest,
              std::shared_ptr<const void> keeps_rest) noexcept {
        carry_out([&] { wire_.send(rank, std::move(message), rest, std::move(keeps_rest)); });
    }
    void send_function(const Function& head, std::span<const std::byte> callable,
                       const std::shared_ptr<const void>& keeps,
                       std::span<const std::int32_t> ranks) noexcept {
        carry_out([&] { mpi::send_function(wire_, head, callable, keeps, ranks); });
    }
    /// Is it this thread that passes something on right now?
    [[nodiscard]] bool is_passing_on() const noexcept {
        return passing_on_.load(std::memory_order_relaxed) == std::this_thread::get_id();
    }

    /// Tells all ranks that nothing else will come. Once.
    void dismiss() noexcept;
    /// Waits until all have left; whether they have, in this time.
    [[nodiscard]] bool await_end(os::Deadline deadline) noexcept;
    /// How many have not.
    [[nodiscard]] int staying() const noexcept { return ranks() - left_; }

private:
    /// Unless a rank is lost; if one is, now, all pools are told.
    template <class What>
    void carry_out(What what) noexcept;
    void pass_on(int rank, pickle::Buffer& message);
    void lose_all(const std::exception_ptr& why) noexcept;

    Wire wire_;
    Peers peers_;
    std::vector<std::atomic<std::uint64_t>> heard_;  // of each rank, when
    std::atomic<std::uint64_t> polled_{0};
    std::atomic<std::uint64_t> listens_since_{0};
    std::atomic<std::thread::id> passing_on_{};
    std::atomic<int> left_{0};
    std::atomic<bool> dismissed_{false};
    std::mutex mutex_;  // guards what follows
    std::unordered_map<std::uint64_t, std::weak_ptr<Customer>> pools_;
    std::uint64_t last_pool_ = 0;
};

// ---------------------------------------------------------------------------------------------------

inline bool Fleet::poll() noexcept {
    if (peers_.is_any_lost()) return false;
    try {
        constexpr std::uint64_t long_ago = 1'000'000'000;
        const std::uint64_t now = os::nanoseconds_now();
        // What has been said while nobody listened is heard only now.
        if (now - polled_.load() > long_ago) listens_since_.store(now);
        polled_.store(now);
        const bool any = wire_.receive([this](int rank, pickle::Buffer& message) { pass_on(rank, message); },
                                       [this] { peers_.check(); });
        if (!any) peers_.check();
        return any;
    } catch (const RankLostError& error) {
        peers_.lost(error);
        lose_all(std::make_exception_ptr(error));
    } catch (...) {
        lose_all(std::current_exception());
    }
    return false;
}

template <class What>
void Fleet::carry_out(What what) noexcept {
    if (peers_.is_any_lost()) return;
    try {
        what();
    } catch (const RankLostError& error) {
        peers_.lost(error);
        lose_all(std::make_exception_ptr(error));
    } catch (...) {
        lose_all(std::current_exception());
    }
}

inline void Fleet::pass_on(int rank, pickle::Buffer& message) {
    const Kind kind = kind_of(message.span());
    heard_[static_cast<std::size_t>(rank)].store(os::nanoseconds_now(), std::memory_order_relaxed);
    if (kind == Kind::alive) return;
    if (kind == Kind::left) {
        peers_.expect_end(rank);
        ++left_;
        return;
    }
    const auto head = MessageReader(message.span()).get<Head>();
    std::shared_ptr<Customer> pool;
    {
        const std::lock_guard lock(mutex_);
        const auto found = pools_.find(head.pool);
        if (found != pools_.end()) pool = found->second.lock();
    }
    if (!pool) return;  // it has been terminated, and the rank does not know yet
    struct Passing {
        std::atomic<std::thread::id>& by;
        explicit Passing(std::atomic<std::thread::id>& which) : by(which) {
            by.store(std::this_thread::get_id(), std::memory_order_relaxed);
        }
        ~Passing() { by.store({}, std::memory_order_relaxed); }
    } const passing(passing_on_);
    MessageReader reader(message.span());
    static_cast<void>(reader.get<Head>());
    pool->accept(rank, kind, reader);
}

inline void Fleet::lose_all(const std::exception_ptr& why) noexcept {
    std::vector<std::shared_ptr<Customer>> pools;
    {
        const std::lock_guard lock(mutex_);
        for (const auto& [number, pool] : pools_) {
            if (auto held = pool.lock()) pools.push_back(std::move(held));
        }
    }
    for (const auto& pool : pools) pool->lose_all(why);
}

inline void Fleet::dismiss() noexcept {
    if (dismissed_.exchange(true)) return;
    for (int rank = 0; rank < wire_.size(); ++rank) {
        if (rank == wire_.rank()) continue;
        pickle::Buffer message;
        append(message, Head{Kind::leave});
        send(rank, std::move(message));
    }
}

inline bool Fleet::await_end(os::Deadline deadline) noexcept {
    Backoff backoff(peers_.spin_time());
    while ((staying() != 0 || !wire_.all_sent()) && !peers_.is_any_lost()) {
        if (poll()) {
            backoff.reset();
            continue;
        }
        if (deadline.expired()) return false;
        std::this_thread::sleep_for(backoff.next());
    }
    return !peers_.is_any_lost();
}

}  // namespace multiprocessing::mpi
