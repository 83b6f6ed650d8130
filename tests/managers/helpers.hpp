// SPDX-License-Identifier: BSL-1.0
//
// Classes whose objects the tests of managers manage.
#pragma once

#include <multiprocessing/managers.hpp>
#include <multiprocessing/process.hpp>
#include <multiprocessing/synchronize.hpp>

#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace managed {

namespace mp = multiprocessing;

struct Named {
    std::string name = "nobody";
    [[nodiscard]] std::string who() const noexcept { return name; }
};

/// What its functions are called with is copied to the server and what they return back.
class Counter : public Named {
public:
    Counter() = default;
    explicit Counter(int start) : total(start) {}
    Counter(std::string called, int start) : total(start) { name = std::move(called); }

    int add(int n) { return total += n; }
    int& grow() { return ++total; }
    const std::string& rename(std::string_view called) { return name = called; }
    std::size_t length(const char* text) const { return std::string_view(text).size(); }
    void take_all(std::vector<int>& all) {
        for (const int each : all) total += each;
        all.clear();
    }
    int sum(const std::vector<int>& all, const std::map<std::string, int>& more) const {
        int result = total;
        for (const int each : all) result += each;
        for (const auto& each : more) result += each.second;
        return result;
    }
    void fail(const std::string& how) const {
        if (how == "range") throw std::out_of_range("too far");
        if (how == "system") throw std::system_error(ENOSPC, std::system_category(), "disk");
        if (how == "empty") throw mp::Empty("nothing there");
        if (how == "text") throw how;  // no exception at all
    }
    [[nodiscard]] int pid() const { return mp::os::this_pid(); }

    int total = 0;
};

inline int twice(Counter& counter, int n) { return counter.total += 2 * n; }

/// Tells of its end.
class Witness {
public:
    explicit Witness(mp::Event ended) : ended_(std::move(ended)) {}
    Witness(const Witness&) = delete;
    Witness& operator=(const Witness&) = delete;
    ~Witness() { ended_.set(); }
    int answer() { return 42; }

private:
    mp::Event ended_;
};

}  // namespace managed
