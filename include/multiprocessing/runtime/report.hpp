// SPDX-License-Identifier: BSL-1.0
//
// What a person reads on stderr when a target or an exit function throws.
#pragma once

#include <multiprocessing/os/process.hpp>
#include <multiprocessing/os/stdio.hpp>
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

/// Writes "Process NAME (pid N): TYPE: what" for the exception that is being handled.
inline void report_current_exception() {
    os::write_to_stderr("Process " + this_process().self->current_name() + " (pid " +
                        std::to_string(os::this_pid()) + "): " + describe_current_exception() +
                        "\n");
}

}  // namespace multiprocessing::runtime
