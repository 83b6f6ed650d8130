// SPDX-License-Identifier: BSL-1.0
//
// What a shared library offers: functions that are run in other processes, and one that starts
// them.
#pragma once

#include <multiprocessing/context.hpp>

#include <string>

namespace library {

/// Adds, and says whether this is a child as the library knows processes.
void add(const multiprocessing::Queue<int>& out, int a, int b);

/// Starts a process whose target is known to the library alone; its exit code.
int start(const std::string& method);

}  // namespace library
