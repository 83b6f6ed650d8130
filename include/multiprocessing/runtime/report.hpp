// SPDX-License-Identifier: BSL-1.0
//
// What a person reads on stderr when a target or an exit function throws. Answers Python's
// `traceback.print_exc`.
#pragma once

#include <multiprocessing/os/backtrace.hpp>
#include <multiprocessing/os/process.hpp>
#include <multiprocessing/os/stdio.hpp>
#include <multiprocessing/os/symbols.hpp>
#include <multiprocessing/pickle/type_name.hpp>
#include <multiprocessing/runtime/this_process.hpp>

#include <boost/core/demangle.hpp>

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <iterator>
#include <string>
#include <string_view>
#include <typeinfo>
#include <vector>

#include <cxxabi.h>

namespace multiprocessing::runtime {

/// "TYPE: what" of the exception that is being handled, whatever it is.
[[nodiscard]] inline std::string describe_current_exception() {
    const std::type_info* type = abi::__cxa_current_exception_type();
    std::string text = type != nullptr ? pickle::type_name(*type) : "foreign exception";
    try {
        throw;
    } catch (const std::exception& error) {
        text.append(": ").append(error.what());
    } catch (const std::string& what) {
        text.append(": ").append(what);
    } catch (const char* what) {
        text.append(": ").append(what);
    } catch (...) {}
    return text;
}

/// "Process NAME (pid N): TYPE: what" for the exception that is being handled.
[[nodiscard]] inline std::string report_of_current_exception() {
    return "Process " + this_process().self->current_name() + " (pid " +
           std::to_string(os::this_pid()) + "): " + describe_current_exception() + "\n";
}

inline void report_current_exception() { os::write_to_stderr(report_of_current_exception()); }

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

}  // namespace backtrace_text

/// The same, and where it was thrown: in one piece, like the report alone.
inline void report_with_backtrace(const os::Backtrace& thrown) {
    std::string text = report_of_current_exception();
    if (backtrace_text::wanted()) {
        try {
            text += backtrace_text::lines(thrown);
        } catch (...) {  // for lack of memory, perhaps the very thing to be reported
        }
    }
    os::write_to_stderr(text);
}

}  // namespace multiprocessing::runtime
