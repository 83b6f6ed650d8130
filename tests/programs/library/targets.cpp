// SPDX-License-Identifier: BSL-1.0
#include "targets.hpp"

namespace mp = multiprocessing;

namespace library {

namespace {

void hidden_target(const mp::Lock& lock, int code) {
    const std::lock_guard guard(lock);
    mp::exit(code);
}

}  // namespace

void add(const mp::Queue<int>& out, int a, int b) { out.put(mp::parent_process() ? a + b : -1); }

int start(const std::string& method) {
    const auto p = mp::get_context(method).Process(hidden_target, mp::Lock(), 33);
    p.start();
    p.join(60);
    return p.exitcode().value_or(1000);
}

}  // namespace library
