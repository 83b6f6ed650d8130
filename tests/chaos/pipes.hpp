// SPDX-License-Identifier: BSL-1.0
//
// A round of chaos on pipes: long messages from one process to another, of which one is killed in the
// middle. The other must hear of it, and must have had nothing but whole messages.
#pragma once

#include <multiprocessing/connection.hpp>
#include <multiprocessing/sharedctypes.hpp>

#include "chaos/crew.hpp"
#include "chaos/items.hpp"
#include "chaos/record.hpp"
#include "shm/helpers.hpp"

#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <iostream>
#include <span>
#include <sstream>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

namespace chaos {

/// How messages are sent and received.
enum class Manner : std::uint64_t { bytes, bytes_into, vectors, parcels };

/// What a seed says.
struct PipePlan {
    std::uint64_t seed = 0;
    Manner manner{};
    bool echoes = false;         // the receiver sends everything back
    std::uint64_t pairs = 0;     // at a time
    std::uint64_t lifetime = 0;  // of a pair, in microseconds, on average

    PipePlan() = default;
    explicit PipePlan(std::uint64_t number);
    [[nodiscard]] std::string text() const;
};

/// One round: for `length`, pairs of processes of which one is killed. What is wrong is said on
/// stdout, and false returned.
[[nodiscard]] bool pipe_round(std::uint64_t seed, std::chrono::milliseconds length);

// ---------------------------------------------------------------------------------------------------

/// What the two processes at a pipe write down. `sent` and `received` count calls that have returned.
struct PairRecord {
    enum Heard : std::uint64_t { nothing, end_of_file, broken_pipe };
    std::uint64_t sent;
    std::uint64_t received;
    std::uint64_t echoes;
    Heard sender;
    Heard receiver;
    std::uint64_t wrong;  // messages that were not as they had been sent
};
using SharedPair = mp::RawArray<PairRecord>;

inline PipePlan::PipePlan(std::uint64_t number) : seed(number) {
    Dice dice(number);
    manner = static_cast<Manner>(number % 4);
    echoes = dice.once_in(3);
    pairs = 1 + dice.below(3);
    static constexpr std::uint64_t lifetimes[] = {1'000, 3'000, 10'000};
    lifetime = lifetimes[dice.below(std::size(lifetimes))];
}

inline std::string PipePlan::text() const {
    static constexpr const char* names[] = {"bytes", "bytes into a buffer", "vectors", "parcels"};
    std::ostringstream text;
    text << "pipes, seed " << seed << ": " << names[static_cast<std::size_t>(manner)]
         << (echoes ? " and back" : "") << ", " << pairs << " at a time, for " << lifetime << " us";
    return text.str();
}

using Words = std::vector<std::uint64_t>;

inline void send_message(const mp::Connection& to, Manner manner, Label label) {
    switch (manner) {
    case Manner::bytes:
    case Manner::bytes_into: to.send_bytes(Item<Words>::make(label)); break;
    case Manner::vectors: to.send(Item<Words>::make(label)); break;
    case Manner::parcels: to.send(Item<Parcel>::make(label)); break;
    }
}

/// The label of the next message; nothing if it is not whole.
inline std::optional<Label> receive_message(const mp::Connection& from, Manner manner) {
    switch (manner) {
    case Manner::bytes: {
        const mp::bytes message = from.recv_bytes();
        Words words(message.size() / sizeof(std::uint64_t));
        if (words.empty()) return std::nullopt;
        std::memcpy(words.data(), message.data(), words.size() * sizeof(std::uint64_t));
        return Item<Words>::read(words);
    }
    case Manner::bytes_into: {
        Words words(Item<Words>::longest / sizeof(std::uint64_t) + 1);
        words.resize(from.recv_bytes_into(words) / sizeof(std::uint64_t));
        return Item<Words>::read(words);
    }
    case Manner::vectors: return Item<Words>::read(from.recv<Words>());
    case Manner::parcels: return Item<Parcel>::read(from.recv<Parcel>());
    }
    return std::nullopt;
}

/// Talks until the peer is gone, and returns how that was heard.
template <class Talk>
PairRecord::Heard until_the_peer_is_gone(Talk talk) {
    try {
        for (;;) talk();
    } catch (const mp::EOFError&) {
        return PairRecord::end_of_file;
    } catch (const std::system_error& error) {
        if (error.code().value() != EPIPE) throw;
        return PairRecord::broken_pipe;
    }
}

inline void send_all(const mp::Connection& mine, const mp::Connection& other, const SharedPair& shared,
                     const PipePlan& plan) {
    other.close();
    PairRecord& pair = shared[0];
    pair.sender = until_the_peer_is_gone([&] {
        const Label label{1, static_cast<std::uint32_t>(pair.sent)};
        send_message(mine, plan.manner, label);
        store(pair.sent, pair.sent + 1);
        if (!plan.echoes) return;
        if (receive_message(mine, plan.manner) != label) store(pair.wrong, pair.wrong + 1);
        store(pair.echoes, pair.echoes + 1);
    });
}

inline void receive_all(const mp::Connection& mine, const mp::Connection& other,
                        const SharedPair& shared, const PipePlan& plan) {
    other.close();
    PairRecord& pair = shared[0];
    pair.receiver = until_the_peer_is_gone([&] {
        const Label label{1, static_cast<std::uint32_t>(pair.received)};
        if (receive_message(mine, plan.manner) != label) store(pair.wrong, pair.wrong + 1);
        store(pair.received, pair.received + 1);
        if (plan.echoes) send_message(mine, plan.manner, label);
    });
}

/// The processes at one pipe.
class Pair {
public:
    Pair(const PipePlan& plan, Dice& dice);

    /// The end of one or both at the hands of `dice`; what was wrong with it.
    [[nodiscard]] std::string kill(Dice& dice, const PipePlan& plan);
    [[nodiscard]] bool due() const { return Watch::Clock::now() >= due_; }
    [[nodiscard]] std::uint64_t received() const { return shared_[0].received + shared_[0].echoes; }

private:
    SharedPair shared_{1};
    std::vector<Member> members_{2};
    Watch::Clock::time_point due_;
};

inline Pair::Pair(const PipePlan& plan, Dice& dice) {
    const auto [reading, writing] = mp::Pipe(plan.echoes || dice.once_in(2));
    Member& sender = members_[0];
    Member& receiver = members_[1];
    sender.name = "the sender";
    receiver.name = "the receiver";
    const auto run = [&](Member& member, auto target, const auto& mine, const auto& other) {
        member.process.emplace(start_somehow(dice), target, mine, other, shared_, plan);
        member.process->start();
    };
    run(sender, &send_all, writing, reading);
    run(receiver, &receive_all, reading, writing);
    reading.close();
    writing.close();
    due_ = Watch::Clock::now() + std::chrono::microseconds(dice.below(2 * plan.lifetime));
}

inline std::string Pair::kill(Dice& dice, const PipePlan& plan) {
    const auto victims = dice.below(8);  // mostly one of them
    bool killed[] = {victims % 2 == 0 || victims == 7, victims % 2 != 0};
    for (const std::size_t i : {0u, 1u}) {
        if (killed[i]) members_[i].process->kill();
    }
    for (const std::size_t i : {0u, 1u}) {
        const mp::Process& process = *members_[i].process;
        process.join(hang);
        if (!process.exitcode()) give_up(plan.text() + ": " + members_[i].name + " does not end", members_);
    }
    const PairRecord& pair = shared_[0];
    const std::string numbers = std::to_string(pair.sent) + " sent, " + std::to_string(pair.received) +
                                " received, " + std::to_string(pair.echoes) + " back";
    if (pair.wrong != 0) return std::to_string(pair.wrong) + " messages are not as sent; " + numbers;
    if (pair.received > pair.sent + 1) return "more received than sent: " + numbers;
    if (pair.echoes > pair.received) return "more echoes than were to be had: " + numbers;
    for (const std::size_t i : {0u, 1u}) {
        const int code = members_[i].process->exitcode().value_or(0);
        // Of two that are killed the second may have heard of the first's end.
        const bool in_order = code == 0 && (!killed[i] || killed[1 - i]);
        if (!in_order && !(killed[i] && code == -SIGKILL)) {
            return members_[i].name + " ended with " + std::to_string(code) + "; " + numbers;
        }
    }
    if (!killed[0] && pair.sender == PairRecord::end_of_file && !plan.echoes) {
        return "the sender saw an end of file; " + numbers;
    }
    if (killed[0] && !killed[1]) {
        if (pair.receiver == PairRecord::broken_pipe && !plan.echoes) {
            return "the receiver saw a broken pipe; " + numbers;
        }
        // What has been sent is received, though the sender is gone.
        if (pair.received < pair.sent) return "messages are lost: " + numbers;
    }
    return {};
}

inline bool pipe_round(std::uint64_t seed, std::chrono::milliseconds length) {
    const PipePlan plan(seed);
    const support::NoLeak memory;
    Dice dice(seed + 1);
    std::uint64_t count = 0;
    std::uint64_t received = 0;
    std::string error;
    {
        std::vector<Pair> pairs;
        const auto until = Watch::Clock::now() + length;
        while (error.empty() && Watch::Clock::now() < until) {
            while (pairs.size() < plan.pairs) pairs.emplace_back(plan, dice);
            std::this_thread::sleep_for(100us);
            for (std::size_t i = pairs.size(); i-- != 0 && error.empty();) {
                if (!pairs[i].due()) continue;
                error = pairs[i].kill(dice, plan);
                received += pairs[i].received();
                ++count;
                pairs.erase(pairs.begin() + static_cast<std::ptrdiff_t>(i));
            }
        }
        for (Pair& pair : pairs) {
            const std::string last = pair.kill(dice, plan);
            if (error.empty()) error = last;
        }
    }
    mp::runtime::this_process().fork_server.stop();
    if (error.empty() && memory.leaked() != 0) {
        error = std::to_string(memory.leaked()) + " bytes of shared memory are left in use";
    }
    std::cout << (error.empty() ? "ok   " : "FAIL ") << plan.text() << "; " << count
              << " pairs, " << received << " messages " << error << std::endl;
    return error.empty();
}

}  // namespace chaos
