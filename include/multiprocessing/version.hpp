// SPDX-License-Identifier: BSL-1.0
//
// The version of the library: the one place that CMake and the programs read it from.
#pragma once

#define MULTIPROCESSING_VERSION_MAJOR 0
#define MULTIPROCESSING_VERSION_MINOR 1
#define MULTIPROCESSING_VERSION_PATCH 0
