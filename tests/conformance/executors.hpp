// SPDX-License-Identifier: BSL-1.0
//
// CPython's tests of executors are run with each kind of them.
#pragma once

#include <multiprocessing/context.hpp>

#include "concurrent/executors.hpp"
#include "conformance/helpers.hpp"
#include "support/catch.hpp"

#include <string>

namespace support {

/// Calls it with the name of a kind of executor: processes of every start method, and threads.
template <class Test>
void with_each_kind(Test test) {
    auto kinds = mp::get_all_start_methods();
    kinds.emplace_back("threads");
    test(noted(GENERATE_COPY(from_range(kinds))));
}

/// Calls it with an executor of this kind.
template <class Test>
void with_executor(const std::string& kind, int workers, Test test) {
    if (kind == "threads") {
        test(ThreadPoolExecutor(workers));
    } else {
        test(processes(workers, kind));
    }
}

/// Calls it with an executor of each kind.
template <class Test>
void with_each_executor(int workers, Test test) {
    with_each_kind([&](const std::string& kind) { with_executor(kind, workers, test); });
}

}  // namespace support
