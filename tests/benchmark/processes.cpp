// SPDX-License-Identifier: BSL-1.0
//
// What it costs to start a process and wait for its end, beside the bare system calls, in turn
// within one run; then the same with much memory. The same in CPython, without more memory, is in
// processes.py.
#include <multiprocessing/context.hpp>

#include "measure.hpp"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <spawn.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

namespace mp = multiprocessing;

namespace {

constexpr const char* leave_at_once = "--leave-at-once";
constexpr const char* measure_fork = "--measure-fork";

double microseconds(const std::function<void()>& run) { return benchmark::seconds(run) * 1e6; }

double median(std::vector<double>& values) {
    const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
    std::nth_element(values.begin(), middle, values.end());
    return *middle;
}

void print(const std::string& name, const char* who, double value) {
    benchmark::print(name, who, value, "µs");
}

/// The two in turn, `times` times each, as medians.
void compare(const std::string& name, int times, const std::function<void()>& ours,
             const std::function<void()>& limit) {
    std::vector<double> our_times;
    std::vector<double> limit_times;
    for (int i = 0; i < times; ++i) {
        our_times.push_back(microseconds(ours));
        limit_times.push_back(microseconds(limit));
    }
    print(name, "ours", median(our_times));
    print(name, "limit", median(limit_times));
}

void start_and_join(const mp::Context& context) {
    const mp::Process process = context.Process([] {});
    process.start();
    process.join();
}

void bare_fork() {
    const int pid = ::fork();
    if (pid == 0) ::_exit(0);
    ::waitpid(pid, nullptr, 0);
}

void bare_spawn() {
    char self[] = "benchmark_processes";
    std::string option = leave_at_once;
    char* const arguments[] = {self, option.data(), nullptr};
    int pid = 0;
    if (::posix_spawn(&pid, "/proc/self/exe", nullptr, nullptr, arguments, environ) == 0) {
        ::waitpid(pid, nullptr, 0);
    }
}

/// The median of a bare fork in this program when it is small: executed for that alone.
double bare_fork_of_a_small_program() {
    FILE* const pipe = ::popen(
        (std::string("/proc/") + std::to_string(::getpid()) + "/exe " + measure_fork).c_str(), "r");
    double value = 0;
    if (pipe == nullptr || std::fscanf(pipe, "%lf", &value) != 1) value = 0;
    ::pclose(pipe);
    return value;
}

/// Memory that has been touched, as a program's own is.
class Ballast {
public:
    explicit Ballast(std::size_t bytes)
        : bytes_(bytes), memory_(::mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)) {
        if (memory_ != MAP_FAILED) std::memset(memory_, 1, bytes);
    }
    ~Ballast() { ::munmap(memory_, bytes_); }
    Ballast(const Ballast&) = delete;
    Ballast& operator=(const Ballast&) = delete;

private:
    std::size_t bytes_;
    void* memory_;
};

void measure(const std::string& with, int times) {
    const auto of = [&](const char* method) { return "process, " + std::string(method) + with; };
    const auto spawn = mp::get_context("spawn");
    const auto fork = mp::get_context("fork");
    compare(
        of("fork"), times, [&] { start_and_join(fork); }, bare_fork);
    compare(
        of("spawn"), std::max(10, times / 5), [&] { start_and_join(spawn); }, bare_spawn);
    const auto forkserver = mp::get_context("forkserver");
    start_and_join(forkserver);
    if (with.empty()) {  // this is the small program
        compare(
            of("forkserver"), times, [&] { start_and_join(forkserver); }, bare_fork);
        return;
    }
    std::vector<double> ours;
    std::vector<double> limits;
    for (int batch = 0; batch < 5; ++batch) {
        for (int i = 0; i < times / 5; ++i) {
            ours.push_back(microseconds([&] { start_and_join(forkserver); }));
        }
        limits.push_back(bare_fork_of_a_small_program());
    }
    print(of("forkserver"), "ours", median(ours));
    print(of("forkserver"), "limit", median(limits));
}

void alone(const std::string&) { measure("", 200); }

void with_more_memory(const std::string&) {
    {
        const Ballast ballast(std::size_t{10} << 20);
        measure(", 10 MiB more", 100);
    }
    const char* const most = std::getenv("MULTIPROCESSING_BENCHMARK_GIB");
    const std::size_t gigabytes = most == nullptr ? 4 : std::strtoul(most, nullptr, 10);
    if (gigabytes > 0) {
        const Ballast ballast(gigabytes << 30);
        measure(", " + std::to_string(gigabytes) + " GiB more", 20);
    }
}

}  // namespace

int main(int argc, char* argv[]) {
    const std::string_view option = argc > 1 ? argv[1] : "";
    if (option == leave_at_once) return 0;
    if (option == measure_fork) {
        std::vector<double> times;
        for (int i = 0; i < 100; ++i) times.push_back(microseconds(bare_fork));
        std::printf("%f\n", median(times));
        return 0;
    }
    mp::freeze_support();
    return benchmark::run({{"processes", alone}, {"processes, more memory", with_more_memory}}, argc,
                          argv);
}
