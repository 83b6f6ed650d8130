// SPDX-License-Identifier: BSL-1.0
//
// What a program that is a test is made of.
#pragma once

#include <iostream>
#include <string>

/// How many checks have failed: what `main` is to return, if only as nought or not.
inline int failures = 0;

inline void check(bool right, const std::string& what) {
    if (right) return;
    ++failures;
    std::cerr << "not so: " << what << '\n';
}
