// SPDX-License-Identifier: BSL-1.0
//
// What tasks wait for, wherever they run: a file.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <thread>

#include <unistd.h>

namespace support {

/// A name in the temporary folder, that nobody else has.
inline std::string fresh_file_name() {
    static std::atomic<int> made{0};
    const char* folder = std::getenv("TMPDIR");
    return std::string(folder != nullptr ? folder : "/tmp") + "/gate-" + std::to_string(::getpid()) + "-" +
           std::to_string(made++);
}

/// Closed until somebody opens it. Whoever has made it takes the file away.
class FileGate {
public:
    FileGate() : name_(fresh_file_name()) {}
    FileGate(const FileGate&) = delete;
    FileGate& operator=(const FileGate&) = delete;
    ~FileGate() {
        std::filesystem::remove(name_);
        std::filesystem::remove(name_ + passed);
    }

    void open() const { std::ofstream(name_) << "open"; }
    [[nodiscard]] const std::string& name() const noexcept { return name_; }
    [[nodiscard]] bool is_open() const { return std::filesystem::exists(name_); }
    /// Until it is open. *Throws* when that takes too long.
    void wait() const { wait_for(name_); }
    static void wait_for(const std::string& name) {
        const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(40);
        while (!std::filesystem::exists(name)) {
            if (std::chrono::steady_clock::now() > until) throw std::runtime_error("nobody opens " + name);
            std::this_thread::sleep_for(std::chrono::milliseconds(1));
        }
    }
    /// The same, and lets it be known.
    static void pass(const std::string& name) {
        wait_for(name);
        std::ofstream(name + passed) << "passed";
    }
    /// Until somebody has: before it is taken away.
    void wait_until_passed() const { wait_for(name_ + passed); }

private:
    static constexpr const char* passed = "-passed";
    std::string name_;
};

}  // namespace support
