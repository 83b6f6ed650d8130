// SPDX-License-Identifier: BSL-1.0
//
// What a child that has none of its parent's memory is told before it runs its target: who it is, who
// its parent is, what it comes with. Travels in a memfd, or in a message if it is small. Answers
// Python's `spawn.get_preparation_data`.
#pragma once

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/os/fd.hpp>
#include <multiprocessing/os/memfd.hpp>
#include <multiprocessing/pickle/message.hpp>
#include <multiprocessing/runtime/death.hpp>
#include <multiprocessing/runtime/log.hpp>
#include <multiprocessing/runtime/this_process.hpp>
#include <multiprocessing/shm/ref.hpp>

#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace multiprocessing::runtime {

struct Preparation {
    std::string name;
    Identity identity;
    bool daemon = false;
    bool die_with_parent = false;
    std::vector<std::byte> authkey;
    std::optional<int> default_method;
    LogSettings log = log_of_this_process.settings();

    std::string parent_name;
    Identity parent_identity;
    bool parent_daemon = false;
    int parent_pid = 0;
    int parent_sentinel = -1;
    bool starter_is_main_thread = false;

    Surroundings surroundings;
    std::optional<std::vector<std::string>> environment;  // when a fork server's is another by now
    std::vector<int> blocked_signals;                     // for a fork server's child
    shm::Ticket luggage;            // the shared objects among the target and its arguments
    std::vector<int> descriptors;   // the Connections among them
    std::vector<std::byte> target;  // pickled

    /// For a child that `parent` is about to start.
    Preparation(const ProcessState& child, const ProcessState& parent, const Starter& starter);
    Preparation() = default;

    /// In the child: itself, and its parent with the descriptor that tells of its end.
    [[nodiscard]] ProcessPointer child_state() const;
    [[nodiscard]] ProcessPointer parent_state(os::Fd sentinel) const;

    template <class Archive>
    void serialize(Archive& archive, unsigned) {
        archive& name& identity& daemon& die_with_parent& authkey& default_method;
        archive& log;
        archive& parent_name& parent_identity& parent_daemon& parent_pid& parent_sentinel&
            starter_is_main_thread;
        archive& surroundings.env& surroundings.cpu_affinity& surroundings.inner_threads;
        archive& environment& blocked_signals;
        archive& luggage.offset& luggage.serial& descriptors& target;
    }
};

inline Preparation::Preparation(const ProcessState& child, const ProcessState& parent,
                                const Starter& starter)
    : name(child.name), identity(child.identity), daemon(child.daemon),
      die_with_parent(child.die_with_parent), authkey(child.authkey), parent_name(parent.name),
      parent_identity(parent.identity), parent_daemon(parent.daemon), parent_pid(starter.pid),
      parent_sentinel(parent.sentinel->get()), starter_is_main_thread(starter.is_main_thread),
      surroundings(child.surroundings) {
    const auto method = child.method ? child.method : default_start_method().peek();
    if (method) default_method = static_cast<int>(*method);
}

/// A pickled Preparation as a file, and what has been told by one.
[[nodiscard]] inline os::Fd preparation_file(std::span<const std::byte> told) {
    return os::memory_file("multiprocessing-spawn", told);
}
[[nodiscard]] inline Preparation read_preparation(int fd) {
    return pickle::load<Preparation>(os::read_file(fd));
}

inline ProcessPointer Preparation::child_state() const {
    auto state = std::make_shared<ProcessState>();
    state->identity = identity;
    state->creator = parent_pid;
    state->name = name;
    state->daemon = daemon;
    state->die_with_parent = die_with_parent;
    state->authkey = bytes(authkey);
    return state;
}

inline ProcessPointer Preparation::parent_state(os::Fd its_sentinel) const {
    auto state = std::make_shared<ProcessState>();
    state->relation = Relation::parent;
    state->identity = parent_identity;
    state->name = parent_name;
    state->daemon = parent_daemon;
    state->authkey = bytes(authkey);
    state->pid = parent_pid;
    state->sentinel = std::make_shared<const os::Fd>(std::move(its_sentinel));
    return state;
}

}  // namespace multiprocessing::runtime
