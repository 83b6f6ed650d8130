// SPDX-License-Identifier: BSL-1.0
//
// The processes of a round of chaos, and who kills them: any of them at any time, and starts another
// in its place. It looks on as well: when nobody gets on with anything, that is a hang.
#pragma once

#include <multiprocessing/process.hpp>
#include <multiprocessing/runtime/start_method.hpp>

#include "chaos/items.hpp"

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <optional>
#include <string>
#include <vector>

#include <unistd.h>

namespace chaos {

namespace mp = multiprocessing;
using namespace std::chrono_literals;

/// After that long without any progress it is a hang. Within a second is what is promised; machines
/// that have much else to do are late by more.
inline constexpr std::chrono::seconds hang{20};

/// How processes are started, mostly by fork. All are daemons, so that none outlives a test that is
/// killed itself.
inline mp::ProcessOptions start_somehow(Dice& dice) {
    using Context = mp::runtime::ContextBase;
    using Method = mp::runtime::StartMethod;
    const auto n = dice.below(16);
    const Method method = n < 2 ? Method::spawn : n < 3 ? Method::forkserver : Method::fork;
    return {.daemon = true, .context = Context(method)};
}

/// What the kernel says of a process: its state and what it waits in.
inline std::string state_of(int pid) {
    const auto line = [&](const char* file) {
        std::ifstream in("/proc/" + std::to_string(pid) + "/" + file);
        std::string text;
        std::getline(in, text);
        return text;
    };
    return "stat: " + line("stat").substr(0, 60) + "  wchan: " + line("wchan") + "  syscall: " +
           line("syscall");
}

/// Sees to it that a count grows.
class Watch {
public:
    using Clock = std::chrono::steady_clock;

    /// Returns how long the count has stood still.
    Clock::duration look(std::uint64_t count) {
        const auto now = Clock::now();
        if (count != count_) {
            count_ = count;
            since_ = now;
        }
        longest_ = std::max(longest_, now - since_);
        return now - since_;
    }
    [[nodiscard]] Clock::duration longest() const noexcept { return longest_; }

private:
    std::uint64_t count_ = 0;
    Clock::time_point since_ = Clock::now();
    Clock::duration longest_{};
};

/// Somebody who can be killed and replaced.
struct Member {
    std::string name;
    std::optional<mp::Process> process;
    std::uint32_t life = 0;
};

/// Ends the program as a hang, with what is known of everybody.
[[noreturn]] inline void give_up(const std::string& what, const std::vector<Member>& members) {
    std::cerr << what << '\n';
    for (const Member& member : members) {
        std::cerr << "  " << member.name << ", life " << member.life;
        if (member.process) {
            const int pid = member.process->pid().value_or(0);
            std::cerr << ", pid " << pid << ": " << state_of(pid);
        }
        std::cerr << '\n';
    }
    std::cerr << "  the killer: " << state_of(::getpid()) << std::endl;
    if (std::getenv("CHAOS_KEEP") != nullptr) {  // for a debugger
        for (;;) ::pause();
    }
    std::_Exit(2);  // the daemons go with it
}

}  // namespace chaos
