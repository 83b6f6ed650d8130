// SPDX-License-Identifier: BSL-1.0
//
// The one place where a failed system call becomes an exception: std::system_error names the call
// and the object, lack of memory is std::bad_alloc. Answers Python's OSError.
#pragma once

#include <cerrno>
#include <new>
#include <string>
#include <string_view>
#include <system_error>

namespace multiprocessing::os {

/// Throws std::system_error for `error`, or std::bad_alloc where it means lack of memory.
[[noreturn]] inline void throw_error(int error, std::string_view call, std::string_view object = {}) {
    if (error == ENOMEM) throw std::bad_alloc();
    std::string what(call);
    if (!object.empty()) what.append(" (").append(object).append(")");
    throw std::system_error(error, std::system_category(), what);
}

/// The same for the calling thread's errno.
[[noreturn]] inline void throw_errno(std::string_view call, std::string_view object = {}) {
    throw_error(errno, call, object);
}

/// Runs a system call again for as long as a signal interrupts it (PEP 475's rule).
template <class Call>
auto retry_on_signal(Call call) {
    auto result = call();
    while (result == -1 && errno == EINTR) result = call();
    return result;
}

}  // namespace multiprocessing::os
