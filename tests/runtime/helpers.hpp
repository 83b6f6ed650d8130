// SPDX-License-Identifier: BSL-1.0
//
// What tests of processes share.
#pragma once

#include <multiprocessing/connection.hpp>
#include <multiprocessing/context.hpp>
#include <multiprocessing/os/fd.hpp>
#include <multiprocessing/process.hpp>

#include <cstddef>
#include <filesystem>
#include <iterator>
#include <string>
#include <utility>

#include <unistd.h>

namespace support {

namespace mp = multiprocessing;

/// Never comes back: what a test terminates, or what a parent's end is to end.
[[noreturn]] inline void wait_for_signal() {
    for (;;) ::pause();
}

/// Says that it runs, then waits to be ended.
[[noreturn]] inline void report_and_wait(const mp::Connection& ready) {
    ready.send(::getpid());
    wait_for_signal();
}

/// Joins, and says how the process ended; a process that hangs is a failure of its own.
inline int ended(const mp::Process& process) {
    process.join(30);
    return process.exitcode().value_or(1000);
}

inline int run(const mp::Process& process) {
    process.start();
    return ended(process);
}

/// Puts a pipe in the place of a descriptor; what was written there is read to its end.
class Capture {
public:
    explicit Capture(int descriptor)
        : descriptor_(descriptor), saved_(mp::os::duplicate(descriptor)) {
        auto [reading, writing] = mp::os::pipe();
        reading_ = std::move(reading);
        ::dup2(writing.get(), descriptor_);
    }
    ~Capture() { restore(); }
    Capture(const Capture&) = delete;
    Capture& operator=(const Capture&) = delete;

    void restore() {
        if (saved_) ::dup2(saved_.get(), descriptor_);
        saved_.reset();
    }
    /// Waits until all processes that have the other end are gone.
    std::string text() {
        restore();
        std::string text;
        char part[512];
        for (;;) {
            const auto got = ::read(reading_.get(), part, sizeof part);
            if (got <= 0) return text;
            text.append(part, static_cast<std::size_t>(got));
        }
    }

private:
    int descriptor_;
    mp::os::Fd saved_;
    mp::os::Fd reading_;
};

/// What a process, run to its end, wrote to stderr.
inline std::string errors_of(const mp::Process& process) {
    Capture capture(STDERR_FILENO);
    process.start();
    std::string text = capture.text();
    process.join(30);
    return text;
}

inline std::ptrdiff_t open_descriptors() {
    return std::distance(std::filesystem::directory_iterator("/proc/self/fd"), {});
}

}  // namespace support
