// SPDX-License-Identifier: BSL-1.0
//
// What the ports of CPython's tests share: its timing wrapper, and targets run in children of every
// start method.
#pragma once

#include <multiprocessing/connection.hpp>
#include <multiprocessing/context.hpp>
#include <multiprocessing/process.hpp>

#include "shm/helpers.hpp"

#include <algorithm>
#include <chrono>
#include <list>
#include <stdexcept>
#include <string>
#include <utility>

namespace support {

namespace mp = multiprocessing;

inline constexpr std::chrono::milliseconds timeout1{82};
inline constexpr std::chrono::milliseconds timeout2{35};
inline constexpr std::chrono::milliseconds timeout3{140};
inline constexpr double patient = 30;  // seconds; nothing takes that long

/// How long a call takes.
template <class F>
std::chrono::duration<double> elapsed(F&& f) {
    const auto begin = std::chrono::steady_clock::now();
    std::forward<F>(f)();
    return std::chrono::steady_clock::now() - begin;
}
/// For calls that are not to wait: machines may be slow, but what these would wait for comes never,
/// or after twice as long.
inline constexpr std::chrono::seconds no_time{10};

/// The next message, which is to come.
template <class T>
T receive(const mp::Connection& connection) {
    if (!connection.poll(patient)) throw std::runtime_error("no message has come");
    return connection.recv<T>();
}

/// Children that all are to end with exit code 0; the destructor ends those that do not.
class Children {
public:
    explicit Children(const std::string& method) : context_(mp::get_context(method)) {}
    Children(const Children&) = delete;
    Children& operator=(const Children&) = delete;
    ~Children() {
        for (const auto& child : children_) {
            child.kill();
            child.join(patient);
        }
    }
    template <class... Args>
    mp::Process start(Args&&... args) {
        children_.push_back(context_.Process(std::forward<Args>(args)...));
        children_.back().start();
        return children_.back();
    }
    /// Waits for all. Whether all ended well.
    bool join() {
        bool well = true;
        for (const auto& child : children_) {
            child.join(patient);
            well = well && child.exitcode() == 0;
        }
        return well;
    }

private:
    mp::Context context_;
    std::list<mp::Process> children_;
};

/// Whether it is among the active children.
inline bool is_active(const mp::Process& process) {
    const auto active = mp::active_children();
    return std::find(active.begin(), active.end(), process) != active.end();
}

/// In a child: what is not so ends it with exit code 1.
inline void expect(bool condition, const char* what) {
    if (!condition) throw std::runtime_error(std::string("not so: ") + what);
}

/// The start method that EVERY_START_METHOD has come to, for results.cpp.
inline std::string noted_method;
inline std::string noted(const std::string& method) { return noted_method = method; }

}  // namespace support

#define EXPECT(condition) ::support::expect(static_cast<bool>(condition), #condition)
#define EVERY_START_METHOD                                                                         \
    const auto method =                                                                            \
        ::support::noted(GENERATE(from_range(::multiprocessing::get_all_start_methods())))
