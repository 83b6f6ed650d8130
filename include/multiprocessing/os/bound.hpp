// SPDX-License-Identifier: BSL-1.0
//
// Functions of the C library that a forked child calls and its parent does not.
#pragma once

namespace multiprocessing::os {

/// Calls `function` by an address that is found when the program is loaded. The usual call of a
/// shared library's function looks it up the first time: in a child, if its parent never calls it,
/// and so in each child anew, which has to bring in the tables for it (a dozen page faults for one
/// function).
template <auto* function>
inline auto* volatile bound = function;

}  // namespace multiprocessing::os
