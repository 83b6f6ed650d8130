// SPDX-License-Identifier: BSL-1.0
//
// What a call came to, as a value.
#pragma once

#include <sstream>
#include <string>
#include <system_error>

namespace support {

/// The number of the std::system_error that it throws; 0 when it throws none.
template <class F>
int error_of(F&& f) {
    try {
        f();
    } catch (const std::system_error& error) {
        return error.code().value();
    }
    return 0;
}

/// What `<<` writes.
template <class T>
std::string text_of(const T& object) {
    std::ostringstream text;
    text << object;
    return text.str();
}

}  // namespace support
