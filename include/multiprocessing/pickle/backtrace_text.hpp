// SPDX-License-Identifier: BSL-1.0
//
// Where an exception was thrown, for a person, in this process or in another. Answers Python's
// `traceback.format_tb`.
#pragma once

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/os/backtrace.hpp>
#include <multiprocessing/os/module.hpp>
#include <multiprocessing/os/symbols.hpp>
#include <multiprocessing/pickle/type_name.hpp>

#include <boost/core/demangle.hpp>

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <iterator>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace multiprocessing::pickle {

namespace backtrace_text {

/// Unless the environment has MULTIPROCESSING_BACKTRACE=0.
[[nodiscard]] inline bool wanted() noexcept {
    const char* wish = std::getenv("MULTIPROCESSING_BACKTRACE");
    return wish == nullptr || std::string_view(wish) != "0";
}

/// What throws on behalf of a `throw`, as the linker names it. A sanitizer's begins otherwise.
[[nodiscard]] inline bool throws_for_others(std::string_view function) noexcept {
    return function.ends_with("__cxa_throw") || function.ends_with("__cxa_rethrow") ||
           function.starts_with("_ZSt17rethrow_exception");
}

/// What calls a target: a function of ours or the standard library's.
[[nodiscard]] inline bool runs_others(std::string_view function) noexcept {
    for (const std::string_view prefix : {"_ZZ", "_Z"}) {
        if (!function.starts_with(prefix)) continue;
        function.remove_prefix(prefix.size());
        break;
    }
    if (function.starts_with("N")) function.remove_prefix(1);
    if (function.starts_with("K")) function.remove_prefix(1);
    return function.starts_with("St") || function.starts_with("15multiprocessing");
}

[[nodiscard]] inline std::string hexadecimal(std::uintptr_t number) {
    char digits[2 * sizeof number];
    return "0x" + std::string(digits, std::to_chars(digits, std::end(digits), number, 16).ptr);
}

/// `parse(int)+0x1f (/path/to/program+0x1234)`
[[nodiscard]] inline std::string place(const os::Symbol& call) {
    std::string text;
    if (!call.function.empty()) {
        const bool mangled = call.function.starts_with("_Z");
        text = mangled ? pickle::tidy_type_name(boost::core::demangle(call.function.c_str()))
                       : call.function;
        text += "+" + hexadecimal(call.distance) + " ";
    }
    const std::string module = call.module.empty() ? "?" : call.module;
    return text + "(" + module + "+" + hexadecimal(call.offset) + ")";
}

/// A line a call, from the function that threw.
[[nodiscard]] inline std::string lines(const os::Backtrace& trace) {
    constexpr std::size_t most = 64;
    os::Symbols symbols;
    std::vector<os::Symbol> calls;
    for (std::size_t i = 0; i < trace.size; ++i) {
        calls.push_back(symbols.find(trace.calls[i]));
        if (throws_for_others(calls.back().function)) calls.clear();
    }
    // How this library came to call the target is nobody's business, unless nothing else is there.
    const auto is_ours = [](const os::Symbol& call) { return runs_others(call.function); };
    const auto outermost = std::find_if_not(calls.rbegin(), calls.rend(), is_ours);
    if (outermost != calls.rend() && !trace.cut) calls.erase(outermost.base(), calls.end());
    std::string text;
    for (std::size_t i = 0; i < calls.size() && i < most; ++i)
        text += "  #" + std::to_string(i) + " " + place(calls[i]) + "\n";
    if (trace.cut || calls.size() > most) text += "  ...\n";
    return text;
}

/// The calls of a trace as they travel: places in modules, which other processes have elsewhere.
[[nodiscard]] inline std::vector<os::CodeAddress> places_of(const os::Backtrace& trace) {
    constexpr std::size_t most = 32;
    std::vector<os::CodeAddress> places;
    if (!wanted()) return places;
    for (std::size_t i = 0; i < std::min(trace.size, most); ++i) {
        places.push_back(os::locate(reinterpret_cast<const void*>(trace.calls[i])));
    }
    return places;
}

/// Those of another process, looked up when somebody wants to read them.
class RemoteCalls final : public RemoteTraceback::Calls {
public:
    explicit RemoteCalls(std::vector<os::CodeAddress> places) : places_(std::move(places)) {}
    [[nodiscard]] std::string text() const override {
        os::Backtrace trace;
        for (const os::CodeAddress place : places_) {
            if (trace.size == trace.calls.size()) break;
            trace.calls[trace.size++] = reinterpret_cast<std::uintptr_t>(os::resolve(place));
        }
        return lines(trace);
    }
    [[nodiscard]] const std::vector<os::CodeAddress>& places() const noexcept { return places_; }

private:
    std::vector<os::CodeAddress> places_;
};

}  // namespace backtrace_text

}  // namespace multiprocessing::pickle
