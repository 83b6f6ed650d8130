// SPDX-License-Identifier: BSL-1.0
//
// A progress bar on a terminal, for those who wait for many results.
#pragma once

#include <multiprocessing/os/clock.hpp>
#include <multiprocessing/os/stdio.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>

namespace multiprocessing::runtime::pool {

/// " 63%|######    | 630/1000 [00:12<00:07, 52.5/s]": what a bar of so many columns says.
[[nodiscard]] inline std::string progress_line(std::uint64_t done, std::optional<std::uint64_t> total,
                                               std::chrono::duration<double> elapsed, int columns);

/// Counts items, and shows how many there are: on stderr, ten times a second at most, and by whichever
/// thread brings the outcomes, so that there is none to be kept awake for it.
class Progress {
public:
    /// Nothing if there is no terminal to draw on. `service` is kept until finish(): what sees to it that
    /// outcomes are brought though nobody waits for them.
    template <class Service>
    [[nodiscard]] static std::unique_ptr<Progress> on_terminal(Service service) {
        const auto columns = os::stderr_columns();
        return columns ? std::make_unique<Progress>(*columns, service()) : nullptr;
    }
    Progress(int columns, std::shared_ptr<void> service)
        : columns_(columns), service_(std::move(service)) {}
    Progress(const Progress&) = delete;
    Progress& operator=(const Progress&) = delete;
    ~Progress() { finish(); }

    void expect(std::uint64_t total) noexcept { total_.store(static_cast<std::int64_t>(total)); }
    void add(std::uint64_t items) {
        done_.fetch_add(items, std::memory_order_relaxed);
        const auto now = os::Clock::now();
        auto next = next_.load(std::memory_order_relaxed);
        if (now.time_since_epoch() < next) return;
        // One draws; the others have something better to do.
        if (!next_.compare_exchange_strong(next, now.time_since_epoch() + interval)) return;
        draw(now);
    }
    /// The last time: the line stays.
    void finish() {
        const std::lock_guard lock(mutex_);
        if (finished_) return;
        draw_locked(os::Clock::now());
        os::write_to_stderr("\n");
        finished_ = true;
        service_.reset();
    }

private:
    static constexpr std::chrono::milliseconds interval{100};

    void draw(os::Clock::time_point now) {
        const std::lock_guard lock(mutex_);
        if (!finished_) draw_locked(now);
    }
    void draw_locked(os::Clock::time_point now) const {
        const std::int64_t total = total_.load();
        const auto known = total >= 0 ? std::optional(static_cast<std::uint64_t>(total)) : std::nullopt;
        os::write_to_stderr("\r" + progress_line(done_.load(), known, now - began_, columns_));
    }

    const int columns_;
    const os::Clock::time_point began_ = os::Clock::now();
    std::atomic<std::uint64_t> done_{0};
    std::atomic<std::int64_t> total_{-1};  // not known
    std::atomic<os::Clock::duration> next_{os::Clock::duration(0)};
    std::mutex mutex_;
    bool finished_ = false;
    std::shared_ptr<void> service_;
};

// ---------------------------------------------------------------------------------------------------

/// 00:07, 1:00:07
[[nodiscard]] inline std::string clock_text(double seconds) {
    if (!(seconds < 3.6e6)) return "?";
    const auto whole = static_cast<long long>(seconds + 0.5);
    char text[32];
    if (whole >= 3600) {
        std::snprintf(text, sizeof text, "%lld:%02lld:%02lld", whole / 3600, whole / 60 % 60, whole % 60);
    } else {
        std::snprintf(text, sizeof text, "%02lld:%02lld", whole / 60, whole % 60);
    }
    return text;
}

inline std::string progress_line(std::uint64_t done, std::optional<std::uint64_t> total,
                                 std::chrono::duration<double> elapsed, int columns) {
    const double rate = elapsed.count() > 0 ? static_cast<double>(done) / elapsed.count() : 0;
    char rate_text[32];
    std::snprintf(rate_text, sizeof rate_text, rate < 100 ? "%.1f/s" : "%.0f/s", rate);
    const std::string count = std::to_string(done);
    if (!total) return count + " [" + clock_text(elapsed.count()) + ", " + rate_text + "]";
    const double part =
        *total == 0 ? 1.0 : std::min(1.0, static_cast<double>(done) / static_cast<double>(*total));
    const double left = rate > 0 ? static_cast<double>(*total - std::min(done, *total)) / rate : 1e9;
    char percent[8];
    std::snprintf(percent, sizeof percent, "%3d%%", static_cast<int>(part * 100));
    const std::string rest = "| " + count + "/" + std::to_string(*total) + " [" +
                             clock_text(elapsed.count()) + "<" + clock_text(left) + ", " + rate_text + "]";
    const auto used = static_cast<int>(rest.size() + 5);
    const int width = std::max(columns - 1 - used, 0);
    const auto filled = static_cast<std::size_t>(part * width);
    return percent + std::string("|") + std::string(filled, '#') +
           std::string(static_cast<std::size_t>(width) - filled, ' ') + rest;
}

}  // namespace multiprocessing::runtime::pool
