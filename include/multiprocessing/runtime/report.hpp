// SPDX-License-Identifier: BSL-1.0
//
// What a person reads on stderr when a target or an exit function throws. Answers Python's
// `traceback.print_exc`.
#pragma once

#include <multiprocessing/os/backtrace.hpp>
#include <multiprocessing/os/process.hpp>
#include <multiprocessing/os/stdio.hpp>
#include <multiprocessing/pickle/backtrace_text.hpp>
#include <multiprocessing/pickle/type_name.hpp>
#include <multiprocessing/runtime/this_process.hpp>

#include <exception>
#include <string>
#include <typeinfo>

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

/// The same, and where it was thrown: in one piece, like the report alone.
inline void report_with_backtrace(const os::Backtrace& thrown) {
    std::string text = report_of_current_exception();
    if (pickle::backtrace_text::wanted()) {
        try {
            text += pickle::backtrace_text::lines(thrown);
        } catch (...) {  // for lack of memory, perhaps the very thing to be reported
        }
    }
    os::write_to_stderr(text);
}

}  // namespace multiprocessing::runtime
