// SPDX-License-Identifier: BSL-1.0
//
// What every test case is held to, though it asks for nothing: it leaves no open descriptor, no
// child and no name in /dev/shm behind, and it ends before its deadline.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

namespace support {

/// Watches one test case after the other in this process. main.cpp tells it when each begins and
/// ends.
class Guard {
public:
    /// Takes the process away from the terminal's group where that is possible, so that a case that
    /// hangs is ended with all of its descendants.
    Guard();

    /// Remembers what is open and sets the alarm: MULTIPROCESSING_TEST_DEADLINE seconds, 60 unless
    /// that is set, as the presets for sanitizers do. Forked children inherit no alarm.
    void begin(const std::string& name);

    /// Whether this is a forked child of the process that began the case.
    [[nodiscard]] bool in_forked_child() const noexcept;

    /// Says on stderr what the case left behind. Children are killed and reaped, so that the next
    /// case is not blamed for them.
    void end();

    /// Whether every case has kept the rules.
    [[nodiscard]] bool satisfied() const noexcept { return satisfied_; }

private:
    void complain(const std::string& what);

    std::string name_;
    std::map<int, std::string> descriptors_;
    std::set<std::string> shared_memory_names_;
    int pid_ = 0;
    bool satisfied_ = true;
};

/// Has the library make what it makes once in a process and keeps: the arena's descriptor. main.cpp
/// calls it before the first case.
void warm_up();

}  // namespace support
