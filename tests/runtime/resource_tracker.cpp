// SPDX-License-Identifier: BSL-1.0
#include <multiprocessing/runtime/resource_tracker.hpp>

#include <multiprocessing/shared_memory.hpp>

#include "runtime/helpers.hpp"
#include "shm/helpers.hpp"
#include "support/catch.hpp"
#include "support/sanitized.hpp"

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>
#include <string>
#include <vector>

#include <fcntl.h>
#include <unistd.h>

namespace mp = multiprocessing;
using mp::runtime::ensure_resource_tracker;
using mp::runtime::resource_tracker_pid;

namespace {

void kill_tracker() {
    if (const auto tracker = resource_tracker_pid()) {
        ::kill(*tracker, SIGKILL);
        REQUIRE(support::eventually([] { return !resource_tracker_pid(); }));
    }
}

std::string line_of(const std::string& file) {
    std::ifstream stream(file);
    std::string line;
    std::getline(stream, line);
    return line;
}

/// The kibibytes of a line of /proc/PID/smaps_rollup.
long kibibytes(const std::string& folder, const std::string& what) {
    std::ifstream stream(folder + "smaps_rollup");
    for (std::string line; std::getline(stream, line);) {
        if (line.starts_with(what + ":")) return std::atol(line.c_str() + what.size() + 1);
    }
    return -1;
}

}  // namespace

TEST_CASE("the tracker keeps nothing of the process that has started it", "[resource_tracker]") {
    kill_tracker();
    // Large memory of this process's: on the heap, mapped, and shared with a file.
    std::vector<char> heap(std::size_t{64} << 20, 'x');
    const std::string path = (std::filesystem::temp_directory_path() / "tracker").string();
    const mp::os::Fd file(::open(path.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600));
    REQUIRE(::ftruncate(file.get(), 1 << 20) == 0);
    auto* const mapped = mp::os::map_whole(file.get(), 1 << 20);
    REQUIRE(mapped != nullptr);
    const auto [reading, writing] = mp::os::pipe();

    ensure_resource_tracker();
    const std::string folder = "/proc/" + std::to_string(*resource_tracker_pid()) + "/";
    [[maybe_unused]] const auto settled = [&] {
        std::set<std::string> open;
        for (const auto& entry : std::filesystem::directory_iterator(folder + "fd")) {
            std::error_code gone;
            open.insert(std::filesystem::read_symlink(entry.path(), gone).string());
        }
        std::ifstream maps(folder + "maps");
        for (std::string line; std::getline(maps, line);) {
            if (line.ends_with(path)) return false;
        }
        // The arena, and stderr.
        return open.size() <= 2 && open.contains("/memfd:multiprocessing (deleted)") &&
               kibibytes(folder, "Anonymous") < 4096;
    };
#if !defined(TEST_IS_SANITIZED)
    CHECK(support::eventually(settled));
#endif
    CHECK(support::eventually([&] { return line_of(folder + "comm") == "mp-tracker"; }));
    CHECK(support::eventually([&] { return !line_of(folder + "cmdline").starts_with("/"); }));
    CHECK(std::filesystem::read_symlink(folder + "cwd") == "/");
    mp::os::unmap(mapped, 1 << 20);
    std::filesystem::remove(path);
    CHECK(heap[5] == 'x');
}

TEST_CASE("processes that need a tracker at the same time start one", "[resource_tracker]") {
    for (int round = 0; round < 5; ++round) {
        kill_tracker();
        const mp::Barrier together(4);
        const mp::Queue<int> trackers;
        std::vector<mp::Process> processes;
        for (int i = 0; i < 4; ++i) {
            processes.emplace_back([&] {
                together.wait(20);
                ensure_resource_tracker();
                trackers.put(*resource_tracker_pid());
            });
            processes.back().start();
        }
        for (const auto& process : processes) CHECK(support::ended(process) == 0);
        const int first = trackers.get(20);
        for (int i = 1; i < 4; ++i) CHECK(trackers.get(20) == first);
    }
}

TEST_CASE("who is killed while it starts a tracker keeps nobody from another",
          "[resource_tracker][crash]") {
    kill_tracker();
    const mp::Process doomed([] {
        mp::shm::Arena::instance().header().tracker.lock();
        support::die();
    });
    CHECK(support::run(doomed) == -SIGKILL);
    ensure_resource_tracker();
    CHECK(resource_tracker_pid());
}

TEST_CASE("what has no name needs no tracker", "[resource_tracker]") {
    kill_tracker();
    const mp::shared_memory::SharedMemory untracked({.create = true, .size = 10, .track = false});
    const mp::shared_memory::SharedMemory attached(untracked.name());
    const mp::Lock lock;
    CHECK_FALSE(resource_tracker_pid());
    untracked.unlink();
}
