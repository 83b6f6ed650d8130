// SPDX-License-Identifier: BSL-1.0
//
// A progress line for a person who waits: on stderr, on a terminal only, redrawn at most ten times
// a second, and gone when the work is done.
#pragma once

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <string>
#include <utility>

/// Draws `label [####    ]  50 %` while it lives.
class Progress {
public:
    /// `total` is in whatever unit advance() counts; 0 if it is not known.
    Progress(std::string label, std::uint64_t total)
        : label_(std::move(label)), total_(total), terminal_(isatty(STDERR_FILENO) == 1) {}
    Progress(const Progress&) = delete;
    Progress& operator=(const Progress&) = delete;
    ~Progress() {
        if (drawn_ != Clock::time_point()) std::fputs("\r\033[K", stderr);
    }

    /// So much more is done.
    void advance(std::uint64_t amount) {
        done_ += amount;
        if (!terminal_ || Clock::now() - drawn_ < std::chrono::milliseconds(100)) return;
        drawn_ = Clock::now();
        if (total_ == 0) {
            std::fprintf(stderr, "\r%s\033[K", label_.c_str());
            return;
        }
        const double part = std::min(1.0, static_cast<double>(done_) / static_cast<double>(total_));
        const std::string bar(static_cast<std::size_t>(part * 40), '#');
        std::fprintf(stderr, "\r%s [%-40s] %3.0f %%\033[K", label_.c_str(), bar.c_str(),
                     part * 100);
    }

private:
    using Clock = std::chrono::steady_clock;

    std::string label_;
    std::uint64_t total_;
    std::uint64_t done_ = 0;
    bool terminal_;
    Clock::time_point drawn_{};
};
