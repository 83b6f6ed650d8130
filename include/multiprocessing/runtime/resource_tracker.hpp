// SPDX-License-Identifier: BSL-1.0
//
// The process that outlives a tree of processes and takes away the names that this has left in the
// system, however it ended. Started with the first such name, one for the tree. Answers Python's
// `multiprocessing.resource_tracker`.
#pragma once

#include <multiprocessing/os/detach.hpp>
#include <multiprocessing/os/exit.hpp>
#include <multiprocessing/os/fork.hpp>
#include <multiprocessing/os/named_memory.hpp>
#include <multiprocessing/os/process.hpp>
#include <multiprocessing/runtime/log.hpp>
#include <multiprocessing/shm/arena.hpp>
#include <multiprocessing/shm/tracked_names.hpp>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

namespace multiprocessing::runtime {

namespace tracker_detail {

/// Text put together without allocating.
class Line {
public:
    Line& operator<<(std::string_view text) noexcept {
        for (const char c : text) {
            if (length_ + 1 < text_.size()) text_[length_++] = c;
        }
        return *this;
    }
    Line& operator<<(unsigned number) noexcept {
        if (number >= 10) *this << number / 10;
        const char digit = static_cast<char>('0' + number % 10);
        return *this << std::string_view(&digit, 1);
    }
    [[nodiscard]] std::string_view text() const noexcept { return {text_.data(), length_}; }
    void print() noexcept {
        text_[length_++] = '\n';
        os::write_at_once(2, {text_.data(), length_});
    }

private:
    std::array<char, 512> text_;
    std::size_t length_ = 0;
};

/// What is left when nobody but the caller has the arena, and so nobody needs a lock: `base` is
/// where it is mapped.
inline unsigned clean_up(std::byte* base) noexcept {
    unsigned leaked = 0;
    Line names;
    shm::visit_names_that_are_left(base, [&](const shm::TrackedName& entry) {
        if (!os::has_name(entry.name(), entry.identity)) return;
        names << (leaked == 0 ? ": '" : ", '") << entry.name() << "'";
        ++leaked;
    });
    if (leaked == 0) return 0;
    (Line() << "resource_tracker: There appear to be " << leaked
            << " leaked shared_memory objects to clean up at shutdown" << names.text())
        .print();
    shm::visit_names_that_are_left(base, [&](const shm::TrackedName& entry) {
        const int error = os::remove_name_of(entry.name(), entry.identity);
        if (error != 0 && error != ENOENT) {
            (Line() << "resource_tracker: '" << entry.name() << "': [Errno "
                    << static_cast<unsigned>(error) << ']')
                .print();
        }
    });
    return leaked;
}

/// The life of the tracker. `own` is an opening of the arena that it has for itself.
[[noreturn]] inline void track(int own, const shm::Segment& inherited) noexcept {
    const auto size = static_cast<std::size_t>(inherited.size());
    os::unmap(inherited.at(0), size);
    os::detach_from_parent(own, "mp-tracker", "multiprocessing resource tracker");
    os::shed_memory();
    os::await_disuse(own);
    std::byte* const base = os::map_whole(own, size);
    os::exit_at_once(base != nullptr && clean_up(base) == 0 ? 0 : 1);
}

/// Starts one, which is nobody's child. The mutex of `state` is held.
inline void launch(shm::TrackerState& state) {
    const shm::Segment& segment = shm::Arena::instance().segment();
    os::mark_in_use(segment.descriptor());
    const os::Fd own = os::reopen(segment.descriptor());
    const int pid = os::fork_orphan([&] { track(own.get(), segment); });
    std::atomic_ref(state.lived_at).store(os::ticks_since_boot());
    std::atomic_ref(state.pid).store(static_cast<std::uint64_t>(pid));
}

}  // namespace tracker_detail

/// The tracker of this tree, if there is one and it runs.
[[nodiscard]] inline std::optional<int> resource_tracker_pid() {
    shm::TrackerState& state = shm::Arena::instance().header().tracker;
    const auto pid = static_cast<int>(std::atomic_ref(state.pid).load());
    if (pid == 0) return std::nullopt;
    const auto found = os::process_state(pid);
    const bool same =
        found && !found->ended && found->start_time <= std::atomic_ref(state.lived_at).load();
    return same ? std::optional(pid) : std::nullopt;
}

/// Sees to it that there is one. Called before a name is given. Throws std::system_error when it
/// cannot be started.
inline void ensure_resource_tracker() {
    if (resource_tracker_pid()) return;
    bool died = false;
    {
        shm::TrackerState& state = shm::Arena::instance().header().tracker;
        const std::lock_guard lock(state);
        if (resource_tracker_pid()) return;
        died = state.pid != 0;
        tracker_detail::launch(state);
    }
    if (died) {
        log_at(
            log_level::warning,
            "resource_tracker: process died unexpectedly, relaunching. Some resources might leak.");
    }
}

}  // namespace multiprocessing::runtime
