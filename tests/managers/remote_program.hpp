// SPDX-License-Identifier: BSL-1.0
//
// What a server and a client that are different programs have in common: the source of a class.
#pragma once

#include <string>

namespace remote {

class Shared {
public:
    std::string join(const std::string& a, const std::string& b) { return a + b; }
    int unnamed() { return 1; }  // that the server's program does not name
};

}  // namespace remote
