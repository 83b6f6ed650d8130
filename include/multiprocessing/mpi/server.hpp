// SPDX-License-Identifier: BSL-1.0
//
// What a rank does that is not the master: runs slices of tasks, until it is told that nothing else will
// come. Its main thread runs the user's functions; while one goes on for long another thread looks after
// the connection.
#pragma once

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/mpi/answers.hpp>
#include <multiprocessing/mpi/backoff.hpp>
#include <multiprocessing/mpi/broadcast.hpp>
#include <multiprocessing/mpi/messages.hpp>
#include <multiprocessing/mpi/node.hpp>
#include <multiprocessing/mpi/peers.hpp>
#include <multiprocessing/mpi/setup.hpp>
#include <multiprocessing/mpi/wire.hpp>
#include <multiprocessing/mpi/work.hpp>
#include <multiprocessing/os/clock.hpp>
#include <multiprocessing/os/signals.hpp>
#include <multiprocessing/pickle/code.hpp>
#include <multiprocessing/runtime/log.hpp>
#include <multiprocessing/runtime/pool/this_task.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <span>
#include <thread>
#include <utility>
#include <vector>

namespace multiprocessing::mpi {

class Server {
public:
    Server(Wire& wire, Peers& peers, int master)
        : wire_(wire), peers_(peers), master_(master),
          answers_([this](pickle::Buffer&& message) { wire_.send(master_, std::move(message)); }),
          state_(answers_), node_(answers_, false) {}
    Server(const Server&) = delete;
    Server& operator=(const Server&) = delete;

    /// Until the master says that nothing else will come. *Throws* RankLostError when it is gone.
    void serve();

private:
    using WorkPointer = std::shared_ptr<SliceInHand>;
    /// What the main thread is to do next.
    struct Errand {
        Kind kind;            // open, slices or close
        std::uint64_t pool;
        WorkPointer work{};
        Open open{};
        SliceInHand::Message message{};
    };
    struct Known {
        FunctionBytes bytes;
        std::unique_ptr<RankFunction> made;  // by the main thread, at the first slice
    };
    struct OpenPool {
        std::uint32_t worker = 0;
        bool is_failed = false;
    };

    // By whichever thread receives.
    bool receive() {
        const bool any = wire_.receive([this](int, pickle::Buffer& message) { accept(message); },
                                       [this] { peers_.check(); });
        received_.store(os::nanoseconds_now(), std::memory_order_relaxed);
        return any;
    }
    void accept(pickle::Buffer& message);
    void accept_function(pickle::Buffer& message);
    void accept_slices(pickle::Buffer& message);
    void accept_cancel(std::span<const std::byte> message);
    void accept_close(const Head& close);
    template <class Matches>
    void drop(Matches matches, bool asks_to_stop);
    void free(const SliceInHand& work, std::uint32_t first_grain, std::uint32_t grains,
              Outcome::What what);
    void free_rest(SliceInHand& work, Outcome::What what) {
        const auto [first, grains] = work.claim_rest();
        if (grains != 0) free(work, first, grains, what);
    }

    void check_master();

    // The main thread.
    std::optional<Errand> next_errand();
    void do_errand(Errand& errand);
    void open_pool(const Errand& errand);
    void close_pool(const Errand& errand);
    void run(const WorkPointer& work);
    RankFunction* function_of(const SliceInHand& work);

    // The other.
    void look_after() noexcept;
    void tick();
    void end_what_is_late();
    void give_back();

    static constexpr std::uint64_t now_and_then = 200'000;  // nanoseconds
    static constexpr std::chrono::milliseconds tick_length{1};

    Wire& wire_;
    Peers& peers_;
    const int master_;
    Answers answers_;
    RankState state_;
    Node node_;

    std::atomic<std::uint64_t> received_{0};  // when that was tried last
    std::atomic<std::uint64_t> beat_{os::nanoseconds_now()};  // when the master was last told of this rank
    std::atomic<bool> has_pool_{false};
    std::mutex mutex_;                        // guards what follows
    std::deque<Errand> errands_;
    std::map<std::uint64_t, Known> functions_;
    std::set<std::uint64_t> open_;  // pools
    std::uint64_t last_opened_ = 0;
    WorkPointer current_;
    bool leaves_ = false;

    // The main thread's own.
    std::map<std::uint64_t, OpenPool> pools_;
    std::uint64_t idle_since_ = os::nanoseconds_now();

    // The other's.
    std::thread helper_;
    std::mutex nap_;
    std::condition_variable nap_ends_;
    bool stops_ = false;
    std::atomic<bool> is_busy_{false};    // the main thread is, with the user's code
    std::atomic<bool> helper_rests_{false};
    std::uint64_t seen_run_ = 0;
    std::uint64_t seen_at_ = 0;
    bool has_given_back_ = false;
    std::set<std::uint64_t> given_back_to_;  // pools that take this rank for stuck; with mutex_
};

// ---------------------------------------------------------------------------------------------------

inline void Server::serve() {
    {
        const os::BlockSignals for_the_thread;
        helper_ = std::thread([this] { look_after(); });
    }
    struct Join {
        Server& server;
        ~Join() {
            {
                const std::lock_guard lock(server.nap_);
                server.stops_ = true;
            }
            server.nap_ends_.notify_one();
            server.helper_.join();
        }
    };
    {
        const Join at_end{*this};
        Backoff backoff(peers_.spin_time());
        for (;;) {
            if (auto errand = next_errand()) {
                do_errand(*errand);
                backoff.reset();
                // While there is enough to do the rest may stay where it is.
                if (os::nanoseconds_now() - received_ < now_and_then) continue;
            }
            if (receive()) {
                backoff.reset();
                continue;
            }
            {
                const std::lock_guard lock(mutex_);
                if (leaves_ && errands_.empty()) break;
            }
            node_.look();
            node_.give_back_what_waits();
            answers_.flush();
            const auto nap = wire_.all_sent() ? backoff.next() : backoff.next_while_sending();
            if (nap.count() == 0) continue;
            check_master();
            std::this_thread::sleep_for(nap);
        }
    }
    answers_.flush();
    pickle::Buffer farewell;
    append(farewell, Head{Kind::left});
    wire_.send(master_, std::move(farewell));
    Backoff backoff(peers_.spin_time());
    while (!wire_.all_sent()) {
        check_master();
        std::this_thread::sleep_for(backoff.next_while_sending());
    }
}

/// Says that this rank lives, and looks whether the master does.
inline void Server::check_master() {
    peers_.check();
    const std::uint64_t now = os::nanoseconds_now();
    const auto since = std::chrono::nanoseconds(static_cast<std::int64_t>(now - beat_.load()));
    // Where there is no pool nobody asks; but who is not reached has ended.
    if (since < (has_pool_ ? peers_.patience() / 4 : peers_.patience())) return;
    beat_.store(now);
    pickle::Buffer message;
    append(message, Head{Kind::alive});
    wire_.send(master_, std::move(message));
    peers_.check_silence(master_, wire_.stalled_for());
}

inline std::optional<Server::Errand> Server::next_errand() {
    const std::lock_guard lock(mutex_);
    if (errands_.empty()) return std::nullopt;
    // A function may come by another way than its slices, and later.
    const auto& first = errands_.front();
    if (first.work && !functions_.contains(first.work->slice.function)) return std::nullopt;
    std::optional<Errand> errand(std::move(errands_.front()));
    errands_.pop_front();
    current_ = errand->work;
    return errand;
}

inline void Server::do_errand(Errand& errand) {
    is_busy_.store(true);
    if (helper_rests_.load()) {
        const std::lock_guard lock(nap_);
        nap_ends_.notify_one();
    }
    switch (errand.kind) {
    case Kind::open: open_pool(errand); break;
    case Kind::close: close_pool(errand); break;
    default: run(errand.work); break;
    }
    is_busy_.store(false);
    bool is_last = false;
    {
        const std::lock_guard lock(mutex_);
        current_ = nullptr;
        is_last = errands_.empty();
        // Those who have got something back hear that it is free again.
        for (const std::uint64_t pool : std::exchange(given_back_to_, {})) {
            answers_.add(pool, Outcome{0, Outcome::What::freed, 0, 0, 0, 0});
        }
    }
    is_last ? answers_.flush() : answers_.flush_some();
}

inline void Server::open_pool(const Errand& errand) {
    OpenPool& pool = pools_[errand.pool];
    has_pool_.store(true);
    pool.worker = errand.open.worker;
    try {
        MessageReader reader(errand.message->span());
        static_cast<void>(reader.get<Open>());
        pickle::IArchive archive(reader.rest(), nullptr);
        const auto setup = pickle::while_unpickling(archive, [&] { return PoolSetup::load(archive); });
        if (setup.processes != 0) {
            node_.open(errand.pool, setup);
        } else {
            runtime::pool::process_as_worker = {&state_.run(), pool.worker};
            setup.initializer();
        }
    } catch (...) {
        pool.is_failed = true;
        pickle::Buffer message;
        append(message, Head{Kind::failed, 0, errand.pool});
        pickle::dump_exception(std::current_exception(), message, os::this_pid(),
                               runtime::this_process().self->current_name());
        wire_.send(master_, std::move(message));
    }
    runtime::pool::process_as_worker = {};
}

inline void Server::close_pool(const Errand& errand) {
    node_.close(errand.pool);
    pools_.erase(errand.pool);
    has_pool_.store(!pools_.empty());
    answers_.flush();
    {
        const std::lock_guard lock(mutex_);
        std::erase_if(functions_,
                      [&](const auto& each) { return each.second.bytes.head.pool == errand.pool; });
    }
    pickle::Buffer message;
    append(message, Head{Kind::closed, 0, errand.pool});
    wire_.send(master_, std::move(message));
}

inline void Server::run(const WorkPointer& work) {
    const OpenPool pool = pools_[work->pool];
    if (pool.is_failed) return free_rest(*work, Outcome::What::freed);
    if (node_.has(work->pool)) {
        FunctionBytes function;
        {
            const std::lock_guard lock(mutex_);
            function = functions_.at(work->slice.function).bytes;
        }
        return node_.run(work, function);
    }
    const std::uint64_t begin = os::nanoseconds_now();
    RankFunction* const function = function_of(*work);
    if (function == nullptr) return;
    runtime::pool::process_as_worker = {&state_.run(), pool.worker};
    function->run(*work, state_);
    runtime::pool::process_as_worker = {};
    const std::uint64_t end = os::nanoseconds_now();
    answers_.add(work->pool, spent(work->slice, (begin - idle_since_) / 1000, end - begin));
    idle_since_ = end;
}

/// The function, made if it is not yet; null if this program has no such code: then that is the outcome.
inline RankFunction* Server::function_of(const SliceInHand& work) {
    FunctionBytes bytes;
    {
        const std::lock_guard lock(mutex_);
        Known& known = functions_.at(work.slice.function);
        if (known.made) return known.made.get();
        bytes = known.bytes;
    }
    std::unique_ptr<RankFunction> made;
    try {
        const auto maker =
            reinterpret_cast<Maker>(const_cast<void*>(pickle::code_at(bytes.head.maker)));
        made = maker(bytes.message, bytes.callable);
    } catch (...) {
        for (std::uint32_t i = 0; i < work.slice.count; ++i) {
            answers_.error(work.pool, work.slice.task, work.slice.first + i, std::current_exception());
        }
        return nullptr;
    }
    const std::lock_guard lock(mutex_);
    Known& known = functions_.at(work.slice.function);
    known.made = std::move(made);
    return known.made.get();
}

}  // namespace multiprocessing::mpi

#include <multiprocessing/mpi/server_helper.hpp>
#include <multiprocessing/mpi/server_messages.hpp>
