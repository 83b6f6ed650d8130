// SPDX-License-Identifier: BSL-1.0

#include <multiprocessing/os/affinity.hpp>
#include <multiprocessing/os/cpu.hpp>

#include "support/catch.hpp"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <system_error>
#include <vector>

#include <sched.h>
#include <unistd.h>

namespace os = multiprocessing::os;
namespace fs = std::filesystem;

namespace {

// A folder that stands for the root of a machine's files.
class Machine {
public:
    Machine() : root_(fs::temp_directory_path() / ("machine-" + std::to_string(::getpid()))) {}
    ~Machine() { fs::remove_all(root_); }
    Machine(const Machine&) = delete;
    Machine& operator=(const Machine&) = delete;

    void write(const std::string& path, const std::string& text) const {
        const std::string file = root_.string() + path;
        fs::create_directories(fs::path(file).parent_path());
        std::ofstream(file) << text;
    }
    [[nodiscard]] std::optional<int> quota() const { return os::quota_cpu_count(root_.string()); }

private:
    fs::path root_;
};

class Variable {
public:
    Variable(const char* name, const char* value) : name_(name) { ::setenv(name, value, 1); }
    ~Variable() { ::unsetenv(name_); }
    Variable(const Variable&) = delete;
    Variable& operator=(const Variable&) = delete;

private:
    const char* name_;
};

int first_allowed() {
    const auto allowed = os::CpuSet::of_this_thread();
    for (int processor = 0;; ++processor) {
        const std::vector<int> one{processor};
        try {
            const os::AffinityScope scope(one);
            return processor;
        } catch (const std::system_error&) {}
    }
}

}  // namespace

TEST_CASE("a quota of version 2 is the least of its ancestors', rounded up", "[os][cpu]") {
    const Machine machine;
    CHECK(machine.quota() == std::nullopt);
    machine.write("/proc/self/cgroup", "0::/a/b\n");
    CHECK(machine.quota() == std::nullopt);
    machine.write("/sys/fs/cgroup/a/b/cpu.max", "max 100000\n");
    CHECK(machine.quota() == std::nullopt);
    machine.write("/sys/fs/cgroup/a/b/cpu.max", "350000 100000\n");
    CHECK(machine.quota() == 4);
    machine.write("/sys/fs/cgroup/a/cpu.max", "200000 100000\n");
    CHECK(machine.quota() == 2);
    machine.write("/sys/fs/cgroup/cpu.max", "50000 100000\n");
    CHECK(machine.quota() == 1);
}

TEST_CASE("a container whose path is its host's is limited by the mount", "[os][cpu]") {
    const Machine machine;
    machine.write("/proc/self/cgroup", "0::/not/seen/from/here\n");
    machine.write("/sys/fs/cgroup/cpu.max", "150000 100000\n");
    CHECK(machine.quota() == 2);
}

TEST_CASE("a quota of version 1", "[os][cpu]") {
    const Machine machine;
    machine.write("/proc/self/cgroup", "5:memory:/a\n4:cpu,cpuacct:/a\n3:cpuset:/a\n");
    machine.write("/sys/fs/cgroup/cpu/a/cpu.cfs_period_us", "100000\n");
    machine.write("/sys/fs/cgroup/cpu/a/cpu.cfs_quota_us", "-1\n");
    CHECK(machine.quota() == std::nullopt);
    machine.write("/sys/fs/cgroup/cpu/a/cpu.cfs_quota_us", "210000\n");
    CHECK(machine.quota() == 3);
    machine.write("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
    machine.write("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "100000\n");
    CHECK(machine.quota() == 1);
}

TEST_CASE("nonsense in the files of control groups is no quota", "[os][cpu]") {
    const Machine machine;
    machine.write("/proc/self/cgroup", "nonsense\n0::\n::/\n0::/a\n");
    machine.write("/sys/fs/cgroup/a/cpu.max", "100000 0\n");
    machine.write("/sys/fs/cgroup/cpu.max", "lots\n");
    CHECK(machine.quota() == std::nullopt);
}

TEST_CASE("the environment overrides the number of processors", "[os][cpu]") {
    CHECK(os::cpu_count_override() == std::nullopt);
    const Variable python("PYTHON_CPU_COUNT", "3");
    CHECK(os::cpu_count_override() == 3);
    const Variable own("MULTIPROCESSING_CPU_COUNT", "5");
    CHECK(os::cpu_count_override() == 5);
    const char* wrong = GENERATE("0", "-1", "2x", "", " ", "99999999999999999999", "default");
    const Variable no_number("MULTIPROCESSING_CPU_COUNT", wrong);
    CHECK(os::cpu_count_override() == 3);
}

TEST_CASE("a thread is kept to some processors for a while", "[os][cpu]") {
    const int all = os::affinity_cpu_count();
    const std::vector<int> one{first_allowed()};
    {
        const os::AffinityScope scope(one);
        CHECK(os::affinity_cpu_count() == 1);
        CHECK(::sched_getcpu() == one.front());
    }
    CHECK(os::affinity_cpu_count() == all);
    {
        const os::AffinityScope none(std::vector<int>{});
        CHECK(os::affinity_cpu_count() == all);
    }
    const std::vector<int> absent{os::CpuSet::most - 1};
    CHECK_THROWS_AS(os::AffinityScope(absent), std::system_error);
    CHECK_THROWS_WITH(os::AffinityScope(absent),
                      Catch::Matchers::ContainsSubstring(std::to_string(absent.front())));
    CHECK(os::affinity_cpu_count() == all);
}
